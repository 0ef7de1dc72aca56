"""Joins the shards of a store; goes on after a crash, and gives the same bytes whatever the shards were."""

import math
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_bert_kd.storage.header import Schemas, damaged, open_header, read_header
from fairseq_bert_kd.storage.known_schemas import SCHEMAS
from fairseq_bert_kd.storage.schema import differing_fields
from fairseq_bert_kd.storage.shards import Shard
from fairseq_bert_kd.storage.store_file import ChunkPlace, StoreFile, pread
from fairseq_bert_kd.storage.writer import StoreWriter

_SYNC_BYTES = 1 << 28  # brought to disk together


class _Shards:
    """Shards by chunk.

    Their counts may differ: shard 1/2 on two GPUs is 1/4 and 3/4, and 2/2 on one GPU fits beside them.
    """

    def __init__(self, shards: Sequence[StoreFile]):
        self.shards = shards
        self.period = math.lcm(*(shard.header.shard.count for shard in shards))
        self._owners: dict[int, list[StoreFile]] = {residue: [] for residue in range(self.period)}
        for file in shards:
            shard = file.header.shard
            for residue in range(shard.index, self.period, shard.count):
                self._owners[residue].append(file)

    def check(self) -> None:
        """Raise ValueError unless every chunk is in exactly one shard."""
        for owners in self._owners.values():
            if len(owners) > 1:
                one, other = sorted((file.header.shard for file in owners), key=lambda shard: shard.count)[:2]
                if one == other:
                    raise ValueError(f"shard {one} is given twice; name each shard once")
                raise ValueError(
                    f"shards {one} and {other} hold the same sentences; leave one of them out ({owners[0].path}, "
                    f"{owners[1].path})"
                )
        absent = [Shard(residue, self.period) for residue, owners in self._owners.items() if not owners]
        if absent:
            raise ValueError(f"shard {', '.join(map(str, absent))} is missing; name all shards of the store")

    def find(self, chunk: int) -> tuple[StoreFile, ChunkPlace]:
        """The shard that holds a chunk, and the chunk's place in it."""
        (shard,) = self._owners[chunk % self.period]
        return shard, shard.place_of(chunk)


class _JoinedLengths:
    """Rows of every sentence of the corpus, read from the shards chunk by chunk."""

    dtype = np.dtype(np.int64)

    def __init__(self, shards: _Shards, first: StoreFile):
        self.shards, self.first = shards, first

    def __len__(self) -> int:
        return self.first.header.corpus_sentences

    def __getitem__(self, sentences: slice) -> Any:
        chunk, offset = divmod(sentences.start, self.first.info.chunk_sentences)
        assert offset == 0, sentences
        shard, place = self.shards.find(chunk)
        try:
            return np.diff(shard.offsets(place))
        except ValueError as error:
            raise damaged(shard.path, str(error), shard.info) from None


def merge_shards(
    shard_paths: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    overwrite: bool = False,
    progress: Callable[[int], Any] = lambda size: None,
    schemas: Schemas = SCHEMAS,
) -> dict[str, Any]:
    """Write the store that the shards make up; the header's summary.

    Args:
        shard_paths: all shards of one store, in any order.
        output: final path of the store.
        overwrite: replace an existing one.
        progress: called with the bytes of each chunk.
        schemas: those that shards may have.

    Raises:
        FileNotFoundError: a shard is absent.
        ValueError: shards of different stores, one missing or given twice, or a damaged one.
        FileExistsError: another file has the name ``output``.
    """
    with ExitStack() as files:
        shards = []
        for path in map(Path, shard_paths):
            if not path.is_file():
                raise FileNotFoundError(
                    f"shard {path} does not exist; make it with `fairseq-bert-kd dump --shard`"
                )
            file = files.enter_context(open(path, "rb"))
            shards.append(StoreFile(path, read_header(file, path, schemas), pread(file, path)))
        _check_alike(shards)
        by_chunk = _Shards(shards)
        by_chunk.check()
        lengths: Any = _JoinedLengths(by_chunk, shards[0])
        with StoreWriter(output, shards[0].info, lengths, _blobs(shards[0]), overwrite=overwrite) as writer:
            if writer.complete:
                return open_header(writer.path, schemas).summary or {}
            return _copy(by_chunk, writer, progress)


def _copy(shards: _Shards, writer: StoreWriter, progress: Callable[[int], Any]) -> dict[str, Any]:
    """Copy every chunk that is not there yet, and publish."""
    unsynced = 0
    for chunk in writer.chunks():
        shard, place = shards.find(chunk)
        try:
            data = shard.checked_chunk(place)
        except ValueError as error:
            writer.discard()  # it may have been laid out from a damaged index
            raise damaged(shard.path, str(error), shard.info) from None
        if not writer.is_done(chunk):
            writer.copy_chunk(chunk, data, shard.entry(place))
        unsynced += data.records.nbytes
        progress(data.records.nbytes)
        if unsynced > _SYNC_BYTES:
            writer.sync()
            unsynced = 0
    return writer.finish()


def _blobs(shard: StoreFile) -> dict[str, bytes]:
    """The shard's sections of bytes, checked."""
    blobs = {name: shard.blob(name) for name in shard.info.blobs}
    for name, raw in blobs.items():
        try:
            shard.info.check_blob(name, raw)
        except ValueError as error:
            raise damaged(shard.path, f"its section {name}: {error}", shard.info) from None
    return blobs


def _check_alike(shards: Sequence[StoreFile]) -> None:
    """Raise ValueError unless these are shards of one store."""
    if not shards:
        raise ValueError("no shards given; name the files `*.shard-*` of one store")
    first = shards[0]
    for shard in shards[1:]:
        differences = differing_fields(first.info, shard.info)
        if shard.header.corpus_sentences != first.header.corpus_sentences:
            differences.append("another number of sentences")
        if differences:
            raise ValueError(
                f"{shard.path} and {first.path} are not of one dump ({'; '.join(differences[:3])}); "
                "make all shards with the same command but for --shard"
            )
