"""Shuffled reads of single sentences: this store, the authors' shelve, and fairseq's memory map of the same bytes.

Every way reads the same sentences in the same order, the authors' a part of them, because it is slow. Ways take
turns, and a ratio is taken within a turn. Data that is read is touched: a view of a memory map costs nothing.

"bytes" gives the rows of a sentence as they are stored. fairseq's data set has no other form than an int64 tensor.
"decoded" gives int32 ids and float32 logits (the authors' own reader gives int64 ids and float32 logits).
Cold: all files are dropped from the page cache and opened anew, and opening counts. That is the guest's cache; on
a virtual machine the host may still hold the bytes. fairseq reads its whole files when it opens them.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.authors_format import AuthorsReader, write_authors_shelve
from benchmarks.synthetic import LONGEST, Corpus, forget, make_info, scratch, store_in, write_fairseq
from benchmarks.table import Row, spread
from fairseq_bert_kd.storage.header import record_dtype
from fairseq_bert_kd.storage.topk_store import TopKReader

K = 8
AUTHORS_K = 128  # their default
BATCH = 64  # sentences, of gather
GOAL_AUTHORS, GOAL_FAIRSEQ = 30, 1.0
_TURNS = 5
_RECORD = record_dtype(make_info(K))


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
    with scratch() as folder:
        ways = _prepare(folder, sentences, share)
        order = [int(i) for i in np.random.default_rng(2).permutation(sentences)]
        rates: dict[str, dict[str, list[float]]] = {}
        for turn in range(2 if quick else _TURNS):
            turned = ways[turn % len(ways) :] + ways[: turn % len(ways)]
            for way in turned:
                for state, rate in _rates(way, order).items():
                    rates.setdefault(state, {}).setdefault(way.name, []).append(rate)
    rows = []
    for state in ("warm", "cold", "cold, opening not counted"):
        rows += _rows_of(state, rates[state])
    return rows


def _prepare(folder: Path, sentences: int, share: float) -> list[Way]:
    ours, theirs, wide = store_in(folder), folder / "authors", folder / "authors-wide"
    Corpus(sentences, K).write(ours)
    reader = TopKReader(ours)
    write_fairseq(folder / "fairseq", reader)
    few = range(int(sentences * share))
    write_authors_shelve(theirs, (_pair(reader.rows(sentence)) for sentence in few))
    wide_corpus = folder / "wide"
    wide_corpus.mkdir()
    Corpus(len(few), AUTHORS_K).write(store_in(wide_corpus))
    wide_reader = TopKReader(store_in(wide_corpus))
    write_authors_shelve(wide, (_pair(wide_reader.rows(sentence)) for sentence in few))

    def shelve_way(name: str, path: Path, read: Callable[[Any, list[int]], None]) -> Way:
        files = sorted(path.parent.glob(f"{path.name}.*"))
        return Way(name, files, lambda: AuthorsReader(path, K), read, share)

    fairseq_files = [folder / "fairseq.bin", folder / "fairseq.idx"]
    return [
        Way("this store, bytes", [ours], lambda: TopKReader(ours), _read_bytes),
        Way("this store, decoded", [ours], lambda: TopKReader(ours), _read_decoded),
        Way(f"this store, gather of {BATCH}", [ours], lambda: TopKReader(ours), _read_batches),
        Way("fairseq, bytes", fairseq_files, lambda: _open_fairseq(folder / "fairseq"), _read_fairseq),
        Way("fairseq, decoded", fairseq_files, lambda: _open_fairseq(folder / "fairseq"), _decode_fairseq),
        shelve_way(f"authors', k={K} stored", theirs, _read_authors),
        shelve_way(f"authors', k={K} stored, weights_only off", theirs, _read_authors_pickled),
        shelve_way(f"authors', k={AUTHORS_K} stored", wide, _read_authors),
    ]


def _rates(way: Way, order: list[int]) -> dict[str, float]:
    """Sentences per second, in each state of the cache."""
    few = int(len(order) * way.share)
    order = [sentence for sentence in order if sentence < few]  # a part has the first sentences only
    forget(*way.files)
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
        "cold, opening not counted": count / (cold - ready),
        "warm": count / (warm - cold),
    }


def _rows_of(state: str, rates: dict[str, list[float]]) -> Iterable[Row]:
    for name, values in rates.items():
        yield Row("reads", f"{state}: {name}", f"{spread(values, '{:,.0f}')} sentences/s")
    against = [("bytes", "fairseq, bytes", GOAL_FAIRSEQ), ("decoded", "fairseq, decoded", GOAL_FAIRSEQ)]
    against += [("decoded", name, GOAL_AUTHORS) for name in rates if name.startswith("authors")]
    for form, other, goal in against:
        pairs = zip(rates[f"this store, {form}"], rates[other], strict=True)
        ratios = [ours / theirs for ours, theirs in pairs]
        judged = state != "cold, opening not counted"  # fairseq has read everything by then
        yield Row(
            "reads",
            f"{state}: this store, {form}, against {other}",
            f"{spread(ratios)} times",
            f"at least {goal:g}" if judged else "-",
            float(np.median(ratios)) >= goal if judged else None,
        )


# ---------------------------------------------------------------- the ways


def _read_bytes(reader: TopKReader, order: list[int]) -> None:
    for sentence in order:
        reader.rows(sentence).copy()


def _read_decoded(reader: TopKReader, order: list[int]) -> None:
    for sentence in order:
        _decode(reader.rows(sentence))


def _read_batches(reader: TopKReader, order: list[int]) -> None:
    for start in range(0, len(order), BATCH):
        reader.gather(order[start : start + BATCH], LONGEST)


def _open_fairseq(prefix: Path) -> Any:
    from fairseq.data.indexed_dataset import MMapIndexedDataset

    return MMapIndexedDataset(str(prefix))


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
