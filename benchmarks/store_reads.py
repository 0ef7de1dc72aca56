"""Shuffled reads of single sentences: this store, the authors' shelve, and fairseq's memory map of the same bytes.

Every way reads the same sentences in the same order, the authors' a part of them, because it is slow. Ways take
turns, and a ratio is taken within a turn. Data that is read is touched: a view of a memory map costs nothing.

"bytes" gives the rows of a sentence as they are stored. fairseq's data set has no other form than an int64 tensor.
"decoded" gives int32 ids and float32 logits (the authors' own reader gives int64 ids and float32 logits).
Cold: all files are dropped from the page cache and opened anew, and opening counts. That is the guest's cache; on
a virtual machine the host may still hold the bytes. fairseq reads its whole files when it opens them.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.data.indexed_dataset import MMapIndexedDataset, MMapIndexedDatasetBuilder

from benchmarks.authors_format import AuthorsReader, write_authors_shelve
from benchmarks.synthetic import TOKENS, make_info, write_store
from benchmarks.table import Row
from fairseq_bert_kd.storage.topk_store import TopKReader

K = 8
AUTHORS_K = 128  # their default
BATCH = 64  # sentences, of gather_records
GOAL_AUTHORS, GOAL_FAIRSEQ = 30, 1.0
_TURNS = 5
_RECORD = make_info(K).record_dtype
_NO_OPENING = "cold, opening not counted"


@dataclass(frozen=True)
class Way:
    """How to open and to read.

    Attributes:
        name: for the table.
        files: to be dropped from the cache.
        open: opens them.
        read: reads sentences in an order; given what ``open`` gave.
        share: of the sentences that are read.
    """

    name: str
    files: list[Path]
    open: Callable[[], Any]
    read: Callable[[Any, list[int]], None]
    share: float = 1.0


def run(quick: bool) -> list[Row]:
    """Rates of all ways, and this store's against the others."""
    sentences, share = (400, 0.25) if quick else (20_000, 0.1)
    with tempfile.TemporaryDirectory() as name:
        ways = _prepare(Path(name), sentences, share)
        order = np.random.default_rng(2).permutation(sentences).tolist()
        rates: dict[str, dict[str, list[float]]] = {}
        for turn in range(2 if quick else _TURNS):
            first = turn % len(ways)
            for way in ways[first:] + ways[:first]:
                for state, rate in _rates(way, order).items():
                    rates.setdefault(state, {}).setdefault(way.name, []).append(rate)
    return [row for state in ("warm", "cold", _NO_OPENING) for row in _rows_of(state, rates[state])]


def _prepare(folder: Path, sentences: int, share: float) -> list[Way]:
    ours, wide, few = folder / "ours", folder / "wide", int(sentences * share)
    write_store(ours, make_info(K), sentences)
    write_store(wide, make_info(AUTHORS_K), few)
    _write_fairseq(folder / "fairseq", TopKReader(ours))
    for path, name in ((ours, "authors"), (wide, "authors-wide")):
        reader = TopKReader(path)
        write_authors_shelve(folder / name, (_pair(reader.rows(sentence)) for sentence in range(few)))

    def own(form: str, read: Callable[[Any, list[int]], None]) -> Way:
        return Way(f"this store, {form}", [ours], lambda: TopKReader(ours), read)

    def host(form: str, read: Callable[[Any, list[int]], None]) -> Way:
        prefix = folder / "fairseq"
        files = [Path(f"{prefix}.bin"), Path(f"{prefix}.idx")]
        return Way(f"fairseq, {form}", files, lambda: MMapIndexedDataset(str(prefix)), read)

    def authors(form: str, name: str, read: Callable[[Any, list[int]], None]) -> Way:
        files = sorted(folder.glob(f"{name}.*"))
        assert files, name
        return Way(f"authors', {form}", files, lambda: AuthorsReader(folder / name, K), read, share)

    return [
        own("bytes", _read_bytes),
        own("decoded", _read_decoded),
        own(f"gather of {BATCH}", _read_batches),
        host("bytes", _read_fairseq),
        host("decoded", _decode_fairseq),
        authors(f"{K} stored", "authors", _read_authors),
        authors(f"{K} stored, weights_only off", "authors", _read_authors_pickled),
        authors(f"{AUTHORS_K} stored, {K} kept", "authors-wide", _read_authors),
        authors(f"{AUTHORS_K} stored, {K} kept, weights_only off", "authors-wide", _read_authors_pickled),
    ]


def _rates(way: Way, order: list[int]) -> dict[str, float]:
    """Sentences per second, in each state of the cache."""
    few = int(len(order) * way.share)
    order = [sentence for sentence in order if sentence < few]  # a part has the first sentences only
    _forget(way.files)
    start = time.perf_counter()
    opened = way.open()
    ready = time.perf_counter()
    way.read(opened, order)
    cold = time.perf_counter()
    way.read(opened, order)
    warm = time.perf_counter()
    if isinstance(opened, AuthorsReader):
        opened.close()
    count = len(order)
    return {
        "cold": count / (cold - start),
        _NO_OPENING: count / (cold - ready),
        "warm": count / (warm - cold),
    }


def _rows_of(state: str, rates: dict[str, list[float]]) -> Iterator[Row]:
    for name, values in rates.items():
        yield Row("reads", f"{state}: {name}", f"{_spread(values, ',.0f')} sentences/s", "-", None)
    against = [(form, f"fairseq, {form}", GOAL_FAIRSEQ) for form in ("bytes", "decoded")]
    against += [("decoded", name, GOAL_AUTHORS) for name in rates if name.startswith("authors")]
    for form, other, goal in against:
        pairs = zip(rates[f"this store, {form}"], rates[other], strict=True)
        ratios = [ours / theirs for ours, theirs in pairs]
        judged = state != _NO_OPENING  # fairseq has read everything by then
        yield Row(
            "reads",
            f"{state}: this store, {form}, over {other}",
            f"{_spread(ratios, '.2f')} times",
            f"at least {goal:g}" if judged else "-",
            statistics.median(ratios) >= goal if judged else None,
        )


def _spread(values: list[float], form: str) -> str:
    middle = statistics.median(values)
    return f"{middle:{form}} ({min(values):{form}} to {max(values):{form}})"


# ---------------------------------------------------------------- the ways


def _forget(files: list[Path]) -> None:
    """Drop files from the page cache."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # a page that is not on disk stays
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _write_fairseq(prefix: Path, reader: TopKReader) -> None:
    """The store's record bytes as fairseq's indexed data set of uint16."""
    builder = MMapIndexedDatasetBuilder(f"{prefix}.bin", dtype=np.uint16)
    for sentence in range(len(reader)):
        builder.add_item(torch.from_numpy(reader.rows(sentence).copy().view(np.uint16)))
    builder.finalize(f"{prefix}.idx")


def _read_bytes(reader: TopKReader, order: list[int]) -> None:
    for sentence in order:
        reader.rows(sentence).copy()


def _read_decoded(reader: TopKReader, order: list[int]) -> None:
    for sentence in order:
        _decode(reader.rows(sentence))


def _read_batches(reader: TopKReader, order: list[int]) -> None:
    for start in range(0, len(order), BATCH):
        reader.gather_records(order[start : start + BATCH], TOKENS)


def _read_fairseq(dataset: Any, order: list[int]) -> None:
    for sentence in order:
        dataset[sentence]


def _decode_fairseq(dataset: Any, order: list[int]) -> None:
    for sentence in order:
        _decode(dataset[sentence].numpy().astype(np.uint16).view(_RECORD))


def _read_authors(reader: AuthorsReader, order: list[int]) -> None:
    for sentence in order:
        reader.rows(sentence)


def _read_authors_pickled(reader: AuthorsReader, order: list[int]) -> None:
    """As torch before 2.6 does it by default, faster; the data was made here and is safe to unpickle."""
    load = torch.load
    torch.load = lambda file: load(file, weights_only=False)
    try:
        _read_authors(reader, order)
    finally:
        torch.load = load


def _decode(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return records["topk_ids"].astype(np.int32), records["topk_logits"].astype(np.float32)


def _pair(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits and ids in the authors' types."""
    return records["topk_logits"].copy(), records["topk_ids"].astype(np.int64)
