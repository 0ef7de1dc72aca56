"""Stores made by hand keep the bytes that format 2 had when it was first written.

The rows are chosen so that no processor rounds them otherwise: at every temperature the best token has probability
exactly 1 or exactly 0 in float64, and all others are too small to change a sum.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from fairseq_bert_kd.storage.fairseq_data import dictionary_digest
from fairseq_bert_kd.storage.merge import merge_shards
from fairseq_bert_kd.storage.schema import ChunkData, empty_records
from fairseq_bert_kd.storage.shards import WHOLE, Shard, shard_path
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.storage.topk_store import TopKReader, TopKWriter
from fairseq_bert_kd.storage.verify import verify_store

NAME = "train.de-en.en.topk"
LENGTHS = (3, 0, 2, 1, 4, 2, 1)
STATUS = (0, 0, 1, 0, 2, 3, 0)  # scored, too long, not finite, not imported


@dataclass(frozen=True)
class Golden:
    """A store by hand.

    Attributes:
        sha256: of the whole store, hexadecimal.
        symbols: size of the dictionary.
        lengths: rows of each sentence.
        status: status of each sentence.
        shards: sha256 of each of three shards, hexadecimal.
        changes: fields of the header's info.
    """

    sha256: str
    symbols: int = 12
    lengths: tuple[int, ...] = LENGTHS
    status: tuple[int, ...] = STATUS
    shards: tuple[str, ...] = ()
    changes: dict[str, Any] = field(default_factory=dict)

    def dictionary(self):
        return ["<s>", "<pad>", "</s>", "<unk>", *(f"ß{i}" for i in range(4, self.symbols))]

    def info(self):
        fields: dict[str, Any] = {
            "k": 3,
            "dictionary_size": self.symbols,
            "dictionary_digest": dictionary_digest(self.dictionary()),
            "split": "train",
            "source_lang": "de",
            "target_lang": "en",
            "passes": 7,
            "teacher": "teacher/checkpoint_best.pt",
            "teacher_digest": "ab" * 32,
            "mask_ratio": 0.15,
            "versions": {"numpy": "2.0", "straße": "ü"},
            "chunk_sentences": 2,
        }
        return TopKInfo(**fields | self.changes)

    def rows(self, first, count):
        """Rows ``first`` and following of the corpus; each follows from its number."""
        info = self.info()
        records = empty_records(count, info)
        for i in range(count):
            row = first + i
            ids = [(row * 5 + step) % (self.symbols - info.samples - 1) for step in range(info.k)]
            records["topk_ids"][i] = ids
            records["topk_logits"][i] = [0, *(-400.5 - 16 * j - row for j in range(info.k - 1))]
            if info.temperatures:
                records["log_normalisers"][i] = 2000 * (row % 3 == 0)
            if info.gold:
                inside = row % 2 == 0
                records["gold_id"][i] = ids[-1] if inside else self.symbols - 1
                records["gold_logit"][i] = records["topk_logits"][i, -1] if inside else -1024 - row
            if info.samples:
                records["sample_ids"][i] = self.symbols - 1 - info.samples + np.arange(info.samples)
                records["sample_logits"][i] = -2048 - row
        return records

    def chunk(self, sentences):
        """A chunk of the corpus, by its corpus indices."""
        numbers = np.array(sentences, dtype=np.uint64)
        lengths = np.array(self.lengths[sentences.start : sentences.stop], dtype=np.int64)
        status = np.array(self.status[sentences.start : sentences.stop], dtype=np.uint8)
        records = self.rows(sum(self.lengths[: sentences.start]), int(lengths.sum()))
        hashes = {"source": numbers * np.uint64(977) + np.uint64(2**63), "target": numbers + np.uint64(7)}
        data = ChunkData(hashes, lengths, status, records)
        records[~data.scored] = 0
        return data

    def write(self, path, shard=WHOLE):
        """The file's path."""
        lengths = np.array(self.lengths, dtype=np.int32)
        with TopKWriter(path, self.info(), lengths, self.dictionary(), shard) as writer:
            for chunk in writer.chunks():
                data = self.chunk(writer.sentences(chunk))
                rows = int(data.scored.sum())
                measured = (
                    {"gold_correct": rows // 2, "gold_nll": rows * 0.75} if self.changes.get("gold") else {}
                )
                writer.write_chunk(chunk, data, **measured)
            writer.finish()
        return writer.path


GOLDEN = {
    "defaults": Golden(
        "dc652ec49fe655acd5dc22c82cb7d8f50508b4ee35b1896fb442a324eeaddc73",
        shards=(
            "6ffec4f13e4e03470317c11c865a3003685ac55757ad2fdbdcffa737ea902618",
            "5d602f9865947b31aa5a47342e797e0d2f1732b0706ae3aa915787d891803708",
            "01bdafe8d44b27222073139cdcd7e2dfb0e7726b0a58cf68e39deaecc44ebbf2",
        ),
    ),
    "one token": Golden(
        "73124991fa605fa5d668ccbea8df0abce5e8061eff2edab2b4bde34e404a4e6e",
        changes={"k": 1, "temperatures": (1.0,)},
    ),
    "many temperatures": Golden(
        "37fa689333aefbd40886eaa8479fffdbc92e61db480e64e7b0d45a19152a99bc",
        changes={"k": 5, "temperatures": (0.5, 1.0, 2.0, 4.0, 10.0)},
    ),
    "no normalisers": Golden(
        "847003f3cabd5c40ba85ed16c1aaec1685ca58ad08999389867121ff8c7112ca",
        changes={"temperatures": (), "origin": "an import"},
    ),
    "gold": Golden(
        "d21f21bd75af9dc06b0247fe2309441eaf342cf059c03c359b16fb841b4bb806",
        changes={"gold": True},
        shards=(
            "70a799d7b57d9bb41bf780d283ba4f57999dacb3f834684d9366fc69e46fb44a",
            "7548c97188c0016e2b0d46fa1ad9d761b8d2806312be691d7e6a2c8c47888884",
            "2d4b3c25af5862fe77193b6f402e3a66e6e0cd6b66944e19d16049ba00df21a4",
        ),
    ),
    "samples": Golden(
        "ff99723f4bbe04315f9b1f3cd95a52031bf2bc69911ba6edcb3f9c2246f2012f",
        changes={"samples": 3, "sample_seed": 9},
    ),
    "gold and samples": Golden(
        "276d51e52c51104ef0969a2154396ce81826651eff28c1a8297aaccd30d9b4d5",
        changes={"gold": True, "samples": 2, "k": 2},
    ),
    "16-bit ids, the most": Golden(
        "14ba52c704540873b5a20059bf46f534d77d69e4578388e70a71e5790baa2650",
        symbols=65536,
        changes={"gold": True},
    ),
    "32-bit ids": Golden(
        "8862d2801310e44b922183fc1b2e92dd8aada0f1a310bc018730103e403f2f04",
        symbols=65537,
        changes={"gold": True, "samples": 1},
    ),
    "left to right": Golden(
        "ac7caf151a54fbd3bba865955c672070523fab733ef9ad1fff23b11be2176bda",
        changes={"mask_plan": "left-to-right", "passes": 1, "mask_ratio": 0.0},
    ),
    "all fields": Golden(
        "2538085d351211c421c40e328a398b5e01759786cc64753cff11df7eafe89033",
        changes={
            "source_dictionary_digest": "cd" * 32,
            "tokenizer_digest": "ef" * 32,
            "precision": "fp16",
            "device": "cuda",
            "max_tokens": 4096,
            "chunk_sentences": 3,
            "temperatures": (1.0,),
        },
    ),
    "nothing scored": Golden(
        "1a37c5e765e1169b4c1e2d7fcf11968bbb9625a4c08efb767fd2898480f30c18", status=(1,) * 7
    ),
    "no sentences": Golden(
        "dd251771600acd86f1865051c0e773d388b95328e4a4326e9b846f2070cbe653", lengths=(), status=()
    ),
}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", GOLDEN)
def test_same_bytes(tmp_path, name):
    golden = GOLDEN[name]
    path = golden.write(tmp_path / NAME)
    assert sha256(path) == golden.sha256
    assert verify_store(path) == []
    reader = TopKReader(path)
    assert reader.info == golden.info()
    assert reader.symbols() == golden.dictionary()
    assert reader.lengths.tolist() == list(golden.lengths)
    assert [reader.status(i) for i in range(len(reader))] == list(golden.status)


@pytest.mark.parametrize("name", [name for name, golden in GOLDEN.items() if golden.shards])
def test_same_bytes_of_shards_and_of_what_they_join_to(tmp_path, name):
    golden = GOLDEN[name]
    shards = [golden.write(tmp_path / NAME, Shard(i, 3)) for i in range(3)]
    assert shards == [shard_path(tmp_path / NAME, Shard(i, 3)) for i in range(3)]
    assert tuple(map(sha256, shards)) == golden.shards
    merge_shards(shards, tmp_path / NAME)
    assert sha256(tmp_path / NAME) == golden.sha256


def test_rows_are_exact_on_any_processor():
    """Every stored token's probability is exactly 1, or lost beside 1, or beside nothing exactly 0."""
    for golden in GOLDEN.values():
        info = golden.info()
        records = golden.rows(0, sum(golden.lengths))
        for column, temperature in enumerate(info.temperatures):
            exponents = records["topk_logits"].astype(np.float64) / temperature
            exponents -= records["log_normalisers"][:, column, None].astype(np.float64)
            assert np.isin(exponents[:, 0], (0, -2000)).all()
            assert (exponents[:, 1:] < -40).all()
