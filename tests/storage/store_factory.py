"""Small random top-k stores that keep every rule of the format; the same arguments give the same rows."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_bert_kd.storage.header import (
    Header,
    encode_dictionary,
    encode_header,
    plan_layout,
    read_header,
    summarise,
)
from fairseq_bert_kd.storage.records import ChunkData, empty_records
from fairseq_bert_kd.storage.store_info import (
    SCORED,
    TOO_LONG,
    Shard,
    StoreInfo,
    dictionary_digest,
    table_dtype,
)
from fairseq_bert_kd.storage.topk_store import TopKReader
from fairseq_bert_kd.storage.topk_writer import TopKWriter

STORE_NAME = "train.de-en.en.topk"
WHOLE = Shard(0, 1)


def make_symbols(size: int) -> list[str]:
    """A dictionary of ``size`` symbols, the special ones first."""
    return (["<s>", "<pad>", "</s>", "<unk>"] + [f"ü{i}" for i in range(size)])[:size]


def make_info(dictionary_size: int = 20, **changes: Any) -> StoreInfo:
    """Header fields of a small store: k=3, two temperatures, 4 sentences a chunk."""
    values: dict[str, Any] = {
        "k": 3,
        "dictionary_size": dictionary_size,
        "dictionary_digest": dictionary_digest(make_symbols(dictionary_size)),
        "split": "train",
        "source_lang": "de",
        "target_lang": "en",
        "passes": 7,
        "teacher": "bert-base-multilingual-cased",
        "teacher_digest": "ab" * 32,
        "mask_ratio": 0.15,
        "versions": {"numpy": "2.0", "straße": "ü"},
        "temperatures": (1.0, 5.0),
        "chunk_sentences": 4,
    }
    return StoreInfo(**values | changes)


@dataclass(frozen=True)
class Corpus:
    """What a teacher says about a corpus; the rows of a chunk follow from ``seed`` and the chunk's number.

    Attributes:
        info: of the store.
        lengths: ``(sentences,)`` int32 target tokens.
        missing: share of sentences that the teacher did not score, 0 to 1.
        seed: of everything random.
    """

    info: StoreInfo
    lengths: np.ndarray
    missing: float = 0.2
    seed: int = 0

    @property
    def symbols(self) -> list[str]:
        return make_symbols(self.info.dictionary_size)

    @property
    def chunks(self) -> int:
        return -(-len(self.lengths) // self.info.chunk_sentences)

    def chunk(self, chunk: int) -> ChunkData:
        """Data of a chunk, by its number in the corpus."""
        rng = np.random.default_rng([self.seed, chunk])
        size = self.info.chunk_sentences
        lengths = self.lengths[chunk * size : (chunk + 1) * size]
        status = np.where(rng.random(len(lengths)) < self.missing, TOO_LONG, SCORED).astype(np.uint8)
        hashes = rng.integers(0, 2**64, (2, len(lengths)), dtype=np.uint64)
        records = random_records(self.info, int(lengths.sum()), rng)
        data = ChunkData(hashes[0], hashes[1], lengths, status, records)
        records[~data.scored] = 0
        return data

    def open(self, path: Path, shard: Shard = WHOLE, **options: Any) -> TopKWriter:
        """A writer of this corpus."""
        return TopKWriter(path, self.info, self.lengths, self.symbols, shard, **options)

    def write(
        self, path: Path, shard: Shard = WHOLE, order: Iterable[int] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Write what is not yet there and finish; the summary."""
        with self.open(path, shard, **options) as writer:
            if writer.complete:
                return TopKReader(writer.path, shard=True).header.summary or {}
            for chunk in writer.chunks() if order is None else order:
                if not writer.is_done(chunk):
                    self.write_chunk(writer, chunk)
            return writer.finish()

    def write_chunk(self, writer: TopKWriter, chunk: int) -> None:
        """Write one chunk, with made-up counts of gold tokens."""
        data = self.chunk(chunk)
        scored = int(data.scored.sum())
        writer.write_chunk(chunk, data, *((scored // 2, scored * 0.7) if self.info.gold else ()))


def make_corpus(
    lengths: Any = (3, 0, 5, 1, 2, 4, 4, 1, 7, 2), missing: float = 0.2, seed: int = 0, **changes: Any
):
    """A small corpus; ``changes`` are those of `make_info`."""
    return Corpus(make_info(**changes), np.asarray(lengths, dtype=np.int32), missing, seed)


def random_records(info: StoreInfo, rows: int, rng: np.random.Generator) -> np.ndarray:
    """``(rows,)`` records from random logits over the whole dictionary, as a teacher's would be."""
    logits = 3 * rng.standard_normal((rows, info.dictionary_size), dtype=np.float32)
    order = np.argsort(-logits, axis=1, kind="stable")
    logits = np.take_along_axis(logits, order, axis=1)
    logits = (logits - logits[:, :1]).astype(np.float16)  # of the best token 0
    records = empty_records(rows, info)
    records["topk_ids"], records["topk_logits"] = order[:, : info.k], logits[:, : info.k]
    for column, temperature in enumerate(info.temperatures):
        scaled = logits.astype(np.float64) / temperature
        records["log_normalisers"][:, column] = np.log(np.exp(scaled).sum(axis=1))
    gold = rng.integers(0, info.dictionary_size, rows)
    if info.gold:
        records["gold_id"] = order[np.arange(rows), gold]
        records["gold_logit"] = logits[np.arange(rows), gold]
    if info.samples:
        others = rng.integers(info.k, info.dictionary_size - 1, (rows, info.samples))
        others += info.gold * (others >= gold[:, None])  # never the gold token
        records["sample_ids"] = np.take_along_axis(order, others, axis=1)
        records["sample_logits"] = np.take_along_axis(logits, others, axis=1)
    return records


def write_sparse(path: Path, info: StoreInfo, sentences: int, rows: int, offsets: dict[int, int]) -> Header:
    """A file with a sound header whose sections are holes, but for ``offsets[place]``; takes no real disk."""
    dictionary = encode_dictionary(make_symbols(info.dictionary_size))
    layout = plan_layout(info, WHOLE, sentences, len(dictionary), sentences, rows)
    summary = summarise(np.zeros(0, dtype=table_dtype(info)), info)
    with open(path, "w+b") as file:
        file.write(encode_header(info, WHOLE, sentences, layout, summary, "00" * 16))
        file.truncate(layout.file_bytes)
        for place, row in ({0: 0, sentences: rows} | offsets).items():
            os.pwrite(file.fileno(), np.int64(row).tobytes(), layout.starts["offsets"] + 8 * place)
        file.seek(0)
        return read_header(file, path)


def read_in_child(reader: TopKReader, queue: Any) -> None:
    """What a reader that came from another process says, for `multiprocessing`."""
    try:
        rows = [reader.rows(index).tobytes() for index in range(len(reader))]
        queue.put((rows, [part.tolist() for part in reader.gather(range(len(reader)), 9)]))
    except Exception as error:
        queue.put(repr(error))


def tokens_in_child(tokens: Any, queue: Any) -> None:
    """All sentences of data that came from another process, for `multiprocessing`."""
    queue.put([tokens[index].tolist() for index in range(len(tokens))])
