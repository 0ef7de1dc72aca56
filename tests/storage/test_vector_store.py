"""Stores of sentence vectors: types, overflow, names and statistics; the container's own tests are in test_other_schemas.py."""

from dataclasses import replace

import numpy as np
import pytest

from fairseq_bert_kd.storage.fairseq_data import dictionary_digest
from fairseq_bert_kd.storage.schema import NOT_FINITE, TOO_LONG, ChunkData
from fairseq_bert_kd.storage.vector_stat import PAIRS, vector_stat
from fairseq_bert_kd.storage.vector_store import VectorInfo, VectorReader, to_records, vector_store_path
from fairseq_bert_kd.storage.verify import verify_store
from fairseq_bert_kd.storage.writer import StoreWriter
from tests.storage.small_stores import write_index

INFO = VectorInfo(split="train", teacher="MiniLM", versions={}, width=2, chunk_sentences=4)


def write(path, vectors, info=INFO, status=None):
    """A store of these vectors; a sentence with a status has none."""
    status = np.zeros(len(vectors), np.uint8) if status is None else np.array(status, np.uint8)
    with StoreWriter(path, info, np.ones(len(vectors), np.int64), {}) as writer:
        for chunk in writer.chunks():
            part = slice(writer.sentences(chunk).start, writer.sentences(chunk).stop)
            rows = np.where(status[part, None] == 0, np.array(vectors[part], np.float32), 0)
            records = to_records(rows.astype(np.float32), info, part.start)
            hashes = np.arange(part.start, part.stop, dtype="<u8")
            writer.write_chunk(
                chunk, ChunkData({"input0": hashes}, np.ones(len(rows), np.int64), status[part], records)
            )
        writer.finish()
    return VectorReader(path)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_is_read_is_what_was_computed_in_the_stored_type(tmp_path, dtype):
    vectors = np.random.default_rng(0).normal(size=(10, 2)).astype(np.float32)
    reader = write(tmp_path / "a.sentences.vec", vectors, replace(INFO, dtype=dtype))
    found, present = reader.vectors(np.array([9, 0, 3]))
    assert present.all()
    assert found.dtype == dtype
    assert np.array_equal(found, vectors[[9, 0, 3]].astype(dtype))
    assert verify_store(reader.path) == []


def test_float16_keeps_the_cosine_to_a_thousandth(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(200, 384)).astype(np.float32)
    reader = write(tmp_path / "a.vec", vectors, replace(INFO, width=384))
    stored = reader.vectors(np.arange(200))[0].astype(np.float64)

    def cosines(rows):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit @ unit.T

    assert np.abs(cosines(stored) - cosines(vectors.astype(np.float64))).max() < 1e-3


def test_a_number_beyond_float16_is_refused_with_its_sentence():
    vectors = np.array([[1, 2], [3, -70_000]], np.float32)
    with pytest.raises(
        ValueError, match=r"sentence 6 has a vector with 70000, beyond float16's 65504.*--dtype float32"
    ):
        to_records(vectors, INFO, first_sentence=5)
    assert to_records(vectors, replace(INFO, dtype="float32"), 5)["vector"].tolist() == vectors.tolist()
    edge = np.array([[65_504, -65_504]], np.float32)
    assert to_records(edge, INFO, 0)["vector"].tolist() == edge.tolist()


def test_header_says_what_the_vectors_are(tmp_path):
    reader = write(
        tmp_path / "a.vec", [[3, 4], [0, 0], [6, 8]], replace(INFO, vector="cls", similarity="cosine")
    )
    assert (reader.info.vector, reader.info.similarity, reader.info.dtype) == ("cls", "cosine", "float16")
    assert reader.header.summary["mean_length"] == 5
    for changes, message in (
        ({"dtype": "int8"}, "dtype must be float16 or float32"),
        ({"width": 0}, "width must be"),
    ):
        with pytest.raises(ValueError, match=message):
            write(tmp_path / "b.vec", [[1, 2]], replace(INFO, **changes))


def test_other_dictionary_is_named(tmp_path):
    (tmp_path / "input0").mkdir()
    write_index(tmp_path / "input0" / "train", [[4, 2]])
    (tmp_path / "input0" / "dict.txt").write_text("a 1\nb 1\n")
    symbols = ["<s>", "<pad>", "</s>", "<unk>", "a"]
    reader = write(
        tmp_path / "train.sentences.vec",
        [[1, 2]],
        replace(INFO, dictionary_digest=dictionary_digest(symbols)),
    )
    problems = verify_store(reader.path, tmp_path)
    assert problems[0].startswith("it was made with another input0 dictionary than input0/dict.txt")


def test_statistics_by_hand(tmp_path):
    """Two opposite vectors, and two sentences without any: every random pair has the cosine -1."""
    status = [0, TOO_LONG, 0, NOT_FINITE]
    stat = vector_stat(write(tmp_path / "a.vec", [[3, 4], [1, 1], [-6, -8], [1, 1]], status=status), 0)
    assert (stat.rows, stat.mean_length) == (2, 7.5)
    assert stat.random_cosine == pytest.approx(-1)
    alone = vector_stat(write(tmp_path / "b.vec", [[0, 2]]), 0)
    assert alone == (1, 2, None)
    with pytest.raises(ValueError, match="at least 0 rows are sampled"):
        vector_stat(VectorReader(tmp_path / "a.vec"), -1)


def test_a_sample_is_the_same_at_every_call(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(3 * PAIRS, 2))
    reader = write(tmp_path / "a.vec", vectors, replace(INFO, chunk_sentences=PAIRS))
    some, all_of_them = vector_stat(reader, 100), vector_stat(reader, 0)
    assert (some.rows, all_of_them.rows) == (100, 3 * PAIRS)
    assert some == vector_stat(reader, 100)
    assert abs(all_of_them.random_cosine) < 0.1


def test_names():
    assert str(vector_store_path("d", "train")) == "d/train.sentences.vec"
    path = vector_store_path("d e", "valid", "cls")
    assert str(path) == "d e/valid.sentences.cls.vec"
    with pytest.raises(ValueError, match="a store's name is of letters, digits, _ and -, got `a/b`"):
        vector_store_path("d", "train", "a/b")
    command = "fairseq-bert-kd vectors DATA --store-dir 'd e' --encoder-model MODEL --subset valid --name cls --overwrite"
    assert VectorInfo.rebuild_command(path) == f"rebuild it with `{command}`"
