"""Systems against their baselines: gains, their spread, and a verdict."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fairseq_bert_kd.evaluation.significance import LEVEL, PairedResult, Spread, paired_test, spread
from fairseq_bert_kd.report.formatting import list_text
from fairseq_bert_kd.report.read_experiment import MAIN_GROUP, Notes, Run
from fairseq_bert_kd.report.read_scores import ScoredOutputs

_SAME_OVER_SEEDS = ("label", "group", "value", "baseline", "updates", "options", "store", "teacher")
# groups of the examples in the order of a report; others follow under their own names
GROUP_TITLES = {
    "topk": "Teacher tokens per position, k",
    "temperature": "Temperature, T",
    "weight": "Weight of the teacher",
    "passes": "Passes of the teacher",
    "objective": "Objective",
    "teacher": "Teacher",
    "dictionary": "Joined or separate dictionaries",
    "student": "Student",
    "folds": "In-sample and out-of-fold soft labels",
    "rdrop": "Beside R-Drop",
    "sequence": "Sequence-level distillation",
    "random": "Nothing of the teacher at the start",
    "linear": "A linear classifier on vectors that stay as they are",
    "learning rate": "Learning rate",
    "unlabelled": "The teacher's predictions of text without labels",
    "ablation": "Without one of the losses or stages, or with another",
}


@dataclass(frozen=True)
class SystemRow:
    """A system in a table.

    Attributes:
        system: name of the system.
        group: table in which it stands.
        label: name in tables.
        value: what the group varies.
        baseline: system with which it is compared; None for a baseline.
        options: options that make it.
        scores: scores by seed, of the main metric.
        spreads: spread by metric, over all scored seeds.
        gains: gains by seed, over the baseline's run of the same seed.
        tests: outcomes of the paired test by seed; empty if not tested.
        missing: seeds that other systems have and this one lacks.
    """

    system: str
    group: str
    label: str
    value: str
    baseline: str | None
    options: str
    scores: dict[int, float]
    spreads: dict[str, Spread]
    gains: dict[int, float]
    tests: dict[int, PairedResult]
    missing: list[int]

    @property
    def gain(self) -> Spread | None:
        return spread(list(self.gains.values())) if self.gains else None

    def score_with(self, seeds: Iterable[int]) -> Spread:
        """Score by the main metric over some of the scored seeds, at least one."""
        return spread([self.scores[seed] for seed in seeds])

    @property
    def p(self) -> dict[int, float]:
        """p-values by seed."""
        return {seed: result.p for seed, result in self.tests.items()}

    @property
    def test(self) -> PairedResult | None:
        """Outcome with the first seed, for the signature and description of the test; None if not tested."""
        return next(iter(self.tests.values()), None)


def system_rows(results: ScoredOutputs, notes: Notes) -> dict[str, list[SystemRow]]:
    """Rows by group: the main group, then those of `GROUP_TITLES`. Baseline and main system come first in theirs."""
    experiment = results.experiment
    systems: dict[str, list[Run]] = {}
    for run in experiment.runs:
        systems.setdefault(run.system, []).append(run)
    seeds = sorted({run.seed for run in experiment.runs if run.group == MAIN_GROUP})
    made = [_row(results, runs, seeds, notes) for runs in systems.values()]
    first = (experiment.baseline, experiment.main)
    made.sort(key=lambda row: (first.index(row.system) if row.system in first else 2, *_order(row)))
    for role, system in zip(("baseline", "main system"), first, strict=True):
        if system not in systems:
            notes.add("", f"no run of the {role} `{system}`: the main comparison is missing")
    groups = dict.fromkeys([MAIN_GROUP, *GROUP_TITLES, *(row.group for row in made)])
    rows = {group: [row for row in made if row.group == group] for group in groups}
    return {group: listed for group, listed in rows.items() if listed}


def verdict(row: SystemRow) -> str:
    """A verdict on the gains over the seeds, by the rule in docs/report.md."""
    gain = row.gain
    if gain is None:
        return "there is nothing to compare yet"
    level = next((test.level for test in row.tests.values()), LEVEL)
    agrees = [(row.gains[seed] > 0) == (gain.mean > 0) for seed, p in row.p.items() if p < level]
    low, against = sum(agrees), len(agrees) - sum(agrees)
    direction = "better" if gain.mean > 0 else "worse"
    significant = f"p < {level:g} in {low} of {gain.n} seeds"
    if against:
        significant += f", and in {against} the other way"
    if gain.sd is None:
        tested = f"p {'<' if low else '≥'} {level:g} over sentences"
        return (
            f"one seed only ({tested}): the spread between seeds is not known, and a difference may be noise"
        )
    if abs(gain.mean) <= gain.sd:
        return f"within the spread of the seeds ({significant}): no difference is shown"
    same = all((value > 0) == (gain.mean > 0) for value in row.gains.values())
    if same and low == gain.n:
        return f"{direction} with every seed, and each time beyond sampling noise ({significant})"
    agreement = "with every seed" if same else "on average, but not with every seed"
    beyond = f"beyond sampling noise in only {low} of them" if low else "within sampling noise each time"
    return f"{direction} {agreement}, {beyond} ({significant})"


def main_row(rows: Mapping[str, Sequence[SystemRow]], system: str) -> SystemRow | None:
    """The row of a system in any group."""
    return next((row for made in rows.values() for row in made if row.system == system), None)


def _row(results: ScoredOutputs, runs: Sequence[Run], seeds: Sequence[int], notes: Notes) -> SystemRow:
    run, where = runs[0], f"students/{runs[0].system}"
    outputs = results.of(run.system)
    baseline = run.baseline if run.baseline != run.system else None
    pairs = results.pairs(baseline, run.system) if baseline else {}
    metric = results.main_metric
    if outputs and baseline and not pairs:
        notes.add(where, f"no run of its baseline `{baseline}` has a score with the same seed: no gain")
    for other in runs[1:]:
        differing = [name for name in _SAME_OVER_SEEDS if getattr(other, name) != getattr(run, name)]
        if differing:
            notes.add(
                where, f"seeds {run.seed} and {other.seed} differ in {list_text(differing)}: not one system"
            )
    missing = [seed for seed in seeds if seed not in outputs]
    if missing:
        notes.add(where, f"no score with seed {list_text(missing)}")
    tested = run.group == MAIN_GROUP or run.system == results.experiment.main
    return SystemRow(
        system=run.system,
        group=run.group,
        label=run.label,
        value=run.value,
        baseline=baseline,
        options=run.options,
        scores={seed: output.scores[metric] for seed, output in outputs.items()},
        spreads={
            name: spread([output.scores[name] for output in outputs.values()])
            for name in results.metrics
            if outputs
        },
        gains={seed: main.scores[metric] - base.scores[metric] for seed, (base, main) in pairs.items()},
        tests={seed: paired_test(metric, *pair) for seed, pair in pairs.items()} if tested else {},
        missing=missing,
    )


def _order(row: SystemRow) -> tuple[float, str, bool, str]:
    """Sort key: by value if it is a number; else a baseline before the systems compared with it; then by label."""
    try:
        return float(row.value), "", False, row.label
    except ValueError:
        return math.inf, row.baseline or row.system, row.baseline is not None, row.label
