"""Reading a top-k store: what was written is read, in corpus order; everything else is refused with a next step."""

import hashlib
import json
import multiprocessing
import os
import pickle
import resource
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_bert_kd.storage.fairseq_data import dictionary_digest
from fairseq_bert_kd.storage.header import MAGIC, encode_header
from fairseq_bert_kd.storage.probabilities import token_probs
from fairseq_bert_kd.storage.schema import NOT_FINITE, ChunkData, empty_records, new_digest
from fairseq_bert_kd.storage.shards import Shard
from fairseq_bert_kd.storage.topk import NOT_IMPORTED, TopKInfo
from fairseq_bert_kd.storage.topk_store import TopKReader, TopKWriter, store_path
from fairseq_bert_kd.storage.work_file import work_path
from tests.storage.small_stores import (
    NAME,
    Corpus,
    make_corpus,
    make_symbols,
    random_info,
    read_in_child,
    write_sparse,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / NAME


# Two sentences of 2 and 1 rows by hand: dictionary of 10, k=3, temperature 1, gold and one sample.
# log(1 + e^-1 + e^-2) = 0.408 and log(3) = 1.099, so the log-normalisers below leave mass outside.
HAND_INFO = random_info(10, temperatures=(1.0,), gold=True, samples=1)
HAND_ROWS = [
    ((0.5,), (4, 5, 6), (0, -1, -2), 5, -1, (7,), (-2.5,)),
    ((0.5,), (9, 4, 0), (0, -1, -2), 3, -4, (8,), (-2,)),
    ((1.25,), (1, 2, 3), (0, 0, 0), 4, 0, (0,), (-60000,)),
]


def hand_data(**changes: Any) -> ChunkData:
    """The rows by hand; ``changes`` to fields of row 1 (sentence 0, position 1)."""
    records = np.array(HAND_ROWS, dtype=HAND_INFO.record_dtype)
    for name, value in changes.items():
        records[name][1] = value
    hashes = np.array([[2**64 - 1, 7], [0, 2**63]], dtype=np.uint64)
    return ChunkData(
        {"source": hashes[0], "target": hashes[1]}, np.array([2, 1]), np.zeros(2, np.uint8), records
    )


def write_hand(path, data):
    with TopKWriter(path, HAND_INFO, data.lengths, make_symbols(10)) as writer:
        writer.write_chunk(0, data, gold_correct=0, gold_nll=2.0)
        return writer.finish()


# ---------------------------------------------------------------- what is written is read


def test_store_by_hand(path):
    summary = write_hand(path, hand_data())
    reader = TopKReader(path)
    assert len(reader) == 2
    assert reader.lengths.tolist() == [2, 1]
    assert reader.rows(0)["topk_ids"].tolist() == [[4, 5, 6], [9, 4, 0]]
    assert reader.rows(1)["topk_logits"].tolist() == [[0, 0, 0]]
    assert reader.rows(0)["log_normalisers"].tolist() == [[0.5], [0.5]]
    assert reader.rows(0)[["gold_id", "gold_logit"]].tolist() == [(5, -1), (3, -4)]
    assert reader.rows(1)["sample_ids"].tolist() == [[0]]
    assert reader.rows(1)["sample_logits"].tolist() == [[-60000]]
    assert reader.hashes(0) == {"source": 2**64 - 1, "target": 0}
    assert reader.hashes(1) == {"source": 7, "target": 2**63}
    assert reader.symbols() == make_symbols(10)
    assert reader.missing_sentences == 0
    # 2 rows of (1 + e^-1 + e^-2) / e^0.5 = 0.91175 and one of 3 / e^1.25 = 0.85951
    assert summary["captured_mass"] == pytest.approx([(2 * 0.911746 + 0.859514) / 3], abs=1e-6)
    assert summary["gold_accuracy"] == 0
    assert summary["gold_nll"] == pytest.approx(2 / 3)
    assert summary["scored_rows"] == 3
    assert reader.header.summary == summary


def assert_same(reader, corpus):
    """Everything that the reader gives is the corpus's, bit by bit."""
    size = corpus.info.chunk_sentences
    assert reader.info == corpus.info
    assert len(reader) == len(corpus.lengths)
    assert reader.lengths.tolist() == corpus.lengths.tolist()
    for chunk in range(corpus.chunks):
        data, first = corpus.chunk(chunk), 0
        for j, length in enumerate(data.lengths):
            i = chunk * size + j
            rows = reader.rows(i)
            assert rows.dtype == data.records.dtype
            assert rows.tobytes() == data.records[first : first + length].tobytes()
            assert reader.status(i) == data.status[j]
            assert reader.is_missing(i) == (data.status[j] != 0)
            assert reader.hashes(i) == {side: hashes[j] for side, hashes in data.hashes.items()}
            first += length


@pytest.mark.parametrize(
    ("size", "id_type"), [(4, np.uint16), (100, np.uint16), (65536, np.uint16), (65537, np.int32)]
)
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("gold", [False, True])
def test_round_trip(path, size, id_type, k, gold):
    corpus = make_corpus(
        [2, 0, 3, 1, 1], dictionary_size=size, k=k, gold=gold, chunk_sentences=2, seed=size + k
    )
    corpus.write(path)
    reader = TopKReader(path)
    assert_same(reader, corpus)
    assert reader.rows(2)["topk_ids"].dtype == id_type
    assert reader.symbols() == corpus.symbols


def test_highest_ids_survive(path):
    for size in (65536, 65537):
        corpus = make_corpus([1], 0.0, dictionary_size=size, k=2, temperatures=())
        data = corpus.chunk(0)
        data.records["topk_ids"] = [[size - 1, 32768]]
        with corpus.open(path, overwrite=True) as writer:
            writer.write_chunk(0, data)
            writer.finish()
        assert TopKReader(path).rows(0)["topk_ids"].tolist() == [[size - 1, 32768]]
        records, _ = TopKReader(path).gather_records([0], 1)
        assert records["topk_ids"].tolist() == [[[size - 1, 32768]]]


@pytest.mark.parametrize(
    "changes",
    [
        {"dictionary_size": 1, "k": 1},
        {"dictionary_size": 12, "k": 12},
        {"dictionary_size": 12, "k": 12, "gold": True},
        {"temperatures": ()},
        {"temperatures": (0.1, 1.0, 2.0, 4.0, 100.0)},
        {"samples": 1},
        {"samples": 7, "gold": True},
        {"chunk_sentences": 1},
        {"chunk_sentences": 1000},
        {"missing": 0.0},
        {"missing": 1.0},
        {"lengths": [0, 0, 0, 0, 0]},
        {"lengths": []},
        {"lengths": [1]},
        {"lengths": [0], "missing": 1.0},
        {"lengths": [400, 1]},
    ],
)
def test_odd_stores(path, changes):
    corpus = make_corpus(**changes)
    summary = corpus.write(path)
    assert_same(TopKReader(path), corpus)
    statuses = [status for chunk in range(corpus.chunks) for status in corpus.chunk(chunk).status]
    assert summary["missing_sentences"] == {"too_long": statuses.count(1), "not_finite": 0, "not_imported": 0}
    assert TopKReader(path).missing_sentences == statuses.count(1)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), max_size=30),
    chunk_sentences=st.integers(1, 8),
    k=st.integers(1, 12),
    gold=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_store(tmp_path_factory, lengths, chunk_sentences, k, gold, seed):
    path = tmp_path_factory.mktemp("any") / NAME
    corpus = make_corpus(
        lengths, seed=seed, dictionary_size=12, k=k, gold=gold, chunk_sentences=chunk_sentences
    )
    corpus.write(path)
    assert_same(TopKReader(path), corpus)


def test_whole_dictionary_holds_all_mass(path):
    corpus = make_corpus(missing=0.0, dictionary_size=12, k=12)
    summary = corpus.write(path)
    assert summary["captured_mass"] == pytest.approx([1, 1], abs=1e-6)
    records = TopKReader(path).rows(0)
    assert token_probs(records, (1.0, 5.0), 5.0).sum(axis=1) == pytest.approx(np.ones(3), abs=1e-6)
    assert (token_probs(records, (1.0, 5.0), 5.0)[:, :2].sum(axis=1) < 0.9).all()


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"k": 8, "dictionary_size": 100, "temperatures": (1.0,)}, 36),
        ({"k": 8, "dictionary_size": 65536, "temperatures": (1.0,)}, 36),
        ({"k": 8, "dictionary_size": 65537, "temperatures": (1.0,)}, 52),
        ({"k": 8, "dictionary_size": 100, "temperatures": ()}, 32),
        ({"k": 1, "dictionary_size": 100, "temperatures": (1.0, 2.0), "gold": True, "samples": 2}, 24),
    ],
)
def test_record_bytes(path, changes, size):
    corpus = make_corpus([3], **changes)
    corpus.write(path)
    reader = TopKReader(path)
    layout = reader.header.layout
    assert corpus.info.record_dtype.itemsize == size
    assert layout.ends["records"] - layout.starts["records"] == 3 * size
    assert path.stat().st_size == layout.file_bytes


def test_every_reason_of_a_missing_sentence(path):
    data = hand_data()
    statuses = np.array([NOT_FINITE, NOT_IMPORTED], dtype=np.uint8)
    data = ChunkData(data.hashes, data.lengths, statuses, empty_records(3, HAND_INFO))
    summary = write_hand(path, data)
    assert summary["missing_sentences"] == {"too_long": 0, "not_finite": 1, "not_imported": 1}
    reader = TopKReader(path)
    assert (reader.status(0), reader.status(1)) == (2, 3)
    assert reader.missing_sentences == 2
    assert summary["captured_mass"] == [None]
    assert not reader.gather_records([0, 1], 2)[1].any()


def test_rows_are_read_only(path):
    make_corpus().write(path)
    with pytest.raises(ValueError, match="read-only"):
        TopKReader(path).rows(0)["topk_ids"][:] = 0


# ---------------------------------------------------------------- gather


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 30))
def test_gather_equals_the_slow_version(tmp_path_factory, data, seed):
    lengths = data.draw(st.lists(st.integers(0, 7), min_size=1, max_size=20))
    corpus = make_corpus(lengths, missing=0.3, seed=seed)
    path = tmp_path_factory.mktemp("gather") / NAME
    corpus.write(path)
    reader = TopKReader(path)
    sentences = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=12))
    width = max([lengths[i] for i in sentences], default=0) + data.draw(st.integers(0, 3))
    records, present = reader.gather_records(np.array(sentences, dtype=np.int64), width)
    expected, there = (
        empty_records(len(sentences) * width, corpus.info),
        np.zeros(len(sentences) * width, bool),
    )
    for i, sentence in enumerate(sentences):
        for position, row in enumerate(() if reader.is_missing(sentence) else reader.rows(sentence)):
            expected[i * width + position], there[i * width + position] = row, True
    assert records.shape == present.shape == (len(sentences), width)
    assert records.dtype == corpus.info.record_dtype
    assert records.tobytes() == expected.tobytes()
    assert present.ravel().tolist() == there.tolist()


def test_gather_by_hand(path):
    write_hand(path, hand_data())
    records, present = TopKReader(path).gather_records([1, 0, 1], 3)
    assert records["topk_ids"].tolist() == [
        [[1, 2, 3], [0, 0, 0], [0, 0, 0]],
        [[4, 5, 6], [9, 4, 0], [0, 0, 0]],
        [[1, 2, 3], [0, 0, 0], [0, 0, 0]],
    ]
    assert records["topk_logits"][1].tolist() == [[0, -1, -2], [0, -1, -2], [0, 0, 0]]
    assert present.tolist() == [[True, False, False], [True, True, False], [True, False, False]]


@pytest.mark.parametrize("dtype", [np.int32, np.uint16, np.int64, np.uint64])
def test_gather_takes_any_integers(path, dtype):
    write_hand(path, hand_data())
    records, _ = TopKReader(path).gather_records(np.array([1], dtype=dtype), 1)
    assert records["topk_ids"].tolist() == [[[1, 2, 3]]]


def test_sentences_outside(path):
    make_corpus([2, 1]).write(path)
    reader = TopKReader(path)
    message = "sentence {} is not in store .* of 2 sentences; pass a corpus index from 0"
    for index in (2, -1, 2**40):
        for method in (reader.rows, reader.hashes, reader.status, reader.is_missing):
            with pytest.raises(IndexError, match=message.format(index)):
                method(index)
        with pytest.raises(IndexError, match=message.format(index)):
            reader.gather_records([0, index], 2)
    with pytest.raises(ValueError, match="sentence_ids must be integers, got float64"):
        reader.gather_records([0.0], 2)
    with pytest.raises(ValueError, match="sentence 0 has 2, got width 1; pass the padded length"):
        reader.gather_records([1, 0], 1)


# ---------------------------------------------------------------- other processes


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_other_process_reads(path, method):
    corpus = make_corpus()
    corpus.write(path)
    reader = TopKReader(path)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=read_in_child, args=(reader, queue))
    child.start()
    found = queue.get(timeout=120)
    child.join(timeout=120)
    assert child.exitcode == 0
    rows = [reader.rows(index).tobytes() for index in range(len(reader))]
    records, present = reader.gather_records(range(len(reader)), 9)
    assert found == (rows, records.tobytes(), present.tolist())


def test_pickle_holds_no_rows_and_an_absolute_path(path, monkeypatch, tmp_path_factory):
    make_corpus([200] * 9, missing=0.0).write(path)
    monkeypatch.chdir(path.parent)
    reader = TopKReader(path.name)
    pickled = pickle.dumps(reader)
    assert len(pickled) < 1000
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    copy = pickle.loads(pickled)
    assert copy.path == path
    assert copy.rows(8).tobytes() == reader.rows(8).tobytes()


def test_copy_of_a_reader_refuses_another_store(path):
    corpus = make_corpus()
    corpus.write(path)
    reader = TopKReader(path)
    pickled, before = pickle.dumps(reader), reader.rows(2).tobytes()
    replace(corpus, seed=1).write(path, overwrite=True)
    assert reader.rows(2).tobytes() == before  # an open one goes on with the old file
    with pytest.raises(ValueError, match="was replaced while it was in use; start the run again"):
        pickle.loads(pickled)
    corpus.write(path, overwrite=True)
    assert pickle.loads(pickled).rows(2).tobytes() == before  # the same bytes again
    path.unlink()
    with pytest.raises(FileNotFoundError, match="does not exist; write it with `fairseq-bert-kd dump`"):
        pickle.loads(pickled)


# ---------------------------------------------------------------- opening is constant


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs Linux' counts of a process's reads")
def test_opening_reads_as_much_of_a_large_store_as_of_a_small_one(path):
    def opened(sentences, rows):
        write_sparse(path, random_info(), sentences, rows, {})
        before, faults = read_bytes(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        reader = TopKReader(path)
        after = read_bytes()
        assert len(reader) == sentences
        assert reader.header.layout.rows == rows
        return after - before, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults

    def read_bytes():
        with open("/proc/self/io", encoding="ascii") as counts:
            return int(counts.readline().removeprefix("rchar: "))

    opened(10, 100)
    small, _ = opened(10, 100)
    large, faults = opened(2**27, 2**32)  # an index of 1 GiB, 80 GiB of rows
    assert small == large < 20_000
    assert faults < 5_000  # going through the index alone would touch 262,144 pages


# ---------------------------------------------------------------- files that are refused


@pytest.fixture
def store(path):
    make_corpus().write(path)
    return path


def refused(path, message, kind=ValueError):
    with pytest.raises(kind, match=message) as caught:
        TopKReader(path)
    assert "\n" not in str(caught.value)


def test_absent_store_and_folder(path, tmp_path):
    refused(path, "does not exist; write it with `fairseq-bert-kd dump`", FileNotFoundError)
    refused(tmp_path, "does not exist", FileNotFoundError)  # a folder


@pytest.mark.parametrize("content", [b"", b"KDT", b"0.5 0.25\n", b"PK\x03\x04" + bytes(200), b"\0" * 9000])
def test_not_a_store(path, content):
    path.write_bytes(content)
    refused(path, "is not a teacher store: it begins with b.*check the path, or write a store with")


def test_copy_in_text_mode(store):
    store.write_bytes(store.read_bytes().replace(b"\r\n", b"\n"))
    refused(store, r"is not a teacher store: it begins with b'KDTOPK\\n")


def test_version_1_says_how_to_make_it_again(path):
    text = json.dumps({"teacher": "T.pt", "split": "train", "k": 8, "passes": 7}).encode()
    path.write_bytes(struct.pack("<8sII", MAGIC, 1, len(text)) + text + bytes(300))
    elsewhere = f"rebuild it with `fairseq-bert-kd dump DATA --store-dir {path.parent} --path TEACHER.pt"
    refused(path, elsewhere)
    (path.parent / "train.de-en.en.idx").touch()  # beside its data
    refused(
        path,
        f"^store {path} has format version 1, this code reads versions 2 and 3; rebuild it with "
        f"`fairseq-bert-kd dump {path.parent} --path TEACHER.pt --subset train --overwrite`$",
    )


def test_command_can_be_pasted_into_a_shell(tmp_path):
    folder = tmp_path / "my data"
    folder.mkdir()
    (folder / NAME).write_bytes(struct.pack("<8sII", MAGIC, 1, 0) + bytes(300))
    (folder / "train.de-en.en.idx").touch()
    refused(folder / NAME, f"dump '{folder}' --path TEACHER.pt --subset train")


@pytest.mark.parametrize("version", [4, 2**31])
def test_newer_version(store, version):
    content = store.read_bytes()
    store.write_bytes(content[:8] + struct.pack("<I", version) + content[12:])
    refused(
        store,
        f"has format version {version}, this code reads versions 2 and 3; upgrade fairseq-bert-kd, or rebuild",
    )


def test_other_byte_order(store):
    content = store.read_bytes()
    magic, version, size, digest = struct.unpack_from("<8sII16s", content)
    store.write_bytes(struct.pack(">8sII16s", magic, version, size, digest) + content[32:])
    refused(store, "has format version 33554432, this code reads versions 2 and 3")


@pytest.mark.parametrize("kept", [8, 15, 31, 32, 100, 4095, 4096, -1, -13])
def test_truncated(store, kept):
    content = store.read_bytes()[:kept]
    store.write_bytes(content)
    refused(
        store, rf"is truncated: {len(content)} bytes, its header says \d+; copy it again or rebuild it with"
    )


@pytest.mark.parametrize("more", [1, 4096])
def test_over_long(store, more):
    size = store.stat().st_size
    store.write_bytes(store.read_bytes() + bytes(more))
    refused(store, f"is over-long: {size + more} bytes, its header says {size};")


def test_unfinished_file(path):
    corpus = make_corpus()
    with corpus.open(path) as writer:
        corpus.write_chunk(writer, 0)
    refused(work_path(path), "is unfinished; run the command that writes it again, it goes on where it was")


def test_one_shard_only(path):
    corpus = make_corpus()
    corpus.write(path, Shard(1, 2))
    (shard,) = path.parent.iterdir()
    assert shard.name == NAME + ".shard-2-of-2"
    refused(shard, "is shard 2/2 of a store; join the shards with `fairseq-bert-kd store merge`")
    reader = TopKReader(shard, shard=True)
    assert len(reader) == 4  # chunk 1 of 3
    assert pickle.loads(pickle.dumps(reader)).rows(1).tobytes() == reader.rows(1).tobytes()


def change_header(path, edit, digest=True):
    """Apply ``edit`` to the header's values; put its digest right when ``digest``."""
    content = path.read_bytes()
    prefix, size = content[:16], struct.unpack_from("<I", content, 12)[0]
    values = json.loads(content[32 : 32 + size])
    edit(values)
    area = json.dumps(values, ensure_ascii=False).encode().ljust(size)
    assert len(area) == size
    made = hashlib.blake2b(prefix + area, digest_size=16).digest() if digest else content[16:32]
    path.write_bytes(prefix + made + area + content[32 + size :])


def setter(*keys_and_value):
    *keys, last, value = keys_and_value

    def edit(values):
        for key in keys:
            values = values[key]
        values[last] = value

    return edit


def test_header_without_its_digest(store):
    change_header(store, setter("info", "teacher", "bert-large"), digest=False)
    refused(store, "is damaged: its header does not match the header's digest; copy it again or rebuild it")


def test_unknown_keys_are_left_alone(store):
    change_header(store, setter("a key of later", 1))
    change_header(store, setter("info", "another", [1]))
    assert TopKReader(store).info == random_info()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (setter("info", "k", "3"), "k must be int, got '3'"),
        (setter("info", "k", 99), "k=99 exceeds the dictionary of 20"),
        (setter("info", "k", 2), "the other fields give"),
        (setter("info", "teacher", "bert-large"), "info_digest is .* the other fields give"),
        (setter("info", "gold", True), "the other fields give"),
        (
            setter("info", "temperatures", [5.0, 1.0]),
            "temperatures must be positive, ascending and different",
        ),
        (setter("info", "temperatures", [1.0, 2.0]), "info_digest is"),
        (setter("info", "versions", None), "versions must be dict, got None"),
        (setter("info", {}), "temperatures"),
        (setter("info", []), ""),
        (setter("info", "x"), ""),
        (setter("rows", 28), "sections is|truncated"),
        (setter("rows", -1), "impossible counts"),
        (setter("sentences", 9), "has 9 sentences instead of 10"),
        (setter("sentences", None), "impossible counts"),
        (setter("corpus_sentences", 2**70), ""),
        (setter("shard", [1, 1]), "impossible counts"),
        (setter("shard", [0, 2]), "has 10 sentences instead of 6"),
        (setter("shard", [0]), "count"),
        (setter("value_kind", "probs"), "value_kind is 'probs', the other fields give 'logits'"),
        (setter("mask_plan", "random"), "mask_plan is 'random'"),
        (setter("digest", "md5"), "digest is 'md5'"),
        (setter("record", []), "record is"),
        (setter("record_bytes", 1), "record_bytes is 1"),
        (setter("sections", {}), "dictionary"),
        (setter("sections", "records", [0, 1]), "sections is"),
    ],
)
def test_header_that_contradicts_itself(store, edit, message):
    change_header(store, edit)
    refused(
        store, f"is damaged: its header cannot be understood .*{message}.*copy it again or rebuild it with"
    )


@pytest.mark.parametrize("text", [b"{oops", b"[1, 2]", b"\xff\xfe", b"null"])
def test_header_of_another_make(store, text):
    content = store.read_bytes()
    prefix, size = content[:16], struct.unpack_from("<I", content, 12)[0]
    area = text.ljust(size)
    made = hashlib.blake2b(prefix + area, digest_size=16).digest()
    store.write_bytes(prefix + made + area + content[32 + size :])
    refused(store, "is damaged: its header cannot be understood")


def test_finished_header_without_a_summary(store):
    change_header(store, setter("summary", None))
    refused(store, "is damaged")


@pytest.mark.parametrize(("place", "value"), [(0, 1), (10, 28), (10, -1), (10, 2**40)])
def test_index_that_does_not_cover_the_rows(store, place, value):
    layout, content = TopKReader(store).header.layout, bytearray(store.read_bytes())
    struct.pack_into("<q", content, layout.starts["offsets"] + 8 * place, value)
    store.write_bytes(content)
    refused(store, r"is damaged: its index runs from row \d+ to -?\d+, not 0 to 29; copy it again")


# ---------------------------------------------------------------- rows that are refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"topk_ids": [9, 10, 0]}, r"topk_ids must lie in the target dictionary of 10, got \[9, 10, 0\]"),
        ({"topk_ids": [9, 4, 4]}, r"topk_ids must differ, got \[9, 4, 4\]"),
        ({"topk_ids": [4, 9, 4]}, r"topk_ids must differ, got \[4, 9, 4\]"),
        ({"topk_logits": [0, np.nan, -2]}, "topk_logits must be finite in float16"),
        ({"topk_logits": [0, -1, -np.inf]}, "topk_logits must be finite in float16"),
        ({"topk_logits": [0, -2, -1]}, r"topk_logits must descend, got \[0.0, -2.0, -1.0\]"),
        ({"topk_logits": [0, 1, 2]}, "topk_logits must descend"),
        ({"topk_logits": [-1, -1, -2]}, "topk_logits must begin with 0, the best of the row"),
        ({"topk_logits": [1, -1, -2]}, "topk_logits must begin with 0"),
        (
            {"log_normalisers": 0.4},
            r"the log-normaliser at temperature 1 must be at least the stored tokens'",
        ),
        ({"log_normalisers": np.nan}, "the log-normaliser at temperature 1"),
        ({"log_normalisers": np.inf}, "the log-normaliser at temperature 1"),
        ({"gold_id": 10}, r"gold_id must lie in the target dictionary of 10, got 10"),
        (
            {"gold_id": 4, "gold_logit": -1.5},
            r"gold_logit must fit the stored logits, got -1.5",
        ),  # in the top k
        ({"gold_logit": -1.5}, "gold_logit must fit the stored logits"),  # outside, above the last one
        ({"gold_logit": np.nan}, "gold_logit must fit"),
        ({"gold_logit": -np.inf}, "gold_logit must fit"),
        ({"sample_ids": 10}, r"sample_ids must lie in the target dictionary of 10, got \[10\]"),
        ({"sample_ids": 4}, r"sample_ids must lie outside the stored tokens, got \[4\]"),
        ({"sample_ids": 3}, r"sample_ids must lie outside the stored tokens, got \[3\]"),  # the gold token
        ({"sample_logits": -1.5}, "sample_logits must be finite and at most the last stored one"),
        ({"sample_logits": np.nan}, "sample_logits must be finite"),
    ],
)
def test_faulty_rows(path, change, message):
    with TopKWriter(path, HAND_INFO, np.array([2, 1]), make_symbols(10)) as writer:
        before = work_path(path).read_bytes()
        with pytest.raises(ValueError, match=f"sentence 0, position 1: {message}"):
            writer.write_chunk(0, hand_data(**change))
        assert work_path(path).read_bytes() == before
        writer.write_chunk(0, hand_data())  # still free
        writer.finish()
    assert TopKReader(path).rows(0)["topk_ids"].tolist() == [[4, 5, 6], [9, 4, 0]]


def test_fault_names_the_sentence_in_the_corpus(path):
    corpus = make_corpus(missing=0.0)
    data = corpus.chunk(1)  # sentences 4 to 7 of 2, 4, 4 and 1 rows
    data.records["topk_ids"][5] = 0
    with (
        corpus.open(path) as writer,
        pytest.raises(ValueError, match="sentence 5, position 3: topk_ids must differ"),
    ):
        writer.write_chunk(1, data)


def test_fault_after_empty_and_missing_sentences(path):
    corpus = make_corpus([0, 2, 0, 3], missing=0.0)
    data = corpus.chunk(0)
    data.status[1] = NOT_FINITE
    data.records[:2] = 0
    data.records["topk_ids"][2] = 0
    with (
        corpus.open(path) as writer,
        pytest.raises(ValueError, match="sentence 3, position 0: topk_ids must differ"),
    ):
        writer.write_chunk(0, data)


def test_missing_sentence_with_rows(path):
    data = hand_data()
    data.status[0] = NOT_FINITE
    with pytest.raises(ValueError, match="sentence 0, position 0: a missing sentence must hold zeros"):
        write_hand(path, data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": np.array([0, 9], np.uint8)}, "sentence 1: unknown status 9"),
        (
            {"lengths": np.array([1, 2])},
            "chunk 0 has other lengths than the corpus; pass all rows of every sentence",
        ),
        ({"records": empty_records(2, HAND_INFO)}, "2 sentences of 3 rows do not fit arrays of .2, 2, 2, 2."),
        (
            {"hashes": {"source": np.zeros(3, np.uint64), "target": np.zeros(2, np.uint64)}},
            "do not fit arrays of",
        ),
        # 8 bytes per sentence would reach into the section behind
        ({"status": np.zeros(2, np.int64)}, "status"),
        ({"hashes": {"source": np.zeros(2, np.uint64), "target": np.zeros(2, np.float32)}}, "target_hashes"),
        ({"records": empty_records(3, random_info(65537))}, "record|dtype|field"),
    ],
)
def test_arrays_of_a_wrong_shape_or_type(path, change, message):
    data = replace(hand_data(), **change)
    writer = TopKWriter(path, HAND_INFO, np.array([2, 1]), make_symbols(10))
    with writer, pytest.raises((ValueError, TypeError), match=message):
        writer.write_chunk(0, data)


def test_rows_at_the_edge_are_taken(path):
    """Equal logits, a normaliser that is exactly the stored tokens', gold at the last logit."""
    data = hand_data(
        topk_logits=[0, 0, 0], log_normalisers=np.float32(np.log(3)), gold_logit=0, sample_logits=0
    )
    write_hand(path, data)
    assert TopKReader(path).rows(0)["gold_logit"].tolist() == [-1, 0]


# ---------------------------------------------------------------- info, lengths and symbols that are refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 21}, "k=21 exceeds the dictionary of 20 symbols; take a smaller k"),
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"k": True}, "k must be int, got True"),
        ({"passes": 0}, "passes must be at least 1, got 0"),
        ({"chunk_sentences": 0}, "chunk_sentences must be at least 1, got 0"),
        ({"samples": -1}, "samples must be at least 0, got -1"),
        ({"mask_ratio": 15.0}, "mask_ratio must be a share from 0 to 1, got 15.0"),
        ({"mask_ratio": float("nan")}, "mask_ratio must be a share from 0 to 1, got nan"),
        (
            {"temperatures": (5.0, 1.0)},
            r"temperatures must be positive, ascending and different, got \[5.0, 1.0\]",
        ),
        ({"temperatures": (1.0, 1.0)}, "temperatures must be"),
        ({"temperatures": (0.0,)}, "temperatures must be"),
        ({"temperatures": (float("inf"),)}, "temperatures must be"),
        ({"temperatures": (1,)}, "temperatures must be"),
        ({"temperatures": [1.0]}, "temperatures must be tuple, got"),
        ({"teacher": None}, "teacher must be str, got None"),
        ({"versions": ["2.0"]}, "versions must be dict, got"),
        ({"gold": 1}, "gold must be bool, got 1"),
        ({"dictionary_digest": "00"}, "symbols are not the dictionary that info describes"),
    ],
)
def test_impossible_info(path, changes, message):
    corpus = make_corpus()
    with pytest.raises(ValueError, match=message):
        Corpus(replace(corpus.info, **changes), corpus.lengths).open(path)
    assert not list(path.parent.iterdir())


def test_dictionary_beyond_int32(path):
    with pytest.raises(ValueError, match="dictionary_size must fit int32 ids, got 2147483649"):
        TopKWriter(path, replace(random_info(), dictionary_size=2**31 + 1), np.array([1]), [])


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([2, -1], "lengths must be .* not negative, got int64 of shape .2,., least -1"),
        ([[2, 1]], r"lengths must be .* got int64 of shape \(1, 2\)"),
        ([2.0, 1.0], "lengths must be .* got float64"),
    ],
)
def test_impossible_lengths(path, lengths, message):
    with pytest.raises(ValueError, match=message):
        TopKWriter(path, random_info(), np.array(lengths), make_symbols(20))
    assert not list(path.parent.iterdir())


def test_symbols_of_another_dictionary(path):
    symbols = make_symbols(20)
    for other in (symbols[:-1], [*symbols, "x"], symbols[::-1]):
        with pytest.raises(ValueError, match="symbols are not the dictionary that info describes"):
            TopKWriter(path, random_info(), np.array([1]), other)


def test_symbol_with_a_line_feed(path):
    symbols = [*make_symbols(19), "a\nb"]
    info = replace(random_info(), dictionary_digest=dictionary_digest(symbols))
    with pytest.raises(ValueError, match=r"must not hold a line feed, got 'a\\nb'; fix the dictionary"):
        TopKWriter(path, info, np.array([1]), symbols)


@pytest.mark.parametrize("odd", ["", " ", "\r", "\u2028", "\x00", "\udcff", "𝔘", "a" * 5000])
def test_odd_symbols_survive(path, odd):
    symbols = [*make_symbols(19), odd]
    info = replace(random_info(), dictionary_digest=dictionary_digest(symbols))
    with TopKWriter(path, info, np.array([], dtype=int), symbols) as writer:
        writer.finish()
    assert TopKReader(path).symbols() == symbols


# ---------------------------------------------------------------- names and digests


def test_store_path():
    assert store_path("data", "train", "de", "en") == Path("data/train.de-en.en.topk")


def test_dictionary_digest_depends_on_order_and_borders():
    expected = hashlib.sha256(b"\x01\0\0\0a\x02\0\0\0\xc3\xa9").hexdigest()
    assert dictionary_digest(iter(["a", "é"])) == expected
    assert len({dictionary_digest(s) for s in (["ab"], ["a", "b"], ["b", "a"], ["ab", ""])}) == 4


def test_digests_of_a_file_as_the_format_says(store):
    """Header, table and each chunk by hand, with nothing but struct, json and hashlib."""
    content = store.read_bytes()
    magic, version, size, digest = struct.unpack_from("<8sII16s", content)
    assert (magic, version) == (b"KDTOPK\r\n", 2)
    assert hashlib.blake2b(content[:16] + content[32 : 32 + size], digest_size=16).digest() == digest
    header = json.loads(content[32 : 32 + size])
    parts = {name: content[start:end] for name, (start, end) in header["sections"].items()}
    assert hashlib.blake2b(parts["chunk_table"], digest_size=16).hexdigest() == header["table_digest"]
    assert parts["dictionary"] == "".join(s + "\n" for s in make_symbols(20)).encode()
    info_text = json.dumps(header["info"], sort_keys=True, separators=(",", ":")).encode()
    info_digest = hashlib.blake2b(info_text, digest_size=16).digest()
    entry_bytes = TopKInfo(**header["info"]).table_dtype.itemsize
    offsets = struct.unpack(f"<{len(parts['offsets']) // 8}q", parts["offsets"])
    for chunk, first in enumerate(range(0, 10, 4)):
        last = min(first + 4, 10)
        entry = parts["chunk_table"][chunk * entry_bytes : (chunk + 1) * entry_bytes]
        made = hashlib.blake2b(info_digest + struct.pack("<q", chunk) + entry[16:], digest_size=16)
        made.update(b"".join(struct.pack("<i", offsets[i + 1] - offsets[i]) for i in range(first, last)))
        made.update(
            parts["source_hashes"][8 * first : 8 * last] + parts["target_hashes"][8 * first : 8 * last]
        )
        row = header["record_bytes"]
        made.update(
            parts["status"][first:last] + parts["records"][offsets[first] * row : offsets[last] * row]
        )
        assert made.digest() == entry[:16]


def test_header_is_as_large_in_an_unfinished_file(path):
    corpus = make_corpus(temperatures=tuple(float(t) for t in range(1, 40)))
    corpus.write(path)
    header = TopKReader(path).header
    unfinished = encode_header(replace(header, summary=None, table_digest=""))
    assert len(unfinished) == 32 + header.layout.header_bytes
    assert (32 + header.layout.header_bytes) % 4096 == 0
    assert new_digest().digest_size == 16
    assert os.path.getsize(path) == header.layout.file_bytes
