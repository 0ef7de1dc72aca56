"""Joins the shards of a store; goes on after a crash, and gives the same bytes whatever the shards were."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.header import Schemas
from fairseq_bert_kd.storage.known_schemas import SCHEMAS
from fairseq_bert_kd.storage.schema import ChunkData, differing_fields
from fairseq_bert_kd.storage.shards import WHOLE, Shard
from fairseq_bert_kd.storage.store_file import StoreFile, check_same_chunk, open_store, sound
from fairseq_bert_kd.storage.writer import StoreWriter

SYNC_BYTES = 1 << 28  # brought to disk together


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
        progress: function that is called with the bytes of each chunk.
        schemas: those that shards may have.

    Raises:
        FileNotFoundError: a shard is absent.
        ValueError: shards of different stores, one missing or given twice, or a damaged one.
        FileExistsError: a file of another content has the name ``output``.
    """
    with ExitStack() as files:
        shards = [files.enter_context(open_store(Path(path), schemas)) for path in shard_paths]
        _check_alike(shards)
        owners, first = _owners(shards), shards[0]
        blobs = {name: sound(first, first.checked_blob, name) for name in first.info.blobs}
        lengths = _joined_lengths(owners)
        with StoreWriter(output, first.info, lengths, blobs, overwrite=overwrite) as writer:
            return write_joined(writer, _chunks(owners, progress), schemas)


def write_joined(
    writer: StoreWriter, chunks: Iterable[tuple[int, ChunkData, NDArray[Any], Path]], schemas: Schemas
) -> dict[str, Any]:
    """Write a store of chunks that other stores hold, as far as an earlier run has not; the header's summary.

    A finished store is compared with them and left as it is.

    Args:
        writer: writer of the whole store.
        chunks: number, data, table entry and source of each chunk.
        schemas: those that the store may have.

    Raises:
        ValueError: a damaged source; the unfinished work is thrown away, as it may have been laid out from a damaged index.
        FileExistsError: the finished store holds other rows.
    """
    if writer.complete:
        with open_store(writer.path, schemas) as whole:
            for chunk, data, _, source in chunks:
                check_same_chunk(whole, chunk, data, source)
            return whole.header.summary or {}
    unsynced = 0
    try:
        for chunk, data, entry, _ in chunks:
            if not writer.holds(chunk, entry):  # an earlier merge may have been of other stores
                writer.copy_chunk(chunk, data, entry)
                unsynced += data.records.nbytes
            if unsynced > SYNC_BYTES:
                writer.sync()
                unsynced = 0
    except ValueError:
        writer.discard()
        raise
    return writer.finish()


def _chunks(
    owners: Sequence[StoreFile], progress: Callable[[int], Any]
) -> Iterator[tuple[int, ChunkData, NDArray[Any], Path]]:
    """Number, data, table entry and file of each chunk; ValueError for a damaged shard."""
    header = owners[0].header
    for chunk in WHOLE.chunks(header.corpus_sentences, header.info.chunk_sentences):
        shard = owners[chunk % len(owners)]
        local = shard.local(chunk)
        data = sound(shard, shard.checked_chunk, local)
        yield chunk, data, shard.entry(local), shard.path
        progress(data.records.nbytes)


def _owners(shards: Sequence[StoreFile]) -> list[StoreFile]:
    """The shard of each chunk, by the chunk's number modulo the result's length.

    The shards' counts may differ: shard 1/2 on two GPUs is 1/4 and 3/4, and 2/2 on one GPU fits beside them.

    Raises:
        ValueError: a chunk is in no shard, or in two.
    """
    period = math.lcm(*(file.header.shard.count for file in shards))
    owners: list[list[StoreFile]] = [[] for _ in range(period)]
    for file in shards:
        for residue in file.header.shard.chunks(period, 1):
            owners[residue].append(file)
    for several in owners:
        if len(several) > 1:
            one, other = sorted((file.header.shard for file in several), key=lambda shard: shard.count)[:2]
            if one == other:
                raise ValueError(f"shard {one} is given twice; name each shard once")
            raise ValueError(
                f"shards {one} and {other} hold the same sentences; leave one of them out ({several[0].path}, "
                f"{several[1].path})"
            )
    absent = [str(Shard(residue, period)) for residue, several in enumerate(owners) if not several]
    if absent:
        raise ValueError(f"shard {', '.join(absent)} is missing; name all shards of the store")
    return [only for (only,) in owners]


def _joined_lengths(owners: Sequence[StoreFile]) -> NDArray[np.int64]:
    """``(corpus sentences,)`` rows of each sentence, by the shards' indices."""
    header = owners[0].header
    lengths = np.zeros(header.corpus_sentences, dtype=np.int64)
    for chunk in WHOLE.chunks(header.corpus_sentences, header.info.chunk_sentences):
        shard = owners[chunk % len(owners)]
        local = shard.local(chunk)
        sentences = shard.sentences(local)
        lengths[sentences.start : sentences.stop] = np.diff(sound(shard, shard.offsets, local))
    return lengths


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
