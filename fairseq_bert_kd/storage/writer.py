"""Writes a store chunk by chunk; survives being killed at any moment.

The work file ``<store>.partial`` has the size and the layout of the finished one. A chunk counts as done when the
digest in its table entry matches its data, so whatever a crash left behind is recognised, in whatever order the system
wrote it. The final name appears in one step, when everything is on disk.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.chunk import check_rows, table_entry
from fairseq_bert_kd.storage.header import OtherSchemaError, encode_header, read_header
from fairseq_bert_kd.storage.plan import StorePlan
from fairseq_bert_kd.storage.schema import ChunkData, StoreInfo, new_digest
from fairseq_bert_kd.storage.shards import WHOLE, Shard, shard_path
from fairseq_bert_kd.storage.store_file import StoreFile, pread
from fairseq_bert_kd.storage.work_file import WorkFile, sync_folder


class StoreWriter:
    """Creates a store or one shard of it, or goes on with an unfinished one.

    Args:
        path: final path of the whole store; a shard gets a suffix of its own.
        info: statement of the creator, whose class is the schema.
        lengths: ``(corpus sentences,)`` integers, rows of every sentence of the corpus; may be a memory map.
        blobs: the schema's sections of bytes by name.
        shard: part of the corpus to write.
        overwrite: replace an existing store, and throw away unfinished work that had other settings.

    Attributes:
        path: final path of this shard.
        complete: the final file is there already and holds exactly this; there is nothing to write.

    Raises:
        FileExistsError: a file of another content has the final name, or another process is writing.
        FileNotFoundError: the folder does not exist.
        ValueError: impossible ``info``, ``lengths`` or ``blobs``, or unfinished work with other settings.
        OSError: no room on the disk for the whole store, or no permission.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        info: StoreInfo,
        lengths: NDArray[Any],
        blobs: Mapping[str, bytes],
        shard: Shard = WHOLE,
        overwrite: bool = False,
    ):
        self.path = shard_path(path, shard).absolute()
        self.info, self.shard, self._overwrite = info, shard, overwrite
        self._plan = StorePlan(info, lengths, blobs, shard)
        self.layout = self._plan.header.layout
        self.complete = self._check_target()
        if not self.complete:
            self._work = WorkFile(self.path)
            self._store = StoreFile(self._work.path, self._plan.header, self._work.read)
            try:
                self._prepare()
            except BaseException:
                self.close()
                raise

    # ------------------------------------------------------------ chunks

    def chunks(self) -> list[int]:
        """Numbers of this shard's chunks in the corpus, ascending."""
        return [] if self.complete else list(self._plan.chunks())

    def sentences(self, chunk: int) -> range:
        """Corpus indices of a chunk's sentences."""
        return self._plan.sentences(chunk)

    def lengths(self, chunk: int) -> NDArray[np.int64]:
        """``(sentences,)`` rows of a chunk's sentences."""
        return self._plan.lengths(chunk)

    def is_done(self, chunk: int) -> bool:
        """Whether the file holds the chunk, proven by its digest."""
        return self.read_chunk(chunk) is not None

    def read_chunk(self, chunk: int) -> ChunkData | None:
        """A chunk that an earlier run wrote; None when it is absent or torn."""
        place = self._store.place_of(chunk)
        if not self._store.entry(place)["digest"].any():  # absent; its zeros need not be read
            return None
        try:
            return self._store.checked_chunk(place)
        except ValueError:
            return None

    def write_chunk(self, chunk: int, data: ChunkData, **measured: Any) -> None:
        """Write one chunk; may be called from another thread, in any order of chunks.

        Args:
            chunk: its number in the corpus, one of `chunks`.
            data: all its sentences.
            **measured: columns of the chunk table that do not follow from rows, see the schema's ``unknown``.

        Raises:
            ValueError: rows that break a rule of the schema; nothing is written then.
            OSError: the disk is full, or another error of the system.
        """
        if not np.array_equal(data.lengths, self.lengths(chunk)):
            raise ValueError(
                f"chunk {chunk} has other lengths than the corpus; pass all rows of every sentence"
            )
        check_rows(data, self.info, self.sentences(chunk).start)
        self.copy_chunk(chunk, data, table_entry(chunk, data, self.info, **measured))

    def copy_chunk(self, chunk: int, data: ChunkData, entry: NDArray[Any]) -> None:
        """Write a chunk that another file holds, with its table entry; the caller has checked both.

        Raises:
            OSError: as in `write_chunk`.
        """
        place, starts = self._store.place_of(chunk), self.layout.starts
        arrays = (*(data.hashes[side] for side in self.info.sides), data.status, data.records)
        extents = self._store.extents(place, self._store.offsets(place))
        for extent, array in zip(extents, arrays, strict=True):
            self._work.write(
                starts[extent.section] + extent.first * extent.dtype.itemsize, np.ascontiguousarray(array)
            )
        self._work.write(starts["chunk_table"] + place.local * entry.dtype.itemsize, entry)

    def sync(self) -> None:
        """Bring everything written so far to disk."""
        self._work.sync()

    # ------------------------------------------------------------ end

    def finish(self) -> dict[str, Any]:
        """Publish the file under its final name, once every chunk is there; the header's summary.

        Raises:
            ValueError: chunks are absent; they can still be written.
            FileExistsError: another process wrote the final name meanwhile.
        """
        table = self._store.table()
        absent = np.flatnonzero(~table["digest"].any(axis=1))
        if len(absent):
            raise ValueError(
                f"{len(absent)} of {len(table)} chunks were not written to {self.path}, first chunk "
                f"{self._plan.chunks()[absent[0]]}; write every chunk before finishing"
            )
        summary = self.info.summarise(table)
        digest = new_digest()
        digest.update(table.tobytes())
        header = replace(self._plan.header, summary=summary, table_digest=digest.hexdigest())
        self.sync()  # the data before the header that vouches for them
        self._work.write(0, encode_header(header))
        self.sync()
        self._check_target()
        self._work.publish()
        return summary

    def close(self) -> None:
        """Release the work file, which stays for the next run."""
        if not self.complete:
            self._work.close()

    def discard(self) -> None:
        """Remove the work file; nothing happens after `finish`."""
        if not self.complete:
            self._work.discard()

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------ start

    def _check_target(self) -> bool:
        """Whether the final file holds exactly this; raise FileExistsError before another one would be replaced."""
        if self.path.is_dir():
            raise FileExistsError(f"store {self.path} is a folder; choose a file name")
        if not self.path.parent.is_dir():
            raise FileNotFoundError(
                f"the folder of store {self.path} does not exist; run fairseq-preprocess or create it"
            )
        if not self.path.exists() or self._overwrite:
            return False
        try:
            with open(self.path, "rb") as file:
                found = read_header(file, self.path, (type(self.info),))
                differences = self._plan.differences(found, pread(file, self.path))
        except ValueError as error:
            differences = [str(error)]
        if differences:
            raise FileExistsError(
                f"store {self.path} exists and differs ({'; '.join(differences[:3])}); pass --overwrite to replace it"
            )
        return True

    def _prepare(self) -> None:
        """Go on with the work file's content, or lay it out anew.

        A header that a crash tore is written again and the chunks are kept: their digests cover the settings.
        """
        work, starts = self._work, self.layout.starts
        differences = self._differences_of_work()
        if differences == []:
            return
        if differences and not self._overwrite:
            raise ValueError(
                f"{work.path} is the unfinished work of a command with other settings ({'; '.join(differences[:3])}); "
                "finish it with those, or pass --overwrite to throw it away"
            )
        if differences or work.size != self.layout.file_bytes:
            work.clear()
        work.reserve(self.layout.file_bytes)
        for name in self.info.blobs:
            work.write(starts[name], self._plan.blobs[name])
        place = starts["offsets"]
        for offsets in self._plan.offset_blocks():
            work.write(place, offsets)
            place += offsets.nbytes
        work.sync()
        work.write(0, encode_header(self._plan.header))
        work.sync()
        sync_folder(work.path.parent)

    def _differences_of_work(self) -> list[str] | None:
        """Settings of unfinished work that are not these; None where its header cannot be read."""
        for unfinished in (True, False):  # False: it was finished, but not yet renamed
            self._work.file.seek(0)
            try:
                found = read_header(self._work.file, self._work.path, (type(self.info),), unfinished)
            except OtherSchemaError as error:
                return [str(error)]
            except ValueError:
                continue
            return self._plan.differences(found, self._work.read)
        return None
