"""Reads fairseq's logs of students and teachers, whole or cut short, and their learning curves."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fairseq_bert_kd.report.read_experiment import Experiment, Notes, Run

_LINE = re.compile(r"\| (?P<part>train_inner|valid) \| (?P<values>.*)")
_DONE = re.compile(r"\| done training in (?P<seconds>[\d.e+-]+) seconds")
# `nll_loss=4.1,` and `| nll_loss 4.1 |` of --log-format simple, `"valid_nll_loss": "4.1"` of json; 4.10.0 is not a number
_PAIR = re.compile(r'\b(?:valid_)?(\w+)(?:[= ]|": "?)(-?(?:\d+(?:\.\d*)?(?:e[+-]?\d+)?|inf|nan))(?![\w.])')
Series = dict[int, dict[str, float]]  # update -> name -> value
Curve = dict[int, float]  # update -> value


class CurveKind(NamedTuple):
    """A value that is drawn against updates.

    Attributes:
        part: part of the log, "train" or "valid".
        name: name in the log.
        title: title with the unit.
        perplexity: whether a second axis shows 2 to the power of the value.
    """

    part: str
    name: str
    title: str
    perplexity: bool = False


STUDENT_CURVES = {  # by what the students put out
    "text": (
        CurveKind("train", "nll_loss", "Training: NLL, bits per token", True),
        CurveKind("valid", "nll_loss", "Validation: NLL, bits per token", True),
        CurveKind("valid", "loss", "Validation: label-smoothed loss, bits per token"),
        CurveKind("valid", "bleu", "Validation: BLEU while training, as logged"),
    ),
    "classes": (CurveKind("valid", "accuracy", "Validation: accuracy, %"),),
    "sets": (
        CurveKind("valid", "f1", "Validation: micro F1, %"),
        CurveKind("valid", "strict_accuracy", "Validation: share of right sets, %"),
    ),
    "numbers": (CurveKind("valid", "true_cosine", "Validation: cosine with the teacher's vectors"),),
}
REWARD_CURVES = (  # of systems that were trained with rewards, on the validation set of their baseline too
    CurveKind("train", "reward", "Training: mean reward of the samples"),
    CurveKind("valid", "held_out", "Validation: held-out evaluator"),
    CurveKind("valid", "bleu", "Validation: BLEU"),
    CurveKind("valid", "source_bleu", "Validation: BLEU against the source"),
    CurveKind("train", "copy_rate", "Training: share of samples that copy their source"),
    CurveKind("valid", "entropy", "Validation: entropy at the references, nats per token"),
    CurveKind("train", "entropy", "Training: entropy of the policy, nats per token"),
    CurveKind("train", "sample_length", "Training: tokens of a sample"),
)
TEACHER_CURVE = CurveKind("valid", "masked_accuracy", "Validation: masked accuracy, %")


@dataclass
class TrainingLog:
    """Content of a log.

    Attributes:
        train: means over the updates since the last line, by update; ``nll_loss`` in bits per target token.
        valid: values on the validation set, by update.
        seconds: time of training since the last start, as fairseq reports it; None if training has not ended.
    """

    train: Series = field(default_factory=dict)
    valid: Series = field(default_factory=dict)
    seconds: float | None = None

    @property
    def updates(self) -> int:
        """The last logged update; 0 without one."""
        return max([0, *self.train, *self.valid])

    @property
    def finished(self) -> bool:
        return self.seconds is not None

    def curve(self, part: str, name: str) -> Curve:
        """One value by update, ascending, without values that are not finite.

        Args:
            part: "train" or "valid".
            name: name in the log, such as "nll_loss".
        """
        series: Series = getattr(self, part)
        points = {update: series[update].get(name, math.nan) for update in sorted(series)}
        return {update: value for update, value in points.items() if math.isfinite(value)}

    @property
    def best(self) -> int | None:
        """Update of the validation with the lowest loss, the last of equal ones; None without a validation."""
        losses = self.curve("valid", "loss")
        return min(losses, key=lambda update: (losses[update], -update)) if losses else None


@dataclass(frozen=True)
class SystemCurve:
    """A value of a system against updates.

    Attributes:
        label: name in tables.
        by_seed: curves by seed, at least one; none is empty.
    """

    label: str
    by_seed: dict[int, Curve]

    @property
    def mean(self) -> Curve:
        """Mean over the seeds, at the updates that all seeds have; the first seed's curve if there are none."""
        first, *others = self.by_seed.values()
        common = [update for update in first if all(update in curve for curve in others)]
        count = len(self.by_seed)
        return {
            update: sum(curve[update] for curve in self.by_seed.values()) / count for update in common
        } or first


def read_training_log(path: str | Path) -> TrainingLog:
    """Content of a log. Lines without values, and a last line cut in its middle, are skipped.

    A run that was started again from a checkpoint logs some updates twice: the later line counts.

    Raises:
        FileNotFoundError: no such file.
    """
    log = TrainingLog()
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.endswith("\n"):  # else it is cut short, and its last number may be half a number
                _take_line(log, line)
    return log


def _take_line(log: TrainingLog, line: str) -> None:
    """Add what a line says to a log."""
    if match := _LINE.search(line):
        values = {name: float(value) for name, value in _PAIR.findall(match["values"])}
        if values.get("num_updates", math.nan).is_integer():
            series = log.valid if match["part"] == "valid" else log.train
            series[int(values["num_updates"])] = values
    elif match := _DONE.search(line):
        log.seconds = float(match["seconds"])
    elif "| begin training epoch " in line:
        log.seconds = None  # started again


def read_student_logs(experiment: Experiment, notes: Notes) -> dict[str, TrainingLog]:
    """Logs by name of the run. The notes say which are missing, cut short or behind their updates."""
    logs = {}
    for run in experiment.runs:
        where = f"logs/students/{run.name}.log"
        if not run.updates:
            continue  # it was not trained
        try:
            log = read_training_log(experiment.log(f"students/{run.name}"))
        except OSError:
            notes.add(where, "missing: no learning curve")
            continue
        logs[run.name] = log
        if not log.finished or log.updates < run.updates:
            state = "training ended" if log.finished else "cut short or still running: it ends"
            notes.add(where, f"{state} after {log.updates:,} of {run.updates:,} updates")
    return logs


def system_curve(runs: list[Run], logs: Mapping[str, TrainingLog], kind: CurveKind) -> SystemCurve | None:
    """A system's curve; None if no run has a point."""
    curves = {run.seed: logs[run.name].curve(kind.part, kind.name) for run in runs if run.name in logs}
    by_seed = {seed: curve for seed, curve in curves.items() if curve}
    return SystemCurve(runs[0].label, by_seed) if by_seed else None


def read_teacher_logs(experiment: Experiment, notes: Notes) -> dict[str, TrainingLog]:
    """Logs by name of the teacher, with at least one validation."""
    found = {path.stem for path in (experiment.folder / "logs").glob("teacher*.log")}
    named = {run.teacher for run in experiment.runs if run.teacher}
    if not named and experiment.kind == "text":
        named = {"teacher"}
    for name in sorted(named - found):
        notes.add(f"logs/{name}.log", "missing: no masked accuracy and perplexity of the teacher")
    teachers = {}
    for name in sorted(found):
        log = read_training_log(experiment.log(name))
        if not log.finished:
            notes.add(
                f"logs/{name}.log", f"cut short or still running: it ends after {log.updates:,} updates"
            )
        if log.best is None:
            notes.add(f"logs/{name}.log", "has no validation: no accuracy of the teacher")
        else:
            teachers[name] = log
    return teachers
