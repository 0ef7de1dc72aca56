"""Learning curves of systems from the logs of their runs, and what the logs of teachers say."""

from dataclasses import dataclass
from typing import NamedTuple

from fairseq_bert_kd.report.experiment import Experiment, Run
from fairseq_bert_kd.report.notes import Notes
from fairseq_bert_kd.report.training_log import TrainingLog, read_training_log


class CurveKind(NamedTuple):
    """A value that is drawn against updates.

    Attributes:
        part: of the log, "train" or "valid".
        name: in the log.
        title: for people, with the unit.
        perplexity: also give 2 to its power.
    """

    part: str
    name: str
    title: str
    perplexity: bool


STUDENT_CURVES = (
    CurveKind("train", "nll_loss", "Training: NLL, bits a token", True),
    CurveKind("valid", "nll_loss", "Validation: NLL, bits a token", True),
    CurveKind("valid", "loss", "Validation: label-smoothed loss, bits a token", False),
    CurveKind("valid", "bleu", "Validation: BLEU while training, as logged", False),
)
TEACHER_CURVES = (CurveKind("valid", "masked_accuracy", "Validation: masked accuracy, %", False),)


@dataclass(frozen=True)
class SystemCurve:
    """A value of a system against updates.

    Attributes:
        system: name.
        label: for people.
        by_seed: update to value, by seed.
    """

    system: str
    label: str
    by_seed: dict[int, dict[int, float]]

    @property
    def mean(self) -> dict[int, float]:
        """Over the seeds, at the updates that all have."""
        common = set.intersection(*map(set, self.by_seed.values())) if self.by_seed else set()
        count = len(self.by_seed)
        return {
            update: sum(curve[update] for curve in self.by_seed.values()) / count for update in sorted(common)
        }


@dataclass(frozen=True)
class TeacherLog:
    """What a teacher's log says of the validation set.

    Attributes:
        name: folder of the teacher.
        log: all of it.
        updates: of the best validation.
        accuracy: per cent of the masked tokens, there; None where not logged.
        perplexity: of the masked tokens, there.
    """

    name: str
    log: TrainingLog
    updates: int
    accuracy: float | None
    perplexity: float | None


def read_student_logs(experiment: Experiment, notes: Notes) -> dict[str, TrainingLog]:
    """Logs by name of the run; the notes say which are absent, cut short or behind their updates."""
    logs = {}
    for run in experiment.runs:
        where = f"logs/students/{run.name}.log"
        try:
            log = read_training_log(experiment.log(f"students/{run.name}"))
        except OSError:
            notes.add(where, "not there: no learning curve")
            continue
        logs[run.name] = log
        if not log.finished:
            notes.add(
                where, f"cut short or still running: it ends after {log.updates:,} of {run.updates:,} updates"
            )
        elif log.updates < run.updates:
            notes.add(where, f"training ended after {log.updates:,} of {run.updates:,} updates")
    return logs


def system_curve(runs: list[Run], logs: dict[str, TrainingLog], kind: CurveKind) -> SystemCurve | None:
    """A system's curve; None where no run has a point."""
    by_seed = {run.seed: logs[run.name].curve(kind.part, kind.name) for run in runs if run.name in logs}
    by_seed = {seed: curve for seed, curve in by_seed.items() if curve}
    return SystemCurve(runs[0].system, runs[0].label, by_seed) if by_seed else None


def read_teacher_logs(experiment: Experiment, notes: Notes) -> list[TeacherLog]:
    """One for each ``logs/teacher*.log``; the best validation is the one with the lowest loss."""
    found = []
    paths = sorted(
        (experiment.folder / "logs").glob("teacher*.log"),
        key=lambda path: (path.stem != "teacher", path.stem),
    )
    named = {run.teacher for run in experiment.runs if run.teacher} or {"teacher"}
    for name in sorted(named - {path.stem for path in paths}):
        notes.add(
            f"logs/{name}.log", "not there: masked accuracy and perplexity of the teacher are not known"
        )
    for path in paths:
        log = read_training_log(path)
        if not log.finished:
            notes.add(
                f"logs/{path.name}", f"cut short or still running: it ends after {log.updates:,} updates"
            )
        losses = log.curve("valid", "loss")
        if not losses:
            notes.add(f"logs/{path.name}", "holds no validation: the teacher's accuracy is not known")
            continue
        best = min(losses, key=lambda update: (losses[update], -update))
        values = log.valid[best]
        found.append(TeacherLog(path.stem, log, best, values.get("masked_accuracy"), values.get("ppl")))
    return found
