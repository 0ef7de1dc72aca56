"""Index arithmetic beyond 2 and 4 GiB, in sparse files: holes but for a few rows, so they take no real disk."""

import os
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fairseq_bert_kd.storage.topk_store import TopKReader
from tests.storage.small_stores import NAME, random_info, random_records, write_sparse

GIB = 2**30


class Sparse(NamedTuple):
    """An open sparse store and the rows in it that are not zero, by place."""

    reader: TopKReader
    known: dict[int, np.ndarray]


def sparse_store(path, info, lengths, rows):
    """A store of these sentences whose ``rows`` hold something."""
    offsets = np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=object))])
    header = write_sparse(path, info, len(lengths), int(offsets[-1]), dict(enumerate(offsets)))
    record = info.record_dtype
    known = {row: random_records(info, 1, np.random.default_rng([row % 2**32, row >> 32])) for row in rows}
    with open(path, "r+b") as file:
        for row, content in known.items():
            os.pwrite(
                file.fileno(), content.tobytes(), header.layout.starts["records"] + row * record.itemsize
            )
    assert os.stat(path).st_blocks * 512 < 4 << 20  # no real disk
    return Sparse(TopKReader(path), known)


def assert_rows(store, lengths):
    """The reader's rows of every sentence are those that were written, at Python's own sums of lengths."""
    first = 0
    for sentence, length in enumerate(lengths):
        rows = store.reader.rows(sentence)
        assert len(rows) == length
        inside = sorted(row for row in store.known if first <= row < first + length)
        for row in inside:
            assert rows[row - first].tobytes() == store.known[row].tobytes()
        for row in {first, first + length - 1, first + length // 2} - set(inside):
            if first <= row < first + length:
                assert not any(rows[row - first].tobytes())
        first += length


def edges(record_bytes, start, total):
    """Rows before, across and after 2^31, 2^32 and 2^33 bytes of the file, and rows of those numbers."""
    rows = {0, total - 1}
    for power in (31, 32, 33):
        rows.update((2**power - start) // record_bytes + step for step in range(-2, 3))
        rows.update(2**power + step for step in (-1, 0, 1))
        rows.update(2**power // record_bytes + step for step in (-1, 0, 1))
    return sorted(row for row in rows if 0 <= row < total)


@pytest.mark.parametrize(("k", "gold"), [(8, False), (1, True), (3, False)])
def test_rows_at_every_edge(tmp_path, k, gold):
    info = random_info(k=k, gold=gold)
    record = info.record_dtype.itemsize
    total = 2**33 // record * 3
    lengths = [2**28] * (total // 2**28) + [5, 0, 3]
    layout = write_sparse(tmp_path / NAME, info, len(lengths), sum(lengths), {}).layout
    rows = edges(record, layout.starts["records"], sum(lengths))
    store = sparse_store(tmp_path / NAME, info, lengths, rows)
    assert os.path.getsize(tmp_path / NAME) > 4 * GIB
    assert_rows(store, lengths)
    assert store.reader.lengths.tolist() == lengths


@pytest.mark.parametrize("k", [1, 8])
def test_gather_at_every_edge(tmp_path, k):
    """Short sentences that lie across the edges, long ones between them."""
    info = random_info(k=k)
    record = info.record_dtype.itemsize
    path = tmp_path / NAME
    lengths, short, first = [], [], 0
    for edge in [2**31 // record, 2**32 // record, 2**31, 2**32, 2**33]:
        if edge - 2 > first:
            lengths.append(edge - 2 - first)
        short += [len(lengths), len(lengths) + 1]
        lengths += [5, 2]
        first = sum(lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    rows = [int(starts[i]) + j for i in short for j in range(lengths[i])]
    store = sparse_store(path, info, lengths, rows)
    order = [short[i] for i in np.random.default_rng(0).permutation(len(short))] + short[:2]
    records, present = store.reader.gather_records(order, 6)
    for i, sentence in enumerate(order):
        assert present[i].tolist() == [True] * lengths[sentence] + [False] * (6 - lengths[sentence])
        for j in range(lengths[sentence]):
            expected = store.known[int(starts[sentence]) + j]
            assert records[i, j].tobytes() == expected[0].tobytes()
    assert_rows(store, lengths)


@settings(max_examples=60, deadline=None)
@example(lengths=[2**28] * 6, places=[0.5], k=3)
@given(
    lengths=st.lists(st.one_of(st.integers(0, 9), st.integers(0, 2**28)), min_size=1, max_size=40).filter(
        any
    ),
    places=st.lists(st.floats(0, 1, exclude_max=True), max_size=6),
    k=st.integers(1, 9),
)
def test_any_lengths(tmp_path_factory, lengths, places, k):
    path = tmp_path_factory.mktemp("sparse") / NAME
    total = sum(lengths)
    store = sparse_store(
        path, random_info(k=k), lengths, {int(place * total) for place in places} | {0, total - 1}
    )
    try:
        assert_rows(store, lengths)
        assert store.reader.lengths.tolist() == lengths
        short = [i for i, length in enumerate(lengths) if length <= 9]
        records, present = store.reader.gather_records(short, 9)
        for i, sentence in enumerate(short):
            rows = store.reader.rows(sentence)
            assert records[i, : len(rows)].tobytes() == rows.tobytes()
            assert present[i].sum() == len(rows)
    finally:
        path.unlink()


def test_more_sentences_than_32_bits_of_offsets(tmp_path):
    """An index of 8 GiB: its last entries lie beyond 2^32 bytes themselves."""
    sentences, path = 2**30, tmp_path / NAME
    last = sentences - 3
    write_sparse(path, random_info(), sentences, 7, {last: 0, last + 1: 2, last + 2: 3, last + 3: 7})
    reader = TopKReader(path)
    assert reader.header.layout.starts["source_hashes"] > 2**33
    assert [len(reader.rows(i)) for i in (0, last, last + 1, last + 2)] == [0, 2, 1, 4]
    layout = reader.header.layout
    with open(path, "r+b") as file:
        os.pwrite(file.fileno(), np.uint64(77).tobytes(), layout.starts["target_hashes"] + 8 * (last + 2))
        os.pwrite(file.fileno(), b"\x02", layout.starts["status"] + last + 1)
        rows = random_records(reader.info, 7, np.random.default_rng(0))
        os.pwrite(file.fileno(), rows.tobytes(), layout.starts["records"])
    assert reader.hashes(last + 2) == {"source": 0, "target": 77}
    assert [reader.status(i) for i in (last, last + 1, last + 2)] == [0, 2, 0]
    records, present = reader.gather_records(np.array([last + 2, last + 1, last]), 4)
    assert present.sum(axis=1).tolist() == [4, 0, 2]
    assert records[0].tobytes() == rows[3:].tobytes()
    assert records[2, :2].tobytes() == rows[:2].tobytes()
    with pytest.raises(IndexError, match=f"sentence {sentences} is not in"):
        reader.rows(sentences)
