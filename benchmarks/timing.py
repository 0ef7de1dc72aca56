"""Times of several ways to do something, side by side."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

Clock = Callable[[], float]


def in_turns(
    ways: Mapping[str, Callable[[], Any]], rounds: int, clock: Clock = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each way in each round, by name; a first round, which pays one-time costs, is not counted.

    The ways take turns, in the other order in every other round, so that a drift of the machine cancels in a ratio of one
    round.
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name in reversed(ways) if turn % 2 else ways:  # type: ignore[call-overload]
            found[name].append(seconds(ways[name], clock))
    return {name: values[1:] for name, values in found.items()}


def processor_clock(device: str) -> Clock:
    """Processor time of this process, of all its threads; on a GPU the time on the clock."""
    return time.perf_counter if device == "cuda" else time.process_time


def seconds(work: Callable[[], Any], clock: Clock = time.perf_counter) -> float:
    """Time of one call and of what it started on a GPU; ``torch.utils.benchmark.Timer`` would call it three times.

    ``time.process_time`` as the clock counts the processor's seconds, which other work on the machine hardly moves.
    """
    started = clock()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - started


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Ratio of each round."""
    return [one / other for one, other in zip(numerators, denominators, strict=True)]
