"""Top-k rows in the form of Chen et al. 2020's released code, for tests and benchmarks of bytes and reads.

Their ``dump_teacher_topk.py`` (lines 26-31 and 36-43, commit a3b0b22) writes a shelve that maps the line number of
the sentence, ``"0"`` from the first line on, to bytes: ``torch.save`` of the pair (logits float16 ``(rows, 128)``,
ids int64 ``(rows, 128)``). Rows are the target's tokens and the end of sentence; ids are those of the student's
ONMT vocabulary. Their image (``nvcr.io/nvidia/pytorch:19.03-py3``: Python 3.6, torch 1.1) gives pickle protocol 3,
torch's form before the zip files, and ``dbm.dumb`` (their README lists ``.bak``, ``.dat`` and ``.dir``).
"""

import dbm.dumb
import io
import shelve
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SHELVE_PROTOCOL = 3  # shelve's default in Python 3.6
DUMB = "dbm.dumb"  # what their image uses
PLATFORM = "platform"  # what shelve uses here


def saved(logits: Any, ids: Any, zipped: bool = False) -> bytes:
    """One sentence as they store it, before the shelve pickles the bytes.

    Args:
        logits: ``(rows, k)`` float16, arrays or tensors.
        ids: ``(rows, k)`` int64.
        zipped: the form of torch >= 1.6 instead of theirs.
    """
    pair = (torch.as_tensor(logits), torch.as_tensor(ids))
    with io.BytesIO() as file:
        torch.save(pair, file, _use_new_zipfile_serialization=zipped)
        return file.getvalue()


def open_shelve(path: str | Path, kind: str = DUMB) -> Any:
    """A new, empty shelve as in their image, or as Python makes it here."""
    if kind == PLATFORM:
        return shelve.open(str(path), "n")
    return shelve.Shelf(dbm.dumb.open(str(path), "n"), protocol=SHELVE_PROTOCOL)


def write_authors_shelve(
    path: str | Path,
    rows_of_sentence: Iterable[tuple[Any, Any] | None],
    kind: str = DUMB,
    zipped: bool = False,
) -> None:
    """Write a dump.

    Args:
        path: of the shelve, without the endings that dbm adds.
        rows_of_sentence: for each sentence logits ``(rows, k)`` float16 and ids ``(rows, k)`` int64; None leaves
            its key out, as their code does beyond 512 tokens.
        kind: ``DUMB`` or ``PLATFORM``.
        zipped: see `saved`.
    """
    with open_shelve(path, kind) as shelf:
        for sentence, rows in enumerate(rows_of_sentence):
            if rows is not None:
                shelf[str(sentence)] = saved(*rows, zipped=zipped)


class AuthorsReader:
    """Reads as their data set does (``onmt/inputters/bert_kd_dataset.py``, lines 97-100 and 134-136).

    It unpickles what the shelve holds: for dumps made here only. Use ``fairseq-bert-kd store import`` for others.

    Args:
        path: of the shelve.
        k: tokens of each row, the best ones.
    """

    def __init__(self, path: str | Path, k: int = 8):
        self._shelf = shelve.open(str(path), "r")  # noqa: SIM115 - closed by close()
        self._k = k

    def __len__(self) -> int:
        return len(self._shelf)

    def rows(self, sentence: int) -> tuple[Tensor, Tensor]:
        """``(rows, k)`` float32 logits and int64 ids; KeyError for a sentence that the dump lacks."""
        with io.BytesIO(self._shelf[str(sentence)]) as file:
            logits, ids = torch.load(file)
        return logits[:, : self._k].float(), ids[:, : self._k]

    def close(self) -> None:
        self._shelf.close()
