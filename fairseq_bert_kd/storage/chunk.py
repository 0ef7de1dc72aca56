"""Chunks of any schema: their digest, their entry in the chunk table, and the check of their rows."""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.schema import (
    DIGEST_BYTES,
    HASH_DTYPE,
    STATUS_DTYPE,
    ChunkData,
    RowFault,
    StoreInfo,
    info_digest,
    new_digest,
)


def chunk_digest(chunk: int, entry: NDArray[Any], data: ChunkData, info: StoreInfo) -> bytes:
    """Digest of a chunk: `info_digest`, its number in the corpus, its table entry without the digest, its data."""
    digest = new_digest(info_digest(info) + struct.pack("<q", chunk))
    digest.update(entry.tobytes()[DIGEST_BYTES:])
    digest.update(np.ascontiguousarray(data.lengths, dtype="<i4"))
    for array in (*(data.hashes[side] for side in info.sides), data.status, data.records):
        digest.update(np.ascontiguousarray(array).view(np.uint8))
    return bytes(digest.digest())


def table_entry(chunk: int, data: ChunkData, info: StoreInfo, **measured: Any) -> NDArray[Any]:
    """A chunk's entry in the chunk table, its digest included; shape ``()``.

    Args:
        chunk: number of the chunk in the corpus.
        data: data of the chunk.
        info: info of the store.
        **measured: columns that do not follow from the rows, see `StoreInfo.unknown`.
    """
    entry = np.zeros((), dtype=info.table_dtype)
    for name, value in {**info.unknown, **measured, **info.count(data)}.items():
        entry[name] = value
    entry["digest"] = np.frombuffer(chunk_digest(chunk, entry, data, info), dtype=np.uint8)
    return entry


def check_rows(data: ChunkData, info: StoreInfo, first_sentence: int = 0) -> None:
    """Raise ValueError for arrays of a wrong shape or type, and for the first row that breaks a rule of the schema.

    Args:
        data: data of one chunk.
        info: info of the store.
        first_sentence: corpus index of the chunk's first sentence, for messages.
    """
    _check_arrays(data, info)
    unknown = data.status >= len(info.statuses)
    if unknown.any():
        sentence = int(unknown.argmax())
        raise ValueError(f"sentence {first_sentence + sentence}: unknown status {data.status[sentence]}")
    scored = data.scored
    missing_rows = np.flatnonzero(~scored)
    # (missing rows, bytes of a record)
    raw = data.records[missing_rows].view(np.uint8).reshape(len(missing_rows), data.records.dtype.itemsize)
    rows = np.flatnonzero(scored)
    faults = [(missing_rows, RowFault((raw != 0).any(axis=1), "a missing sentence must hold zeros", raw))]
    faults += [(rows, fault) for fault in info.row_faults(data.records[rows])]
    for numbers, (bad, rule, values) in faults:
        if bad.any():
            row = int(numbers[bad.argmax()])
            ends = np.cumsum(data.lengths)
            sentence = int(np.searchsorted(ends, row, side="right"))
            position = row - int(ends[sentence] - data.lengths[sentence])
            raise ValueError(
                f"sentence {first_sentence + sentence}, position {position}: {rule}, got "
                f"{values[bad.argmax()].tolist()}"
            )


def _check_arrays(data: ChunkData, info: StoreInfo) -> None:
    arrays: dict[str, tuple[Any, Any]] = {
        f"{side}_hashes": (data.hashes[side], HASH_DTYPE) for side in info.sides
    }
    arrays |= {"status": (data.status, STATUS_DTYPE), "records": (data.records, info.record_dtype)}
    sentences, rows = len(data.lengths), int(data.lengths.sum())
    shapes = tuple(len(array) for array, _ in arrays.values())
    if shapes != (*[sentences] * (len(shapes) - 1), rows):
        raise ValueError(f"{sentences} sentences of {rows} rows do not fit arrays of {shapes}")
    for name, (array, dtype) in arrays.items():
        if array.dtype != dtype:
            raise ValueError(f"{name} must be of type {dtype}, got {array.dtype}")
