"""Joins the folds of a store, each scored by a teacher that has not seen it; goes on after a crash."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.chunk import check_rows, table_entry
from fairseq_bert_kd.storage.folds import Fold, fold_numbers
from fairseq_bert_kd.storage.merge import write_joined
from fairseq_bert_kd.storage.schema import ChunkData, differing_fields
from fairseq_bert_kd.storage.shards import WHOLE
from fairseq_bert_kd.storage.store_file import StoreFile, open_store, sound
from fairseq_bert_kd.storage.topk import OTHER_FOLD, TopKInfo
from fairseq_bert_kd.storage.writer import StoreWriter


def merge_folds(
    paths: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    overwrite: bool = False,
    progress: Callable[[int], Any] = lambda size: None,
) -> dict[str, Any]:
    """Write the store in which every sentence has the rows of its own fold's teacher; the header's summary.

    Args:
        paths: the stores of all folds, in any order.
        output: final path of the store.
        overwrite: replace an existing one.
        progress: function that is called with the bytes of each chunk of each fold.

    Raises:
        FileNotFoundError: a store is absent.
        ValueError: folds that overlap, are missing or differ in number, stores of other data or settings, one teacher for
            several folds, or a damaged store.
        FileExistsError: a file of another content has the name ``output``.
    """
    with ExitStack() as files:
        stores = [files.enter_context(open_store(Path(path), (TopKInfo,))) for path in paths]
        stores = _in_order(stores)
        first = stores[0]
        info = replace(_without_teacher(first.info), folds=tuple(store.info.folds[0] for store in stores))
        blobs = {name: sound(first, first.checked_blob, name) for name in info.blobs}
        lengths = np.concatenate([np.zeros(0, np.int64), *_lengths(first)])
        with StoreWriter(output, info, lengths, blobs, overwrite=overwrite) as writer:
            return write_joined(writer, _joined_chunks(stores, info, progress), (TopKInfo,))


def _in_order(stores: Sequence[StoreFile]) -> list[StoreFile]:
    """The stores of all folds by their number; ValueError unless they make up one store."""
    folds: dict[Fold, StoreFile] = {}
    for store in stores:
        fold = store.info.fold
        if fold is None:
            raise ValueError(
                f"{store.path} holds no single fold; name the stores that `fairseq-bert-kd dump --teacher-fold I/N` wrote"
            )
        if store.header.shard.count > 1:
            raise ValueError(
                f"{store.path} is shard {store.header.shard} of fold {fold}; join the shards of each fold first "
                "(`fairseq-bert-kd store merge`)"
            )
        if fold in folds:
            raise ValueError(
                f"fold {fold} is given twice ({folds[fold].path}, {store.path}); name each fold once"
            )
        folds[fold] = store
    if not folds:
        raise ValueError("no folds given; name the files `*.fold-*` of one store")
    counts = sorted({fold.count for fold in folds})
    if len(counts) > 1:
        raise ValueError(
            f"folds of {' and of '.join(map(str, counts))} overlap; name the folds of one division of the corpus"
        )
    absent = [
        str(Fold(number, counts[0]))
        for number in range(1, counts[0] + 1)
        if Fold(number, counts[0]) not in folds
    ]
    if absent:
        raise ValueError(f"fold {', '.join(absent)} is missing; name all folds of the store")
    ordered = [folds[fold] for fold in sorted(folds)]
    _check_alike(ordered)
    return ordered


def _check_alike(stores: Sequence[StoreFile]) -> None:
    """Raise ValueError unless the stores differ in fold and teacher alone."""
    first, digests = stores[0], set()
    for store in stores:
        differences = differing_fields(_without_teacher(first.info), _without_teacher(store.info))
        if store.header.corpus_sentences != first.header.corpus_sentences:
            differences.append("another number of sentences")
        if differences:
            raise ValueError(
                f"{store.path} and {first.path} are not folds of one store ({'; '.join(differences[:3])}); dump all folds with "
                "the same command but for --path and --teacher-fold"
            )
        digest = store.info.teacher_digest
        if digest in digests:
            raise ValueError(
                f"{store.path} is of the same checkpoint as another fold, which has seen its sentences then; train a teacher "
                "for each fold (--teacher-fold)"
            )
        digests.add(digest)


def _without_teacher(info: TopKInfo) -> TopKInfo:
    """What all folds of a store have in common."""
    return replace(info, teacher="one teacher for each fold", teacher_digest="", folds=())


def _lengths(store: StoreFile) -> list[NDArray[np.int64]]:
    """Rows of each sentence, by chunk."""
    chunks = WHOLE.chunks(store.header.corpus_sentences, store.info.chunk_sentences)
    return [np.diff(sound(store, store.offsets, chunk)) for chunk in chunks]


def _joined_chunks(
    stores: Sequence[StoreFile], info: TopKInfo, progress: Callable[[int], Any]
) -> Iterator[tuple[int, ChunkData, NDArray[Any], Path]]:
    """Number, data and table entry of each chunk of the result, and the file of the first fold.

    Raises:
        ValueError: as `merge_folds`.
    """
    first = stores[0]
    for chunk in WHOLE.chunks(first.header.corpus_sentences, info.chunk_sentences):
        parts = [sound(store, store.checked_chunk, chunk) for store in stores]
        data = _joined(stores, parts, first.chunk_name(chunk))
        check_rows(data, info, first.sentences(chunk).start)
        entries = [store.entry(chunk) for store in stores]
        entry = table_entry(
            chunk,
            data,
            info,
            gold_correct=sum(int(entry["gold_correct"]) for entry in entries),
            gold_nll=sum(float(entry["gold_nll"]) for entry in entries),
        )
        yield chunk, data, entry, first.path
        progress(sum(part.records.nbytes for part in parts))


def _joined(stores: Sequence[StoreFile], parts: Sequence[ChunkData], name: str) -> ChunkData:
    """A chunk with the rows of each fold from its own store.

    Raises:
        ValueError: the stores are of other texts, or one does not hold exactly its fold.
    """
    first = parts[0]
    numbers = fold_numbers(first.hashes, len(parts))
    status, records = np.zeros_like(first.status), np.zeros_like(first.records)
    for number, (store, part) in enumerate(zip(stores, parts, strict=True), 1):
        same = all(np.array_equal(part.hashes[side], hashes) for side, hashes in first.hashes.items())
        if not same or not np.array_equal(part.lengths, first.lengths):
            raise ValueError(
                f"{store.path} and {stores[0].path} are of other texts in {name}; dump all folds from the same data folder"
            )
        mine = numbers == number
        if ((part.status != OTHER_FOLD) != mine).any():
            raise ValueError(
                f"{store.path} does not hold exactly the sentences of its fold in {name}; dump it again with --overwrite"
            )
        rows = np.repeat(mine, part.lengths)
        status[mine], records[rows] = part.status[mine], part.records[rows]
    return ChunkData(first.hashes, first.lengths, status, records)
