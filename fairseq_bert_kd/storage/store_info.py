"""What a top-k store says about itself, and the types and names that follow; specification: docs/store_format.md."""

import hashlib
import json
import math
import os
import re
import struct
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_origin

import numpy as np

VALUE_KIND = "logits"
VALUE_ORIGIN = "best logit of the row"
STRIDED_PLAN = "strided"  # position t of a target was masked and scored in pass t mod passes
PREFIX_PLAN = "left-to-right"  # nothing was masked: position t was scored from the source and positions < t
MASK_PLANS = (STRIDED_PLAN, PREFIX_PLAN)
DIGEST = "blake2b"
DIGEST_BYTES = 16
HASH_DTYPE = np.dtype("<u8")  # of a sentence's ids
LOGIT_DTYPE = np.dtype("<f2")
NORMALISER_DTYPE = np.dtype("<f4")
OFFSET_DTYPE = np.dtype("<i8")
STATUS_DTYPE = np.dtype("u1")
SCORED = 0  # status of a sentence; all others are missing
TOO_LONG = 1
NOT_FINITE = 2
NOT_IMPORTED = 3
STATUS_NAMES = ("scored", "too_long", "not_finite", "not_imported")
_ID_LIMIT = 2**31
DEFAULT_NAME = "default"  # of a store that is the only one of its data


@dataclass(frozen=True)
class StoreInfo:
    """What the creator of a store says about it; equal for all shards of a dump.

    Attributes:
        k: teacher tokens per row.
        dictionary_size: symbols of the student's target dictionary, special ones included.
        dictionary_digest: of the same symbols, see `dictionary_digest`.
        split: "train", for example.
        source_lang: as in the data's file names.
        target_lang: as in the data's file names.
        passes: over each sentence, see ``mask_plan``; 1 when left-to-right.
        teacher: name of the teacher.
        teacher_digest: sha256 of the teacher's checkpoint, hexadecimal, or "" where it is not known.
        mask_ratio: share of target tokens masked while the teacher was trained, 0 to 1.
        versions: tool to version.
        temperatures: those with a log-normaliser in each row, positive, ascending; empty where not known.
        gold: whether each row holds the gold token and its logit.
        samples: tokens in each row that were drawn from the teacher outside the stored ones.
        sample_seed: of these draws.
        source_dictionary_digest: as ``dictionary_digest``, for the source side.
        tokenizer_digest: of the teacher's tokenizer, or "" where it is not known.
        precision: the teacher's arithmetic, "fp32" for example, or "".
        device: kind of device that the teacher ran on, or "".
        max_tokens: token budget of a batch, 0 where not known; with ``chunk_sentences`` it fixes the batches.
        chunk_sentences: sentences that are scored, written and checked together.
        origin: "dump", or what was imported.
        mask_plan: one of `MASK_PLANS`, what the teacher could see.
    """

    k: int
    dictionary_size: int
    dictionary_digest: str
    split: str
    source_lang: str
    target_lang: str
    passes: int
    teacher: str
    teacher_digest: str
    mask_ratio: float
    versions: dict[str, str]
    temperatures: tuple[float, ...] = (1.0, 5.0, 10.0)
    gold: bool = False
    samples: int = 0
    sample_seed: int = 0
    source_dictionary_digest: str = ""
    tokenizer_digest: str = ""
    precision: str = ""
    device: str = ""
    max_tokens: int = 0
    chunk_sentences: int = 1024
    origin: str = "dump"
    mask_plan: str = STRIDED_PLAN


@dataclass(frozen=True, order=True)
class Shard:
    """Shard ``index`` of ``count``, from 0; it holds the chunks c with ``c % count == index``."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"


WHOLE = Shard(0, 1)  # the corpus in one file


def store_path(
    data_dir: str | os.PathLike[str], split: str, source_lang: str, target_lang: str, name: str = DEFAULT_NAME
) -> Path:
    """Where the store of a split lies: ``train.de-en.en.topk`` beside the binarised data.

    Args:
        data_dir: folder of the data.
        split: "train", for example.
        source_lang: as in the data's file names.
        target_lang: as in the data's file names.
        name: of the store among several of the same data, ``train.de-en.en.NAME.topk``.

    Raises:
        ValueError: a name with other signs than letters, digits, ``_`` and ``-``.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(
            f"a store's name is of letters, digits, _ and -, got `{name}`; it becomes part of a file name"
        )
    middle = "" if name == DEFAULT_NAME else f".{name}"
    return Path(data_dir) / f"{split}.{source_lang}-{target_lang}.{target_lang}{middle}.topk"


def shard_path(path: str | os.PathLike[str], shard: Shard) -> Path:
    """Where a shard of a store lies; the store itself when there is one shard only."""
    path = Path(path)
    if shard.count == 1:
        return path
    return path.with_name(f"{path.name}.shard-{shard.index + 1}-of-{shard.count}")


def dictionary_digest(symbols: Iterable[str]) -> str:
    """sha256 of the symbols in id order, hexadecimal; each is preceded by its uint32 length in bytes."""
    digest = hashlib.sha256()
    for symbol in symbols:
        encoded = symbol.encode("utf-8", errors="surrogatepass")
        digest.update(struct.pack("<I", len(encoded)) + encoded)
    return digest.hexdigest()


def new_digest() -> Any:
    """The hash that protects headers, tables and chunks."""
    return hashlib.blake2b(digest_size=DIGEST_BYTES)


def stated_fields(info: StoreInfo) -> dict[str, Any]:
    """What a header's ``info`` holds; ``mask_plan`` only where it is not strided, which stores of before it leave out."""
    stated = asdict(info) | {"temperatures": list(info.temperatures)}
    if info.mask_plan == STRIDED_PLAN:
        del stated["mask_plan"]
    return stated


def info_digest(info: StoreInfo) -> bytes:
    """Digest of everything that the creator says, as JSON with sorted keys, without spaces, in ASCII."""
    digest = new_digest()
    digest.update(
        json.dumps(stated_fields(info), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    )
    return bytes(digest.digest())


def id_dtype(dictionary_size: int) -> np.dtype[Any]:
    """uint16 where all ids fit, int32 else."""
    return np.dtype("<u2" if dictionary_size <= 2**16 else "<i4")


def record_dtype(info: StoreInfo) -> np.dtype[Any]:
    """A row: packed, without padding."""
    ids = id_dtype(info.dictionary_size)
    parts: list[tuple] = []
    if info.temperatures:
        parts.append(("log_normalisers", NORMALISER_DTYPE, (len(info.temperatures),)))
    parts += [("topk_ids", ids, (info.k,)), ("topk_logits", LOGIT_DTYPE, (info.k,))]
    if info.gold:
        parts += [("gold_id", ids), ("gold_logit", LOGIT_DTYPE)]
    if info.samples:
        parts += [("sample_ids", ids, (info.samples,)), ("sample_logits", LOGIT_DTYPE, (info.samples,))]
    return np.dtype(parts)


def table_dtype(info: StoreInfo) -> np.dtype[Any]:
    """An entry of the chunk table: the digest covers the entry's other fields and the chunk's data.

    ``gold_correct`` is -1 and ``gold_nll`` NaN where the gold tokens were not looked at.
    """
    return np.dtype(
        [
            ("digest", "u1", (DIGEST_BYTES,)),
            ("scored_rows", "<i8"),
            ("gold_correct", "<i8"),
            ("gold_nll", "<f8"),  # nats at temperature 1, summed
            ("captured", "<f8", (len(info.temperatures),)),  # mass of the top k, summed
            ("missing", "<i8", (len(STATUS_NAMES) - 1,)),  # sentences, by status
        ]
    )


def shard_sentences(corpus_sentences: int, chunk_sentences: int, shard: Shard) -> int:
    """Sentences in a shard."""
    whole, rest = divmod(corpus_sentences, chunk_sentences)
    full_chunks = len(range(shard.index, whole, shard.count))
    return full_chunks * chunk_sentences + (rest if rest and whole % shard.count == shard.index else 0)


def scoring_plan(info: StoreInfo) -> str:
    """``7 passes``, or ``1 pass, left to right``; for reports."""
    return "1 pass, left to right" if info.mask_plan == PREFIX_PLAN else f"{info.passes} passes"


def differing_fields(one: StoreInfo, other: StoreInfo) -> list[str]:
    """``field: value against value`` for each that differs."""
    pairs = [(item.name, getattr(one, item.name), getattr(other, item.name)) for item in fields(StoreInfo)]
    return [f"{name}: {a!r} against {b!r}" for name, a, b in pairs if a != b]


def check_info(info: StoreInfo) -> None:
    """Raise ValueError for a field of a wrong type or an impossible number."""
    for item in fields(info):
        value, kind = getattr(info, item.name), get_origin(item.type) or item.type
        allowed = (int, float) if kind is float else kind
        if not isinstance(value, allowed) or (kind is int and isinstance(value, bool)):  # type: ignore[arg-type]
            raise ValueError(f"{item.name} must be {getattr(kind, '__name__', kind)}, got {value!r}")
    for name in ("k", "dictionary_size", "passes", "chunk_sentences"):
        if getattr(info, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(info, name)}")
    if info.mask_plan not in MASK_PLANS:
        raise ValueError(f"mask_plan must be {' or '.join(MASK_PLANS)}, got {info.mask_plan!r}")
    if info.mask_plan == PREFIX_PLAN and info.passes != 1:
        raise ValueError(f"a left-to-right store was scored in 1 pass, got passes={info.passes}")
    if info.samples < 0:
        raise ValueError(f"samples must not be negative, got {info.samples}")
    if info.k > info.dictionary_size:
        raise ValueError(f"k={info.k} exceeds the dictionary of {info.dictionary_size} symbols; ask for less")
    if info.dictionary_size > _ID_LIMIT:
        raise ValueError(f"dictionary_size must fit int32 ids, got {info.dictionary_size}")
    if not 0 <= info.mask_ratio <= 1:
        raise ValueError(f"mask_ratio must be a share from 0 to 1, got {info.mask_ratio}")
    temperatures = info.temperatures
    positive = all(isinstance(t, float) and 0 < t < math.inf for t in temperatures)
    if not positive or list(temperatures) != sorted(set(temperatures)):
        raise ValueError(f"temperatures must be positive, ascending and different, got {list(temperatures)}")
