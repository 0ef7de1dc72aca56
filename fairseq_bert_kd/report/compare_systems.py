"""Systems against their baselines: gains, their spread, and a verdict."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fairseq_bert_kd.evaluation.significance import PairedResult, Spread, paired_test, spread
from fairseq_bert_kd.report.formatting import list_text
from fairseq_bert_kd.report.read_experiment import MAIN_GROUP, Notes, Run
from fairseq_bert_kd.report.read_scores import ScoredOutputs

SIGNIFICANT = 0.05
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
    "sequence": "Sequence-level distillation",
}


@dataclass(frozen=True)
class SystemRow:
    """A system in a table.

    Attributes:
        system: name of the system.
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
    groups: dict[str, dict[str, list[Run]]] = {MAIN_GROUP: {}}
    for run in experiment.runs:
        groups.setdefault(run.group, {}).setdefault(run.system, []).append(run)
    main_runs = [run for run in experiment.runs if run.group == MAIN_GROUP] or experiment.runs
    seeds = sorted({run.seed for run in main_runs})
    first = (experiment.baseline, experiment.main)
    rows = {}
    for group, systems in groups.items():
        made = [_row(results, runs, seeds, notes) for runs in systems.values()]
        made.sort(key=lambda row: (first.index(row.system) if row.system in first else 2, *_order(row)))
        rows[group] = made
    _note_absent(results, rows, notes)
    order = [*(group for group in (MAIN_GROUP, *GROUP_TITLES) if group in rows), *rows]
    return {group: rows[group] for group in dict.fromkeys(order) if rows[group]}


def verdict(row: SystemRow) -> str:
    """A verdict on the gains over the seeds, by the rule in docs/report.md."""
    gain = row.gain
    if gain is None:
        return "there is nothing to compare yet"
    agrees = [(row.gains[seed] > 0) == (gain.mean > 0) for seed, p in row.p.items() if p < SIGNIFICANT]
    low, against = sum(agrees), len(agrees) - sum(agrees)
    direction = "better" if gain.mean > 0 else "worse"
    significant = f"p < {SIGNIFICANT:g} in {low} of {gain.n} seeds"
    if against:
        significant += f", and in {against} the other way"
    if gain.sd is None:
        tested = f"p {'<' if low else '≥'} {SIGNIFICANT:g} over sentences"
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
    scores = results.scores_of(run.system)
    baseline = run.baseline if run.baseline != run.system else None
    gains = results.gains_of(run.system, baseline) if baseline else {}
    if scores and baseline and not gains:
        notes.add(where, f"no run of its baseline `{baseline}` has a score with the same seed: no gain")
    if scores and run.baseline is None and run.system != results.experiment.baseline:
        notes.add(where, "names no baseline: no gain")
    _note_unlike(runs, notes)
    missing = [seed for seed in seeds if seed not in scores]
    if missing:
        left = f"; its mean is over {len(scores)} seed{'s' if len(scores) > 1 else ''}" if scores else ""
        notes.add(where, f"no score with seed {list_text(missing)}{left}")
    test = run.group == MAIN_GROUP or run.system == results.experiment.main
    return SystemRow(
        system=run.system,
        label=run.label,
        value=run.value,
        baseline=baseline,
        options=run.options,
        scores=scores,
        spreads={
            name: spread(list(results.scores_of(run.system, name).values()))
            for name in results.metrics
            if scores
        },
        gains=gains,
        tests=_tests(results, run.system, baseline) if test and baseline else {},
        missing=missing,
    )


def _note_unlike(runs: Sequence[Run], notes: Notes) -> None:
    """Note runs of a system that differ in more than their seeds."""
    run = runs[0]
    for other in runs[1:]:
        differing = [name for name in _SAME_OVER_SEEDS if getattr(other, name) != getattr(run, name)]
        if differing:
            notes.add(
                f"students/{run.system}",
                f"seeds {run.seed} and {other.seed} differ in {list_text(differing)}: their mean is of different systems, "
                f"and tables show the values of seed {run.seed}",
            )


def _tests(results: ScoredOutputs, system: str, baseline: str) -> dict[int, PairedResult]:
    """Paired test of each seed that both systems have."""
    runs, base = results.runs_of(system), results.runs_of(baseline)
    return {
        seed: paired_test(
            results.main_metric, results.outputs[base[seed].name], results.outputs[runs[seed].name]
        )
        for seed in runs
        if seed in base
    }


def _note_absent(results: ScoredOutputs, rows: dict[str, list[SystemRow]], notes: Notes) -> None:
    experiment = results.experiment
    for role, system in (("baseline", experiment.baseline), ("main system", experiment.main)):
        if main_row(rows, system) is None:
            notes.add("", f"no run of the {role} `{system}`: the main comparison is missing")
    main = main_row(rows, experiment.main)
    if main and main.baseline not in (None, experiment.baseline):
        notes.add(
            f"students/{main.system}",
            f"names the baseline `{main.baseline}` and is compared with it, not with the experiment's, "
            f"`{experiment.baseline}`",
        )


def _order(row: SystemRow) -> tuple[float, str, bool, str]:
    """Sort key: by value if it is a number; else a baseline before the systems compared with it; then by label."""
    try:
        return float(row.value), "", False, row.label
    except ValueError:
        return math.inf, row.baseline or row.system, row.baseline is not None, row.label
