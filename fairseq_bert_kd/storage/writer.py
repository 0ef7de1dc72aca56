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
from fairseq_bert_kd.storage.header import OtherSchemaError, encode_header, plan_header, read_header
from fairseq_bert_kd.storage.schema import OFFSET_DTYPE, ChunkData, StoreInfo, differing_fields, new_digest
from fairseq_bert_kd.storage.shards import WHOLE, Shard, shard_path
from fairseq_bert_kd.storage.store_file import StoreFile, open_store
from fairseq_bert_kd.storage.work_file import WorkFile, sync_folder


class StoreWriter:
    """Creates a store or one shard of it, or goes on with an unfinished one.

    Args:
        path: final path of the whole store; a shard gets a suffix of its own.
        info: statement of the creator, whose class is the schema.
        lengths: ``(corpus sentences,)`` integers, rows of every sentence of the corpus.
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
        self.info, self._blobs, self._overwrite = info, blobs, overwrite
        info.check()
        for name in info.blobs:
            info.check_blob(name, blobs[name])
        self._lengths = np.asarray(lengths)
        check_lengths(self._lengths, info)
        self._chunks = shard.chunks(len(self._lengths), info.chunk_sentences)
        ends = np.cumsum(np.concatenate([np.zeros(0, np.int64), *map(self.lengths, self._chunks)]))
        self._offsets = np.concatenate([[0], ends]).astype(OFFSET_DTYPE)  # (sentences of the file + 1,)
        blob_bytes = {name: len(blobs[name]) for name in info.blobs}
        self._header = plan_header(info, shard, len(self._lengths), blob_bytes, int(self._offsets[-1]))
        self.layout = self._header.layout
        self.complete = self._check_target()
        if not self.complete:
            self._work = WorkFile(self.path)
            self._store = StoreFile(self._work.path, self._header, self._work.read)
            try:
                self._prepare()
            except BaseException:
                self.close()
                raise

    # ------------------------------------------------------------ chunks

    def chunks(self) -> list[int]:
        """Numbers of this shard's chunks in the corpus, ascending."""
        return [] if self.complete else list(self._chunks)

    def sentences(self, chunk: int) -> range:
        """Corpus indices of a chunk's sentences."""
        start = chunk * self.info.chunk_sentences
        return range(start, min(start + self.info.chunk_sentences, len(self._lengths)))

    def lengths(self, chunk: int) -> NDArray[np.int64]:
        """``(sentences,)`` rows of a chunk's sentences."""
        sentences = self.sentences(chunk)
        return self._lengths[sentences.start : sentences.stop].astype(np.int64)

    def is_done(self, chunk: int) -> bool:
        """Whether the file holds the chunk, proven by its digest."""
        return self.read_chunk(chunk) is not None

    def holds(self, chunk: int, entry: NDArray[Any]) -> bool:
        """Whether the file holds the very chunk that an entry of a chunk table describes, proven by its digest."""
        found = self._store.entry(self._store.local(chunk))
        return bool((found["digest"] == entry["digest"]).all()) and self.is_done(chunk)

    def read_chunk(self, chunk: int) -> ChunkData | None:
        """A chunk that an earlier run wrote; None when it is absent or torn."""
        local = self._store.local(chunk)
        if not self._store.entry(local)["digest"].any():  # absent; its zeros need not be read
            return None
        try:
            return self._store.checked_chunk(local)
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
        local, starts = self._store.local(chunk), self.layout.starts
        arrays = (*(data.hashes[side] for side in self.info.sides), data.status, data.records)
        for (section, dtype, first, _), array in zip(self._store.extents(local), arrays, strict=True):
            self._work.write(starts[section] + first * dtype.itemsize, array)
        self._work.write(starts["chunk_table"] + local * entry.dtype.itemsize, entry)

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
                f"{self._chunks[absent[0]]}; write every chunk before finishing"
            )
        summary = self.info.summarise(table)
        table_digest = new_digest(table.tobytes()).hexdigest()
        header = replace(self._header, summary=summary, table_digest=table_digest)
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
            with open_store(self.path, (type(self.info),)) as found:
                differences = self._differences(found)
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
            work.write(starts[name], self._blobs[name])
        work.write(starts["offsets"], self._offsets)
        work.sync()
        work.write(0, encode_header(self._header))
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
            return self._differences(StoreFile(self._work.path, found, self._work.read))
        return None

    def _differences(self, found: StoreFile) -> list[str]:
        """Differences of an existing file, finished or not, from the one to be written; rows are not compared."""
        there, here = found.header, self._header
        differences = differing_fields(found.info, self.info)
        if (there.shard, there.corpus_sentences) != (here.shard, here.corpus_sentences):
            differences.append(
                f"shard {there.shard} of {there.corpus_sentences} sentences against {here.shard} of "
                f"{here.corpus_sentences}"
            )
        elif not differences and there.layout != here.layout:
            differences.append(f"{there.layout.rows} rows against {here.layout.rows}")
        if not differences:
            offsets = found.items("offsets", OFFSET_DTYPE, 0, len(self._offsets))
            differences += [] if np.array_equal(offsets, self._offsets) else ["sentences have other lengths"]
        return differences


def check_lengths(lengths: NDArray[Any], info: StoreInfo) -> None:
    """Raise ValueError unless these can be the ``(corpus sentences,)`` rows of each sentence."""
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths < 0).any():
        raise ValueError(
            f"lengths must be (sentences,) integers, not negative, got {lengths.dtype} of shape {lengths.shape}, "
            f"least {lengths.min(initial=0)}; pass the rows of each sentence"
        )
    if info.row_side is None and (lengths != 1).any():
        sentence = int((lengths != 1).argmax())
        raise ValueError(
            f"{info.schema} have one row per sentence, got {lengths[sentence]} for sentence {sentence}"
        )
