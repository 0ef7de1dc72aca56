"""Systems against their baselines: gains, their spread, and honest words for them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fairseq_bert_kd.evaluation.significance import p_values
from fairseq_bert_kd.report.experiment import MAIN_GROUP, Run
from fairseq_bert_kd.report.notes import Notes
from fairseq_bert_kd.report.results import Results, Spread, seeds_of, spread

SIGNIFICANT = 0.05
_SAME_OVER_SEEDS = ("label", "group", "value", "baseline", "updates", "options", "store", "teacher")
# of the groups of examples/systems.sh, in the order of a report; others follow under their own names
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
        system: name.
        label: for people.
        value: what the group varies.
        baseline: it is compared with; None for a baseline.
        options: that make it.
        scores: by seed, of the main metric.
        spreads: by metric, over all seeds that are scored.
        gains: by seed, over the baseline's run of the same seed.
        p: by seed; empty where not tested.
        test: signature of the significance test; "" where not tested.
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
    p: dict[int, float]
    test: str
    missing: list[int]

    @property
    def gain(self) -> Spread | None:
        return spread(list(self.gains.values())) if self.gains else None


def system_rows(results: Results, notes: Notes) -> dict[str, list[SystemRow]]:
    """Rows by group, the main group first and then those of `GROUP_TITLES`; baseline and main system lead theirs."""
    experiment = results.experiment
    groups: dict[str, dict[str, list[Run]]] = {MAIN_GROUP: {}}
    for run in experiment.runs:
        groups.setdefault(run.group, {}).setdefault(run.system, []).append(run)
    seeds = seeds_of(run for run in experiment.runs if run.group == MAIN_GROUP) or seeds_of(experiment.runs)
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
    """What the gains over the seeds allow to say; the rule stands in docs/report.md."""
    gain = row.gain
    if gain is None:
        return "there is nothing to compare yet"
    sure = [(row.gains[seed] > 0) == (gain.mean > 0) for seed, p in row.p.items() if p < SIGNIFICANT]
    low, against = sum(sure), len(sure) - sum(sure)
    direction = "better" if gain.mean > 0 else "worse"
    significant = f"p < {SIGNIFICANT:g} in {low} of {gain.n} seeds"
    if against:
        significant += f", and in {against} the other way"
    if gain.sd is None:
        tested = f"p {'<' if low else '≥'} {SIGNIFICANT:g} over resampled sentences"
        return (
            f"one seed only ({tested}): the spread between seeds is not known, and a difference may be noise"
        )
    if abs(gain.mean) <= gain.sd:
        return f"within the spread of the seeds ({significant}): no difference is shown"
    same = all((value > 0) == (gain.mean > 0) for value in row.gains.values())
    if same and low == gain.n:
        return f"{direction} with every seed, and each time beyond resampling noise ({significant})"
    agreement = "with every seed" if same else "on average, but not with every seed"
    beyond = f"beyond resampling noise in only {low} of them" if low else "within resampling noise each time"
    return f"{direction} {agreement}, {beyond} ({significant})"


def main_row(rows: Mapping[str, Sequence[SystemRow]], system: str) -> SystemRow | None:
    """The row of a system in any group."""
    return next((row for made in rows.values() for row in made if row.system == system), None)


def _row(results: Results, runs: Sequence[Run], seeds: Sequence[int], notes: Notes) -> SystemRow:
    run = runs[0]
    scores = results.scores_of(run.system)
    baseline = run.baseline if run.baseline != run.system else None
    gains = results.gains_of(run.system, baseline) if baseline else {}
    if scores and baseline and not gains:
        notes.add(
            f"students/{run.system}",
            f"no run of its baseline `{baseline}` has a score with the same seed: no gain",
        )
    if scores and run.baseline is None and run.system != results.experiment.baseline:
        notes.add(f"students/{run.system}", "names no baseline: no gain")
    _note_unlike(runs, notes)
    missing = [seed for seed in seeds if seed not in scores]
    if missing:
        listed = ", ".join(map(str, missing))
        left = f"; its mean is over {len(scores)} seed{'s' if len(scores) > 1 else ''}" if scores else ""
        notes.add(f"students/{run.system}", f"no score with seed {listed}{left}")
    spreads = {
        key: spread(list(results.scores_of(run.system, key).values()))
        for key in results.metrics.keys
        if scores
    }
    test = run.group == MAIN_GROUP or run.system == results.experiment.main
    p, signature = _tested(results, run.system, baseline) if test and baseline and gains else ({}, "")
    return SystemRow(
        run.system, run.label, run.value, baseline, run.options, scores, spreads, gains, p, signature, missing
    )


def _note_unlike(runs: Sequence[Run], notes: Notes) -> None:
    """Runs of a system that differ in more than their seeds."""
    run = runs[0]
    for other in runs[1:]:
        differing = [name for name in _SAME_OVER_SEEDS if getattr(other, name) != getattr(run, name)]
        if differing:
            notes.add(
                f"students/{run.system}",
                f"seeds {run.seed} and {other.seed} differ in {', '.join(differing)}: their mean is of different systems, and "
                f"tables show what seed {run.seed} has",
            )


def _tested(results: Results, system: str, baseline: str) -> tuple[dict[int, float], str]:
    """p-value by seed, and the test's signature."""
    runs, base = results.runs_of(system), results.runs_of(baseline)
    tested, signature = {}, ""
    for seed in (seed for seed in runs if seed in base):
        outputs = {system: results.outputs[runs[seed].name]}
        values, signature = p_values(results.main_metric, results.outputs[base[seed].name], outputs)
        tested[seed] = values[system]
    return tested, signature


def _note_absent(results: Results, rows: dict[str, list[SystemRow]], notes: Notes) -> None:
    experiment = results.experiment
    for role, system in (("baseline", experiment.baseline), ("main system", experiment.main)):
        if main_row(rows, system) is None:
            notes.add("", f"no run of the {role} `{system}`: the main comparison cannot be made")
    main = main_row(rows, experiment.main)
    if main and main.baseline not in (None, experiment.baseline):
        notes.add(
            f"students/{main.system}",
            f"names the baseline `{main.baseline}` and is compared with it, not with the experiment's, `{experiment.baseline}`",
        )


def _order(row: SystemRow) -> tuple[float, str, bool, str]:
    """By value where it is a number; else a baseline before those that are compared with it; then by label."""
    try:
        return float(row.value), "", False, row.label
    except ValueError:
        return math.inf, row.baseline or row.system, row.baseline is not None, row.label
