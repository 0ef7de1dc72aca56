"""The base of all schemas: where a store's rows come from, and what the container must know about them.

The container (`header`, `store_file`, `reader`, `writer`, `merge`) knows bytes, chunks, digests and shards. What a row
is, a subclass of `StoreInfo` says. docs/store_format.md describes both.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, get_origin

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.fairseq_data import SideFiles

DIGEST = "blake2b"
DIGEST_BYTES = 16
HASH_DTYPE = np.dtype("<u8")  # hash of a sentence's ids
OFFSET_DTYPE = np.dtype("<i8")
STATUS_DTYPE = np.dtype("u1")
SCORED = 0  # status of a sentence with rows; all others are missing
TOO_LONG = 1
NOT_FINITE = 2
_SUMMARY_ROOM = 1024  # bytes for the counts that are known last


class RowFault(NamedTuple):
    """A rule of a schema and the rows that break it.

    Attributes:
        bad: ``(rows,)`` bool.
        rule: rule for the message, "topk_ids must differ".
        values: ``(rows, ...)`` what the rows hold.
    """

    bad: Any
    rule: str
    values: NDArray[Any]


@dataclass(frozen=True)
class ChunkData:
    """Consecutive sentences and their rows.

    Attributes:
        hashes: ``(sentences,)`` uint64 by side of the data, see `fairseq_data.sentence_hash`.
        lengths: ``(sentences,)`` integers, rows of each sentence; a missing one has rows too.
        status: ``(sentences,)`` uint8, `SCORED` or why the sentence is missing.
        records: ``(rows,)`` of the schema's `record_dtype`; all zero where the sentence is missing.
    """

    hashes: Mapping[str, NDArray[np.uint64]]
    lengths: NDArray[Any]
    status: NDArray[np.uint8]
    records: NDArray[Any]

    @property
    def scored(self) -> NDArray[np.bool_]:
        """``(rows,)`` whether the row's sentence was scored."""
        return np.repeat(self.status == SCORED, self.lengths)


@dataclass(frozen=True, kw_only=True)
class StoreInfo:
    """Statement of a store's creator, equal for all shards; a subclass is a schema and adds what its rows need.

    Attributes:
        split: split of the data, "train" for example.
        teacher: name of the teacher.
        teacher_digest: sha256 of the teacher's checkpoint, hexadecimal; "" where not known.
        versions: tool to version.
        tokenizer_digest: digest of the teacher's tokenizer; "" where not known.
        precision: the teacher's arithmetic, "fp32" for example; "" where not known.
        device: kind of device that the teacher ran on; "" where not known.
        max_tokens: token budget of a batch, 0 where not known; with ``chunk_sentences`` it fixes the batches.
        chunk_sentences: sentences that are scored, written and checked together.
        origin: "dump", or "import".
    """

    split: str
    teacher: str
    teacher_digest: str = ""
    versions: dict[str, str]
    tokenizer_digest: str = ""
    precision: str = ""
    device: str = ""
    max_tokens: int = 0
    chunk_sentences: int = 1024
    origin: str = "dump"

    schema: ClassVar[str]  # what the rows are, plural; the header's name of the schema
    version: ClassVar[int] = 3  # format version of a file with these rows
    suffix: ClassVar[str]  # ending of such files
    command: ClassVar[str]  # writes such files
    sides: ClassVar[tuple[str, ...]]  # sides of the data whose sentences are hashed, in the file's order
    row_side: ClassVar[str | None] = None  # side whose tokens have a row each; None for one row per sentence
    dictionary_side: ClassVar[str | None] = None  # side whose dictionary the blob `dictionary` is
    status_names: ClassVar[tuple[str, ...]] = ("scored", "too_long", "not_finite")
    blobs: ClassVar[tuple[str, ...]] = ()  # sections of bytes before all others
    # columns of the chunk table that do not follow from the rows, and their values where they are not known
    unknown: ClassVar[Mapping[str, Any]] = {}

    @property
    def statuses(self) -> tuple[str, ...]:
        """Names of the statuses that sentences of this store can have, `SCORED` first."""
        return self.status_names

    # ------------------------------------------------------------ layout

    @property
    def record_dtype(self) -> np.dtype[Any]:
        """Type of a row: packed, without padding."""
        raise NotImplementedError

    @property
    def table_columns(self) -> list[tuple]:
        """Fields of a chunk's table entry after its digest; at least ``scored_rows`` and ``missing``."""
        return [("scored_rows", "<i8"), ("missing", "<i8", (len(self.statuses) - 1,))]

    @property
    def table_dtype(self) -> np.dtype[Any]:
        """Type of a table entry; the digest covers the entry's other fields and the chunk's data."""
        return np.dtype([("digest", "u1", (DIGEST_BYTES,)), *self.table_columns])

    @property
    def summary_room(self) -> int:
        """Bytes that the header keeps free for the summary."""
        return _SUMMARY_ROOM

    # ------------------------------------------------------------ header

    def stated(self) -> dict[str, Any]:
        """The header's ``info``: plain values in a fixed order."""
        return asdict(self)

    @classmethod
    def parse(cls, stated: Mapping[str, Any]) -> "StoreInfo":
        """The inverse of `stated`; keys that this version does not know must not change the others' meaning."""
        known = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in stated.items() if name in known})

    def constants(self) -> dict[str, Any]:
        """Further keys of the header that follow from the schema."""
        return {}

    def check(self) -> None:
        """Raise ValueError for a field of a wrong type or an impossible number."""
        for item in fields(self):
            value, kind = getattr(self, item.name), get_origin(item.type) or item.type
            allowed = (int, float) if kind is float else kind
            if not isinstance(value, allowed) or (kind is int and isinstance(value, bool)):  # type: ignore[arg-type]
                raise ValueError(f"{item.name} must be {getattr(kind, '__name__', kind)}, got {value!r}")
        if self.chunk_sentences < 1:
            raise ValueError(f"chunk_sentences must be at least 1, got {self.chunk_sentences}")

    def check_blob(self, name: str, raw: bytes) -> None:
        """Raise ValueError for a section of bytes that is not the one that the fields describe."""

    # ------------------------------------------------------------ rows

    def row_faults(self, records: NDArray[Any]) -> list[RowFault]:
        """Rules for the ``(rows,)`` records of scored sentences; nothing of it raises."""
        raise NotImplementedError

    def count(self, data: ChunkData) -> dict[str, Any]:
        """The columns of the chunk table that follow from a chunk's rows."""
        return {
            "scored_rows": np.count_nonzero(data.scored),
            "missing": np.bincount(data.status, minlength=len(self.statuses))[1:],
        }

    def summarise(self, table: NDArray[Any]) -> dict[str, Any]:
        """Counts over ``(chunks,)`` table entries for the header; the order of chunks must not matter."""
        missing = table["missing"].sum(axis=0)
        return {
            "scored_rows": int(table["scored_rows"].sum()),
            "missing_sentences": {name: int(n) for name, n in zip(self.statuses[1:], missing, strict=True)},
        }

    # ------------------------------------------------------------ data

    def files(self, folder: str | Path) -> dict[str, SideFiles]:
        """Files of the data by side, in a folder that fairseq-preprocess wrote; FileNotFoundError without them."""
        raise NotImplementedError

    def dictionaries(self) -> dict[str, tuple[str, str]]:
        """File name and digest of the dictionary of each side that has one; a digest is "" where not known."""
        return {}

    @classmethod
    def rebuild_command(cls, path: Path, *more: str) -> str:
        """Advice for a damaged store: how to make it again, as far as its name says; with ``more`` options where it lacks
        something."""
        return f"make it again with `{cls.command}`"


def new_digest(content: bytes = b"") -> Any:
    """The hash that protects headers, tables and chunks."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES)


def info_digest(info: StoreInfo) -> bytes:
    """Digest of everything that the creator states, as JSON with sorted keys, without spaces, in ASCII."""
    text = json.dumps(info.stated(), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return new_digest(text.encode()).digest()


def differing_fields(one: StoreInfo, other: StoreInfo) -> list[str]:
    """``field: value against value`` for each field that differs."""
    if one.schema != other.schema:
        return [f"schema: {one.schema} against {other.schema}"]
    pairs = [(item.name, getattr(one, item.name), getattr(other, item.name)) for item in fields(one)]
    return [f"{name}: {a!r} against {b!r}" for name, a, b in pairs if a != b]


def empty_records(rows: int, info: StoreInfo) -> NDArray[Any]:
    """``(rows,)`` records of zeros."""
    return np.zeros(rows, dtype=info.record_dtype)
