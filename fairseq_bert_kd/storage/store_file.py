"""Sections and chunks of one store file, read from a map or by position: the one place that reads and proves a chunk."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.chunk import chunk_digest
from fairseq_bert_kd.storage.header import Header, Schemas, check_exists, damaged, read_header
from fairseq_bert_kd.storage.schema import HASH_DTYPE, OFFSET_DTYPE, STATUS_DTYPE, ChunkData

Read = Callable[[int, int], Any]  # (first byte, byte after the last) -> a buffer of just these bytes


class StoreFile:
    """A store whose header is sound and whose other bytes nobody has checked.

    Its chunks are counted from 0 within this file, as ``local``; their numbers in the corpus are `number`.

    Args:
        path: path of the file, for messages.
        header: header of the file; that of a planned file has no summary.
        read: gives the file's bytes.
    """

    def __init__(self, path: Path, header: Header, read: Read):
        self.path, self.header, self.read = path, header, read
        self.info: Any = header.info

    # ------------------------------------------------------------ sections

    def items(self, section: str, dtype: np.dtype[Any], first: int, count: int) -> NDArray[Any]:
        """``(count,)`` items of a section, from the item ``first``."""
        start = self.header.layout.starts[section] + first * dtype.itemsize
        return np.frombuffer(self.read(start, start + count * dtype.itemsize), dtype)

    def blob(self, name: str) -> bytes:
        """A section of bytes."""
        layout = self.header.layout
        return bytes(self.read(layout.starts[name], layout.ends[name]))

    def checked_blob(self, name: str) -> bytes:
        """A section of bytes; ValueError where it is not the one that ``info`` describes."""
        raw = self.blob(name)
        self.info.check_blob(name, raw)
        return raw

    def table(self) -> NDArray[Any]:
        """``(chunks,)`` entries of the chunk table."""
        return self.items("chunk_table", self.info.table_dtype, 0, self.header.layout.chunks)

    # ------------------------------------------------------------ chunks

    def number(self, local: int) -> int:
        """A chunk's number in the corpus, which its digest covers."""
        return local * self.header.shard.count + self.header.shard.index

    def local(self, number: int) -> int:
        """The inverse of `number`; the shard must hold the chunk."""
        return number // self.header.shard.count

    def sentences(self, local: int) -> range:
        """Corpus indices of a chunk's sentences."""
        start = self.number(local) * self.info.chunk_sentences
        return range(start, min(start + self.info.chunk_sentences, self.header.corpus_sentences))

    def chunk_name(self, local: int) -> str:
        """``chunk 3 (sentences 6 to 7)``, for messages."""
        sentences = self.sentences(local)
        return f"chunk {self.number(local)} (sentences {sentences.start} to {sentences.stop - 1})"

    def entry(self, local: int) -> NDArray[Any]:
        """A chunk's entry in the chunk table, shape ``()``."""
        return self.items("chunk_table", self.info.table_dtype, local, 1)[0]

    def offsets(self, local: int) -> NDArray[np.int64]:
        """``(sentences + 1,)`` first row of each sentence of a chunk, and the row after the last.

        Raises:
            ValueError: the index descends within the chunk, or leaves the file's rows.
        """
        sentences, rows = self.sentences(local), self.header.layout.rows
        first = local * self.info.chunk_sentences
        offsets = self.items("offsets", OFFSET_DTYPE, first, len(sentences) + 1)
        bad = (np.diff(offsets) < 0) | (offsets[:-1] < 0) | (offsets[1:] > rows)
        if bad.any():
            i = int(bad.argmax())
            raise ValueError(
                f"{self.chunk_name(local)}: the index is wrong at sentence {sentences[i]}, whose rows go from "
                f"{offsets[i]} to {offsets[i + 1]} of {rows}"
            )
        return offsets

    def extents(self, local: int) -> list[tuple[str, np.dtype[Any], int, int]]:
        """Section, type, first item and number of items of a chunk's hashes, status and rows, in the file's order."""
        offsets, first = self.offsets(local), local * self.info.chunk_sentences
        return [
            *((f"{side}_hashes", HASH_DTYPE, first, len(offsets) - 1) for side in self.info.sides),
            ("status", STATUS_DTYPE, first, len(offsets) - 1),
            ("records", self.info.record_dtype, int(offsets[0]), int(offsets[-1] - offsets[0])),
        ]

    def chunk(self, local: int) -> ChunkData:
        """A chunk's data, unproven; ValueError as in `offsets`."""
        *hashes, status, records = (self.items(*extent) for extent in self.extents(local))
        lengths = np.diff(self.offsets(local))
        return ChunkData(dict(zip(self.info.sides, hashes, strict=True)), lengths, status, records)

    def checked_chunk(self, local: int) -> ChunkData:
        """A chunk's data, proven; ValueError when its index is wrong or its digest does not match."""
        data, entry = self.chunk(local), self.entry(local)
        if chunk_digest(self.number(local), entry, data, self.info) != entry["digest"].tobytes():
            raise ValueError(f"{self.chunk_name(local)} does not match its digest")
        return data


def sound(file: StoreFile, read: Callable[..., Any], *args: Any) -> Any:
    """``read(*args)``, whose ValueError says that the store is damaged."""
    try:
        return read(*args)
    except ValueError as error:
        raise damaged(file.path, str(error), file.info) from None


def check_same_chunk(file: StoreFile, chunk: int, data: ChunkData, source: Path) -> None:
    """Check that a finished store says to hold just this chunk; its sums may have been rounded on another machine.

    Args:
        file: the store.
        chunk: number of the chunk in the corpus.
        data: what should be in its place.
        source: where it comes from, for the message.

    Raises:
        FileExistsError: it holds another one.
    """
    entry = file.entry(file.local(chunk))
    if chunk_digest(chunk, entry, data, file.info) != entry["digest"].tobytes():
        raise FileExistsError(
            f"store {file.path} exists and holds other rows than {source} in {file.chunk_name(file.local(chunk))}; pass "
            "--overwrite to replace it"
        )


@contextmanager
def open_store(path: Path, schemas: Schemas) -> Iterator[StoreFile]:
    """A store or a shard, read by position; raises as `check_exists` and `read_header` do."""
    check_exists(path)
    with open(path, "rb") as file:
        yield StoreFile(path, read_header(file, path, schemas), pread(file, path))


def pread(file: BinaryIO, path: Path) -> Read:
    """Reads by position, from several threads too.

    A disk that fails gives an error then, where a map would end the process, and memory does not grow with the store.
    The function that is returned raises ValueError where the file ends before, and OSError where the disk fails.
    """

    def read(start: int, end: int) -> bytearray:
        content = bytearray()
        while start + len(content) < end:
            part = os.pread(file.fileno(), end - start - len(content), start + len(content))
            if not part:
                raise ValueError(f"{path} became shorter while it was read; run this again")
            content += part
        return content

    return read
