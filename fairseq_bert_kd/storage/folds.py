"""Folds of a corpus of pairs, for soft labels of teachers that have not seen what they score.

Cross-fitting of distillation is of Dao et al., "Knowledge Distillation as Semiparametric Inference" (ICLR 2021). Folds by
content are our choice: order and number of the pairs do not matter. They follow from the target alone, since a teacher that has
learned a target with another source knows what it is asked for.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.fairseq_data import sentence_hash


@dataclass(frozen=True, order=True)
class Fold:
    """Fold ``number`` of ``count``, from 1: the pairs that its teacher does not learn from."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


@dataclass(frozen=True)
class FoldTeacher:
    """The teacher of a fold, for a store's header.

    Attributes:
        fold: ``1/4`` for example; the teacher was trained without this fold and has scored it alone.
        teacher: name of the teacher.
        teacher_digest: sha256 of its checkpoint, hexadecimal.
    """

    fold: str
    teacher: str
    teacher_digest: str


def parse_fold(text: str, what: str = "a fold") -> Fold:
    """``2/4`` as the second of four folds; ValueError for anything else, with ``what`` (an option) in its message."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(count) > 1 and 1 <= int(number) <= int(count)):
        raise ValueError(
            f"{what} must be I/N with N of at least 2 and I from 1 to N, got `{text}`; for example 1/4"
        )
    return Fold(int(number), int(count))


def fold_numbers(hashes: Any, count: int) -> NDArray[np.int64]:
    """``(sentences,)`` number of each pair's fold, from 1: its target's hash modulo ``count``, plus 1.

    Args:
        hashes: ``(sentences,)`` uint64 by side, of which ``target`` is read, see `fairseq_data.sentence_hash`.
        count: folds in all.
    """
    return (np.asarray(hashes["target"], dtype=np.uint64) % np.uint64(count)).astype(np.int64) + 1


def in_fold(pairs: Any, fold: Fold) -> NDArray[np.bool_]:
    """``(sentences,)`` whether each pair is of a fold.

    Args:
        pairs: ids of each sentence by side, end of sentence included; ``target`` is read.
        fold: the fold.
    """
    targets = pairs["target"]
    hashes = np.fromiter((sentence_hash(targets[i]) for i in range(len(targets))), np.uint64, len(targets))
    return fold_numbers({"target": hashes}, fold.count) == fold.number


def fold_path(path: str | os.PathLike[str], fold: Fold | None) -> Path:
    """Path of the part of a store that holds one fold; the store's own path for None."""
    path = Path(path)
    return path if fold is None else path.with_name(f"{path.name}.fold-{fold.number}-of-{fold.count}")


def is_fold_path(path: str | os.PathLike[str]) -> bool:
    """Whether a file has the name of a fold, and not of a shard of one."""
    return re.search(r"\.fold-\d+-of-\d+$", Path(path).name) is not None


def store_of_fold(path: str | os.PathLike[str]) -> Path:
    """Path of the store that a fold's file belongs to.

    Raises:
        ValueError: the file is not named like a fold.
    """
    name, separator, _ = Path(path).name.rpartition(".fold-")
    if not separator:
        raise ValueError(f"{path} is not named like a fold (`STORE.fold-1-of-4`); give --output")
    return Path(path).with_name(name)
