"""Everything that the report says about one experiment."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from fairseq_bert_kd.report.choose_sentences import choose_sentences, comparable
from fairseq_bert_kd.report.comparison import SystemRow, main_row, system_rows
from fairseq_bert_kd.report.curves import TeacherLog, read_student_logs, read_teacher_logs
from fairseq_bert_kd.report.experiment import Experiment
from fairseq_bert_kd.report.length_bins import LengthBin, gain_by_length
from fairseq_bert_kd.report.notes import Notes
from fairseq_bert_kd.report.other_scores import OtherScores, read_other_scores
from fairseq_bert_kd.report.panels import curve_panels, length_panel, mass_panel, teacher_panels, value_panels
from fairseq_bert_kd.report.plot_style import Panel
from fairseq_bert_kd.report.provenance import text_digests, training_pairs
from fairseq_bert_kd.report.results import Results, read_results
from fairseq_bert_kd.report.sentences import ComparedSentence, worst_and_best
from fairseq_bert_kd.report.soft_labels import SoftLabels, soft_labels
from fairseq_bert_kd.report.stores import StoreStat, read_stores
from fairseq_bert_kd.report.training_log import TrainingLog

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choices:
    """What the user asked for.

    Attributes:
        subset: "test" or "valid".
        worst_and_best: sentences of each to show.
        soft_labels: training sentences to show, where they are not named.
        sentences: corpus indices of those to show; None for the rule of `choose_sentences`.
    """

    subset: str = "test"
    worst_and_best: int = 5
    soft_labels: int = 3
    sentences: tuple[int, ...] | None = None


@dataclass
class Section:
    """An experiment, read and computed.

    Attributes:
        experiment: its records.
        notes: what is missing or odd.
        results: scored outputs; None where nothing can be scored.
        rows: systems by group.
        main: row of the main system.
        logs: of the students, by run.
        teachers: what their logs say.
        stores: of the training set, by name.
        digests: of the raw texts.
        training_pairs: lines of the raw training text; None where it is not there.
        other_scores: that the experiment's own script computed.
        bins: gains by length.
        shown_store: whose soft labels are shown.
        other_store: they are compared with.
        soft_labels: of chosen sentences.
        worst: sentences where the main system loses most.
        best: sentences where it gains most.
        curves: panels of students.
        teacher_panels: panels of teachers.
        choice: panels about k, T and other values.
    """

    experiment: Experiment
    notes: Notes
    results: Results | None
    rows: dict[str, list[SystemRow]]
    main: SystemRow | None
    logs: dict[str, TrainingLog]
    teachers: list[TeacherLog]
    stores: dict[str, StoreStat]
    digests: dict[str, str]
    training_pairs: int | None
    other_scores: list[OtherScores] = field(default_factory=list)
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
        """What the main system is compared with: the baseline that it names, else the experiment's."""
        named = self.main.baseline if self.main else None
        return main_row(self.rows, named or self.experiment.baseline)


def make_section(experiment: Experiment, notes: Notes, choices: Choices) -> Section:
    """Read and compute all that can be had of an experiment; the notes say what cannot."""
    LOGGER.info("reading %s", experiment.folder)
    stores = read_stores(experiment, notes)
    logs = read_student_logs(experiment, notes)
    teachers = read_teacher_logs(experiment, notes)
    LOGGER.info("scoring %d runs", len(experiment.runs))
    results = read_results(experiment, choices.subset, notes)
    rows = system_rows(results, notes) if results else {}
    section = Section(
        experiment, notes, results, rows, main_row(rows, experiment.main), logs, teachers, stores,
        text_digests(experiment), training_pairs(experiment),
    )  # fmt: skip
    section.other_scores = read_other_scores(experiment, notes)
    section.curves = list(curve_panels(experiment, logs, section.baseline))
    section.teacher_panels = list(teacher_panels(teachers))
    _compare(section, choices)
    _show_teacher(section, choices)
    if results:
        section.choice += value_panels(results, rows, stores)
    return section


def _compare(section: Section, choices: Choices) -> None:
    """Main system against baseline, sentence by sentence."""
    results, main = section.results, section.main
    if results is None or main is None or not main.gains or main.baseline is None:
        return
    systems = (results.runs_of(main.baseline), results.runs_of(main.system))
    pairs = {
        seed: (results.outputs[systems[0][seed].name], results.outputs[systems[1][seed].name])
        for seed in main.gains
    }
    section.bins = gain_by_length(results.main_metric, list(pairs.values()))
    section.worst, section.best = worst_and_best(pairs, results.sources, choices.worst_and_best)


def _show_teacher(section: Section, choices: Choices) -> None:
    """Captured mass and soft labels of the store that the main system learns from."""
    stat = _store_of_main(section.experiment, section.stores)
    if stat is None:
        return
    section.shown_store, section.other_store = stat, comparable(stat, section.stores)
    if stat.mass:
        section.choice.append(mass_panel(stat))
    chosen: Sequence[int] | None = choices.sentences
    if chosen is None:
        chosen = choose_sentences(stat, section.other_store, choices.soft_labels)
    section.soft_labels = soft_labels(section.experiment, stat, section.other_store, chosen, section.notes)


def _store_of_main(experiment: Experiment, stores: dict[str, StoreStat]) -> StoreStat | None:
    """The store that the main system's runs name, else the first one."""
    named = [run.store for run in experiment.runs if run.system == experiment.main and run.store in stores]
    return stores[named[0]] if named and named[0] else next(iter(stores.values()), None)
