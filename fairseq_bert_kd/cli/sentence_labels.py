"""Labels of files as class numbers or numbers, by name."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.cli.sentence_presets import Preset
from fairseq_bert_kd.cli.sentence_table import Row
from fairseq_bert_kd.storage.fairseq_data import SPECIAL_SYMBOLS
from fairseq_bert_kd.storage.sentence_data import CLASSES, NUMBERS, UNLABELLED

SHOWN = 12  # names in a message


class Labels:
    """Reads labels, and knows which ones there are.

    Args:
        kind: one of `sentence_data.KINDS`.
        names: names of the classes in the order of their numbers; empty to learn them from the first rows, until `close`.
        spellings: other spellings of the names in files.
        bounds: least and greatest number.

    Raises:
        ValueError: fewer than two classes, a name twice, or one that a dictionary cannot hold.
    """

    def __init__(
        self,
        kind: str,
        names: Sequence[str] = (),
        spellings: Mapping[str, Sequence[str]] | None = None,
        bounds: tuple[float, float] | None = None,
    ):
        self.kind = kind
        self.bounds = bounds
        self.names = tuple(names)
        self._open = kind == CLASSES and not names
        if names:
            check_names(names)
        self._numbers = {name: number for number, name in enumerate(names)}
        for name, others in (spellings or {}).items():
            if name in self._numbers:
                self._numbers |= dict.fromkeys(others, self._numbers[name])

    def read(self, path: str, row: Row) -> float:
        """The number of a row's label.

        Raises:
            ValueError: an unknown class, no number, or one that is out of bounds; names file and line.
        """
        label = row.label
        assert label is not None
        if self.kind == NUMBERS:
            return self._number(path, row.line, label)
        number = self._numbers.get(label)
        if number is None:
            if not self._open or not label:
                known = (
                    ", ".join(self._numbers)
                    if len(self._numbers) <= SHOWN
                    else ", ".join(self.names[:SHOWN]) + ", ..."
                )
                raise ValueError(
                    f"`{path}`, line {row.line:,}: the label `{label}` is none of the known ones ({known or 'none yet'}). "
                    "Correct the line, or name all classes with --classes"
                )
            number = self._numbers[label] = len(self._numbers)
        return number

    def _number(self, path: str, line: int, label: str) -> float:
        try:
            number = float(label)
        except ValueError:
            number = float("nan")
        low, high = self.bounds or (float("-inf"), float("inf"))
        if not np.isfinite(number) or not low <= number <= high:
            expected = f"a number from {low:g} to {high:g}" if self.bounds else "a number"
            raise ValueError(
                f"`{path}`, line {line:,}: the label must be {expected}, but is `{label}`. Correct the line, or check which "
                "column is the label's"
            )
        return number

    def close(self) -> NDArray[np.int64] | None:
        """Fix the classes that were learned, sorted; gives the final number of each provisional one, None if it is the same."""
        if not self._open:
            return None
        self._open = False
        check_names(tuple(self._numbers))
        self.names = tuple(sorted(self._numbers, key=_natural))
        order = {name: number for number, name in enumerate(self.names)}
        final = np.array([order[name] for name in self._numbers], np.int64)
        self._numbers = order
        return final

    def describe(self, values: NDArray[Any]) -> str:
        """What a split's labels are, in a few words."""
        if self.kind == NUMBERS:
            return f"labels {values.min():g} to {values.max():g}, mean {values.mean():.3g}"
        counts = np.bincount(values, minlength=len(self.names))
        shown = [f"{name} {count:,}" for name, count in zip(self.names, counts, strict=True)]
        return ", ".join(
            [*shown[:SHOWN], *([f"and {len(shown) - SHOWN} more classes"] if len(shown) > SHOWN else [])]
        )


def labels_for(kind: str, preset: Preset | None, names: Sequence[str]) -> Labels:
    """Labels of a task's or of one's own files.

    Args:
        kind: what they are.
        preset: the task; None for one's own files.
        names: names given by the user or by a folder; empty for the task's own, or those of the training file.
    """
    if kind == UNLABELLED or preset is None:
        return Labels(kind, names)
    return Labels(kind, names or tuple(preset.classes), preset.classes, preset.bounds)


def check_names(names: Sequence[str]) -> None:
    """Check the names of classes.

    Raises:
        ValueError: fewer than two, one twice, or one that fairseq's dictionary or the files of predictions cannot hold.
    """
    if len(names) < 2:
        raise ValueError(
            f"a classifier needs at least two classes, the labels are {', '.join(names) or 'empty'}; check which column is "
            "the label's"
        )
    for name in names:
        if not name or name != name.strip() or not name.isprintable() or name in SPECIAL_SYMBOLS:
            raise ValueError(f"{name!r} cannot be the name of a class; write it otherwise in the files")
        if names.count(name) > 1:
            raise ValueError(f"the class `{name}` is named twice; name every class once")


def _natural(name: str) -> tuple[int, int, str]:
    """Key that sorts whole numbers by value, before other names."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)
