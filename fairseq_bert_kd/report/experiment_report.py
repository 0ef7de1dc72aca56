"""Everything that the report says about one experiment."""

import logging
from dataclasses import dataclass, field

from fairseq_bert_kd.report.compare_sentences import (
    ComparedSentence,
    LengthBin,
    gain_by_length,
    worst_and_best,
)
from fairseq_bert_kd.report.compare_systems import SystemRow, main_row, system_rows
from fairseq_bert_kd.report.panels import curve_panels, length_panel, mass_panel, teacher_panels, value_panels
from fairseq_bert_kd.report.plot_style import Panel
from fairseq_bert_kd.report.read_experiment import Experiment, Notes
from fairseq_bert_kd.report.read_logs import TeacherLog, TrainingLog, read_student_logs, read_teacher_logs
from fairseq_bert_kd.report.read_scores import (
    FurtherScores,
    ScoredOutputs,
    read_further_scores,
    read_outputs,
)
from fairseq_bert_kd.report.read_stores import (
    StoreStat,
    left_to_right_counterpart,
    read_stores,
    store_of_main,
)
from fairseq_bert_kd.report.read_texts import text_digests, training_pairs
from fairseq_bert_kd.report.soft_labels import SoftLabels, choose_sentences, soft_labels

WORST_AND_BEST = 5  # compared sentences of each
SOFT_LABELS = 3  # training sentences, if they are not named
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows.

    Attributes:
        subset: "test" or "valid".
        sentences: corpus indices of training sentences whose soft labels are shown; None for the rule of
            `choose_sentences`.
    """

    subset: str = "test"
    sentences: tuple[int, ...] | None = None


@dataclass
class ExperimentReport:
    """An experiment, read and computed.

    Attributes:
        experiment: its records.
        notes: what is missing or odd.
        results: scored outputs; None if nothing can be scored.
        rows: systems by group.
        main: row of the main system.
        logs: logs of the students, by run.
        teachers: logs of the teachers.
        stores: stores of the training set, by name.
        digests: digests of the raw texts.
        training_pairs: lines of the raw training text; None without it.
        further_scores: scores that the experiment's own scripts wrote.
        bins: gains by length.
        shown_store: store whose soft labels are shown.
        other_store: store with which they are compared.
        soft_labels: soft labels of chosen sentences.
        worst: sentences at which the main system loses most.
        best: sentences at which it gains most.
        curves: panels of students.
        teacher_panels: panels of teachers.
        choice: panels about k, T and other values.
    """

    experiment: Experiment
    notes: Notes
    results: ScoredOutputs | None
    rows: dict[str, list[SystemRow]]
    main: SystemRow | None
    logs: dict[str, TrainingLog]
    teachers: list[TeacherLog]
    stores: dict[str, StoreStat]
    digests: dict[str, str]
    training_pairs: int | None
    further_scores: list[FurtherScores] = field(default_factory=list)
    bins: list[LengthBin] = field(default_factory=list)
    shown_store: StoreStat | None = None
    other_store: StoreStat | None = None
    soft_labels: list[SoftLabels] = field(default_factory=list)
    worst: list[ComparedSentence] = field(default_factory=list)
    best: list[ComparedSentence] = field(default_factory=list)
    curves: list[Panel] = field(default_factory=list)
    teacher_panels: list[Panel] = field(default_factory=list)
    choice: list[Panel] = field(default_factory=list)

    @property
    def length_panel(self) -> Panel | None:
        if not self.bins or self.results is None or self.main is None:
            return None
        base = self.baseline
        labels = (self.main.label, base.label if base else self.experiment.baseline)
        return length_panel(self.results, self.bins, labels, list(self.main.gains))

    @property
    def baseline(self) -> SystemRow | None:
        """Row of the system with which the main one is compared: the baseline that it names, else the experiment's."""
        named = self.main.baseline if self.main else None
        return main_row(self.rows, named or self.experiment.baseline)


def make_report(experiment: Experiment, notes: Notes, options: ReportOptions) -> ExperimentReport:
    """Read and compute what exists of an experiment; the notes get what is missing."""
    LOGGER.info("reading %s", experiment.folder)
    stores = read_stores(experiment, notes)
    logs = read_student_logs(experiment, notes)
    teachers = read_teacher_logs(experiment, notes)
    LOGGER.info("scoring %d runs", len(experiment.runs))
    results = read_outputs(experiment, options.subset, notes)
    rows = system_rows(results, notes) if results else {}
    report = ExperimentReport(
        experiment=experiment,
        notes=notes,
        results=results,
        rows=rows,
        main=main_row(rows, experiment.main),
        logs=logs,
        teachers=teachers,
        stores=stores,
        digests=text_digests(experiment),
        training_pairs=training_pairs(experiment),
        further_scores=read_further_scores(experiment, notes),
        teacher_panels=list(teacher_panels(teachers)),
    )
    report.curves = list(curve_panels(experiment, logs, report.baseline))
    _compare_sentences(report)
    _show_teacher(report, options)
    if results:
        report.choice += value_panels(results, rows, stores)
    return report


def _compare_sentences(report: ExperimentReport) -> None:
    """Compare main system and baseline sentence by sentence, for tasks whose outputs are texts."""
    results, main = report.results, report.main
    if results is None or main is None or not main.gains or main.baseline is None:
        return
    if not report.experiment.kind.is_text:
        return
    base_runs, main_runs = results.runs_of(main.baseline), results.runs_of(main.system)
    pairs = {
        seed: (results.outputs[base_runs[seed].name], results.outputs[main_runs[seed].name])
        for seed in main.gains
    }
    report.bins = gain_by_length(results.main_metric, list(pairs.values()))
    lowercase = report.experiment.lowercase
    report.worst, report.best = worst_and_best(pairs, results.sources, WORST_AND_BEST, lowercase)


def _show_teacher(report: ExperimentReport, options: ReportOptions) -> None:
    """Captured mass and soft labels of the main system's store."""
    stat = store_of_main(report.experiment, report.stores)
    if stat is None:
        return
    other = left_to_right_counterpart(stat, report.stores)
    report.shown_store, report.other_store = stat, other
    if stat.mass:
        report.choice.append(mass_panel(stat))
    sentences = options.sentences
    if sentences is None:
        sentences = tuple(choose_sentences(stat, other, SOFT_LABELS))
    report.soft_labels = soft_labels(report.experiment, stat, other, sentences, report.notes)
