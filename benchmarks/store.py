"""The store: bytes per target position, the time to open 2 GB, and shuffled reads beside fairseq's memory map.

Both sides read the same sentences in the same order from the page cache, in turns, and a ratio is of one turn.
"bytes" gives the rows of a sentence as they are stored, which fairseq's data set returns as an int64 tensor;
"decoded" gives int32 ids and float32 logits.
"""

import pickle
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.data.indexed_dataset import MMapIndexedDataset, MMapIndexedDatasetBuilder
from torch.utils.benchmark import Timer

from benchmarks.child import in_new_process
from benchmarks.synthetic import TOKENS, make_info, write_store
from benchmarks.table import Row, spread
from fairseq_bert_kd.storage.topk_store import TopKReader

K = (8, 64, 128)
GOAL_BYTES = 36  # with k=8: 8 ids and 8 logits of 16 bits, one normaliser of 32
GOAL_SECONDS = 0.010  # to open
TURNS = 5


def run(quick: bool) -> list[Row]:
    """Rows of bytes, opening and reads."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [
            *bytes_per_position(folder, 300 if quick else 5_000),
            *opening(folder, 20_000_000 if quick else 2_000_000_000),
            *reads(folder, 400 if quick else 20_000, 2 if quick else TURNS),
        ]


def bytes_per_position(folder: Path, sentences: int) -> list[Row]:
    """Exact sizes of a record alone, and of everything that grows with the corpus."""
    rows = []
    for k in K:
        path = folder / f"bytes-{k}"
        write_store(path, make_info(k), sentences)
        layout, positions = TopKReader(path).header.layout, sentences * TOKENS
        record = (layout.ends["records"] - layout.starts["records"]) / positions
        goal, met = (f"at most {GOAL_BYTES}", record <= GOAL_BYTES) if k == 8 else ("-", None)
        rows.append(Row("store", f"k={k}: bytes per record", f"{record:g}", goal, met))
        growing = (layout.file_bytes - layout.starts["offsets"]) / positions
        what = (
            f"k={k}: bytes per position with index, hashes and chunk table, {TOKENS} positions per sentence"
        )
        rows.append(Row("store", what, f"{growing:.2f}", "-", None))
    return rows


def open_pickled(pickled: bytes) -> float:
    """Median seconds of unpickling a reader, which opens its file, as a data loader's worker does."""
    return Timer("loads(pickled)", globals={"loads": pickle.loads, "pickled": pickled}).timeit(20).median


def opening(folder: Path, size: int) -> list[Row]:
    """Time to open a store of ``size`` bytes, here and in a new process."""
    path = folder / "large"
    write_store(path, make_info(), size // (36 * TOKENS + 25))
    what = f"opening {path.stat().st_size / 1e9:.2f} GB"
    here = Timer("TopKReader(path)", globals={"TopKReader": TopKReader, "path": path}).timeit(20).median
    there = in_new_process(open_pickled, pickle.dumps(TopKReader(path)))
    path.unlink()
    return [
        Row("store", f"{what}, {where}", f"{seconds * 1000:.2f} ms", f"at most {GOAL_SECONDS * 1000:.0f} ms",
            seconds <= GOAL_SECONDS)
        for where, seconds in (("here", here), ("in a spawned worker", there))
    ]  # fmt: skip


def reads(folder: Path, sentences: int, turns: int) -> list[Row]:
    """Sentences per second of each way, and the store's rate over fairseq's."""
    write_store(folder / "ours", make_info(), sentences)
    ours = TopKReader(folder / "ours")
    theirs = write_fairseq(folder / "fairseq", ours)
    dtype = ours.rows(0).dtype
    order = np.random.default_rng(2).permutation(sentences).tolist()
    ways: dict[str, Callable[[int], Any]] = {
        "this store, bytes": lambda sentence: ours.rows(sentence).copy(),
        "fairseq, bytes": lambda sentence: theirs[sentence],
        "this store, decoded": lambda sentence: decode(ours.rows(sentence)),
        "fairseq, decoded": lambda sentence: decode(theirs[sentence].numpy().astype(np.uint16).view(dtype)),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, read in ways.items():
            timer = Timer("for sentence in order: read(sentence)", globals={"order": order, "read": read})
            rates[name].append(sentences / timer.timeit(1).median)
    rows = [
        Row("store", f"reads: {name}", f"{spread(r, ',.0f')} sentences/s", "-", None)
        for name, r in rates.items()
    ]
    for form in ("bytes", "decoded"):
        pairs = zip(rates[f"this store, {form}"], rates[f"fairseq, {form}"], strict=True)
        ratios = [one / other for one, other in pairs]
        what = f"reads: this store over fairseq, {form}"
        rows.append(Row("store", what, spread(ratios, ".2f"), "at least 1", statistics.median(ratios) >= 1))
    return rows


def write_fairseq(prefix: Path, reader: TopKReader) -> MMapIndexedDataset:
    """The store's record bytes as fairseq's indexed data set of uint16."""
    builder = MMapIndexedDatasetBuilder(f"{prefix}.bin", dtype=np.uint16)
    for sentence in range(len(reader)):
        builder.add_item(torch.from_numpy(reader.rows(sentence).copy().view(np.uint16)))
    builder.finalize(f"{prefix}.idx")
    return MMapIndexedDataset(str(prefix))


def decode(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return records["topk_ids"].astype(np.int32), records["topk_logits"].astype(np.float32)
