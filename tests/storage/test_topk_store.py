"""Top-k store: what is written is read, in corpus order, and everything else is refused with a next step."""

import errno
import hashlib
import json
import multiprocessing
import os
import pickle
import struct
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_bert_kd.storage.topk_store import (
    MAGIC,
    StoreInfo,
    TopKReader,
    TopKWriter,
    check_alignment,
    dictionary_digest,
    store_path,
)

SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", "a", "b", "c", "d", "e", "f"]
INFO = StoreInfo(
    k=2,
    dictionary_size=10,
    dictionary_digest=dictionary_digest(SYMBOLS),
    split="train",
    source_lang="de",
    target_lang="en",
    passes=7,
    teacher="bert-base-multilingual-cased",
    teacher_digest="ab" * 32,
    mask_ratio=0.15,
    versions={"numpy": "2.0", "straße": "ü"},
)
# Three sentences of 2, 0 (missing) and 1 rows.
LENGTHS = [2, 0, 1]
SENTENCES, POSITIONS = [0, 0, 2], [0, 1, 0]
IDS = [[4, 5], [2, 9], [7, 0]]
LOGITS = [[-0.5, -1.0], [-0.25, -2.5], [-1.0, -1.0]]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "train.de-en.en.topk"


@pytest.fixture
def store(path):
    write_store(path)
    return path


def write_store(path, info=INFO, **options):
    with TopKWriter(path, info, LENGTHS, **options) as writer:
        writer.write(SENTENCES, POSITIONS, IDS, LOGITS)


def write_random(path, k, size, lengths, seed=0, chunk=3):
    """Rows in random order, ``chunk`` at a time; the ids and logits that were written, corpus order."""
    rng = np.random.default_rng(seed)
    rows = int(np.sum(lengths))
    sentences = np.repeat(np.arange(len(lengths)), lengths)
    positions = np.concatenate([np.arange(n) for n in lengths] or [np.zeros(0, dtype=int)])
    ids = rng.integers(size, size=(rows, k))
    logits = -np.sort(rng.exponential(4, size=(rows, k)).astype(np.float32), axis=1)
    order = rng.permutation(rows)
    with TopKWriter(path, replace(INFO, k=k, dictionary_size=size), lengths) as writer:
        for start in range(0, rows, chunk):
            part = order[start : start + chunk]
            writer.write(sentences[part], positions[part], ids[part], logits[part])
    return ids, logits.astype(np.float16)


def only_file(path):
    return [entry.name for entry in path.parent.iterdir()] == [path.name]


# Reading what was written


def test_round_trip_by_hand(store):
    reader = TopKReader(store)
    assert len(reader) == 3
    assert reader.info == INFO
    assert reader.lengths.dtype == np.int64
    assert reader.lengths.tolist() == [2, 0, 1]
    ids, logits = reader.rows(0)
    assert (ids.dtype, logits.dtype) == (np.uint16, np.float16)
    assert ids.tolist() == [[4, 5], [2, 9]]
    assert logits.tolist() == [[-0.5, -1.0], [-0.25, -2.5]]
    assert [part.shape for part in reader.rows(1)] == [(0, 2), (0, 2)]
    assert reader.rows(np.int64(2))[0].tolist() == [[7, 0]]
    assert only_file(store)


def test_missing_sentences_are_exposed(store):
    reader = TopKReader(store)
    assert [reader.is_missing(i) for i in range(3)] == [False, True, False]
    assert reader.missing_sentences == 1


def test_rows_are_read_only_views(store):
    ids, logits = TopKReader(store).rows(0)
    assert ids.base is not None
    for part in (ids, logits):
        with pytest.raises(ValueError, match="read-only"):
            part[0, 0] = 1


def test_bytes_of_the_documented_layout(store):
    content = store.read_bytes()
    magic, version, json_bytes = struct.unpack("<8sII", content[:16])
    header = json.loads(content[16 : 16 + json_bytes].decode("utf-8"))
    sections = header["sections"]
    assert (magic, version) == (b"KDTOPK\r\n", 1)
    assert header["versions"] == {"numpy": "2.0", "straße": "ü"}
    assert (header["rows"], header["sentences"], header["missing_sentences"]) == (3, 3, 1)
    assert (header["id_dtype"], header["logit_dtype"]) == ("uint16", "float16")
    assert header["value_kind"].startswith("logits minus the log-normaliser over the whole dictionary")
    assert (header["passes"], header["mask_ratio"], header["teacher_digest"]) == (7, 0.15, "ab" * 32)
    assert sections["offsets"] == -(-(16 + json_bytes) // 64) * 64
    assert sections["ids"] == sections["offsets"] + 64  # 4 int64 = 32 bytes
    assert sections["logits"] == sections["ids"] + 64  # 6 uint16 = 12 bytes
    assert not any(content[16 + json_bytes : sections["offsets"]])
    assert struct.unpack_from("<4q", content, sections["offsets"]) == (0, 2, 2, 3)
    assert struct.unpack_from("<6H", content, sections["ids"]) == (4, 5, 2, 9, 7, 0)
    assert struct.unpack_from("<6e", content, sections["logits"]) == (-0.5, -1, -0.25, -2.5, -1, -1)
    assert len(content) == sections["logits"] + 12


@pytest.mark.parametrize(
    ("k", "size", "dtype"),
    [(1, 7, np.uint16), (7, 7, np.uint16), (3, 65536, np.uint16), (3, 65537, np.int32), (1, 2**31, np.int32)],
)
def test_random_write_order_is_read_in_corpus_order(path, k, size, dtype):
    lengths = [3, 1, 0, 5, 2]
    ids, logits = write_random(path, k, size, lengths)
    reader = TopKReader(path)
    ends = np.cumsum(lengths)
    for i, (end, length) in enumerate(zip(ends, lengths, strict=True)):
        stored_ids, stored_logits = reader.rows(i)
        assert stored_ids.dtype == dtype
        np.testing.assert_array_equal(stored_ids, ids[end - length : end])
        np.testing.assert_array_equal(stored_logits, logits[end - length : end])


@pytest.mark.parametrize(("size", "largest"), [(65536, 65535), (65537, 65536)])
def test_largest_id_survives(path, size, largest):
    with TopKWriter(path, replace(INFO, k=1, dictionary_size=size), [1]) as writer:
        writer.write([0], [0], [[largest]], [[0.0]])
    assert TopKReader(path).rows(0)[0].tolist() == [[largest]]


@pytest.mark.parametrize("lengths", [[], [0], [0, 0]])
def test_store_without_rows(path, lengths):
    with TopKWriter(path, INFO, lengths) as writer:
        writer.write([], [], np.zeros((0, 2), dtype=np.int64), np.zeros((0, 2)))
    reader = TopKReader(path)
    assert len(reader) == reader.missing_sentences == len(lengths)
    assert [part.shape for part in reader.gather(range(len(lengths)), 3)] == [
        (len(lengths), 3, 2),
        (len(lengths), 3, 2),
        (len(lengths), 3),
    ]


def test_float16_keeps_half_a_percent_of_probability(path):
    logits = -np.linspace(0, 16, 4096)[None]
    with TopKWriter(path, replace(INFO, k=4096, dictionary_size=4096), [1]) as writer:
        writer.write([0], [0], np.arange(4096)[None], logits)
    stored = TopKReader(path).rows(0)[1].astype(np.float64)
    assert np.abs(np.exp(stored - logits) - 1).max() < 0.005


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 5), max_size=6),
    k=st.integers(1, 4),
    extra=st.sampled_from([0, 5, 65533, 65540]),
    chunk=st.integers(1, 7),
    seed=st.integers(0, 2**16),
)
def test_any_store_round_trips(lengths, k, extra, chunk, seed):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        ids, logits = write_random(path, k, k + extra, lengths, seed, chunk)
        reader = TopKReader(path)
        assert reader.lengths.tolist() == lengths
        read = [reader.rows(i) for i in range(len(lengths))]
        np.testing.assert_array_equal(np.concatenate([np.zeros((0, k)), *(pair[0] for pair in read)]), ids)
        np.testing.assert_array_equal(np.concatenate([np.zeros((0, k)), *(pair[1] for pair in read)]), logits)


# Mini-batches


def test_gather_by_hand(store):
    ids, logits, present = TopKReader(store).gather([2, 0, 1], width=3)
    assert (ids.dtype, logits.dtype, present.dtype) == (np.int32, np.float16, np.bool_)
    assert ids.tolist() == [[[7, 0], [0, 0], [0, 0]], [[4, 5], [2, 9], [0, 0]], [[0, 0], [0, 0], [0, 0]]]
    assert logits.tolist() == [
        [[-1, -1], [0, 0], [0, 0]],
        [[-0.5, -1], [-0.25, -2.5], [0, 0]],
        [[0, 0], [0, 0], [0, 0]],
    ]
    assert present.tolist() == [[True, False, False], [True, True, False], [False, False, False]]


@pytest.mark.parametrize("size", [50, 70000])
def test_gather_equals_the_rows_of_each_sentence(path, size):
    write_random(path, 3, size, [3, 1, 0, 5, 2])
    reader = TopKReader(path)
    batch = np.array([4, 3, 3, 2, 0])
    ids, logits, present = reader.gather(batch, width=6)
    for i, sentence in enumerate(batch):
        expected_ids, expected_logits = reader.rows(sentence)
        n = len(expected_ids)
        np.testing.assert_array_equal(ids[i, :n], expected_ids)
        np.testing.assert_array_equal(logits[i, :n], expected_logits)
        assert present[i].tolist() == [True] * n + [False] * (6 - n)
        assert not ids[i, n:].any()
        assert not logits[i, n:].any()


def test_gather_of_nothing(store):
    assert [part.shape for part in TopKReader(store).gather([], width=4)] == [(0, 4, 2), (0, 4, 2), (0, 4)]


def test_gather_refuses_to_cut_a_sentence(store):
    with pytest.raises(ValueError, match="sentence 0 has 2, got width 1; pass the padded target length"):
        TopKReader(store).gather([2, 0], width=1)


@pytest.mark.parametrize("index", [-1, 3])
def test_sentences_out_of_range(store, index):
    reader = TopKReader(store)
    for call in (reader.rows, reader.is_missing, lambda i: reader.gather([0, i], width=2)):
        with pytest.raises(IndexError, match=f"sentence {index} is not in top-k store .* of 3 sentences"):
            call(index)


# Other processes


def _rows_in_child(reader, queue):
    queue.put((reader.rows(0)[0].tolist(), reader.gather([2], 1)[1].tolist()))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_other_process_reads(store, method):
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_rows_in_child, args=(TopKReader(store), queue))
    child.start()
    assert queue.get(timeout=60) == ([[4, 5], [2, 9]], [[[-1.0, -1.0]]])
    child.join(timeout=60)
    assert child.exitcode == 0


def test_pickle_holds_the_path_only(store, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(store.parent)
    reader = TopKReader(store.name)
    assert reader.lengths.tolist() == [2, 0, 1]  # cached, must not travel
    pickled = pickle.dumps(reader)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    copy = pickle.loads(pickled)
    assert reader.__getstate__() == {"path": store}
    assert copy.rows(2)[0].tolist() == [[7, 0]]
    assert copy.info == INFO


# What the writer refuses


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 11}, r"k=11 exceeds the dictionary of 10 symbols; ask for less"),
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"passes": 0}, "passes must be at least 1, got 0"),
        ({"mask_ratio": 15.0}, "mask_ratio must be a share from 0 to 1, got 15.0"),
        ({"mask_ratio": float("nan")}, "mask_ratio must be a share from 0 to 1, got nan"),
        ({"dictionary_size": 2**31 + 1}, "dictionary_size must fit int32 ids"),
        ({"teacher": None}, "teacher must be str, got None"),
        ({"versions": ["2.0"]}, "versions must be dict, got"),
    ],
)
def test_impossible_info(path, changes, message):
    with pytest.raises(ValueError, match=message):
        TopKWriter(path, replace(INFO, **changes), LENGTHS)
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([2, -1], "lengths must be .* not negative, got shape .2,., least -1"),
        ([[2, 1]], r"lengths must be .* got shape \(1, 2\)"),
        ([2.0, 1.0], "lengths must be integers, got float64"),
    ],
)
def test_impossible_lengths(path, lengths, message):
    with pytest.raises(ValueError, match=message):
        TopKWriter(path, INFO, lengths)
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sentences": [0, 0, 3]}, "sentence_ids must lie in the 3 sentences of the store, got 3"),
        ({"sentences": [-1, 0, 2]}, "sentence_ids must lie in the 3 sentences of the store, got -1"),
        ({"positions": [0, 2, 0]}, "sentence 0 has 2 rows, got position 2"),
        ({"positions": [0, 1, -1]}, "sentence 2 has 1 rows, got position -1"),
        ({"sentences": [0, 1, 2], "positions": [0, 0, 0]}, "sentence 1 has 0 rows, got position 0"),
        ({"positions": [1, 1, 0]}, "a row is written once, got sentence 0, position 1 again"),
        (
            {"ids": [[4, 5], [2, 10], [7, 0]]},
            r"position 1: topk_ids must lie in the dictionary of 10;.*\[2, 10\]",
        ),
        ({"ids": [[-1, 5], [2, 9], [7, 0]]}, r"sentence 0, position 0: topk_ids must lie .*\[-1, 5\]"),
        ({"ids": [[4.0, 5.0]] * 3}, "topk_ids must be integers, got float64"),
        ({"logits": [[0, -1], [0, -np.inf], [0, -1]]}, "sentence 0, position 1: topk_logits must be finite"),
        ({"logits": [[0, -1], [0, -1], [np.nan, -1]]}, "sentence 2, position 0: topk_logits must be finite"),
        ({"logits": [[0, -1e5], [0, -1], [0, -1]]}, r"must be finite in float16; .*\[0.0, -100000.0\]"),
        (
            {"logits": [[0, -1], [0, -1], [-2, -1]]},
            r"sentence 2, position 0: topk_logits must descend; .*\[-2, -1\]",
        ),
        ({"logits": [[0.0], [0.0], [0.0]]}, r"must have shapes \(n,\), \(n,\), \(n, 2\), \(n, 2\), got"),
        ({"positions": [0, 1]}, r"must have shapes"),
    ],
)
def test_refused_rows_leave_nothing_written(path, change, message):
    good: dict[str, Any] = {"sentences": SENTENCES, "positions": POSITIONS, "ids": IDS, "logits": LOGITS}
    with TopKWriter(path, INFO, LENGTHS) as writer:
        with pytest.raises(ValueError, match=message):
            writer.write(*{**good, **change}.values())
        writer.write(*good.values())  # each row still free
    assert TopKReader(path).rows(0)[0].tolist() == [[4, 5], [2, 9]]


def test_row_of_an_earlier_call_is_not_written_again(path):
    with TopKWriter(path, INFO, LENGTHS) as writer:
        writer.write(SENTENCES, POSITIONS, IDS, LOGITS)
        with pytest.raises(
            ValueError, match="got sentence 2, position 0 again; check that the passes do not"
        ):
            writer.write([2], [0], [[1, 2]], [[0.0, -1.0]])
    assert TopKReader(path).rows(2)[0].tolist() == [[7, 0]]


def test_finish_names_the_first_row_that_was_not_written(path):
    writer = TopKWriter(path, INFO, LENGTHS)
    writer.write([0], [0], [[4, 5]], [[0.0, -1.0]])
    with pytest.raises(
        ValueError, match=r"2 of 3 rows were not written .* first sentence 0, position 1; score"
    ):
        writer.finish()
    writer.write([0], [1], [[2, 9]], [[0.0, -1.0]])
    with pytest.raises(ValueError, match=r"1 of 3 rows .* first sentence 2, position 0"):
        writer.finish()
    writer.write([2], [0], [[7, 0]], [[0.0, -1.0]])
    assert not path.exists()
    writer.finish()
    assert TopKReader(path).lengths.tolist() == [2, 0, 1]
    assert only_file(path)


def test_explicit_finish_inside_with(path):
    with TopKWriter(path, INFO, LENGTHS) as writer:
        writer.write(SENTENCES, POSITIONS, IDS, LOGITS)
        writer.finish()
        with pytest.raises(AssertionError, match="was finished or discarded"):
            writer.write([0], [0], [[4, 5]], [[0.0, -1.0]])
    assert len(TopKReader(path)) == 3


def test_incomplete_with_block_leaves_nothing(path):
    with pytest.raises(ValueError, match="3 of 3 rows were not written"), TopKWriter(path, INFO, LENGTHS):
        pass
    assert not list(path.parent.iterdir())


def test_exception_keeps_the_old_store(store):
    def interrupted():
        with TopKWriter(store, INFO, LENGTHS, overwrite=True) as writer:
            writer.write([0], [0], [[1, 1]], [[0.0, -9.0]])
            raise RuntimeError("out of memory")

    before = store.read_bytes()
    with pytest.raises(RuntimeError, match="out of memory"):
        interrupted()
    assert store.read_bytes() == before
    assert only_file(store)


def test_existing_store_is_replaced_only_when_asked(store):
    before = store.read_bytes()
    with pytest.raises(FileExistsError, match="exists; pass --overwrite to replace it"):
        TopKWriter(store, INFO, LENGTHS)
    assert store.read_bytes() == before
    write_store(store, replace(INFO, teacher="another"), overwrite=True)
    assert TopKReader(store).info.teacher == "another"
    assert only_file(store)


def test_store_that_appears_meanwhile_is_kept(path):
    writer = TopKWriter(path, INFO, LENGTHS)
    writer.write(SENTENCES, POSITIONS, IDS, LOGITS)
    path.write_bytes(b"of another process")
    with pytest.raises(FileExistsError, match="--overwrite"):
        writer.finish()
    writer.discard()
    assert path.read_bytes() == b"of another process"
    assert only_file(path)


def test_folder_in_place_of_a_file(tmp_path):
    with pytest.raises(FileExistsError, match="is a folder; choose a file name"):
        TopKWriter(tmp_path, INFO, LENGTHS, overwrite=True)
    with pytest.raises(FileNotFoundError, match=r"the folder of top-k store .* does not exist; run"):
        TopKWriter(tmp_path / "absent" / "store", INFO, LENGTHS)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve disk space")
def test_full_disk_is_found_at_the_start(path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        TopKWriter(path, INFO, LENGTHS)
    assert not list(path.parent.iterdir())


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve disk space")
def test_file_system_that_cannot_reserve(path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    write_store(path)
    assert len(TopKReader(path)) == 3


# What the reader refuses


def test_absent_store(path):
    with pytest.raises(FileNotFoundError, match="does not exist; write it with `fairseq-bert-kd dump`"):
        TopKReader(path)


@pytest.mark.parametrize("content", [b"", b"KDT", b"0.5 0.25\n", b"PK\x03\x04" + bytes(200)])
def test_not_a_store(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a top-k store: it begins with"):
        TopKReader(path)


def test_unfinished_file_is_not_a_store(path):
    writer = TopKWriter(path, INFO, LENGTHS)
    (temporary,) = path.parent.iterdir()
    with pytest.raises(ValueError, match="is not a top-k store"):
        TopKReader(temporary)
    writer.discard()
    assert not temporary.exists()


@pytest.mark.parametrize(
    ("version", "step"),
    [(2, "upgrade the package or rebuild it with `fairseq-bert-kd dump`"), (0, "rebuild it with")],
)
def test_other_version(store, version, step):
    content = store.read_bytes()
    store.write_bytes(MAGIC + struct.pack("<I", version) + content[12:])
    with pytest.raises(ValueError, match=f"format version {version}, this code reads version 1; {step}"):
        TopKReader(store)


@pytest.mark.parametrize("kept", [8, 15, 16, 100, -1, -13])
def test_truncated_at_any_place(store, kept):
    content = store.read_bytes()[:kept]
    store.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"is truncated: {len(content)} bytes, its header says \d+; copy it again"
    ):
        TopKReader(store)


def test_extended(store):
    size = store.stat().st_size
    store.write_bytes(store.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=f"is over-long: {size + 1} bytes, its header says {size};"):
        TopKReader(store)


def set_header(path, text):
    """Replace the JSON text and keep the rest of the file."""
    content = path.read_bytes()
    (json_bytes,) = struct.unpack_from("<I", content, 12)
    text = text.ljust(json_bytes)  # JSON allows spaces
    assert len(text) == json_bytes
    path.write_bytes(content[:16] + text + content[16 + json_bytes :])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{oops", "is damaged: it is not JSON"),
        (b"\xff\xfe", "is damaged: it is not JSON"),
        (b"[1, 2]", "is damaged: it is a JSON list, not an object"),
        (b'{"k": 2}', "is damaged: it lacks dictionary_size, dictionary_digest, split"),
    ],
)
def test_corrupt_header(store, text, message):
    set_header(store, text)
    with pytest.raises(ValueError, match=message + ".*rebuild it with `fairseq-bert-kd dump`"):
        TopKReader(store)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("k", "2", "k must be int, got '2'"),
        ("k", 11, "k=11 exceeds the dictionary of 10"),
        ("rows", -1, "rows is -1, not a count"),
        ("sentences", None, "sentences is None, not a count"),
        ("rows", 99, "sections is .* the other fields give|offsets run from 0 to 3, not 0 to 99|truncated"),
        ("id_dtype", "int32", "id_dtype is 'int32', the other fields give 'uint16'"),
        ("logit_dtype", "f4", "logit_dtype is 'f4', the other fields give 'float16'"),
        ("value_kind", "probs", "value_kind is 'probs', the other fields give 'logits minus"),
        ("sections", {}, "sections is {}, the other fields give"),
    ],
)
def test_header_that_contradicts_itself(store, field, value, message):
    content = store.read_bytes()
    (json_bytes,) = struct.unpack_from("<I", content, 12)
    header = json.loads(content[16 : 16 + json_bytes])
    header[field] = value
    set_header(store, json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode())
    with pytest.raises(ValueError, match=message):
        TopKReader(store)


def test_offsets_that_do_not_cover_the_rows(store):
    content = store.read_bytes()
    start = json.loads(content[16 : 16 + struct.unpack_from("<I", content, 12)[0]])["sections"]["offsets"]
    store.write_bytes(content[: start + 24] + struct.pack("<q", 9) + content[start + 32 :])
    with pytest.raises(ValueError, match="offsets run from 0 to 9, not 0 to 3"):
        TopKReader(store)


# Store and data


def aligned(reader, **changes):
    wanted = {
        "lengths": np.array([2, 4, 1], dtype=np.int32),
        "dictionary_size": 10,
        "dictionary_digest": INFO.dictionary_digest,
        "split": "train",
        "source_lang": "de",
        "target_lang": "en",
        "topk": 2,
    }
    check_alignment(reader, **{**wanted, **changes})


@pytest.mark.parametrize("topk", [1, 2])
def test_aligned_data_pass_and_a_missing_sentence_is_no_difference(store, topk):
    aligned(TopKReader(store), topk=topk)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": [2, 4]}, "is longer than the data: 3 sentences against 2; rebuild"),
        ({"lengths": [2, 4, 1, 1]}, "is shorter than the data: 3 sentences against 4; rebuild"),
        (
            {"lengths": [2, 4, 2]},
            r"has 1 rows for sentence 2, its target has 2 tokens .*\(1 sentences differ\)",
        ),
        (
            {"lengths": [0, 4, 2]},
            r"has 2 rows for sentence 0, its target has 0 tokens .*\(2 sentences differ\)",
        ),
        (
            {"dictionary_size": 11},
            "dictionary of 10 symbols, this one has 11; use that dictionary or rebuild",
        ),
        (
            {"dictionary_digest": "0" * 64},
            "another target dictionary of the same size .* this one 000000000000",
        ),
        ({"split": "valid"}, "was made for train de-en, the data are valid de-en; rebuild"),
        ({"source_lang": "en", "target_lang": "de"}, "was made for train de-en, the data are train en-de"),
        ({"topk": 3}, "holds the 2 best tokens, asked for 3; ask for 1 to 2 or rebuild"),
        ({"topk": 0}, "asked for 0"),
    ],
)
def test_data_of_another_store(store, changes, message):
    with pytest.raises(ValueError, match=message):
        aligned(TopKReader(store), **changes)


# Names


def test_store_path():
    assert store_path("data", "train", "de", "en") == Path("data/train.de-en.en.topk")


def test_dictionary_digest_depends_on_order_and_borders():
    expected = hashlib.sha256(b"\x01\0\0\0a\x02\0\0\0\xc3\xa9").hexdigest()
    assert dictionary_digest(iter(["a", "é"])) == expected
    assert len({dictionary_digest(s) for s in (["ab"], ["a", "b"], ["b", "a"], ["ab", ""])}) == 4
