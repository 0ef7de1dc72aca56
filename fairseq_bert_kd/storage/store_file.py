"""Sections and chunks of one store file, read from a map or by position: the one place that reads and proves a chunk."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.chunk import chunk_digest
from fairseq_bert_kd.storage.header import Header
from fairseq_bert_kd.storage.schema import HASH_DTYPE, OFFSET_DTYPE, STATUS_DTYPE, ChunkData

Read = Callable[[int, int], Any]  # (first byte, byte after the last) -> a buffer of just these bytes


class ChunkPlace(NamedTuple):
    """A chunk of this file.

    Attributes:
        local: its number in this file.
        number: its number in the corpus, which the digest covers.
        first_local: its first sentence in this file.
        first: the same sentence in the corpus.
        sentences: number of its sentences.
    """

    local: int
    number: int
    first_local: int
    first: int
    sentences: int

    def __str__(self) -> str:
        return f"chunk {self.number} (sentences {self.first} to {self.first + self.sentences - 1})"


class Extent(NamedTuple):
    """A chunk's part of a section.

    Attributes:
        section: name.
        dtype: type of the section's items.
        first: number of the first item in the section.
        items: number of items.
    """

    section: str
    dtype: np.dtype[Any]
    first: int
    items: int


def pread(file: BinaryIO, path: Path) -> Read:
    """Reads by position, from several threads too.

    A disk that fails gives an error then, where a map would end the process, and memory does not grow with the store.
    The function that is returned raises ValueError where the file ends before, and OSError where the disk fails.
    """

    def read(start: int, end: int) -> bytes:
        parts = []
        while start < end:
            part = os.pread(file.fileno(), end - start, start)
            if not part:
                raise ValueError(f"{path} became shorter while it was read; run this again")
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    return read


class StoreFile:
    """A store whose header is sound and whose other bytes nobody has checked.

    Args:
        path: path of the file, for messages.
        header: header of the file; that of a planned file has no summary.
        read: gives the file's bytes.
    """

    def __init__(self, path: Path, header: Header, read: Read):
        self.path, self.header, self.info, self.read = path, header, header.info, read

    # ------------------------------------------------------------ sections

    def items(self, section: str, dtype: np.dtype[Any], first: int, count: int) -> NDArray[Any]:
        """``(count,)`` items of a section, from the item ``first``."""
        start = self.header.layout.starts[section] + first * dtype.itemsize
        return np.frombuffer(self.read(start, start + count * dtype.itemsize), dtype)

    def blob(self, name: str) -> bytes:
        """A section of bytes."""
        layout = self.header.layout
        return bytes(self.read(layout.starts[name], layout.ends[name]))

    def table(self) -> NDArray[Any]:
        """``(chunks,)`` entries of the chunk table."""
        return self.items("chunk_table", self.info.table_dtype, 0, self.header.layout.chunks)

    # ------------------------------------------------------------ chunks

    def places(self) -> Iterator[ChunkPlace]:
        """All chunks in the file's order."""
        return map(self.place, range(self.header.layout.chunks))

    def place(self, local: int) -> ChunkPlace:
        """A chunk by its number in this file."""
        size, shard = self.info.chunk_sentences, self.header.shard
        number = local * shard.count + shard.index
        sentences = min(size, self.header.layout.sentences - local * size)
        return ChunkPlace(local, number, local * size, number * size, sentences)

    def place_of(self, number: int) -> ChunkPlace:
        """A chunk by its number in the corpus; the shard must hold it."""
        return self.place(number // self.header.shard.count)

    def entry(self, place: ChunkPlace) -> NDArray[Any]:
        """A chunk's entry in the chunk table, shape ``()``."""
        return self.items("chunk_table", self.info.table_dtype, place.local, 1)[0]

    def offsets(self, place: ChunkPlace) -> NDArray[np.int64]:
        """``(sentences + 1,)`` first row of each sentence of a chunk, and the row after the last.

        Raises:
            ValueError: the index descends within the chunk, or leaves the file's rows.
        """
        offsets = self.items("offsets", OFFSET_DTYPE, place.first_local, place.sentences + 1)
        rows = self.header.layout.rows
        bad = (np.diff(offsets) < 0) | (offsets[:-1] < 0) | (offsets[1:] > rows)
        if bad.any():
            i = int(bad.argmax())
            raise ValueError(
                f"{place}: the index is wrong at sentence {place.first + i}, whose rows go from {offsets[i]} to "
                f"{offsets[i + 1]} of {rows}"
            )
        return offsets

    def extents(self, place: ChunkPlace, offsets: NDArray[np.int64]) -> list[Extent]:
        """Where a chunk's hashes of each side, status and rows lie, in the file's order."""
        first, count = place.first_local, place.sentences
        return [
            *(Extent(f"{side}_hashes", HASH_DTYPE, first, count) for side in self.info.sides),
            Extent("status", STATUS_DTYPE, first, count),
            Extent("records", self.info.record_dtype, int(offsets[0]), int(offsets[-1] - offsets[0])),
        ]

    def chunk(self, place: ChunkPlace) -> ChunkData:
        """A chunk's data, unproven; ValueError as in `offsets`."""
        offsets = self.offsets(place)
        *hashes, status, records = (self.items(*extent) for extent in self.extents(place, offsets))
        return ChunkData(dict(zip(self.info.sides, hashes, strict=True)), np.diff(offsets), status, records)

    def checked_chunk(self, place: ChunkPlace) -> ChunkData:
        """A chunk's data, proven by its digest.

        Raises:
            ValueError: the index is wrong, or the digest does not match.
        """
        data, entry = self.chunk(place), self.entry(place)
        if chunk_digest(place.number, entry, data, self.info) != entry["digest"].tobytes():
            raise ValueError(f"{place} does not match its digest")
        return data
