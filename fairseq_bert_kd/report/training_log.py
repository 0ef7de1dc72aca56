"""Reads fairseq's simple log of a training, whole or cut short."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

_TRAIN = re.compile(r"\| train_inner \| (?P<values>.*)")
_VALID = re.compile(r"\| valid on 'valid' subset \| (?P<values>.*)")
_NUMBER = r"\d+(?:\.\d*)?(?:e[+-]?\d+)?"
_DONE = re.compile(rf"\| done training in (?P<seconds>{_NUMBER}) seconds")
_PAIR = re.compile(rf"(\w+)[= ](-?(?:{_NUMBER}|inf|nan))(?![\w.])")  # 4.10.0 is no number
Series = dict[int, dict[str, float]]  # update -> name -> value


@dataclass
class TrainingLog:
    """What a log says.

    Attributes:
        train: means over the updates since the last line, by update; ``nll_loss`` in bits a target token.
        valid: of the validation set, by update.
        seconds: that fairseq says it trained since it was last started; None when it has not ended.
    """

    train: Series = field(default_factory=dict)
    valid: Series = field(default_factory=dict)
    seconds: float | None = None

    @property
    def updates(self) -> int:
        """The last update that the log tells of; 0 without one."""
        return max([0, *self.train, *self.valid])

    @property
    def finished(self) -> bool:
        return self.seconds is not None

    def curve(self, part: str, name: str) -> dict[int, float]:
        """One value by update, ascending; values that are not finite are left out.

        Args:
            part: "train" or "valid".
            name: "nll_loss", for example.
        """
        series: Series = getattr(self, part)
        points = {update: values[name] for update, values in sorted(series.items()) if name in values}
        return {update: value for update, value in points.items() if math.isfinite(value)}


def read_training_log(path: str | Path) -> TrainingLog:
    """Parse a log; lines that tell nothing, or end in their middle, are passed over.

    A run that was started again from a checkpoint logs some updates twice: the later line counts.

    Raises:
        FileNotFoundError: no such file.
    """
    log = TrainingLog()
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if not line.endswith("\n"):
                continue  # cut short: its last number may be half a number
            if found := _TRAIN.search(line):
                _add(log.train, found["values"])
            elif found := _VALID.search(line):
                _add(log.valid, found["values"])
            elif found := _DONE.search(line):
                log.seconds = float(found["seconds"])
            elif "| begin training epoch " in line:
                log.seconds = None  # started again
    return log


def _add(series: Series, text: str) -> None:
    values = {name: float(value) for name, value in _PAIR.findall(text)}
    if values.get("num_updates", math.nan).is_integer():
        series[int(values["num_updates"])] = values
