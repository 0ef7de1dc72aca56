"""Times of several ways to do something, side by side."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch


def in_turns(ways: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round, by name; a first round, which pays one-time costs, is not counted.

    The ways take turns, in the other order in every other round, so that a drift of the machine cancels in a ratio of one
    round.
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name in reversed(ways) if turn % 2 else ways:  # type: ignore[call-overload]
            found[name].append(seconds(ways[name]))
    return {name: values[1:] for name, values in found.items()}


def seconds(work: Callable[[], Any]) -> float:
    """Time of one call and of what it started on a GPU; ``torch.utils.benchmark.Timer`` would call it three times."""
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Ratio of each round."""
    return [one / other for one, other in zip(numerators, denominators, strict=True)]
