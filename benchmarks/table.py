"""Rows of the benchmark tables, and how they are printed."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        benchmark: which one it belongs to.
        what: is measured.
        measured: with its unit and spread.
        goal: or "-".
        met: whether the goal is met; None without one.
    """

    benchmark: str
    what: str
    measured: str
    goal: str
    met: bool | None


def markdown(rows: Iterable[Row]) -> str:
    """A Markdown table."""
    verdict = {True: "yes", False: "no", None: "-"}
    lines = ["| benchmark | what | measured | goal | met |", "|---|---|---|---|---|"]
    lines += [f"| {r.benchmark} | {r.what} | {r.measured} | {r.goal} | {verdict[r.met]} |" for r in rows]
    return "\n".join(lines)
