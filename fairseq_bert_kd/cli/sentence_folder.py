"""Writes a folder of prepared sentences under a temporary name, and gives it its own when it is complete."""

import contextlib
import os
import shutil
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.data import Dictionary, indexed_dataset
from numpy.typing import NDArray

from fairseq_bert_kd.storage.fairseq_data import LABELS_FILE, sentence_hash
from fairseq_bert_kd.storage.sentence_data import hashes_path, numbers_path

DICTIONARY_FILE = "dict.txt"


@dataclass
class Texts:
    """Texts of one side of a split as piece ids, without end of sentence.

    Attributes:
        ids: ids of all texts, one after another.
        lengths: pieces of each text.
    """

    ids: array = field(default_factory=lambda: array("i"))
    lengths: array = field(default_factory=lambda: array("i"))

    def append(self, ids: Sequence[int]) -> None:
        """Add a text."""
        self.ids.extend(ids)
        self.lengths.append(len(ids))

    def closed(self, lengths: NDArray[np.int64], eos: int) -> Iterator[NDArray[np.int64]]:
        """Ids of each text, cut to its length, the last of which is end of sentence."""
        ids = np.frombuffer(self.ids, np.int32)  # no copy: a corpus may fill the memory
        own = np.frombuffer(self.lengths, np.int32)
        for start, length in zip(np.cumsum(own, dtype=np.int64) - own, lengths, strict=True):
            tokens = np.empty(length, np.int64)
            tokens[:-1], tokens[-1] = ids[start : start + length - 1], eos
            yield tokens


@dataclass
class Split:
    """A split in memory.

    Attributes:
        name: "train" for example.
        texts: one or two sides.
        labels: ``(rows,)`` class numbers or numbers; None if unlabelled.
    """

    name: str
    texts: list[Texts]
    labels: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.texts[0].lengths)

    def renumber(self, final: NDArray[np.int64]) -> None:
        """Replace every id by ``final[id]``."""
        for side in self.texts:
            side.ids = array("i", final[np.frombuffer(side.ids, np.int32)].astype(np.int32).tobytes())

    def lengths(self) -> NDArray[np.int64]:
        """``(rows, texts)`` tokens of each text with its end of sentence."""
        return np.stack([np.array(side.lengths, np.int64) + 1 for side in self.texts], axis=1)


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder under a temporary name beside ``folder``, which gets that name when the block has succeeded."""
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    former = folder.with_name(f"{folder.name}.{os.getpid()}.old")
    try:
        temporary.mkdir()
        yield temporary
        if folder.exists():
            os.rename(folder, former)
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if former.exists() and not folder.exists():  # stopped between the two
            os.rename(former, folder)
        shutil.rmtree(former, ignore_errors=True)


def check_folder(folder: Path, overwrite: bool) -> None:
    """Raise an error for a folder that must not, or cannot, be written.

    Raises:
        FileExistsError: it exists.
        FileNotFoundError: the folder that shall hold it does not exist.
        ValueError: it would be overwritten but holds something else than prepared sentences.
    """
    if not folder.absolute().parent.is_dir():
        raise FileNotFoundError(f"the folder of --destdir `{folder}` does not exist. Create it first.")
    if not folder.exists():
        return
    if not overwrite:
        raise FileExistsError(
            f"--destdir `{folder}` exists; choose another name, or pass --overwrite to replace it"
        )
    if not (folder / LABELS_FILE).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"--destdir `{folder}` holds no prepared sentences (no {LABELS_FILE}), so it is not overwritten; choose another name"
        )


def write_split(
    folder: Path, split: Split, lengths: NDArray[np.int64], dictionary: Dictionary, classes: Dictionary
) -> NDArray[np.uint64]:
    """Write texts, labels and hashes of a split.

    Args:
        folder: data folder.
        split: the split, ids of ``dictionary``.
        lengths: ``(rows, texts)`` tokens to write of each text, end of sentence included.
        dictionary: dictionary of all texts.
        classes: names of the labels, in the order of their numbers.

    Returns:
        ``(rows, texts)`` hashes of the texts.
    """
    hashes = np.empty(lengths.shape, np.uint64)
    for column, side in enumerate(split.texts):
        with _builder(folder / f"input{column}", split.name, len(dictionary)) as builder:
            for row, tokens in enumerate(side.closed(lengths[:, column], dictionary.eos())):
                builder.add_item(torch.from_numpy(tokens))
                hashes[row, column] = sentence_hash(tokens)
    np.save(hashes_path(folder, split.name), hashes)
    if split.labels is not None:
        _write_labels(folder, split, classes)
    return hashes


def write_dictionary(folder: Path, side: str, dictionary: Dictionary) -> None:
    """Write ``SIDE/dict.txt``."""
    (folder / side).mkdir(exist_ok=True)
    dictionary.save(str(folder / side / DICTIONARY_FILE))


def _write_labels(folder: Path, split: Split, classes: Dictionary) -> None:
    assert split.labels is not None
    if split.labels.dtype == np.float64:  # where fairseq's own task reads numbers
        path = numbers_path(folder, split.name)
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{number!r}\n" for number in split.labels.tolist()), encoding="utf-8")
        return
    with _builder(folder / "label", split.name, len(classes)) as builder:
        for number in split.labels.tolist():  # as fairseq-preprocess writes a file of names
            builder.add_item(torch.tensor([classes.nspecial + number, classes.eos()]))


@contextlib.contextmanager
def _builder(folder: Path, split: str, symbols: int) -> Iterator[Any]:
    folder.mkdir(exist_ok=True)
    builder = indexed_dataset.make_builder(str(folder / f"{split}.bin"), impl="mmap", vocab_size=symbols)
    yield builder
    builder.finalize(str(folder / f"{split}.idx"))
