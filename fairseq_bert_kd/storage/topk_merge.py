"""Joins the shards of a store; goes on after a crash, and gives the same bytes whatever the shards were."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_bert_kd.storage.header import damaged, read_header
from fairseq_bert_kd.storage.records import ChunkData, chunk_digest
from fairseq_bert_kd.storage.store_file import StoreFile
from fairseq_bert_kd.storage.store_info import WHOLE, differing_fields
from fairseq_bert_kd.storage.topk_writer import TopKWriter

_SYNC_BYTES = 1 << 28  # brought to disk together


class _JoinedLengths:
    """Target lengths of the whole corpus, looked up in the shards chunk by chunk."""

    dtype = np.dtype(np.int64)

    def __init__(self, shards: Sequence[StoreFile]):
        self.shards = shards
        self.chunk_sentences = shards[0].info.chunk_sentences

    def __len__(self) -> int:
        return self.shards[0].header.corpus_sentences

    def __getitem__(self, sentences: slice) -> Any:
        chunk, offset = divmod(sentences.start, self.chunk_sentences)
        assert offset == 0, sentences
        shard = self.shards[chunk % len(self.shards)]
        try:
            return shard.lengths(shard.place(chunk // len(self.shards)))
        except ValueError as error:
            raise damaged(shard.path, str(error)) from None


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
    with ExitStack() as files:
        shards = []
        for path in map(Path, shard_paths):
            if not path.is_file():
                raise FileNotFoundError(
                    f"shard {path} does not exist; make it with `fairseq-bert-kd dump --shard`"
                )
            file = files.enter_context(open(path, "rb"))
            shards.append(StoreFile(path, file, read_header(file, path)))
        shards.sort(key=lambda shard: shard.header.shard)
        _refuse_unfit(shards)
        lengths: Any = _JoinedLengths(shards)
        with TopKWriter(output, shards[0].info, lengths, _symbols(shards[0]), WHOLE, overwrite) as writer:
            if writer.complete:
                with open(writer.path, "rb") as file:
                    return read_header(file, writer.path).summary or {}
            return _copy(shards, writer, progress)


def _copy(shards: Sequence[StoreFile], writer: TopKWriter, progress: Callable[[int], Any]) -> dict[str, Any]:
    """Copy every chunk that is not there yet, and publish."""
    tables, unsynced = [shard.table() for shard in shards], 0
    for chunk in writer.chunks():
        shard, local = shards[chunk % len(shards)], chunk // len(shards)
        entry, data = tables[chunk % len(shards)][local], _chunk(shard, local)
        if data is None or chunk_digest(chunk, entry, data, shard.info) != entry["digest"].tobytes():
            writer.discard()  # it may have been laid out from a damaged index
            raise damaged(shard.path, f"chunk {chunk} does not match its digest")
        if not writer.is_done(chunk):
            writer.copy_chunk(chunk, data, entry)
        unsynced += data.records.nbytes
        progress(data.records.nbytes)
        if unsynced > _SYNC_BYTES:
            writer.sync()
            unsynced = 0
    return writer.finish()


def _chunk(shard: StoreFile, local: int) -> ChunkData | None:
    try:
        return shard.chunk(shard.place(local))
    except ValueError:
        return None


def _symbols(shard: StoreFile) -> list[str]:
    try:
        return shard.symbols()
    except ValueError as error:
        raise damaged(shard.path, f"its dictionary: {error}") from None


def _refuse_unfit(shards: Sequence[StoreFile]) -> None:
    """ValueError unless these are all the shards of one dump, each once."""
    if not shards:
        raise ValueError("no shards given; name the files `*.shard-*` of one store")
    first = shards[0]
    for shard in shards[1:]:
        differences = differing_fields(first.info, shard.info)
        if shard.header.shard.count != first.header.shard.count:
            differences.append(f"shard {first.header.shard} against {shard.header.shard}")
        if shard.header.corpus_sentences != first.header.corpus_sentences:
            differences.append("another number of sentences")
        if differences:
            raise ValueError(
                f"{shard.path} and {first.path} are not of one dump ({'; '.join(differences[:3])}); "
                "make all shards with the same command but for --shard"
            )
    present = [shard.header.shard.index for shard in shards]
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
