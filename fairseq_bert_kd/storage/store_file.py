"""The bytes of a top-k store, read by position and not mapped.

A disk that fails gives an error then, where a map would end the process, and memory does not grow with the store.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.header import Header
from fairseq_bert_kd.storage.records import ChunkData
from fairseq_bert_kd.storage.store_info import (
    HASH_DTYPE,
    OFFSET_DTYPE,
    STATUS_DTYPE,
    dictionary_digest,
    record_dtype,
    table_dtype,
)


class ChunkPlace(NamedTuple):
    """A chunk of this file.

    Attributes:
        local: its number in this file.
        number: its number in the corpus, which the digest covers.
        first_local: its first sentence in this file.
        first: the same sentence in the corpus.
        sentences: how many.
    """

    local: int
    number: int
    first_local: int
    first: int
    sentences: int

    def __str__(self) -> str:
        return f"chunk {self.number} (sentences {self.first} to {self.first + self.sentences - 1})"


class StoreFile:
    """An open store whose header is sound and whose other bytes nobody has looked at.

    Args:
        path: for messages.
        file: binary, open while this is in use.
        header: of the same file.
    """

    def __init__(self, path: Path, file: BinaryIO, header: Header):
        self.path, self.header, self.info = path, header, header.info
        self._file = file

    def span(self, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end``; may be called from several threads.

        Raises:
            ValueError: the file ends before.
            OSError: the disk cannot be read.
        """
        parts = []
        while start < end:
            part = os.pread(self._file.fileno(), end - start, start)
            if not part:
                raise ValueError(f"{self.path} became shorter while it was read; run this again")
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def items(self, section: str, dtype: np.dtype[Any], first: int, count: int) -> NDArray[Any]:
        """``(count,)`` items of a section."""
        start = self.header.layout.starts[section] + first * dtype.itemsize
        return np.frombuffer(self.span(start, start + count * dtype.itemsize), dtype)

    def table(self) -> NDArray[Any]:
        """``(chunks,)`` entries of the chunk table."""
        return self.items("chunk_table", table_dtype(self.info), 0, self.header.layout.chunks)

    def symbols(self) -> list[str]:
        """The target dictionary in id order.

        Raises:
            ValueError: not UTF-8, without a last line feed, of another size or digest than the header says.
        """
        layout, info = self.header.layout, self.info
        raw = self.span(layout.starts["dictionary"], layout.ends["dictionary"])
        *symbols, rest = raw.decode("utf-8", errors="surrogatepass").split("\n")
        if rest or len(symbols) != info.dictionary_size:
            raise ValueError(
                f"it has {len(symbols)} lines and {len(rest)} characters, not {info.dictionary_size} lines"
            )
        if dictionary_digest(symbols) != info.dictionary_digest:
            raise ValueError("it does not match its digest in the header")
        return symbols

    def places(self) -> Iterator[ChunkPlace]:
        """All chunks in the file's order."""
        return map(self.place, range(self.header.layout.chunks))

    def place(self, local: int) -> ChunkPlace:
        """A chunk by its number in this file."""
        size, shard = self.info.chunk_sentences, self.header.shard
        number = local * shard.count + shard.index
        sentences = min(size, self.header.layout.sentences - local * size)
        return ChunkPlace(local, number, local * size, number * size, sentences)

    def lengths(self, place: ChunkPlace) -> NDArray[np.int64]:
        """``(sentences,)`` rows of a chunk's sentences.

        Raises:
            ValueError: as in `chunk`.
        """
        return np.diff(self._offsets(place))

    def _offsets(self, place: ChunkPlace) -> NDArray[np.int64]:
        offsets = self.items("offsets", OFFSET_DTYPE, place.first_local, place.sentences + 1)
        lengths, rows = np.diff(offsets), self.header.layout.rows
        bad = (lengths < 0) | (offsets[:-1] < 0) | (offsets[1:] > rows)
        if bad.any():
            i = int(bad.argmax())
            raise ValueError(
                f"{place}: the index is wrong at sentence {place.first + i}, whose rows go from {offsets[i]} to "
                f"{offsets[i + 1]} of {rows}"
            )
        return offsets

    def chunk(self, place: ChunkPlace) -> ChunkData:
        """A chunk's data.

        Raises:
            ValueError: the index descends within the chunk, or leaves the file's rows.
        """
        first, count, offsets = place.first_local, place.sentences, self._offsets(place)
        return ChunkData(
            self.items("source_hashes", HASH_DTYPE, first, count),
            self.items("target_hashes", HASH_DTYPE, first, count),
            np.diff(offsets),
            self.items("status", STATUS_DTYPE, first, count),
            self.items("records", record_dtype(self.info), int(offsets[0]), int(offsets[-1] - offsets[0])),
        )
