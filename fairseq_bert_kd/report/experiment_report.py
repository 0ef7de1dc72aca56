"""Everything that the report says about one experiment."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

from fairseq_bert_kd.report.compare_positions import PositionBin, gain_by_position
from fairseq_bert_kd.report.compare_sentences import (
    ComparedSentence,
    LengthBin,
    SideBySide,
    gain_by_length,
    side_by_side,
    worst_and_best,
)
from fairseq_bert_kd.report.compare_systems import SystemRow, main_row, system_rows
from fairseq_bert_kd.report.formatting import list_text
from fairseq_bert_kd.report.panels import (
    curve_panels,
    length_panel,
    mass_panel,
    position_panel,
    reward_panels,
    rewarded_systems,
    teacher_panels,
    value_panels,
)
from fairseq_bert_kd.report.plot_style import Panel
from fairseq_bert_kd.report.read_experiment import (
    MAIN_GROUP,
    Experiment,
    Notes,
    read_experiment,
    text_digests,
    training_pairs,
)
from fairseq_bert_kd.report.read_further_scores import FurtherScores, read_further_scores
from fairseq_bert_kd.report.read_logs import TrainingLog, read_student_logs, read_teacher_logs
from fairseq_bert_kd.report.read_scores import (
    ScoredOutputs,
    note_same_outputs,
    read_outputs,
)
from fairseq_bert_kd.report.read_stores import (
    StoreStat,
    left_to_right_counterpart,
    read_stores,
    store_of_main,
)
from fairseq_bert_kd.report.read_tables import FurtherTable, read_further_tables
from fairseq_bert_kd.report.soft_labels import SoftLabels, choose_sentences, soft_labels

WORST_AND_BEST = 5  # compared sentences of each
SIDE_BY_SIDE = 10  # sentences of all systems, where rewards trained one
SOFT_LABELS = 3  # training sentences, if they are not named
_SCORING = ("metric", "lowercase", "bleu_tokenize")  # fields of `Experiment`
LOGGER = logging.getLogger(__name__)


@dataclass
class ExperimentReport:
    """An experiment, read and computed.

    Attributes:
        experiment: its records.
        notes: what is missing or odd.
        results: scored outputs; None if nothing can be scored.
        rows: systems by group.
        logs: logs of the students, by run.
        teachers: logs of the teachers, by name.
        stores: stores of the training set, by name.
        digests: digests of the raw texts.
        training_pairs: lines of the raw training text; None without it.
        further_scores: scores that the experiment's own scripts wrote.
        further_tables: tables that they wrote.
        bins: gains by length.
        positions: gains by position in the sentence.
        worst: sentences at which the main system loses most.
        best: sentences at which it gains most.
        side_by_side: outputs of all systems of the main group, where rewards trained one.
        soft_labels: soft labels of chosen sentences.
    """

    experiment: Experiment
    notes: Notes
    results: ScoredOutputs | None
    rows: dict[str, list[SystemRow]]
    logs: dict[str, TrainingLog]
    teachers: dict[str, TrainingLog]
    stores: dict[str, StoreStat]
    digests: dict[str, str]
    training_pairs: int | None
    further_scores: list[FurtherScores]
    further_tables: list[FurtherTable]
    bins: list[LengthBin] = field(default_factory=list)
    positions: list[PositionBin] = field(default_factory=list)
    worst: list[ComparedSentence] = field(default_factory=list)
    best: list[ComparedSentence] = field(default_factory=list)
    side_by_side: list[SideBySide] = field(default_factory=list)
    soft_labels: list[SoftLabels] = field(default_factory=list)

    @property
    def main(self) -> SystemRow | None:
        """Row of the main system."""
        return main_row(self.rows, self.experiment.main)

    @property
    def baseline(self) -> SystemRow | None:
        """Row of the system with which the main one is compared: the baseline that it names, else the experiment's."""
        return main_row(self.rows, (self.main and self.main.baseline) or self.experiment.baseline)

    @property
    def shown_store(self) -> StoreStat | None:
        """Store whose soft labels are shown."""
        return store_of_main(self.experiment, self.stores)

    @property
    def other_store(self) -> StoreStat | None:
        """Store with which they are compared."""
        return left_to_right_counterpart(self.shown_store, self.stores) if self.shown_store else None

    @cached_property
    def curves(self) -> list[Panel]:
        """Panels of students."""
        curves = curve_panels(self.experiment, self.logs, self.baseline)
        return [*curves, *reward_panels(self.experiment, self.logs)]

    @cached_property
    def teacher_panels(self) -> list[Panel]:
        """Panels of teachers."""
        return list(teacher_panels(self.teachers))

    @property
    def length_panel(self) -> Panel | None:
        if not (self.bins and self.results and self.main and self.baseline):
            return None
        return length_panel(
            self.results, self.bins, (self.main.label, self.baseline.label), list(self.main.gains)
        )

    @property
    def position_panel(self) -> Panel | None:
        if not (self.positions and self.main and self.baseline):
            return None
        return position_panel(self.positions, (self.main.label, self.baseline.label), list(self.main.gains))

    @cached_property
    def choice(self) -> list[Panel]:
        """Panels about k, T and other values."""
        stat = self.shown_store
        panels = [mass_panel(stat)] if stat and stat.mass else []
        return panels + (list(value_panels(self.results, self.rows, self.stores)) if self.results else [])


def make_report(
    folder: str | Path, subset: str = "test", sentences: Sequence[int] | None = None, comet: str = ""
) -> ExperimentReport:
    """Read and compute what exists of an experiment; the notes get what is missing.

    Args:
        folder: folder of the experiment.
        subset: "test" or "valid".
        sentences: corpus indices of training sentences whose soft labels are shown; None for the rule of
            `choose_sentences`.
        comet: weights of COMET, see `Comet`; empty for none.

    Raises:
        ValueError: the folder is not an experiment.
    """
    notes = Notes(folder)
    experiment = read_experiment(folder, notes)
    LOGGER.info("reading %s", folder)
    stores = read_stores(experiment, notes)
    logs, teachers = read_student_logs(experiment, notes), read_teacher_logs(experiment, notes)
    results = read_outputs(experiment, subset, notes, comet)
    if results:
        note_same_outputs(results, notes)
    report = ExperimentReport(
        experiment=experiment,
        notes=notes,
        results=results,
        rows=system_rows(results, notes) if results else {},
        logs=logs,
        teachers=teachers,
        stores=stores,
        digests=text_digests(experiment),
        training_pairs=training_pairs(experiment),
        further_scores=read_further_scores(experiment, notes),
        further_tables=read_further_tables(experiment, notes),
    )
    main, stat = report.main, report.shown_store
    if results and main and main.baseline and main.gains and experiment.kind == "text":
        pairs = results.pairs(main.baseline, main.system)
        report.bins = gain_by_length(results.main_metric, list(pairs.values()))
        tokenize = results.metrics[results.main_metric].settings.tokenize  # the one that could be loaded
        report.positions = gain_by_position(
            list(pairs.values()), lowercase=experiment.lowercase, tokenize=tokenize
        )
        report.worst, report.best = worst_and_best(
            pairs, results.sources, WORST_AND_BEST, experiment.lowercase
        )
    if results and experiment.kind == "text" and rewarded_systems(experiment, logs):
        outputs = _first_outputs(results, report.rows.get(MAIN_GROUP, []))
        report.side_by_side = side_by_side(outputs, results.sources, results.references, SIDE_BY_SIDE)
    if stat:
        shown = choose_sentences(stat, SOFT_LABELS) if sentences is None else sentences
        report.soft_labels = soft_labels(experiment, stat, report.other_store, shown, notes)
    return report


def _first_outputs(results: ScoredOutputs, rows: Sequence[SystemRow]) -> dict[str, list[str]]:
    """Texts of each system's first seed, by its label."""
    found = {row.label: results.of(row.system) for row in rows}
    return {label: next(iter(of_seed.values())).predictions for label, of_seed in found.items() if of_seed}


def is_copy(one: ExperimentReport, other: ExperimentReport) -> bool:
    """Whether two experiments have the same texts, and every run that both have scored put out the same."""
    if one.results is None or other.results is None or one.digests != other.digests:
        return False
    mine, theirs = one.results.outputs, other.results.outputs
    both = mine.keys() & theirs.keys()
    return bool(both) and all(mine[name].predictions == theirs[name].predictions for name in both)


def note_other_data(reports: Sequence[ExperimentReport]) -> None:
    """Note copies, and experiments of one task that differ in texts or scoring, since their scores are not comparable.

    Validation and test texts and the metric's settings must be the same. Training texts may differ: tables say how many
    pairs they have. The later experiment gets the note.
    """
    for before, after in combinations(reports, 2):
        if before.experiment.task != after.experiment.task:
            continue
        if is_copy(before, after):
            after.notes.add(
                "outputs",
                f"those of “{before.experiment.title}” in `{before.experiment.folder.name}`: a copy of it, whose runs are counted "
                "once where experiments are put together",
            )
        differing = [
            name for name in sorted(before.digests.keys() & after.digests.keys()) if name[:6] != "train."
        ]
        differing = [name for name in differing if before.digests[name] != after.digests[name]]
        ways = _scoring(before), _scoring(after)
        differing += [name for name in ways[0] if ways[0][name] != ways[1][name]]
        if differing:
            after.notes.add(
                list_text(differing),
                f"not those of “{before.experiment.title}”, which has the same task name `{after.experiment.task}`: "
                "their scores are not comparable",
            )


def _scoring(report: ExperimentReport) -> dict[str, Any]:
    """How an experiment's texts are compared, by setting.

    Of ``normalise_like`` it is the tokenizer's name and digest, as in signatures: its folder may lie elsewhere on another machine.
    """
    experiment, results = report.experiment, report.results
    like = results.metrics[results.main_metric].settings.normalised if results else experiment.normalise_like
    return {name: getattr(experiment, name) for name in _SCORING} | {"normalise_like": like}
