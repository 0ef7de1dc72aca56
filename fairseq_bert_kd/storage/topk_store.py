"""Reads a top-k store: a teacher's k best tokens for every target position, by memory map.

The format's specification is docs/store_format.md; `topk_writer` writes it.
"""

import operator
import os
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairseq_bert_kd.storage.header import Header, damaged, read_header
from fairseq_bert_kd.storage.records import ChunkData
from fairseq_bert_kd.storage.store_info import (
    HASH_DTYPE,
    OFFSET_DTYPE,
    SCORED,
    STATUS_DTYPE,
    StoreInfo,
    record_dtype,
    table_dtype,
)


class TeacherRows(NamedTuple):
    """Rows of a mini-batch, padded with zeros.

    Attributes:
        topk_ids: ``(batch, width, k)`` in the stored type; a view, like the logits.
        topk_logits: ``(batch, width, k)`` float16, the row's best is 0.
        present: ``(batch, width)`` bool, True where the teacher scored the position.
    """

    topk_ids: NDArray[Any]
    topk_logits: NDArray[np.float16]
    present: NDArray[np.bool_]


class TopKReader:
    """Opens in constant time and memory; copies into other processes reopen the file.

    Args:
        path: of a store.
        shard: also open a single shard of a store, with its own count of sentences.

    Attributes:
        path: absolute.
        info: what the creator said.
        header: everything else in the header.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a store, one shard only, another format version, a damaged header, a file that is
            shorter or longer than its header says.
    """

    def __init__(self, path: str | os.PathLike[str], shard: bool = False):
        self.path = Path(path).absolute()
        self._shard = shard
        if not self.path.is_file():
            raise FileNotFoundError(
                f"top-k store {self.path} does not exist; write it with `fairseq-bert-kd dump`"
            )
        with open(self.path, "rb") as file:
            self.header: Header = read_header(file, self.path)
            self._bytes = np.memmap(file, dtype=np.uint8, mode="r").view(np.ndarray)
        self.info: StoreInfo = self.header.info
        if self.header.shard.count > 1 and not shard:
            raise ValueError(
                f"{self.path} is shard {self.header.shard} of a store; join the shards with `fairseq-bert-kd store merge`"
            )
        self._offsets = self._section("offsets", OFFSET_DTYPE)
        self._source_hashes = self._section("source_hashes", HASH_DTYPE)
        self._target_hashes = self._section("target_hashes", HASH_DTYPE)
        self._status = self._section("status", STATUS_DTYPE)
        self._records = self._section("records", record_dtype(self.info))
        # numpy copies a structured type field by field, and bytes without a type at once
        self._rows = self._records.view(np.dtype((np.void, self._records.dtype.itemsize)))
        self.chunk_table = self._section("chunk_table", table_dtype(self.info))
        first, last, rows = self._offsets[0], self._offsets[-1], self.header.layout.rows
        if first != 0 or last != rows:
            raise damaged(self.path, f"its index runs from row {first} to {last}, not 0 to {rows}")

    def __len__(self) -> int:
        """Sentences, missing ones included."""
        return self._offsets.size - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """``(sentences,)`` rows of each sentence, which are the tokens of its target."""
        return np.diff(self._offsets)

    def lengths_of(self, start: int, stop: int) -> NDArray[np.int64]:
        """``lengths[start:stop]`` without the others."""
        return np.diff(self._offsets[start : stop + 1])

    @property
    def missing_sentences(self) -> int:
        """Sentences that the teacher has not scored."""
        assert self.header.summary is not None
        return sum(self.header.summary["missing_sentences"].values())

    def symbols(self) -> list[str]:
        """The target dictionary in id order."""
        layout = self.header.layout
        raw = self._bytes[layout.starts["dictionary"] : layout.ends["dictionary"]].tobytes()
        return raw.decode("utf-8", errors="surrogatepass").split("\n")[:-1]

    def rows(self, index: SupportsIndex) -> NDArray[Any]:
        """``(rows,)`` records of one sentence, a read-only view; fields as in the format's specification.

        Raises:
            IndexError: ``index`` is not in ``range(len(self))``.
        """
        i = self._checked(index)
        return self._records[self._offsets[i] : self._offsets[i + 1]]

    def status(self, index: SupportsIndex) -> int:
        """0 for a scored sentence, else why it is missing, see `STATUS_NAMES`; IndexError as in `rows`."""
        return int(self._status[self._checked(index)])

    def is_missing(self, index: SupportsIndex) -> bool:
        """Whether the teacher has not scored the sentence; IndexError as in `rows`."""
        return self.status(index) != SCORED

    def hashes(self, index: SupportsIndex) -> tuple[int, int]:
        """Hashes of the sentence's source and target ids, see `fairseq_data.sentence_hash`."""
        i = self._checked(index)
        return int(self._source_hashes[i]), int(self._target_hashes[i])

    def chunk(self, local: int) -> ChunkData:
        """All of the file's chunk ``local``, counted from 0 within this file, as views."""
        size = self.info.chunk_sentences
        first, last = local * size, min((local + 1) * size, len(self))
        offsets = self._offsets[first : last + 1]
        records = self._records[offsets[0] : offsets[-1]]
        hashes = (self._source_hashes[first:last], self._target_hashes[first:last])
        return ChunkData(*hashes, np.diff(offsets), self._status[first:last], records)

    def gather(self, sentence_ids: ArrayLike, width: int, topk: int | None = None) -> TeacherRows:
        """The best tokens of a mini-batch, see `gather_records`.

        Args:
            sentence_ids: ``(batch,)``.
            width: positions of the result.
            topk: tokens of the result, the best ones; by default all.

        Raises:
            ValueError: more tokens than are stored.
        """
        k = self.info.k if topk is None else topk
        if not 1 <= k <= self.info.k:
            raise ValueError(f"topk must be from 1 to the stored {self.info.k}, got {k}")
        records, present = self.gather_records(sentence_ids, width)
        return TeacherRows(records["topk_ids"][..., :k], records["topk_logits"][..., :k], present)

    def gather_records(self, sentence_ids: ArrayLike, width: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Rows of a mini-batch, padded with zeros.

        Args:
            sentence_ids: ``(batch,)`` corpus indices, in any order, repeats allowed.
            width: positions of the result, at least the rows of the longest sentence.

        Returns:
            ``(batch, width)`` records, and where the teacher scored the position, bool.

        Raises:
            IndexError: a sentence that is not in ``range(len(self))``.
            ValueError: a sentence with more than ``width`` rows.
        """
        sentences = np.asarray(sentence_ids)
        if sentences.size and sentences.dtype.kind not in "iu":
            raise ValueError(f"sentence_ids must be integers, got {sentences.dtype}; convert them before")
        outside = (sentences < 0) | (sentences >= len(self))
        if outside.any():
            raise self._out_of_range(int(sentences[outside.argmax()]))
        sentences = sentences.astype(np.int64, copy=False)
        starts = self._offsets[sentences]
        lengths = self._offsets[sentences + 1] - starts
        if lengths.size and lengths.max() > width:
            i = lengths.argmax()
            raise ValueError(
                f"width must cover every row: sentence {sentences[i]} has {lengths[i]}, got width {width}; "
                "pass the padded target length, end of sentence included"
            )
        kept = np.where(self._status[sentences] == SCORED, lengths, 0)
        columns = np.arange(width)
        present = columns < kept[:, None]  # (batch, width)
        rows = np.zeros(present.shape, dtype=self._rows.dtype)
        rows[present] = self._rows.take((starts[:, None] + columns)[present])
        return rows.view(self._records.dtype), present

    def __getstate__(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "shard": self._shard,
            "digest": self.header.digest,
        }  # a map does not travel

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], state["shard"])  # type: ignore[misc]
        if self.header.digest != state["digest"]:
            raise ValueError(f"top-k store {self.path} was replaced while it was in use; start the run again")

    def _section(self, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        layout = self.header.layout
        return self._bytes[layout.starts[name] : layout.ends[name]].view(dtype)

    def _checked(self, index: SupportsIndex) -> int:
        i = operator.index(index)
        if not 0 <= i < self._offsets.size - 1:
            raise self._out_of_range(i)
        return i

    def _out_of_range(self, index: int) -> IndexError:
        return IndexError(
            f"sentence {index} is not in top-k store {self.path} of {len(self)} sentences; "
            "pass a corpus index from 0"
        )
