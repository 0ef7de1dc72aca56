"""Numbers that change over training: the teacher's weight and temperature."""

import math
from dataclasses import dataclass

SHAPES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class Schedule:
    """A value that goes from ``start`` to ``end`` over some updates, and stays there.

    With ``x = min(u / updates, 1)`` at update ``u`` (counted from the end of the warm-up): linear
    ``start + (end - start) x``; cosine ``start + (end - start) (1 - cos(pi x)) / 2``; constant ``start``.

    Attributes:
        start: first value.
        end: last value.
        shape: one of `SHAPES`.
        updates: number of updates from start to end, positive unless constant.
    """

    start: float
    end: float
    shape: str = "constant"
    updates: int = 0

    def value(self, update: int) -> float:
        """Scheduled value at an update, counted from 0."""
        if self.shape == "constant":
            return self.start
        if update >= self.updates:
            return self.end  # the formula may miss it by rounding
        x = max(update, 0) / self.updates
        if self.shape == "cosine":
            x = (1.0 - math.cos(math.pi * x)) / 2.0
        return self.start + (self.end - self.start) * x

    @property
    def constant(self) -> bool:
        """Whether the value never changes."""
        return self.shape == "constant" or self.start == self.end
