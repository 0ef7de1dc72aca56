"""Writing, verifying and merging stores of 1, 10 and 100 times the size, and what follows for large corpora.

Each step runs in a new process, which reports its peak resident memory above what it had before the step.
"""

import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.child import in_new_process
from benchmarks.memory import peak_growth
from benchmarks.sparse import sparse_opening_seconds
from benchmarks.synthetic import TOKENS, make_info, write_store
from benchmarks.table import Row
from fairseq_bert_kd.storage.merge import merge_shards
from fairseq_bert_kd.storage.shards import Shard, shard_path
from fairseq_bert_kd.storage.verify import verify_store

SHARDS = 4
PASSES, PAIR_TOKENS = 7, 2 * TOKENS  # for the estimate of the teacher's work
HOURS = 24  # that one shard may take
_PAIR_BYTES = 36 * TOKENS + 25  # rows; offset, two hashes and status


def write(folder: Path, sentences: int) -> None:
    write_store(folder / "whole", make_info(), sentences)


def write_shards(folder: Path, sentences: int) -> None:
    for index in range(SHARDS):
        write_store(folder / "merged", make_info(), sentences, Shard(index, SHARDS))


def verify(folder: Path, sentences: int) -> None:
    problems = verify_store(folder / "whole")
    assert not problems, problems


def merge(folder: Path, sentences: int) -> None:
    merge_shards([shard_path(folder / "merged", Shard(i, SHARDS)) for i in range(SHARDS)], folder / "merged")


STEPS: dict[str, Callable[[Path, int], None]] = {
    "write": write,
    "write shards": write_shards,
    "verify": verify,
    "merge": merge,
}


def measured(step: str, folder: Path, sentences: int) -> tuple[float, float]:
    """Seconds, and MiB above the start."""
    with tempfile.TemporaryDirectory() as warm_up:  # what is made once
        write(Path(warm_up), 1024)
    started = time.perf_counter()
    with peak_growth() as grown:
        STEPS[step](folder, sentences)
    return time.perf_counter() - started, grown[0]


def run(quick: bool) -> list[Row]:
    """A row for each step and size."""
    sizes = (1_000, 4_000) if quick else (10_000, 100_000, 1_000_000)
    rows, rates = [], {}
    first: dict[str, float] = {}
    for sentences in sizes:
        with tempfile.TemporaryDirectory() as name:
            for step in STEPS:
                seconds, grown = in_new_process(measured, step, Path(name), sentences)
                if step == "write shards":
                    continue
                rates[step] = sentences * TOKENS / seconds
                first.setdefault(step, rates[step])
                size = (Path(name) / ("merged" if step == "merge" else "whole")).stat().st_size
                rows.append(
                    Row(
                        "growth",
                        f"{step}: {sentences:,} sentences, {size / 1e6:,.0f} MB",
                        f"{size / seconds / 1e6:,.0f} MB/s, {rates[step]:,.0f} positions/s "
                        f"({rates[step] / first[step]:.2f} of the first); peak memory {grown:.0f} MiB above the start",
                        "-",
                        None,
                    )
                )
    LAST_RATES.update(rates)
    return rows


LAST_RATES: dict[str, float] = {}  # positions per second of the largest size of the last run


def sizing(tokens_per_second: float, device: str) -> str:
    """A Markdown table for 10^5 to 10^9 pairs, from the rates of the last run and the dump's.

    Args:
        tokens_per_second: of the dump, source and target.
        device: it was measured on.
    """
    lines = [
        f"Sizes and times for {TOKENS} target tokens a pair, k = 8, one temperature, {PASSES} passes over "
        f"{PAIR_TOKENS} tokens a pair at {tokens_per_second:,.0f} tokens/s ({device}); a shard is what one device "
        f"scores in {HOURS} h. Opening is measured, on a sparse file of that size. Verify ({_cores()} cores) and "
        f"merge (one core) are the rates above ({_mb_per_second('verify')} and {_mb_per_second('merge')} MB/s of "
        "store), measured on files in the page cache: a slower disk sets the time of a store larger than memory.",
        "",
        "| pairs | store | dump, device-hours | shards | open | verify | merge |",
        "|---|---|---|---|---|---|---|",
    ]
    for exponent in range(5, 10):
        pairs = 10**exponent
        positions, size = pairs * TOKENS, pairs * _PAIR_BYTES
        hours = pairs * PASSES * PAIR_TOKENS / tokens_per_second / 3600
        shards = max(math.ceil(hours / HOURS), 1)
        verify_time, merge_time = (_time(positions / LAST_RATES[step]) for step in ("verify", "merge"))
        merge_time = merge_time if shards > 1 else "-"
        with tempfile.TemporaryDirectory() as folder:
            opening = sparse_opening_seconds(Path(folder), pairs)
        open_time = "-" if opening is None else f"{opening * 1000:.1f} ms"
        lines.append(
            f"| 10^{exponent} | {_bytes(size)} | {hours:,.1f} | {shards:,} | {open_time} | {verify_time} | {merge_time} |"
        )
    return "\n".join(lines)


def _mb_per_second(step: str) -> str:
    return f"{LAST_RATES[step] / TOKENS * _PAIR_BYTES / 1e6:,.0f}"


def _cores() -> int:
    """Cores that this process may use, as `verify_store` counts them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _bytes(size: float) -> str:
    unit = next(u for u, limit in (("MB", 1e9), ("GB", 1e12), ("TB", math.inf)) if size < limit)
    return f"{size / {'MB': 1e6, 'GB': 1e9, 'TB': 1e12}[unit]:,.1f} {unit}"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
