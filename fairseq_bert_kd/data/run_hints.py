"""What a newcomer cannot know: lines for the log when a run begins. They cost no step any time and change nothing."""

import logging
import os
from collections.abc import Mapping

import torch

from fairseq_bert_kd import compat
from fairseq_bert_kd.storage.fairseq_data import IndexedTokens
from fairseq_bert_kd.storage.token_counts import unknown_share

logger = logging.getLogger(__name__)

MUCH_UNKNOWN = 0.01  # share of a side from which on it gets a warning; our own choice
_QUOTA = "/sys/fs/cgroup/cpu.max"  # of a container: microseconds of CPU time per period, or "max"


def log_unknown(name: str, sides: Mapping[str, IndexedTokens], unknown: Mapping[str, int]) -> None:
    """Log the share of each side that is the unknown symbol; a warning where it is much.

    Args:
        name: split, or part of one.
        sides: tokens by side.
        unknown: id of the unknown symbol by side; other sides are not counted.
    """
    shares = {side: unknown_share(tokens, unknown[side]) for side, tokens in sides.items() if side in unknown}
    if not shares:
        return
    listed = " and ".join(f"{100 * share:.2f} % of the {side} tokens" for side, share in shares.items())
    if max(shares.values()) < MUCH_UNKNOWN:
        logger.info("%s: %s are <unk>", name, listed)
        return
    logger.warning(
        "%s: %s are <unk>, pieces that the dictionary lacks: neither teacher nor student can tell them apart. Make the "
        "dictionary from more text, or from the tokenizer's whole vocabulary: fairseq-bert-kd tokenize --full-dictionary "
        "FILE, fairseq-preprocess --srcdict FILE (and --tgtdict FILE or --joined-dictionary)",
        name,
        listed,
    )


def say_first_line(log_interval: int | None) -> None:
    """Log when fairseq prints its first line of training; nothing where the interval is not known."""
    if log_interval is not None:
        logger.info(
            "the first line of training comes after %d updates (--log-interval), or at the end of the epoch",
            log_interval,
        )


def say_autocast(device: str, autocast: str) -> None:
    """Log that a CPU could train faster in bfloat16, where it has instructions for it and trains in float32."""
    if device == "cpu" and autocast == "none" and compat.cpu_has_bfloat16():
        logger.info("this CPU has instructions for bfloat16: --autocast bf16 trains most models faster")


def say_threads(device: str) -> None:
    """Log which number of OpenMP threads to try, where several run on CPUs that are busy or fewer than they are."""
    if device != "cpu":
        return
    threads, cpus = torch.get_num_threads(), usable_cpus()
    others = max(os.getloadavg()[0] - 1.0, 0.0)  # less ourselves
    better = fitting_threads(threads, cpus, others)
    if better < threads:
        logger.warning(
            "%d OpenMP threads run on %d CPUs of which other programs use about %.1f; threads that wait for each other slow "
            "every step down: try OMP_NUM_THREADS=%d",
            threads,
            cpus,
            min(others, cpus),
            better,
        )


def fitting_threads(threads: int, cpus: int, others: float) -> int:
    """Threads for which there are free CPUs, at least one and at most as many as there are.

    Args:
        threads: threads of this process.
        cpus: CPUs that it may use.
        others: how many of them other programs use, on average.
    """
    return min(threads, max(1, round(cpus - others)))


def usable_cpus(quota: str = _QUOTA) -> int:
    """CPUs that this process may use, by its affinity and its container's quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open(quota, encoding="ascii") as file:
            time, period = file.read().split()
        return max(1, min(cpus, int(time) // int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        return cpus
