"""What the rows of a chunk must satisfy, their digest, and the mass that they hold."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.store_info import (
    HASH_DTYPE,
    SCORED,
    STATUS_DTYPE,
    STATUS_NAMES,
    StoreInfo,
    info_digest,
    new_digest,
    record_dtype,
    table_dtype,
)

NORMALISER_SLACK = 1e-4  # nats; float32 sums over a dictionary of 10^5 stay well within
_ROW_BLOCK = 1 << 16  # rows whose probabilities are in memory together


@dataclass(frozen=True)
class ChunkData:
    """Consecutive sentences and their rows.

    Attributes:
        source_hashes: ``(sentences,)`` uint64.
        target_hashes: ``(sentences,)`` uint64.
        lengths: ``(sentences,)`` integers, rows of each sentence; a missing one has rows too.
        status: ``(sentences,)`` uint8, see `STATUS_NAMES`.
        records: ``(rows,)`` of `record_dtype`; all zero where the sentence is missing.
    """

    source_hashes: NDArray[np.uint64]
    target_hashes: NDArray[np.uint64]
    lengths: NDArray[Any]
    status: NDArray[np.uint8]
    records: NDArray[Any]

    @property
    def scored(self) -> NDArray[np.bool_]:
        """``(rows,)`` whether the row's sentence was scored."""
        return np.repeat(self.status == SCORED, self.lengths)


def empty_records(rows: int, info: StoreInfo) -> NDArray[Any]:
    """Rows of zeros."""
    return np.zeros(rows, dtype=record_dtype(info))


def chunk_digest(chunk: int, entry: NDArray[Any], data: ChunkData, info: StoreInfo) -> bytes:
    """Digest of a chunk: `info_digest`, its number in the corpus, the other fields of its table entry, its data."""
    digest = new_digest()
    digest.update(info_digest(info))
    digest.update(struct.pack("<q", chunk))
    digest.update(entry.tobytes()[len(entry["digest"]) :])
    digest.update(np.ascontiguousarray(data.lengths, dtype="<i4"))
    for array in (data.source_hashes, data.target_hashes, data.status, data.records):
        digest.update(np.ascontiguousarray(array).view(np.uint8))
    return bytes(digest.digest())


def table_entry(
    chunk: int, data: ChunkData, info: StoreInfo, gold_correct: int = -1, gold_nll: float = np.nan
) -> NDArray[Any]:
    """The chunk table's entry, its digest included; shape ``()``."""
    entry = np.zeros((), dtype=table_dtype(info))
    entry["scored_rows"] = np.count_nonzero(data.scored)
    entry["gold_correct"], entry["gold_nll"] = gold_correct, gold_nll
    entry["captured"] = captured_sums(data.records[data.scored], info)
    entry["missing"] = np.bincount(data.status, minlength=len(STATUS_NAMES))[1:]
    entry["digest"] = np.frombuffer(chunk_digest(chunk, entry, data, info), dtype=np.uint8)
    return entry


def captured_mass(
    records: NDArray[Any], info: StoreInfo, temperature: float, k: int | None = None
) -> NDArray[Any]:
    """``(rows,)`` float64 probability of the first k stored tokens at a stored temperature, exact to rounding."""
    column = info.temperatures.index(temperature)
    logits = records["topk_logits"][:, :k].astype(np.float64)
    normalisers = records["log_normalisers"][:, column].astype(np.float64)
    return np.exp(logits / temperature - normalisers[:, None]).sum(axis=1)


def captured_sums(records: NDArray[Any], info: StoreInfo) -> list[float]:
    """Sum of `captured_mass` over all rows, one for each temperature."""
    blocks = [records[start : start + _ROW_BLOCK] for start in range(0, len(records), _ROW_BLOCK)]
    return [float(sum(captured_mass(block, info, t).sum() for block in blocks)) for t in info.temperatures]


def refuse_faulty(data: ChunkData, info: StoreInfo, first_sentence: int = 0) -> None:
    """Raise ValueError for the first row that cannot be what a teacher said.

    Args:
        data: of one chunk.
        info: of the store.
        first_sentence: number of the chunk's first sentence, for messages.
    """
    sentences = len(data.lengths)
    shapes = (len(data.source_hashes), len(data.target_hashes), len(data.status), len(data.records))
    if shapes != (sentences, sentences, sentences, int(data.lengths.sum())):
        raise ValueError(
            f"{sentences} sentences of {int(data.lengths.sum())} rows do not fit arrays of {shapes}"
        )
    expected = {
        "source_hashes": HASH_DTYPE,
        "target_hashes": HASH_DTYPE,
        "status": STATUS_DTYPE,
        "records": record_dtype(info),
    }
    for name, dtype in expected.items():
        if getattr(data, name).dtype != dtype:
            raise ValueError(f"{name} must be of type {dtype}, got {getattr(data, name).dtype}")
    if (data.status >= len(STATUS_NAMES)).any():
        sentence = int((data.status >= len(STATUS_NAMES)).argmax())
        raise ValueError(f"sentence {first_sentence + sentence}: unknown status {data.status[sentence]}")
    scored = data.scored

    def refuse(bad: NDArray[Any], rule: str, rows: NDArray[Any], values: NDArray[Any]) -> None:
        if bad.any():
            row = int(rows[bad.argmax()])
            ends = np.cumsum(data.lengths)
            sentence = int(np.searchsorted(ends, row, side="right"))
            position = row - int(ends[sentence] - data.lengths[sentence])
            raise ValueError(
                f"sentence {first_sentence + sentence}, position {position}: {rule}, got "
                f"{values[bad.argmax()].tolist()}"
            )

    missing_rows = np.flatnonzero(~scored)
    raw = data.records[missing_rows].view(np.uint8).reshape(len(missing_rows), data.records.dtype.itemsize)
    refuse((raw != 0).any(axis=1), "a missing sentence must hold zeros", missing_rows, raw)
    rows = np.flatnonzero(scored)
    for bad, rule, values in _record_faults(data.records[rows], info):
        refuse(bad, rule, rows, values)


def _record_faults(records: NDArray[Any], info: StoreInfo) -> list[tuple[Any, str, Any]]:
    """``(bad rows, rule, values)`` for each rule on scored rows."""
    ids, logits = records["topk_ids"].astype(np.int64), records["topk_logits"].astype(np.float32)
    size, ordered = info.dictionary_size, np.sort(ids, axis=1)
    faults = [
        (_outside(ids, size), f"topk_ids must lie in the target dictionary of {size}", ids),
        ((ordered[:, 1:] == ordered[:, :-1]).any(axis=1), "topk_ids must differ", ids),
        (~np.isfinite(logits).all(axis=1), "topk_logits must be finite in float16", logits),
        ((logits[:, 1:] > logits[:, :-1]).any(axis=1), "topk_logits must descend", logits),
        (logits[:, 0] != 0, "topk_logits must begin with 0, the best of the row", logits),
    ]
    for column, temperature in enumerate(info.temperatures):
        normaliser = records["log_normalisers"][:, column]
        stored = np.log(np.exp(logits.astype(np.float64) / temperature).sum(axis=1))
        bad = ~np.isfinite(normaliser) | (normaliser < stored - NORMALISER_SLACK)
        rule = f"the log-normaliser at temperature {temperature:g} must be at least the stored tokens'"
        faults.append((bad, rule, normaliser))
    worst = logits[:, -1]
    if info.gold:
        gold, gold_logit = records["gold_id"].astype(np.int64), records["gold_logit"].astype(np.float32)
        at = ids == gold[:, None]
        inside = at.any(axis=1)
        same = np.where(
            inside, logits[np.arange(len(ids)), at.argmax(axis=1)] == gold_logit, gold_logit <= worst
        )
        faults += [
            (_outside(gold[:, None], size), f"gold_id must lie in the target dictionary of {size}", gold),
            (~np.isfinite(gold_logit) | ~same, "gold_logit must fit the stored logits", gold_logit),
        ]
    if info.samples:
        drawn, drawn_logits = (
            records["sample_ids"].astype(np.int64),
            records["sample_logits"].astype(np.float32),
        )
        known = (drawn[:, :, None] == ids[:, None, :]).any(axis=(1, 2))
        if info.gold:
            known |= (drawn == records["gold_id"][:, None]).any(axis=1)
        above = ~(np.isfinite(drawn_logits) & (drawn_logits <= worst[:, None])).all(axis=1)
        faults += [
            (_outside(drawn, size), f"sample_ids must lie in the target dictionary of {size}", drawn),
            (known, "sample_ids must lie outside the stored tokens", drawn),
            (above, "sample_logits must be finite and at most the last stored one", drawn_logits),
        ]
    return faults


def _outside(ids: NDArray[np.int64], size: int) -> Any:
    return ((ids < 0) | (ids >= size)).any(axis=1)


def export_columns(records: NDArray[Any], info: StoreInfo) -> Mapping[str, NDArray[Any]]:
    """The fields of the rows by name, one name for each temperature."""
    columns = {name: records[name] for name in records.dtype.names or () if name != "log_normalisers"}
    for column, temperature in enumerate(info.temperatures):
        columns[f"log_normaliser_at_{temperature:g}"] = records["log_normalisers"][:, column]
    return columns
