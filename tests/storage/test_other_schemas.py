"""A store of other rows is a schema and not a format: sentence vectors, and source-side rows, which are defined here alone."""

import hashlib
import json
import os
import struct
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from fairseq_bert_kd.storage.alignment import check_sentences
from fairseq_bert_kd.storage.fairseq_data import open_sides, sentence_hash
from fairseq_bert_kd.storage.merge import merge_shards
from fairseq_bert_kd.storage.schema import NOT_FINITE, ChunkData, empty_records
from fairseq_bert_kd.storage.shards import WHOLE, Shard, shard_path
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.storage.topk_store import TopKReader, TopKWriter
from fairseq_bert_kd.storage.vector_store import VectorInfo, VectorReader
from fairseq_bert_kd.storage.verify import verify_store
from fairseq_bert_kd.storage.work_file import work_path
from fairseq_bert_kd.storage.writer import StoreWriter
from tests.storage.small_stores import PAIRS, SYMBOLS, flip, make_chunk, make_info, write_data, write_index
from tests.storage.test_crashes import kill_everywhere

NAME = "train.sentences.vec"
SENTENCES = [[4 + i % 6] * (i % 4) + [2] for i in range(24)]
MISSING = {5, 17}


INFO = VectorInfo(
    split="train", teacher="MiniLM", versions={"numpy": "2.0"}, width=3, chunk_sentences=2, tokenizer_digest="ab" * 32
)  # fmt: skip


def vectors_of(sentences) -> ChunkData:
    """Vectors ``(i, -i / 2, 1)`` of sentences i, but for those that are missing."""
    numbers = np.array(sentences, dtype=np.float64)
    status = np.array([NOT_FINITE if i in MISSING else 0 for i in sentences], dtype=np.uint8)
    records = empty_records(len(numbers), INFO)
    records["vector"] = np.stack([numbers, -numbers / 2, np.ones_like(numbers)], axis=1)
    records[status != 0] = 0
    hashes = np.array([sentence_hash(SENTENCES[i]) for i in sentences], dtype=np.uint64)
    return ChunkData({"input0": hashes}, np.ones(len(numbers), np.int64), status, records)


def write(path, info=INFO, shard=WHOLE, **options: Any):
    lengths = np.broadcast_to(np.int64(1), (len(SENTENCES),))
    with StoreWriter(path, info, lengths, {}, shard, **options) as writer:
        for chunk in writer.chunks():
            if not writer.is_done(chunk):
                writer.write_chunk(chunk, vectors_of(writer.sentences(chunk)))
        if not writer.complete:
            writer.finish()
    return writer.path


@pytest.fixture
def path(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / NAME


@pytest.fixture
def data(tmp_path):
    """One side in the layout of fairseq's ``sentence_prediction``."""
    (tmp_path / "data-bin" / "input0").mkdir(parents=True)
    write_index(tmp_path / "data-bin" / "input0" / "train", SENTENCES)
    return tmp_path / "data-bin"


# ---------------------------------------------------------------- sentence vectors


def test_vectors_are_read_as_written(path):
    reader = VectorReader(write(path))
    assert reader.info == INFO
    assert len(reader) == 24
    assert reader.rows(7)["vector"].tolist() == [[7, -3.5, 1]]
    assert reader.is_missing(5)
    assert reader.missing_sentences == 2
    assert reader.hashes(3) == {"input0": sentence_hash(SENTENCES[3])}
    records, present = reader.gather_records([9, 5, 9], 1)
    assert records["vector"][:, 0].tolist() == [[9, -4.5, 1], [0, 0, 0], [9, -4.5, 1]]
    assert present[:, 0].tolist() == [True, False, True]
    assert reader.header.summary["missing_sentences"] == {"too_long": 0, "not_finite": 2}
    assert reader.header.summary["mean_length"] == pytest.approx(
        np.mean([np.sqrt(1.25 * i**2 + 1) for i in range(24) if i not in MISSING])
    )
    assert verify_store(path, schemas=(TopKInfo, VectorInfo)) == []


def test_header_names_the_schema(path):
    content = write(path).read_bytes()
    magic, version, size = struct.unpack_from("<8sII", content)
    header = json.loads(content[32 : 32 + size])
    assert (magic, version) == (b"KDTOPK\r\n", 3)
    assert header["schema"] == "sentence vectors"
    assert header["record"] == [["vector", "<f2", 3]]
    assert list(header["sections"]) == ["offsets", "input0_hashes", "status", "records", "chunk_table"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.slow
def test_writer_killed_at_every_call(path, tmp_path):
    whole = write(tmp_path / "whole").read_bytes()
    assert kill_everywhere(lambda: write(path), path, whole) > 100


@pytest.mark.parametrize("count", [2, 3, 7])
def test_shards_join_to_the_same_bytes(path, tmp_path, count):
    whole = write(tmp_path / "whole").read_bytes()
    shards = [write(path, shard=Shard(i, count)) for i in range(count)]
    assert shards == [shard_path(path, Shard(i, count)) for i in range(count)]
    assert all(verify_store(shard, schemas=(VectorInfo,)) == [] for shard in shards)
    merge_shards(shards[::-1], path, schemas=(TopKInfo, VectorInfo))
    assert path.read_bytes() == whole


def test_every_flipped_byte_is_noticed(path):
    content = write(path).read_bytes()
    end = VectorReader(path).header.layout.starts["offsets"]
    for place in [*range(0, end, 97), *range(end, len(content), 3)]:
        flip(path, place)
        assert verify_store(path, workers=1, schemas=(VectorInfo,)), place
        path.write_bytes(content)


def test_store_belongs_to_its_data_or_says_what_differs(path, data, tmp_path):
    write(path)
    assert verify_store(path, data, schemas=(VectorInfo,)) == []
    sides = open_sides(INFO.files(data), "train")
    assert check_sentences(VectorReader(path), sides, everything=True) == 24
    write_index(tmp_path / "data-bin" / "input0" / "train", [*SENTENCES[:4], [9, 2], *SENTENCES[5:]])
    line = "was made from another text: the input0 of sentence 4 (line 5 of the text) has other tokens here"
    assert verify_store(path, data, schemas=(VectorInfo,)) == [f"it {line}"]
    with pytest.raises(
        ValueError,
        match="the input0 of sentence 4 .* or rebuild it with `fairseq-bert-kd vectors DATA --store-dir /.*/out ",
    ):
        check_sentences(VectorReader(path), open_sides(INFO.files(data), "train"))


def test_rows_are_checked_by_their_schema(path):
    data = vectors_of(range(2))
    data.records["vector"][1] = np.inf
    with StoreWriter(path, INFO, np.ones(2, np.int64), {}) as writer:
        with pytest.raises(
            ValueError, match="sentence 1, position 0: a vector must be finite in float16, got .inf"
        ):
            writer.write_chunk(0, data)
        assert not writer.is_done(0)
    with pytest.raises(ValueError, match="sentence vectors have one row per sentence, got 2 for sentence 1"):
        StoreWriter(path.with_name("other"), INFO, np.array([1, 2]), {})
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        StoreWriter(path.with_name("other"), replace(INFO, width=0), np.array([1]), {})


# ---------------------------------------------------------------- one schema is not taken for another


def test_another_schema_is_refused_by_name(path, tmp_path):
    write(path)
    message = f"^store {path} holds sentence vectors, top-k logits are needed; give a store that `fairseq-bert-kd dump`"
    with pytest.raises(ValueError, match=message):
        TopKReader(path)
    with pytest.raises(ValueError, match=message):
        merge_shards([path], tmp_path / "merged", schemas=(TopKInfo,))
    (problem,) = verify_store(path, schemas=(TopKInfo,))
    assert "holds sentence vectors, top-k logits are needed" in problem
    topk = tmp_path / "train.de-en.en.topk"
    with TopKWriter(topk, make_info(), np.array([3, 2]), SYMBOLS) as writer:
        writer.write_chunk(0, make_chunk(make_info(), PAIRS[:2]))
        writer.finish()
    with pytest.raises(
        ValueError, match="holds top-k logits, sentence vectors are needed; give .*kd vectors`"
    ):
        VectorReader(topk)


def test_store_of_another_schema_is_not_replaced_unasked(path, tmp_path):
    before = write(path).read_bytes()
    with pytest.raises(
        FileExistsError, match="exists and differs .*holds sentence vectors, top-k logits are needed"
    ):
        TopKWriter(path, make_info(), np.array([3]), SYMBOLS)
    assert path.read_bytes() == before
    path.unlink()
    with pytest.raises(RuntimeError), StoreWriter(path, INFO, np.ones(24, np.int64), {}):
        raise RuntimeError  # unfinished
    before = work_path(path).read_bytes()
    with pytest.raises(ValueError, match="unfinished work .*holds sentence vectors.*finish it with those"):
        TopKWriter(path, make_info(), np.array([3]), SYMBOLS)
    assert work_path(path).read_bytes() == before


def test_version_and_schema_must_fit(path):
    """Top-k logits in a header of version 3, whose digest fits."""
    content = bytearray(write(path).read_bytes())
    size = struct.unpack_from("<I", content, 12)[0]
    for name, message in (
        ("top-k logits", "header cannot be understood"),
        ("entities", "holds entities, sentence vec"),
    ):
        values = json.loads(content[32 : 32 + size]) | {"schema": name}
        area = json.dumps(values).encode().ljust(size)
        digest = hashlib.blake2b(bytes(content[:16]) + area, digest_size=16).digest()
        path.write_bytes(content[:16] + digest + area + content[32 + size :])
        with pytest.raises(ValueError, match=message):
            VectorReader(path) if name == "entities" else TopKReader(path)


# ---------------------------------------------------------------- source-side rows


@dataclass(frozen=True, kw_only=True)
class SourceInfo(TopKInfo):
    """Token rows of the source's positions, from a teacher that sees the source alone."""

    schema: ClassVar[str] = "top-k logits of the source"
    version: ClassVar[int] = 3
    sides: ClassVar[tuple[str, ...]] = ("source",)
    row_side: ClassVar[str | None] = "source"
    dictionary_side: ClassVar[str | None] = "source"

    def dictionaries(self):
        return {"source": (f"dict.{self.source_lang}.txt", self.dictionary_digest)}


class SourceReader(TopKReader):
    schema = SourceInfo


def test_source_side_rows(tmp_path):
    """Rows for the source's tokens, with all checks of token rows; a target store is not taken for one."""
    fields = {name: getattr(make_info(), name) for name in make_info().stated()}
    info = SourceInfo(**fields)
    lengths = np.array([len(source) for source, _ in PAIRS])
    path = tmp_path / "train.de-en.de.topk"
    with TopKWriter(path, info, lengths, SYMBOLS) as writer:
        for chunk in writer.chunks():
            sentences = writer.sentences(chunk)
            as_target = make_chunk(
                make_info(), [(source, source) for source, _ in PAIRS[sentences.start : sentences.stop]]
            )
            data = ChunkData({"source": as_target.hashes["source"]}, *list(vars(as_target).values())[1:])
            writer.write_chunk(chunk, data)
        writer.finish()
    reader = SourceReader(path)
    assert reader.lengths.tolist() == lengths.tolist()
    assert reader.hashes(1) == {"source": sentence_hash(PAIRS[1][0])}
    assert reader.rows(0)["topk_ids"].tolist() == [[4, 5, 6]] * 2
    assert verify_store(path, schemas=(TopKInfo, SourceInfo)) == []
    data = write_data(tmp_path / "data")
    assert verify_store(path, data, schemas=(SourceInfo,)) == []
    (data / "dict.de.txt").write_text("x 1\n")
    (problem,) = verify_store(path, data, schemas=(SourceInfo,))
    assert problem.startswith(
        "it was made with another source dictionary than dict.de.txt: symbol 4 (line 1 of dict.de"
    )
    with pytest.raises(ValueError, match="holds top-k logits of the source, top-k logits are needed"):
        TopKReader(path)
