"""Writes a top-k store chunk by chunk; survives being killed at any moment.

The work file ``<store>.partial`` has the size and the layout of the finished one. A chunk counts as done when
the digest in its table entry matches its data, so whatever a crash left behind is recognised, in whatever order
the system wrote it. The final name appears in one step, when everything is on disk.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.header import (
    Header,
    encode_dictionary,
    encode_header,
    plan_layout,
    read_header,
    summarise,
)
from fairseq_bert_kd.storage.locking import lock_exclusively, unlock
from fairseq_bert_kd.storage.records import ChunkData, chunk_digest, refuse_faulty, table_entry
from fairseq_bert_kd.storage.store_info import (
    OFFSET_DTYPE,
    WHOLE,
    Shard,
    StoreInfo,
    check_info,
    dictionary_digest,
    differing_fields,
    new_digest,
    record_dtype,
    shard_path,
    shard_sentences,
    table_dtype,
)

_BLOCK = 1 << 20  # sentences or table entries handled together


def work_path(path: str | os.PathLike[str]) -> Path:
    """The unfinished file beside a store."""
    path = Path(path)
    return path.with_name(path.name + ".partial")


class TopKWriter:
    """Creates a store or one shard of it, or goes on with an unfinished one.

    Args:
        path: final name of the whole store, see `store_path`; a shard gets a suffix of its own.
        info: header fields.
        lengths: ``(corpus sentences,)`` integers, target tokens of every sentence of the corpus, end of
            sentence included; may be a memory map.
        symbols: the target dictionary in id order.
        shard: which part of the corpus to write.
        overwrite: replace an existing store, and throw away unfinished work that had other settings.

    Attributes:
        path: final name of this shard.
        complete: the final file is there already and holds exactly this; there is nothing to write.

    Raises:
        FileExistsError: a file of another content has the final name, or another process is writing.
        FileNotFoundError: the folder does not exist.
        ValueError: impossible ``info``, ``lengths`` or ``symbols``, or unfinished work with other settings.
        OSError: no room on the disk for the whole store, or no permission.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        info: StoreInfo,
        lengths: NDArray[Any],
        symbols: Sequence[str],
        shard: Shard = WHOLE,
        overwrite: bool = False,
    ):
        check_info(info)
        if len(symbols) != info.dictionary_size or dictionary_digest(symbols) != info.dictionary_digest:
            raise ValueError("symbols are not the dictionary that info describes; pass the same one")
        self.path = shard_path(path, shard).absolute()
        self.info, self.shard = info, shard
        self._lengths, self._dictionary = lengths, encode_dictionary(symbols)
        self._overwrite = overwrite
        rows = sum(int(self._chunk_lengths(chunk).sum()) for chunk in self._global_chunks())
        sentences = shard_sentences(len(lengths), info.chunk_sentences, shard)
        self.layout = plan_layout(info, shard, len(lengths), len(self._dictionary), sentences, rows)
        self._file: BinaryIO | None = None
        self.complete = self._look_at_target()
        if not self.complete:
            self._file = self._open_work_file()
            try:
                self._prepare()
            except BaseException:
                self.close()
                raise

    # ------------------------------------------------------------ writing

    def chunks(self) -> list[int]:
        """Numbers of this shard's chunks in the corpus, ascending."""
        return [] if self.complete else list(self._global_chunks())

    def sentences(self, chunk: int) -> range:
        """Corpus indices of a chunk's sentences."""
        start = chunk * self.info.chunk_sentences
        return range(start, min(start + self.info.chunk_sentences, len(self._lengths)))

    def lengths(self, chunk: int) -> NDArray[np.int64]:
        """``(sentences,)`` rows of a chunk's sentences."""
        return self._chunk_lengths(chunk)

    def is_done(self, chunk: int) -> bool:
        """Whether the file holds the chunk, its digest included."""
        return self.read_chunk(chunk) is not None

    def read_chunk(self, chunk: int) -> ChunkData | None:
        """A chunk that an earlier run wrote; None when it is absent or torn."""
        local = chunk // self.shard.count
        entry = np.zeros((), dtype=table_dtype(self.info))
        start = self.layout.starts["chunk_table"] + local * entry.dtype.itemsize
        entry[...] = np.frombuffer(self._read(start, entry.dtype.itemsize), dtype=entry.dtype)[0]
        if not entry["digest"].any():
            return None
        data = self._read_data(chunk)
        return data if chunk_digest(chunk, entry, data, self.info) == entry["digest"].tobytes() else None

    def write_chunk(
        self, chunk: int, data: ChunkData, gold_correct: int = -1, gold_nll: float = np.nan
    ) -> None:
        """Write one chunk; may be called from another thread, in any order of chunks.

        Args:
            chunk: its number in the corpus, one of `chunks`.
            data: all its sentences.
            gold_correct: scored rows whose best token is the gold token, -1 where not known.
            gold_nll: negative log-likelihood of the gold tokens at temperature 1, summed, in nats.

        Raises:
            ValueError: rows that cannot be a teacher's; nothing is written then.
            OSError: the disk is full, or another error of the system.
        """
        if not np.array_equal(data.lengths, self._chunk_lengths(chunk)):
            raise ValueError(
                f"chunk {chunk} has other lengths than the corpus; pass rows for every target token"
            )
        refuse_faulty(data, self.info, self.sentences(chunk).start)
        self.copy_chunk(chunk, data, table_entry(chunk, data, self.info, gold_correct, gold_nll))

    def copy_chunk(self, chunk: int, data: ChunkData, entry: NDArray[Any]) -> None:
        """Write a chunk that another file holds, with its table entry; both were checked by the caller.

        Raises:
            OSError: as in `write_chunk`.
        """
        for place, array in self._places(chunk, data):
            self._write(place, np.ascontiguousarray(array))
        local = chunk // self.shard.count
        self._write(self.layout.starts["chunk_table"] + local * entry.dtype.itemsize, entry)

    def sync(self) -> None:
        """Bring everything written so far to disk."""
        os.fsync(self._descriptor())

    def finish(self) -> dict[str, Any]:
        """Publish the file under its final name, once every chunk is there; the header's summary.

        Raises:
            ValueError: chunks are absent; they can still be written.
            FileExistsError: another process wrote the final name meanwhile.
        """
        table = self._table()
        absent = np.flatnonzero(~table["digest"].any(axis=1))
        if len(absent):
            raise ValueError(
                f"{len(absent)} of {len(table)} chunks were not written to {self.path}, first chunk "
                f"{absent[0] * self.shard.count + self.shard.index}; write every chunk before finishing"
            )
        summary = summarise(table, self.info)
        digest = new_digest()
        digest.update(table.tobytes())
        self.sync()  # the data before the header that vouches for them
        self._write(
            0,
            encode_header(
                self.info, self.shard, len(self._lengths), self.layout, summary, digest.hexdigest()
            ),
        )
        self.sync()
        self._look_at_target()
        os.replace(work_path(self.path), self.path)
        _sync_folder(self.path.parent)
        self.close()
        return summary

    def close(self) -> None:
        """Let go of the work file, which stays for the next run."""
        if self._file is not None:
            unlock(self._file)
            self._file.close()
            self._file = None

    def discard(self) -> None:
        """Remove the work file; nothing happens after `finish`."""
        if self._file is not None:
            work_path(self.path).unlink(missing_ok=True)
            self.close()

    def __enter__(self) -> "TopKWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------ starting

    def _look_at_target(self) -> bool:
        """Whether the final file holds exactly this dump; refuse to replace another one unasked."""
        if self.path.is_dir():
            raise FileExistsError(f"top-k store {self.path} is a folder; choose a file name")
        if not self.path.parent.is_dir():
            raise FileNotFoundError(
                f"the folder of top-k store {self.path} does not exist; run fairseq-preprocess or create it"
            )
        if not self.path.exists() or self._overwrite:
            return False
        try:
            with open(self.path, "rb") as file:
                found = read_header(file, self.path)
                differences = self._differences(found) or self._moved_sentences(file)
        except ValueError as error:
            differences = [str(error)]
        if differences:
            raise FileExistsError(
                f"top-k store {self.path} exists and differs ({'; '.join(differences[:3])}); "
                "pass --overwrite to replace it"
            )
        return True

    def _differences(self, found: Header) -> list[str]:
        differences = differing_fields(found.info, self.info)
        if (found.shard, found.corpus_sentences) != (self.shard, len(self._lengths)):
            differences.append(
                f"shard {found.shard} of {found.corpus_sentences} sentences against {self.shard} of "
                f"{len(self._lengths)}"
            )
        elif not differences and found.layout != self.layout:
            differences.append(f"{found.layout.rows} target tokens against {self.layout.rows}")
        return differences

    def _open_work_file(self) -> BinaryIO:
        """The locked work file, created when it is absent."""
        path = work_path(self.path)
        while True:
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
            try:
                if not lock_exclusively(file):
                    raise FileExistsError(
                        f"another process is writing {path}; wait for it, or stop it and run this command again"
                    )
                if path.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                    return file
            except BaseException:
                file.close()
                raise
            file.close()  # published or removed between opening and locking

    def _prepare(self) -> None:
        """Go on with the work file's content, or lay it out anew.

        A header that a crash tore is written again and the chunks are kept: their digests cover the settings.
        """
        path, file = work_path(self.path), self._file
        assert file is not None
        found = _header_of_work(file, path)
        if found is not None:
            differences = self._differences(found) or self._moved_sentences(file)
            if not differences:
                return
            if not self._overwrite:
                raise ValueError(
                    f"{path} is the unfinished work of a command with other settings ({'; '.join(differences[:3])}); "
                    "finish it with those, or pass --overwrite to throw it away"
                )
        if found is not None or os.fstat(file.fileno()).st_size != self.layout.file_bytes:
            file.truncate(0)
        _reserve(file, path, self.layout.file_bytes)
        self._write(self.layout.starts["dictionary"], self._dictionary)
        place = self.layout.starts["offsets"]
        for offsets in self._offset_blocks():
            self._write(place, offsets)
            place += offsets.nbytes
        self.sync()
        self._write(0, encode_header(self.info, self.shard, len(self._lengths), self.layout))
        self.sync()
        _sync_folder(path.parent)

    def _moved_sentences(self, file: BinaryIO) -> list[str]:
        """Differences between a file's offsets and the corpus as it is now."""
        place = self.layout.starts["offsets"]
        for offsets in self._offset_blocks():
            if os.pread(file.fileno(), offsets.nbytes, place) != offsets.tobytes():
                return ["target sentences have other lengths"]
            place += offsets.nbytes
        return []

    def _offset_blocks(self) -> Iterator[NDArray[np.int64]]:
        """The offsets section in pieces: its 0, then the ends of each chunk's sentences."""
        yield np.zeros(1, dtype=OFFSET_DTYPE)
        total = 0
        for chunk in self._global_chunks():
            ends = total + np.cumsum(self._chunk_lengths(chunk))
            yield ends.astype(OFFSET_DTYPE)
            total = int(ends[-1])

    # ------------------------------------------------------------ places

    def _global_chunks(self) -> range:
        chunks = -(-len(self._lengths) // self.info.chunk_sentences)
        return range(self.shard.index, chunks, self.shard.count)

    def _chunk_lengths(self, chunk: int) -> NDArray[np.int64]:
        sentences = self.sentences(chunk)
        lengths = np.asarray(self._lengths[sentences.start : sentences.stop])
        if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths < 0).any():
            raise ValueError(
                f"lengths must be (sentences,) integers, not negative, got {lengths.dtype} of shape {lengths.shape}, "
                f"least {lengths.min(initial=0)}; pass the target tokens of each sentence"
            )
        return lengths.astype(np.int64)

    def _span(self, chunk: int) -> tuple[int, int, int, int]:
        """First local sentence, sentences, first local row, rows."""
        first = chunk // self.shard.count * self.info.chunk_sentences
        offset = np.frombuffer(self._read(self.layout.starts["offsets"] + 8 * first, 8), OFFSET_DTYPE)
        return first, len(self.sentences(chunk)), int(offset[0]), int(self._chunk_lengths(chunk).sum())

    def _places(self, chunk: int, data: ChunkData) -> list[tuple[int, NDArray[Any]]]:
        first, _, row, _ = self._span(chunk)
        starts = self.layout.starts
        return [
            (starts["source_hashes"] + first * 8, data.source_hashes),
            (starts["target_hashes"] + first * 8, data.target_hashes),
            (starts["status"] + first, data.status),
            (starts["records"] + row * record_dtype(self.info).itemsize, data.records),
        ]

    def _read_data(self, chunk: int) -> ChunkData:
        first, sentences, row, rows = self._span(chunk)
        starts, record = self.layout.starts, record_dtype(self.info)
        source, target = (
            np.frombuffer(self._read(starts[name] + 8 * first, 8 * sentences), "<u8")
            for name in ("source_hashes", "target_hashes")
        )
        status = np.frombuffer(self._read(starts["status"] + first, sentences), np.uint8)
        records = self._read(starts["records"] + row * record.itemsize, rows * record.itemsize)
        return ChunkData(source, target, self._chunk_lengths(chunk), status, np.frombuffer(records, record))

    def _table(self) -> NDArray[Any]:
        start, end = self.layout.starts["chunk_table"], self.layout.ends["chunk_table"]
        return np.frombuffer(self._read(start, end - start), dtype=table_dtype(self.info))

    # ------------------------------------------------------------ bytes

    def _descriptor(self) -> int:
        assert self._file is not None, f"{self.path} was finished or closed before"
        return self._file.fileno()

    def _read(self, place: int, size: int) -> bytes:
        parts = []
        while size > 0:
            part = os.pread(self._descriptor(), size, place)
            assert part, f"{work_path(self.path)} became shorter while it was written"
            parts.append(part)
            place, size = place + len(part), size - len(part)
        return b"".join(parts)

    def _write(self, place: int, content: Any) -> None:
        view = memoryview(content.tobytes() if isinstance(content, (np.ndarray, np.generic)) else content)
        while view:
            try:
                written = os.pwrite(self._descriptor(), view, place)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(work_path(self.path))) from None
            place, view = place + written, view[written:]


def _header_of_work(file: BinaryIO, path: Path) -> Header | None:
    """The header of an unfinished file, or of one that was finished but not yet renamed; None without one."""
    for unfinished in (True, False):
        file.seek(0)
        try:
            return read_header(file, path, unfinished)
        except ValueError:
            continue
    return None


def _reserve(file: BinaryIO, path: Path, size: int) -> None:
    """Give the file its size, new bytes zero; a full disk fails here rather than hours later."""
    try:
        file.truncate(size)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            file.truncate(0)
            reason = os.strerror(error.errno)
            raise OSError(error.errno, f"no room for {size:,} bytes ({reason})", str(path)) from None
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # file systems that cannot reserve
            raise


def _sync_folder(folder: Path) -> None:
    """Make a new name in the folder durable, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
