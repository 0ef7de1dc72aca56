"""Reads fairseq's logs of students and teachers, whole or cut short, and their learning curves.

Both of fairseq's formats are read: ``--log-format json`` and ``simple``.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fairseq_bert_kd.report.read_experiment import Experiment, Notes, Run

_LINE = re.compile(r"\| (?P<part>train_inner|valid) \| (?P<values>.*)")
_DONE = re.compile(r"\| done training in (?P<seconds>[\d.e+-]+) seconds")
_NUMBER = r"-?(?:\d+(?:\.\d*)?(?:e[+-]?\d+)?|inf|nan)"
_PAIR = re.compile(rf"(\w+)[= ]({_NUMBER})(?![\w.])")  # 4.10.0 is not a number
Series = dict[int, dict[str, float]]  # update -> name -> value


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
    perplexity: bool


STUDENT_CURVES = (
    CurveKind("train", "nll_loss", "Training: NLL, bits per token", True),
    CurveKind("valid", "nll_loss", "Validation: NLL, bits per token", True),
    CurveKind("valid", "loss", "Validation: label-smoothed loss, bits per token", False),
    CurveKind("valid", "bleu", "Validation: BLEU while training, as logged", False),
)
TEACHER_CURVES = (CurveKind("valid", "masked_accuracy", "Validation: masked accuracy, %", False),)


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

    def curve(self, part: str, name: str) -> dict[int, float]:
        """One value by update, ascending, without values that are not finite.

        Args:
            part: "train" or "valid".
            name: name in the log, such as "nll_loss".
        """
        series: Series = getattr(self, part)
        points = {update: values[name] for update, values in sorted(series.items()) if name in values}
        return {update: value for update, value in points.items() if math.isfinite(value)}


@dataclass(frozen=True)
class SystemCurve:
    """A value of a system against updates.

    Attributes:
        system: name of the system.
        label: name in tables.
        by_seed: update to value, by seed.
    """

    system: str
    label: str
    by_seed: dict[int, dict[int, float]]

    @property
    def mean(self) -> dict[int, float]:
        """Mean over the seeds, at the updates that all seeds have."""
        common = set.intersection(*map(set, self.by_seed.values())) if self.by_seed else set()
        count = len(self.by_seed)
        return {
            update: sum(curve[update] for curve in self.by_seed.values()) / count for update in sorted(common)
        }


@dataclass(frozen=True)
class TeacherLog:
    """A teacher's log and its best validation.

    Attributes:
        name: folder of the teacher.
        log: the whole log.
        updates: update of the best validation.
        accuracy: per cent of the masked tokens there; None if not logged.
        perplexity: perplexity of the masked tokens there; None if not logged.
    """

    name: str
    log: TrainingLog
    updates: int
    accuracy: float | None
    perplexity: float | None


def read_training_log(path: str | Path) -> TrainingLog:
    """Content of a log. Lines without values, and a last line cut in its middle, are skipped.

    A run that was started again from a checkpoint logs some updates twice: the later line counts.

    Raises:
        FileNotFoundError: no such file.
    """
    log = TrainingLog()
    series = {"train_inner": log.train, "valid": log.valid}
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if not line.endswith("\n"):
                continue  # cut short: its last number may be half a number
            if match := _LINE.search(line):
                values = dict(_values(match["values"]))
                if values.get("num_updates", math.nan).is_integer():
                    series[match["part"]][int(values["num_updates"])] = values
            elif match := _DONE.search(line):
                log.seconds = float(match["seconds"])
            elif "| begin training epoch " in line:
                log.seconds = None  # started again
    return log


def _values(text: str) -> Iterator[tuple[str, float]]:
    """Numbers of a line by name: of a JSON object, whose names may begin with the subset, or in the simple format."""
    if not text.startswith("{"):
        yield from ((name, float(value)) for name, value in _PAIR.findall(text))
        return
    try:
        record = json.loads(text)
    except ValueError:
        return
    for name, value in record.items():
        if re.fullmatch(_NUMBER, str(value)):
            yield name.removeprefix("valid_"), float(value)


def read_student_logs(experiment: Experiment, notes: Notes) -> dict[str, TrainingLog]:
    """Logs by name of the run. The notes say which are missing, cut short or behind their updates."""
    logs = {}
    for run in experiment.runs:
        where = f"logs/students/{run.name}.log"
        try:
            log = read_training_log(experiment.log(f"students/{run.name}"))
        except OSError:
            notes.add(where, "missing: no learning curve")
            continue
        logs[run.name] = log
        reached = f"after {log.updates:,} of {run.updates:,} updates"
        if not log.finished:
            notes.add(where, f"cut short or still running: it ends {reached}")
        elif log.updates < run.updates:
            notes.add(where, f"training ended {reached}")
    return logs


def system_curve(runs: list[Run], logs: dict[str, TrainingLog], kind: CurveKind) -> SystemCurve | None:
    """A system's curve; None if no run has a point."""
    by_seed = {run.seed: logs[run.name].curve(kind.part, kind.name) for run in runs if run.name in logs}
    by_seed = {seed: curve for seed, curve in by_seed.items() if curve}
    return SystemCurve(runs[0].system, runs[0].label, by_seed) if by_seed else None


def read_teacher_logs(experiment: Experiment, notes: Notes) -> list[TeacherLog]:
    """The log of every ``logs/teacher*.log``; the best validation is the one with the lowest loss."""
    teachers = []
    paths = sorted(
        (experiment.folder / "logs").glob("teacher*.log"),
        key=lambda path: (path.stem != "teacher", path.stem),
    )
    named = {run.teacher for run in experiment.runs if run.teacher} or {"teacher"}
    for name in sorted(named - {path.stem for path in paths}):
        notes.add(f"logs/{name}.log", "missing: no masked accuracy and perplexity of the teacher")
    for path in paths:
        where, log = f"logs/{path.name}", read_training_log(path)
        if not log.finished:
            notes.add(where, f"cut short or still running: it ends after {log.updates:,} updates")
        losses = log.curve("valid", "loss")
        if not losses:
            notes.add(where, "has no validation: no accuracy of the teacher")
            continue
        best = min(losses, key=lambda update: (losses[update], -update))
        values = log.valid[best]
        teachers.append(
            TeacherLog(
                name=path.stem, log=log, updates=best,
                accuracy=values.get("masked_accuracy"), perplexity=values.get("ppl"),
            )
        )  # fmt: skip
    return teachers
