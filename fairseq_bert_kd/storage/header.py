"""Header and layout of the top-k store; the format's specification is docs/store_format.md."""

import json
import math
import os
import shlex
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.store_info import (
    DIGEST,
    HASH_DTYPE,
    OFFSET_DTYPE,
    STATUS_DTYPE,
    STATUS_NAMES,
    VALUE_KIND,
    VALUE_ORIGIN,
    Shard,
    StoreInfo,
    check_info,
    info_digest,
    new_digest,
    record_dtype,
    shard_sentences,
    stated_fields,
    table_dtype,
)

MAGIC = b"KDTOPK\r\n"  # the line end shows a copy in text mode
WORK_MAGIC = b"KDTOPKw\n"  # an unfinished file
VERSION = 2
_PREFIX = struct.Struct("<8sII16s")  # magic, version, bytes of the JSON area, digest
_SECTION_ALIGNMENT = 64  # bytes, one cache line
_HEADER_ALIGNMENT = 4096
_HEADER_ROOM = 1024  # bytes for the counts that are known last


@dataclass(frozen=True)
class Layout:
    """Where everything lies in a file; follows from info, dictionary, shard and sizes.

    Attributes:
        header_bytes: of the JSON area, spaces at its end included.
        starts: first byte of each section.
        ends: byte after each section.
        sentences: in this file.
        rows: in this file.
        chunks: in this file.
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
        info: what the creator said.
        shard: which part of the corpus this file holds.
        corpus_sentences: in all shards together.
        layout: where everything lies.
        summary: counts and means, see `summarise`; None in an unfinished file.
        digest: of the header, hexadecimal; it covers the chunk table's digest and so the whole file.
        table_digest: of the chunk table, hexadecimal; "" in an unfinished file.
    """

    info: StoreInfo
    shard: Shard
    corpus_sentences: int
    layout: Layout
    summary: dict[str, Any] | None
    digest: str
    table_digest: str = field(default="")


def encode_dictionary(symbols: Sequence[str]) -> bytes:
    """The dictionary section: UTF-8, a line feed after each symbol."""
    bad = next((symbol for symbol in symbols if "\n" in symbol), None)
    if bad is not None:
        raise ValueError(f"a dictionary symbol must not hold a line feed, got {bad!r}; mend the dictionary")
    return "".join(symbol + "\n" for symbol in symbols).encode("utf-8", errors="surrogatepass")


def make_layout(
    info: StoreInfo, header_bytes: int, dictionary_bytes: int, sentences: int, rows: int
) -> Layout:
    """Place the sections one after the other."""
    chunks = -(-sentences // info.chunk_sentences)
    sizes = {
        "dictionary": dictionary_bytes,
        "offsets": (sentences + 1) * OFFSET_DTYPE.itemsize,
        "source_hashes": sentences * HASH_DTYPE.itemsize,
        "target_hashes": sentences * HASH_DTYPE.itemsize,
        "status": sentences * STATUS_DTYPE.itemsize,
        "records": rows * record_dtype(info).itemsize,
        "chunk_table": chunks * table_dtype(info).itemsize,
    }
    starts, ends, place = {}, {}, _PREFIX.size + header_bytes
    for name, size in sizes.items():
        starts[name] = _round_up(place, _SECTION_ALIGNMENT)
        place = ends[name] = starts[name] + size
    return Layout(header_bytes, starts, ends, sentences, rows, chunks, place)


def plan_layout(
    info: StoreInfo, shard: Shard, corpus_sentences: int, dictionary_bytes: int, sentences: int, rows: int
) -> Layout:
    """The layout of a new file, with room in the header for what is known at its end."""
    layout = make_layout(info, 0, dictionary_bytes, sentences, rows)
    fields_ = _header_fields(info, shard, corpus_sentences, layout, None, "")
    room = len(json.dumps(fields_, ensure_ascii=False).encode()) + _HEADER_ROOM + 32 * len(info.temperatures)
    header_bytes = _round_up(_PREFIX.size + room, _HEADER_ALIGNMENT) - _PREFIX.size
    return make_layout(info, header_bytes, dictionary_bytes, sentences, rows)


def summarise(table: NDArray[Any], info: StoreInfo) -> dict[str, Any]:
    """Counts and means over all chunks; exact sums, so the order of chunks and shards does not matter."""
    scored = int(table["scored_rows"].sum())
    gold_known = scored > 0 and bool(
        (table["gold_correct"] >= 0).all() and np.isfinite(table["gold_nll"]).all()
    )
    missing = table["missing"].sum(axis=0)
    return {
        "scored_rows": scored,
        "missing_sentences": {name: int(n) for name, n in zip(STATUS_NAMES[1:], missing, strict=True)},
        "captured_mass": [math.fsum(column) / scored if scored else None for column in table["captured"].T],
        "gold_accuracy": int(table["gold_correct"].sum()) / scored if gold_known else None,
        "gold_nll": math.fsum(table["gold_nll"]) / scored if gold_known else None,
    }


def encode_header(
    info: StoreInfo,
    shard: Shard,
    corpus_sentences: int,
    layout: Layout,
    summary: Mapping[str, Any] | None = None,
    table_digest: str = "",
) -> bytes:
    """Prefix and JSON area, of a finished file when there is a summary."""
    fields_ = _header_fields(info, shard, corpus_sentences, layout, summary, table_digest)
    text = json.dumps(fields_, ensure_ascii=False, allow_nan=False).encode()
    assert len(text) <= layout.header_bytes, (len(text), layout.header_bytes)
    area = text.ljust(layout.header_bytes)
    magic = WORK_MAGIC if summary is None else MAGIC
    digest = _header_digest(magic, VERSION, area)
    return _PREFIX.pack(magic, VERSION, len(area), digest) + area


def read_header(file: BinaryIO, path: Path, unfinished: bool = False) -> Header:
    """Read and check the header of an open file, in constant time.

    Args:
        file: binary, at its beginning.
        path: for messages.
        unfinished: expect a work file instead of a store.

    Raises:
        ValueError: not a store, another version, damaged, or of a wrong size.
    """
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(_PREFIX.size)
    magic = prefix[: len(MAGIC)]
    if magic != (WORK_MAGIC if unfinished else MAGIC):
        if magic == WORK_MAGIC:
            raise ValueError(
                f"{path} is unfinished; run the command that writes it again, it goes on where it was"
            )
        raise ValueError(
            f"{path} is not a top-k store: it begins with {magic!r}, not {MAGIC!r}; "
            "check the path, or write a store with `fairseq-bert-kd dump`"
        )
    if len(prefix) < _PREFIX.size:
        raise _wrong_size(path, size, _PREFIX.size)
    _, version, header_bytes, digest = _PREFIX.unpack(prefix)
    if version != VERSION:
        raise _wrong_version(file, path, version, header_bytes)
    area = file.read(min(header_bytes, size))
    if len(area) < header_bytes:
        raise _wrong_size(path, size, _PREFIX.size + header_bytes)
    if _header_digest(magic, version, area) != digest:
        raise damaged(path, "its header does not match the header's digest")
    try:
        values = json.loads(area.decode("utf-8"))
        header = _parse(values, header_bytes, digest.hex())
        if (header.summary is None) != unfinished:
            raise ValueError("its summary does not fit its magic")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise damaged(path, f"its header cannot be understood ({type(error).__name__}: {error})") from error
    if size != header.layout.file_bytes:
        raise _wrong_size(path, size, header.layout.file_bytes)
    return header


def damaged(path: Path, what: str) -> ValueError:
    """The error for a file that is not as it was written."""
    return ValueError(f"top-k store {path} is damaged: {what}; copy it again or {rebuild_command(path)}")


def rebuild_command(path: Path, options: str = "") -> str:
    """How to make the store again, as far as its name and its header tell."""
    split, *rest = path.name.split(".")
    options = options or f"--path TEACHER.pt --subset {shlex.quote(split)}"
    if len(rest) > 3 and rest[3] == "topk":  # SPLIT.SRC-TGT.TGT.NAME.topk
        options += f" --name {shlex.quote(rest[2])}"
    return f"rebuild it with `fairseq-bert-kd dump {shlex.quote(str(path.parent))} {options} --overwrite`"


def _header_fields(
    info: StoreInfo,
    shard: Shard,
    corpus_sentences: int,
    layout: Layout,
    summary: Mapping[str, Any] | None,
    table_digest: str,
) -> dict[str, Any]:
    return {
        "info": stated_fields(info),
        "info_digest": info_digest(info).hex(),
        "shard": [shard.index, shard.count],
        "corpus_sentences": corpus_sentences,
        "sentences": layout.sentences,
        "rows": layout.rows,
        "value_kind": VALUE_KIND,
        "value_origin": VALUE_ORIGIN,
        "mask_plan": info.mask_plan,
        "digest": DIGEST,
        "record": _describe(record_dtype(info)),
        "record_bytes": record_dtype(info).itemsize,
        "chunk_table_entry": _describe(table_dtype(info)),
        "sections": {name: [layout.starts[name], layout.ends[name]] for name in layout.starts},
        "table_digest": table_digest,
        "summary": summary,
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


def _parse(values: Any, header_bytes: int, digest: str) -> Header:
    if not isinstance(values, dict):
        raise ValueError(f"a JSON {type(values).__name__} instead of an object")
    # keys that this version does not know are left alone: they must not change the meaning of the others
    known = {item.name for item in fields(StoreInfo)}
    stated = {name: value for name, value in values["info"].items() if name in known}
    info = StoreInfo(**stated | {"temperatures": tuple(map(float, stated["temperatures"]))})
    check_info(info)
    shard = Shard(*values["shard"])
    counts = (values["corpus_sentences"], values["sentences"], values["rows"], shard.index, shard.count)
    if not all(type(n) is int and n >= 0 for n in counts) or shard.index >= shard.count:
        raise ValueError(f"impossible counts {counts}")
    dictionary_start, dictionary_end = values["sections"]["dictionary"]
    layout = make_layout(
        info, header_bytes, dictionary_end - dictionary_start, values["sentences"], values["rows"]
    )
    expected = shard_sentences(values["corpus_sentences"], info.chunk_sentences, shard)
    if layout.sentences != expected:
        raise ValueError(f"shard {shard} has {layout.sentences} sentences instead of {expected}")
    summary, table_digest = values["summary"], values["table_digest"]
    derived = _header_fields(info, shard, values["corpus_sentences"], layout, summary, table_digest)
    for name in derived.keys() - {"info"}:
        if json.dumps(values[name], sort_keys=True) != json.dumps(derived[name], sort_keys=True):
            raise ValueError(f"{name} is {values[name]!r}, the other fields give {derived[name]!r}")
    return Header(info, shard, values["corpus_sentences"], layout, summary, digest, table_digest)


def _header_digest(magic: bytes, version: int, area: bytes) -> bytes:
    digest = new_digest()
    digest.update(struct.pack("<8sII", magic, version, len(area)))
    digest.update(area)
    return digest.digest()


def _wrong_version(file: BinaryIO, path: Path, version: int, json_bytes: int) -> ValueError:
    """A newer version needs a newer package; version 1 says in its header how to make it again."""
    rebuild = rebuild_command(path)
    if version == 1:
        file.seek(16)
        try:
            old = json.loads(file.read(min(json_bytes, 1 << 20)))
            rebuild = rebuild_command(
                path,
                f"--path {shlex.quote(old['teacher'])} --subset {old['split']} --topk {old['k']} --passes {old['passes']}",
            )
        except (ValueError, KeyError, TypeError):
            pass  # then without its options
    step = f"upgrade fairseq-bert-kd, or {rebuild}" if version > VERSION else rebuild
    return ValueError(
        f"top-k store {path} has format version {version}, this code reads version {VERSION}; {step}"
    )


def _wrong_size(path: Path, size: int, expected: int) -> ValueError:
    word = "truncated" if size < expected else "over-long"
    return ValueError(
        f"top-k store {path} is {word}: {size} bytes, its header says {expected}; copy it again or "
        f"{rebuild_command(path)}"
    )


def _round_up(place: int, alignment: int) -> int:
    return -(-place // alignment) * alignment
