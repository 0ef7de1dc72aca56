"""Times of an experiment's steps, the runs of a system in one row."""

from collections.abc import Iterable
from typing import NamedTuple

from fairseq_bert_kd.report.experiment import Step

_BY_SEED = ("students/", "outputs/")


class StepRow(NamedTuple):
    """Steps of a kind.

    Attributes:
        name: of the step; without seed and subset for students and their outputs.
        times: what tells the steps apart ("1", "1.test"; "" for a single step) and seconds.
    """

    name: str
    times: list[tuple[str, float]]

    @property
    def total(self) -> float:
        return sum(seconds for _, seconds in self.times)


def step_rows(steps: Iterable[Step]) -> list[StepRow]:
    """In the order in which the first step of each row ended."""
    rows: dict[str, StepRow] = {}
    for step in steps:
        name, rest = step.name, ""
        if step.name.startswith(_BY_SEED):
            parts = step.name.split(".")
            place = next((i for i in range(1, len(parts)) if parts[i].isdecimal()), len(parts))
            name, rest = ".".join(parts[:place]), ".".join(parts[place:])
        rows.setdefault(name, StepRow(name, [])).times.append((rest, step.seconds))
    return list(rows.values())
