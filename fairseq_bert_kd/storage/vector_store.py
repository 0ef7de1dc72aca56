"""Stores of sentence vectors: schema, reader, and the name of the file beside the data."""

import math
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.fairseq_data import SideFiles, sentence_files
from fairseq_bert_kd.storage.reader import StoreReader
from fairseq_bert_kd.storage.schema import ChunkData, RowFault, StoreInfo
from fairseq_bert_kd.storage.store_folders import check_store_name, rebuilding

DTYPES = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}
VECTORS = ("cls", "pooler", "mean", "last2-mean")
SIDE = "input0"  # of a folder of sentences
COSINE = "cosine"
_UNNAMED = "sentences"  # SPLIT.sentences.vec


@dataclass(frozen=True, kw_only=True)
class VectorInfo(StoreInfo):
    """Statement of the creator of a store of sentence vectors; see `StoreInfo` for the fields of every store.

    Attributes:
        width: numbers of a vector.
        dtype: their type, one of `DTYPES`.
        vector: how the encoder makes a vector, one of `VECTORS`, or the encoder's own name for it.
        dictionary_digest: digest of the data's dictionary, see `fairseq_data.dictionary_digest`.
        similarity: "cosine" where the encoder is made to be compared by it; "" where not known.
    """

    width: int
    dtype: str = "float16"
    vector: str = "mean"
    dictionary_digest: str = ""
    similarity: str = ""

    schema: ClassVar[str] = "sentence vectors"
    suffix: ClassVar[str] = "vec"
    command: ClassVar[str] = "fairseq-bert-kd vectors"
    sides: ClassVar[tuple[str, ...]] = (SIDE,)

    @property
    def record_dtype(self) -> np.dtype[Any]:
        return np.dtype([("vector", DTYPES[self.dtype], (self.width,))])

    @property
    def table_columns(self) -> list[tuple]:
        return [*super().table_columns, ("length", "<f8")]  # Euclidean, summed

    def constants(self) -> dict[str, Any]:
        return {"normalised": False}

    def check(self) -> None:
        super().check()
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be {' or '.join(DTYPES)}, got {self.dtype!r}")

    def row_faults(self, records: NDArray[Any]) -> list[RowFault]:
        vectors = records["vector"]
        bad = ~np.isfinite(vectors).all(axis=1)
        return [RowFault(bad, f"a vector must be finite in {self.dtype}", vectors)]

    def count(self, data: ChunkData) -> dict[str, Any]:
        vectors = data.records["vector"][data.scored].astype(np.float64)
        return super().count(data) | {"length": np.sqrt((vectors**2).sum(axis=1)).sum()}

    def summarise(self, table: NDArray[Any]) -> dict[str, Any]:
        """Counts and the mean length; exact sums, so the order of chunks and shards does not matter."""
        summary = super().summarise(table)
        rows = summary["scored_rows"]
        return summary | {"mean_length": math.fsum(table["length"]) / rows if rows else None}

    def files(self, folder: str | Path) -> dict[str, SideFiles]:
        return sentence_files(folder, self.split, self.sides)

    def dictionaries(self) -> dict[str, tuple[str, str]]:
        return {SIDE: (f"{SIDE}/dict.txt", self.dictionary_digest)}

    @classmethod
    def rebuild_command(cls, path: Path, *more: str) -> str:
        split, *rest = path.name.split(".")
        options = ["--encoder-model MODEL", f"--subset {shlex.quote(split)}"]
        if len(rest) > 2 and rest[2] == cls.suffix:  # SPLIT.sentences.NAME.vec
            options.append(f"--name {shlex.quote(rest[1])}")
        return rebuilding(path, cls.command, *options, *more)


class VectorReader(StoreReader):
    """Reads a store of sentence vectors, see `StoreReader`."""

    schema = VectorInfo
    info: VectorInfo

    def vectors(self, sentences: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """``(n, width)`` vectors of some sentences, zeros where missing; and ``(n,)`` whether each is there."""
        records, present = self.gather_records(sentences, 1)
        return records["vector"][:, 0], present[:, 0]


def to_records(vectors: NDArray[np.float32], info: VectorInfo, first_sentence: int) -> NDArray[Any]:
    """Finite vectors as the store's records.

    Args:
        vectors: ``(rows, width)``.
        info: info of the store.
        first_sentence: corpus index of the first row, for the message.

    Raises:
        ValueError: a number beyond the range of the store's type.
    """
    records = np.zeros(len(vectors), info.record_dtype)
    with np.errstate(over="ignore"):
        records["vector"] = vectors
    bad = ~np.isfinite(records["vector"]).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        largest = float(np.abs(vectors[row]).max())
        raise ValueError(
            f"sentence {first_sentence + row} has a vector with {largest:g}, beyond {info.dtype}'s {np.finfo(info.dtype).max}; "
            "store it with --dtype float32 --overwrite"
        )
    return records


def vector_store_path(folder: str | os.PathLike[str], split: str, name: str = "") -> Path:
    """Path of the store of a split: ``train.sentences.vec`` in the data folder.

    Args:
        folder: data folder.
        split: "train", for example.
        name: name among several stores of the same data, ``train.sentences.NAME.vec``.

    Raises:
        ValueError: a name with characters other than letters, digits, ``_`` and ``-``.
    """
    if name:
        check_store_name(name)
    middle = f".{name}" if name else ""
    return Path(folder) / f"{split}.{_UNNAMED}{middle}.{VectorInfo.suffix}"
