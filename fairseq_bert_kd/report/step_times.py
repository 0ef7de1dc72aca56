"""Times of an experiment's steps, the runs of a system in one row."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from fairseq_bert_kd.report.experiment import Step

# SYSTEM.SEED and SYSTEM.SEED.SUBSET; systems may have points in their names
_OF_A_RUN = re.compile(r"(?P<system>(?:students|outputs)/.+)\.(?P<rest>\d+(?:\.[^.]+)?)")


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
        if found := _OF_A_RUN.fullmatch(step.name):
            name, rest = found["system"], found["rest"]
        rows.setdefault(name, StepRow(name, [])).times.append((rest, step.seconds))
    return list(rows.values())
