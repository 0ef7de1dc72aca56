"""Header and layout of a store, of whatever schema; the format's specification is docs/store_format.md."""

import json
import math
import os
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fairseq_bert_kd import compat
from fairseq_bert_kd.storage.schema import (
    DIGEST,
    HASH_DTYPE,
    OFFSET_DTYPE,
    STATUS_DTYPE,
    StoreInfo,
    info_digest,
    new_digest,
)
from fairseq_bert_kd.storage.shards import Shard

MAGIC = b"KDTOPK\r\n"  # the line end shows a copy in text mode
WORK_MAGIC = b"KDTOPKw\n"  # an unfinished file
UNNAMED_SCHEMA = "top-k logits"  # of version 2, whose header names no schema
_VERSIONS = (2, 3)
_PREFIX = struct.Struct("<8sII16s")  # magic, version, bytes of the JSON area, digest
_SECTION_ALIGNMENT = 64  # bytes, one cache line
_HEADER_ALIGNMENT = 4096

Schemas = Collection[type[StoreInfo]]


class OtherSchemaError(ValueError):
    """A sound store whose rows are of another schema than the caller can use."""


@dataclass(frozen=True)
class Layout:
    """Place of everything in a file; follows from info, blobs, shard and sizes.

    Attributes:
        header_bytes: bytes of the JSON area, spaces at its end included.
        starts: first byte of each section.
        ends: byte after each section.
        sentences: sentences in this file.
        rows: rows in this file.
        chunks: chunks in this file.
        file_bytes: size of the file.
    """

    header_bytes: int
    starts: dict[str, int]
    ends: dict[str, int]
    sentences: int
    rows: int
    chunks: int
    file_bytes: int

    def gaps(self) -> list[tuple[int, int]]:
        """Byte ranges between the sections, all zero."""
        edges = [_PREFIX.size + self.header_bytes]
        gaps = []
        for name in self.starts:
            gaps.append((edges[-1], self.starts[name]))
            edges.append(self.ends[name])
        return [gap for gap in gaps if gap[0] < gap[1]]


@dataclass(frozen=True)
class Header:
    """A parsed header.

    Attributes:
        info: statement of the creator.
        shard: part of the corpus that this file holds.
        corpus_sentences: sentences in all shards together.
        layout: place of everything.
        summary: counts and means, see `StoreInfo.summarise`; None in an unfinished file.
        digest: digest of the header, hexadecimal; it covers the chunk table's digest and so the whole file.
        table_digest: digest of the chunk table, hexadecimal; "" in an unfinished file.
    """

    info: StoreInfo
    shard: Shard
    corpus_sentences: int
    layout: Layout
    summary: dict[str, Any] | None = None
    digest: str = ""
    table_digest: str = ""

    @property
    def finished(self) -> dict[str, Any]:
        """The summary of a finished file."""
        assert self.summary is not None
        return self.summary

    @property
    def missing(self) -> dict[str, int]:
        """Sentences without rows of a finished file, by the reasons that occur."""
        return {name: count for name, count in self.finished["missing_sentences"].items() if count}


def make_layout(
    info: StoreInfo, header_bytes: int, blob_bytes: Mapping[str, int], sentences: int, rows: int
) -> Layout:
    """Place the sections one after the other."""
    chunks = -(-sentences // info.chunk_sentences)
    sizes = {
        **{name: blob_bytes[name] for name in info.blobs},
        "offsets": (sentences + 1) * OFFSET_DTYPE.itemsize,
        **{f"{side}_hashes": sentences * HASH_DTYPE.itemsize for side in info.sides},
        "status": sentences * STATUS_DTYPE.itemsize,
        "records": rows * info.record_dtype.itemsize,
        "chunk_table": chunks * info.table_dtype.itemsize,
    }
    starts, ends, place = {}, {}, _PREFIX.size + header_bytes
    for name, size in sizes.items():
        starts[name] = _round_up(place, _SECTION_ALIGNMENT)
        place = ends[name] = starts[name] + size
    return Layout(header_bytes, starts, ends, sentences, rows, chunks, place)


def plan_header(
    info: StoreInfo, shard: Shard, corpus_sentences: int, blob_bytes: Mapping[str, int], rows: int
) -> Header:
    """The header of a new file, with room for what is known at its end."""
    sentences = shard.sentences(corpus_sentences, info.chunk_sentences)
    layout = make_layout(info, 0, blob_bytes, sentences, rows)
    text = json.dumps(header_fields(Header(info, shard, corpus_sentences, layout)), ensure_ascii=False)
    room = len(text.encode()) + info.summary_room
    header_bytes = _round_up(_PREFIX.size + room, _HEADER_ALIGNMENT) - _PREFIX.size
    layout = make_layout(info, header_bytes, blob_bytes, sentences, rows)
    return Header(info, shard, corpus_sentences, layout)


def encode_header(header: Header) -> bytes:
    """Prefix and JSON area, of a finished file when there is a summary."""
    text = json.dumps(header_fields(header), ensure_ascii=False, allow_nan=False).encode()
    size, version = header.layout.header_bytes, header.info.version
    assert len(text) <= size, (len(text), size)
    area = text.ljust(size)
    magic = WORK_MAGIC if header.summary is None else MAGIC
    return _PREFIX.pack(magic, version, size, _header_digest(magic, version, area)) + area


def check_exists(path: Path) -> None:
    """Raise FileNotFoundError unless a file is there."""
    if not path.is_file():
        raise FileNotFoundError(f"store {path} does not exist or is not a file; check the path")


def open_header(path: Path, schemas: Schemas) -> Header:
    """The header of a store; raises as `check_exists` and `read_header` do."""
    check_exists(path)
    with open(path, "rb") as file:
        return read_header(file, path, schemas)


def read_header(file: BinaryIO, path: Path, schemas: Schemas, unfinished: bool = False) -> Header:
    """Read and check the header of an open file, in constant time.

    Args:
        file: binary, at its beginning.
        path: path of the file, for messages.
        schemas: those that the caller can use.
        unfinished: expect a work file instead of a store.

    Raises:
        ValueError: not a store, another version or schema, damaged, or of a wrong size.
    """
    schema, size = schema_by_name(path, schemas), os.fstat(file.fileno()).st_size
    version, area, digest = _read_area(file, path, size, schema, unfinished)
    try:
        values = json.loads(area.decode("utf-8"))
        name = values["schema"] if version > 2 else UNNAMED_SCHEMA
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(path, _not_understood(error), schema) from error
    found = next((known for known in schemas if known.schema == name), None)
    if found is None:
        needed = " or ".join(known.schema for known in schemas)
        raise OtherSchemaError(
            f"store {path} holds {name}, {needed} are needed; give a store that `{schema.command}` wrote, or upgrade "
            "fairseq-bert-kd"
        )
    try:
        header = _parse(values, found, len(area), digest.hex())
        if version != found.version:
            raise ValueError(f"{name} are of format version {found.version}, got {version}")
        if (header.summary is None) != unfinished:
            raise ValueError("its summary does not fit its magic")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise damaged(path, _not_understood(error), found) from error
    _check_size(path, size, header.layout.file_bytes, found)
    return header


def _read_area(
    file: BinaryIO, path: Path, size: int, schema: type[StoreInfo], unfinished: bool
) -> tuple[int, bytes, bytes]:
    """Format version, JSON area and digest of a file of ``size`` bytes, the area proven; raises as `read_header`."""
    prefix = file.read(_PREFIX.size)
    magic = prefix[: len(MAGIC)]
    if magic != (WORK_MAGIC if unfinished else MAGIC):
        if magic == WORK_MAGIC:
            raise ValueError(
                f"{path} is unfinished; run the command that writes it again, it goes on where it was"
            )
        if compat.is_lfs_pointer(path):
            raise ValueError(compat.file_fault(path))
        raise ValueError(
            f"{path} is not a teacher store: it begins with {magic!r}, not {MAGIC!r}; check the path, or write a "
            f"store with `{schema.command}`"
        )
    _check_size(path, size, _PREFIX.size, schema, at_least=True)
    _, version, header_bytes, digest = _PREFIX.unpack(prefix)
    if version not in _VERSIONS:
        step = "upgrade fairseq-bert-kd, or " if version > _VERSIONS[-1] else ""
        raise ValueError(
            f"store {path} has format version {version}, this code reads versions "
            f"{' and '.join(map(str, _VERSIONS))}; {step}{schema.rebuild_command(path)}"
        )
    _check_size(path, size, _PREFIX.size + header_bytes, schema, at_least=True)
    area = file.read(header_bytes)
    if _header_digest(magic, version, area) != digest:
        raise damaged(path, "its header does not match the header's digest", schema)
    return version, area, digest


def schema_by_name(path: Path, schemas: Schemas) -> type[StoreInfo]:
    """The schema that a file's name tells, else the first; for advice on a file that cannot be read."""
    return next((known for known in schemas if f".{known.suffix}" in path.name), next(iter(schemas)))


def damaged(path: Path, what: str, schema: type[StoreInfo] | StoreInfo) -> ValueError:
    """The error for a file that is not as it was written."""
    return ValueError(f"store {path} is damaged: {what}; copy it again or {schema.rebuild_command(path)}")


def header_fields(header: Header) -> dict[str, Any]:
    """The header's JSON object; its order is part of the format."""
    info, layout = header.info, header.layout
    return {
        **({"schema": info.schema} if info.version > 2 else {}),
        "info": info.stated(),
        "info_digest": info_digest(info).hex(),
        "shard": [header.shard.index, header.shard.count],
        "corpus_sentences": header.corpus_sentences,
        "sentences": layout.sentences,
        "rows": layout.rows,
        **info.constants(),
        "digest": DIGEST,
        "record": _describe(info.record_dtype),
        "record_bytes": info.record_dtype.itemsize,
        "chunk_table_entry": _describe(info.table_dtype),
        "sections": {name: [layout.starts[name], layout.ends[name]] for name in layout.starts},
        "table_digest": header.table_digest,
        "summary": header.summary,
    }


def _describe(dtype: np.dtype[Any]) -> list[list[Any]]:
    """``[name, type, count]`` of each field in order; they are packed."""
    assert dtype.names is not None
    assert dtype.fields is not None
    described = []
    for name in dtype.names:
        base, shape = dtype.fields[name][0].base, dtype.fields[name][0].shape
        described.append([name, base.str.replace("|", ""), math.prod(shape)])
    return described


def _parse(values: Any, schema: type[StoreInfo], header_bytes: int, digest: str) -> Header:
    if not isinstance(values, dict):
        raise ValueError(f"a JSON {type(values).__name__} instead of an object")
    info = schema.parse(values["info"])
    info.check()
    shard = Shard(*values["shard"])
    counts = (values["corpus_sentences"], values["sentences"], values["rows"], shard.index, shard.count)
    if not all(type(n) is int and n >= 0 for n in counts) or shard.index >= shard.count:
        raise ValueError(f"impossible counts {counts}")
    blob_bytes = {}
    for name in info.blobs:
        start, end = values["sections"][name]
        blob_bytes[name] = end - start
    layout = make_layout(info, header_bytes, blob_bytes, values["sentences"], values["rows"])
    expected = shard.sentences(values["corpus_sentences"], info.chunk_sentences)
    if layout.sentences != expected:
        raise ValueError(f"shard {shard} has {layout.sentences} sentences instead of {expected}")
    header = Header(
        info, shard, values["corpus_sentences"], layout, values["summary"], digest, values["table_digest"]
    )
    derived = header_fields(header)
    for name in derived.keys() - {"info"}:
        if json.dumps(values[name], sort_keys=True) != json.dumps(derived[name], sort_keys=True):
            raise ValueError(f"{name} is {values[name]!r}, the other fields give {derived[name]!r}")
    return header


def _not_understood(error: Exception) -> str:
    return f"its header cannot be understood ({type(error).__name__}: {error})"


def _header_digest(magic: bytes, version: int, area: bytes) -> bytes:
    return new_digest(struct.pack("<8sII", magic, version, len(area)) + area).digest()


def _check_size(
    path: Path, size: int, expected: int, schema: type[StoreInfo], at_least: bool = False
) -> None:
    if size < expected or (size > expected and not at_least):
        raise ValueError(
            f"store {path} is {'truncated' if size < expected else 'over-long'}: {size} bytes, its header says "
            f"{expected}; copy it again or {schema.rebuild_command(path)}"
        )


def _round_up(place: int, alignment: int) -> int:
    return -(-place // alignment) * alignment
