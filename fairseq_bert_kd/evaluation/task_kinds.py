"""Kinds of tasks: what their systems put out, and how it is read."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fairseq_bert_kd.evaluation.fairseq_output import read_hypotheses, read_lines


class TaskKind(NamedTuple):
    """What the systems of an experiment put out.

    Attributes:
        is_text: whether predictions are sentences, whose words and lengths can be compared.
        read_predictions: reads a run's output; takes the path and the number of references.
        read_references: reads the references.
    """

    is_text: bool
    read_predictions: Callable[[Path, int], list[Any]]
    read_references: Callable[[Path], list[Any]]


def read_classes(path: str | Path) -> list[str]:
    """Names of classes, one per line.

    Raises:
        ValueError: not UTF-8, or a line without a class.
    """
    classes = [line.strip() for line in read_lines(path)]
    if "" in classes:
        raise ValueError(f"`{path}`, line {classes.index('') + 1}: no class; write one class per line")
    return classes


def read_numbers(path: str | Path) -> list[float]:
    """Finite numbers, one per line.

    Raises:
        ValueError: not UTF-8, or a line that is not a finite number.
    """
    numbers = []
    for place, line in enumerate(read_lines(path), start=1):
        try:
            numbers.append(float(line))
        except ValueError:
            numbers.append(math.nan)
        if not math.isfinite(numbers[-1]):
            raise ValueError(f"`{path}`, line {place}: {line!r} is not a finite number; write one per line")
    return numbers


def _of_number(read: Callable[[Path], list[Any]]) -> Callable[[Path, int], list[Any]]:
    """The reader, with a check of the number of lines."""

    def read_predictions(path: Path, expected: int) -> list[Any]:
        predictions = read(path)
        if len(predictions) != expected:
            raise ValueError(
                f"`{path}` has {len(predictions)} predictions for {expected} references; predict the whole set"
            )
        return predictions

    return read_predictions


TASK_KINDS = {
    "text": TaskKind(True, read_hypotheses, read_lines),
    "classes": TaskKind(False, _of_number(read_classes), read_classes),
    "numbers": TaskKind(False, _of_number(read_numbers), read_numbers),
}
