"""Rows of the benchmark tables, and how they are printed."""

import enum
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class Length(enum.Enum):
    """How long a benchmark may take.

    ``QUICK`` checks within seconds that it runs. ``SHORT`` has the rows with a goal, and on a GPU `step`, `dump` and
    `teacher-training` together are meant to take at most three minutes. ``FULL`` has all rows.
    """

    QUICK = "quick"
    SHORT = "short"
    FULL = "full"


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        benchmark: name of its benchmark.
        what: what is measured.
        measured: figure with its unit and spread.
        goal: the goal, or "-".
        met: whether the goal is met; None without a goal.
    """

    benchmark: str
    what: str
    measured: str
    goal: str = "-"
    met: bool | None = None


def at_most(benchmark: str, what: str, values: Sequence[float], goal: float, form: str = ".2f") -> Row:
    """The row of a figure whose median should be at most ``goal``."""
    met = statistics.median(values) <= goal
    return Row(benchmark, what, spread(values, form), f"at most {goal:g}", met)


def at_least(benchmark: str, what: str, values: Sequence[float], goal: float) -> Row:
    """The row of a figure whose median should be at least ``goal``."""
    met = statistics.median(values) >= goal
    return Row(benchmark, what, spread(values, ".2f"), f"at least {goal:g}", met)


def markdown(rows: Iterable[Row]) -> str:
    """A Markdown table."""
    verdict = {True: "yes", False: "no", None: "-"}
    lines = ["| benchmark | what | measured | goal | met |", "|---|---|---|---|---|"]
    lines += [f"| {r.benchmark} | {r.what} | {r.measured} | {r.goal} | {verdict[r.met]} |" for r in rows]
    return "\n".join(lines)


def spread(values: Sequence[float], form: str) -> str:
    """Median, number, least and greatest of some values."""
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{statistics.median(values):{form}} (median of {len(values)}, {min(values):{form}} to {max(values):{form}})"
