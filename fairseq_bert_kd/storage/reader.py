"""Reads a store by memory map: opens in constant time, gives rows by sentence. `writer` writes it."""

import operator
import os
from pathlib import Path
from typing import Any, ClassVar, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairseq_bert_kd.storage.header import damaged, read_header
from fairseq_bert_kd.storage.schema import (
    HASH_DTYPE,
    OFFSET_DTYPE,
    SCORED,
    STATUS_DTYPE,
    ChunkData,
    StoreInfo,
)
from fairseq_bert_kd.storage.store_file import StoreFile


class StoreReader(StoreFile):
    """Opens in constant time and memory; copies into other processes reopen the file.

    A subclass names the schema that it reads.

    Args:
        path: path of a store.
        shard: also open a single shard of a store, with its own count of sentences.

    Attributes:
        path: absolute.
        info: statement of the creator.
        header: everything else in the header.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a store, one shard only, another schema or format version, a damaged header, a file that is
            shorter or longer than its header says.
    """

    schema: ClassVar[type[StoreInfo]]

    def __init__(self, path: str | os.PathLike[str], shard: bool = False):
        path = Path(path).absolute()
        self._shard = shard
        if not path.is_file():
            raise FileNotFoundError(f"store {path} does not exist; write it with `{self.schema.command}`")
        with open(path, "rb") as file:
            header = read_header(file, path, (self.schema,))
            content: NDArray[np.uint8] = np.memmap(file, dtype=np.uint8, mode="r").view(np.ndarray)
        if header.shard.count > 1 and not shard:
            raise ValueError(
                f"{path} is shard {header.shard} of a store; join the shards with `fairseq-bert-kd store merge`"
            )
        # without `self` in it, or the map would outlive the reader until the next garbage collection
        super().__init__(path, header, lambda start, end: content[start:end])
        sentences, rows = header.layout.sentences, header.layout.rows
        self._offsets = self.items("offsets", OFFSET_DTYPE, 0, sentences + 1)
        self._hashes = {
            side: self.items(f"{side}_hashes", HASH_DTYPE, 0, sentences) for side in self.info.sides
        }
        self._status = self.items("status", STATUS_DTYPE, 0, sentences)
        self._records = self.items("records", self.info.record_dtype, 0, rows)
        # numpy copies a structured type field by field, and bytes without a type at once
        self._raw = self._records.view(np.dtype((np.void, self._records.dtype.itemsize)))
        first, last = self._offsets[0], self._offsets[-1]
        if first != 0 or last != rows:
            raise damaged(path, f"its index runs from row {first} to {last}, not 0 to {rows}", self.info)

    def __len__(self) -> int:
        """Sentences, missing ones included."""
        return self._offsets.size - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """``(sentences,)`` rows of each sentence."""
        return np.diff(self._offsets)

    @property
    def scored(self) -> NDArray[np.bool_]:
        """``(sentences,)`` whether the teacher has scored each sentence."""
        return self._status == SCORED

    @property
    def missing_sentences(self) -> int:
        """Number of sentences that the teacher has not scored."""
        return sum(self.header.missing.values())

    def rows(self, index: SupportsIndex) -> NDArray[Any]:
        """``(rows,)`` records of one sentence, a read-only view; fields as in the format's specification.

        Raises:
            IndexError: ``index`` is not in ``range(len(self))``.
        """
        i = self._checked(index)
        return self._records[self._offsets[i] : self._offsets[i + 1]]

    def status(self, index: SupportsIndex) -> int:
        """0 for a scored sentence, else why it is missing, see the schema; IndexError as in `rows`."""
        return int(self._status[self._checked(index)])

    def is_missing(self, index: SupportsIndex) -> bool:
        """Whether the teacher has not scored the sentence; IndexError as in `rows`."""
        return self.status(index) != SCORED

    def hashes(self, index: SupportsIndex) -> dict[str, int]:
        """Hash of the sentence's ids by side, see `fairseq_data.sentence_hash`; IndexError as in `rows`."""
        i = self._checked(index)
        return {side: int(hashes[i]) for side, hashes in self._hashes.items()}

    def gather_records(self, sentence_ids: ArrayLike, width: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Rows of a mini-batch, padded with zeros.

        Args:
            sentence_ids: ``(batch,)`` corpus indices, in any order, repeats allowed.
            width: positions of the result, at least the rows of the longest sentence.

        Returns:
            ``(batch, width)`` records, and ``(batch, width)`` bool: where the teacher scored the position.

        Raises:
            IndexError: a sentence that is not in ``range(len(self))``.
            ValueError: a sentence with more than ``width`` rows.
        """
        sentences = np.asarray(sentence_ids)
        if sentences.size and sentences.dtype.kind not in "iu":
            raise ValueError(f"sentence_ids must be integers, got {sentences.dtype}; convert them before")
        outside = (sentences < 0) | (sentences >= len(self))
        if outside.any():
            self._checked(sentences[outside.argmax()])
        sentences = sentences.astype(np.int64, copy=False)
        starts = self._offsets[sentences]
        lengths = self._offsets[sentences + 1] - starts
        if lengths.size and lengths.max() > width:
            i = lengths.argmax()
            raise ValueError(
                f"width must cover every row: sentence {sentences[i]} has {lengths[i]}, got width {width}; "
                "pass the padded length, end of sentence included"
            )
        kept = np.where(self._status[sentences] == SCORED, lengths, 0)
        columns = np.arange(width)
        present = columns < kept[:, None]  # (batch, width)
        rows = np.zeros(present.shape, dtype=self._raw.dtype)
        rows[present] = self._raw.take((starts[:, None] + columns)[present])
        return rows.view(self._records.dtype), present

    def checked_chunk(self, local: int) -> ChunkData:
        """A chunk of this file, proven; ValueError when its index or its digest is wrong."""
        try:
            return super().checked_chunk(local)
        except ValueError as error:
            step = "`fairseq-bert-kd store verify` reports everything that is wrong"
            raise damaged(self.path, f"{error} ({step})", self.info) from None

    def __getstate__(self) -> dict[str, Any]:
        # a map does not travel to another process
        return {"path": self.path, "shard": self._shard, "digest": self.header.digest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], state["shard"])  # type: ignore[misc]
        if self.header.digest != state["digest"]:
            raise ValueError(f"store {self.path} was replaced while it was in use; start the run again")

    def _checked(self, index: SupportsIndex) -> int:
        i = operator.index(index)
        if not 0 <= i < len(self):
            raise IndexError(
                f"sentence {i} is not in store {self.path} of {len(self)} sentences; pass a corpus index from 0"
            )
        return i
