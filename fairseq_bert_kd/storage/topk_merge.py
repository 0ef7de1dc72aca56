"""Joins the shards of a store; goes on after a crash, and gives the same bytes whatever the shards were."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_bert_kd.storage.header import damaged
from fairseq_bert_kd.storage.records import chunk_digest
from fairseq_bert_kd.storage.store_info import WHOLE, differing_fields
from fairseq_bert_kd.storage.topk_store import TopKReader
from fairseq_bert_kd.storage.topk_writer import TopKWriter

_SYNC_BYTES = 1 << 28  # brought to disk together


class _JoinedLengths:
    """Target lengths of the whole corpus, looked up in the shards chunk by chunk."""

    dtype = np.dtype(np.int64)

    def __init__(self, shards: Sequence[TopKReader]):
        self.shards = shards
        self.chunk_sentences = shards[0].info.chunk_sentences

    def __len__(self) -> int:
        return self.shards[0].header.corpus_sentences

    def __getitem__(self, sentences: slice) -> Any:
        chunk, offset = divmod(sentences.start, self.chunk_sentences)
        assert offset == 0, sentences
        return self.shards[chunk % len(self.shards)].chunk(chunk // len(self.shards)).lengths


def merge_shards(
    shard_paths: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    overwrite: bool = False,
    progress: Callable[[int], Any] = lambda size: None,
) -> dict[str, Any]:
    """Write the store that the shards make up; the header's summary.

    Args:
        shard_paths: all shards of one dump, in any order.
        output: final name of the store.
        overwrite: replace an existing one.
        progress: told the bytes of each chunk.

    Raises:
        FileNotFoundError: a shard is absent.
        ValueError: shards of different dumps, one missing or given twice, or a damaged one.
        FileExistsError: another file has the name ``output``.
    """
    readers = sorted((TopKReader(path, shard=True) for path in shard_paths), key=lambda r: r.header.shard)
    _refuse_unfit(readers)
    first = readers[0]
    writer = TopKWriter(output, first.info, _JoinedLengths(readers), first.symbols(), WHOLE, overwrite)  # type: ignore[arg-type]
    with writer:
        if writer.complete:
            summary = TopKReader(writer.path).header.summary
            assert summary is not None
            return summary
        unsynced = 0
        for chunk in writer.chunks():
            reader, local = readers[chunk % len(readers)], chunk // len(readers)
            entry, data = reader.chunk_table[local], reader.chunk(local)
            if chunk_digest(chunk, entry, data, reader.info) != entry["digest"].tobytes():
                writer.discard()  # it may have been laid out from a damaged index
                raise damaged(reader.path, f"chunk {chunk} does not match its digest")
            if not writer.is_done(chunk):
                writer.copy_chunk(chunk, data, entry)
            unsynced += data.records.nbytes
            progress(data.records.nbytes)
            if unsynced > _SYNC_BYTES:
                writer.sync()
                unsynced = 0
        return writer.finish()


def _refuse_unfit(readers: Sequence[TopKReader]) -> None:
    """ValueError unless these are all the shards of one dump, each once."""
    if not readers:
        raise ValueError("no shards given; name the files `*.shard-*` of one store")
    first = readers[0]
    for reader in readers:
        if (reader.lengths < 0).any():
            raise damaged(reader.path, "its index is not ascending")
    for reader in readers[1:]:
        differences = differing_fields(first.info, reader.info)
        if reader.header.shard.count != first.header.shard.count:
            differences.append(f"shard {first.header.shard} against {reader.header.shard}")
        if reader.header.corpus_sentences != first.header.corpus_sentences:
            differences.append("another number of sentences")
        if not differences and reader.symbols() != first.symbols():
            differences.append("another dictionary")
        if differences:
            raise ValueError(
                f"{reader.path} and {first.path} are not of one dump ({'; '.join(differences[:3])}); "
                "make all shards with the same command but for --shard"
            )
    present = [reader.header.shard.index for reader in readers]
    count = first.header.shard.count
    absent = sorted(set(range(count)) - set(present))
    if absent:
        raise ValueError(
            f"shard {', '.join(f'{index + 1}/{count}' for index in absent)} is missing; "
            f"name all {count} shards of the store"
        )
    repeated = next((index for index in present if present.count(index) > 1), None)
    if repeated is not None:
        raise ValueError(f"shard {repeated + 1}/{count} is given twice; name each shard once")


def store_of_shard(path: str | os.PathLike[str]) -> Path:
    """Name of the store that a shard's file belongs to.

    Raises:
        ValueError: not the name of a shard.
    """
    name, separator, _ = Path(path).name.rpartition(".shard-")
    if not separator:
        raise ValueError(f"{path} is not named like a shard (`STORE.shard-1-of-7`); give --output")
    return Path(path).with_name(name)
