"""Opening a store of 2 GB: here, and in workers that get it by pickling.

The store is real (every byte written); fairseq's mmap dataset of the same size stands beside it.
"""

import os
import pickle
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.data import indexed_dataset

from benchmarks.child import in_new_process
from benchmarks.sparse import opening_seconds
from benchmarks.synthetic import TOKENS, make_info, write_store
from benchmarks.table import Row
from fairseq_bert_kd.storage.topk_store import TopKReader

GOAL_SECONDS = 0.010


def resident_bytes() -> int:
    """Of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_in_worker(pickled: bytes) -> float:
    """Seconds of unpickling, which opens the file; its modules are imported before."""
    started = time.perf_counter()
    reader = pickle.loads(pickled)
    seconds = time.perf_counter() - started
    assert len(reader) > 0
    return seconds


def seconds_in_worker(reader: Any, method: str) -> float:
    return in_new_process(open_in_worker, pickle.dumps(reader), method=method)


def write_host(prefix: Path, size: int) -> None:
    """fairseq's mmap dataset of that many bytes."""
    builder = indexed_dataset.MMapIndexedDatasetBuilder(f"{prefix}.bin", dtype=np.uint16)
    item = torch.zeros(1 << 20, dtype=torch.int64)
    for _ in range(size >> 21):
        builder.add_item(item)
    builder.finalize(f"{prefix}.idx")


def run(quick: bool) -> list[Row]:
    """Seconds and memory."""
    size = 20_000_000 if quick else 2_000_000_000
    with tempfile.TemporaryDirectory() as name:
        path, host = Path(name) / "store", Path(name) / "host"
        write_store(path, make_info(), size // (36 * TOKENS + 25))
        what = f"a store of {path.stat().st_size / 1e9:.2f} GB"
        before = resident_bytes()
        reader = TopKReader(path)
        grown = resident_bytes() - before
        times = opening_seconds(path)
        here = statistics.median(times)
        workers = {method: seconds_in_worker(reader, method) for method in ("spawn", "forkserver")}
        write_host(host, size)
        started = time.perf_counter()
        dataset = indexed_dataset.MMapIndexedDataset(str(host))
        theirs = time.perf_counter() - started
        theirs_in_worker = seconds_in_worker(dataset, "spawn")

    def row(text: str, seconds: float, goal: bool = True) -> Row:
        measured = f"{seconds * 1000:.2f} ms"
        limit = f"at most {GOAL_SECONDS * 1000:.0f} ms" if goal else "-"
        return Row("opening", text, measured, limit, seconds <= GOAL_SECONDS if goal else None)

    return [
        row(f"{what}, here (median of 20, worst {max(times) * 1000:.2f} ms)", here),
        *(row(f"{what}, in a {method} worker", seconds) for method, seconds in workers.items()),
        Row("opening", f"{what}: memory that opening takes", f"{grown / 1e6:.2f} MB", "-", None),
        row("fairseq's mmap dataset of the same size, warm cache, here", theirs, goal=False),
        row("the same in a spawn worker", theirs_in_worker, goal=False),
    ]
