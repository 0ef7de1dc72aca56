"""Stores that were changed in a thousand ways: each is refused, or every record still means the same.

``KD_LONG_TESTS=1`` makes ten times as many.
"""

import copy
import hashlib
import json
import os
import random
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fairseq_bert_kd.storage.header import Layout
from fairseq_bert_kd.storage.shards import WHOLE, Shard, shard_path
from fairseq_bert_kd.storage.topk_store import TopKReader
from fairseq_bert_kd.storage.verify import verify_store
from tests.storage.small_stores import NAME, make_corpus

TIMES = 10 if os.environ.get("KD_LONG_TESTS") else 1
PREFIX_BYTES = 32
HASHES_AND_STATUS = (("source_hashes", 8), ("target_hashes", 8), ("status", 1))  # bytes of a sentence

Mutant = tuple[str, bytes]


@dataclass(frozen=True)
class Base:
    """A sound store.

    Attributes:
        content: its bytes.
        other: a store of the same layout and settings whose teacher said something else.
        layout: of its sections.
        record_bytes: of a row.
        entry_bytes: of a chunk in the table.
        chunk_sentences: sentences of a chunk.
        meaning: what a reader gives of it, see `meaning`.
    """

    content: bytes
    other: bytes
    layout: Layout
    record_bytes: int
    entry_bytes: int
    chunk_sentences: int
    meaning: Any

    def regions(self) -> dict[str, tuple[int, int]]:
        """All parts of the file, gaps too, which together are the whole of it."""
        end = PREFIX_BYTES + self.layout.header_bytes
        text = len(self.content[PREFIX_BYTES:end].rstrip())
        regions = {
            "prefix": (0, PREFIX_BYTES),
            "header": (PREFIX_BYTES, PREFIX_BYTES + text),
            "room": (PREFIX_BYTES + text, end),
        }
        regions |= {name: (start, self.layout.ends[name]) for name, start in self.layout.starts.items()}
        return regions | {f"gap {start}": (start, stop) for start, stop in self.layout.gaps()}


def meaning(path: Path) -> Any:
    """Everything that a reader gives but for the digest of the header, whose spaces mean nothing."""
    reader = TopKReader(path, shard=True)
    sentences = [
        (reader.rows(i).tobytes(), reader.rows(i).dtype, reader.status(i), reader.hashes(i))
        for i in range(len(reader))
    ]
    header = reader.header
    # not corpus_sentences: a shard whose digests somebody has put right cannot know how long the others are
    return (reader.info, header.shard, header.summary, reader.symbols(), sentences)


def make_base(folder: Path, shard: Shard, **changes: Any) -> Base:
    corpus = make_corpus(**changes)
    path, another = (shard_path(folder / name, shard) for name in (NAME, "another"))
    corpus.write(folder / NAME, shard)
    replace(corpus, seed=corpus.seed + 100).write(folder / "another", shard)
    assert verify_store(path) == []
    reader = TopKReader(path, shard=True)
    return Base(
        path.read_bytes(),
        another.read_bytes(),
        reader.header.layout,
        corpus.info.record_dtype.itemsize,
        corpus.info.table_dtype.itemsize,
        corpus.info.chunk_sentences,
        meaning(path),
    )


BASES = {
    "plain": (WHOLE, {}),
    "gold and samples": (WHOLE, {"gold": True, "samples": 2, "seed": 1}),
    "shard": (Shard(1, 2), {"gold": True, "lengths": [3, 2, 4, 1] * 4, "seed": 2}),
    "nothing summed up": (
        WHOLE,
        {"temperatures": (), "missing": 0.0, "seed": 4},
    ),  # the table's digest counts
    "two sentences a chunk": (WHOLE, {"lengths": [2] * 10, "missing": 0.0, "chunk_sentences": 2, "seed": 3}),
}


@pytest.fixture(scope="module", params=list(BASES))
def base(request, tmp_path_factory) -> Base:
    shard, changes = BASES[request.param]
    return make_base(tmp_path_factory.mktemp("base"), shard, **changes)


# ---------------------------------------------------------------- bytes


def put(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + new + content[place + len(new) :]


def flipped_bits(base: Base, dice: random.Random) -> Iterator[Mutant]:
    """Some in each region, and anywhere; every bit 32 of the index, which a sum in int32 would not see."""
    for name, (start, end) in base.regions().items():
        for _ in range(6 * TIMES if end > start else 0):
            place, bit = dice.randrange(start, end), 1 << dice.randrange(8)
            yield f"flip {name}", put(base.content, place, bytes([base.content[place] ^ bit]))
    for place in (dice.randrange(len(base.content)) for _ in range(40 * TIMES)):
        yield "flip anywhere", put(base.content, place, bytes([base.content[place] ^ 1 << dice.randrange(8)]))
    start, end = base.layout.starts["offsets"], base.layout.ends["offsets"]
    for place in range(start, end, 8):
        for byte in (4, 7):
            bit = 1 if byte == 4 else 128
            yield (
                "flip a high bit of offsets",
                put(base.content, place + byte, bytes([base.content[place + byte] ^ bit])),
            )


def random_bytes(base: Base, dice: random.Random) -> Iterator[Mutant]:
    for _ in range(30 * TIMES):
        size = dice.choice([1, 2, 8, 64, 512])
        place = dice.randrange(len(base.content) - size)
        yield "random bytes", put(base.content, place, dice.randbytes(size))


def other_sizes(base: Base, dice: random.Random) -> Iterator[Mutant]:
    edges = [edge for region in base.regions().values() for edge in region]
    for end in {*edges, *(dice.randrange(len(base.content)) for _ in range(10 * TIMES))} - {
        len(base.content)
    }:
        yield "truncated", base.content[:end]
    for more in (b"\0", b"\n", bytes(4096), base.content):
        yield "extended", base.content + more
    for _ in range(6 * TIMES):
        place = dice.randrange(len(base.content))
        yield "a byte removed", base.content[:place] + base.content[place + 1 :]
        yield "a byte doubled", base.content[: place + 1] + base.content[place:]
        yield (
            "a byte moved to the end",
            base.content[:place] + base.content[place + 1 :] + base.content[place:][:1],
        )
    yield "text mode", base.content.replace(b"\r\n", b"\n")
    yield "text mode back", base.content.replace(b"\n", b"\r\n")
    yield "empty", b""


def blocks(base: Base, dice: random.Random) -> Iterator[Mutant]:
    """A disk's blocks, exchanged, copied over each other, or zero."""
    for _ in range(25 * TIMES):
        size = dice.choice([16, 64, 512, 1024])
        one, other = (dice.randrange(len(base.content) // size) * size for _ in range(2))
        content = base.content.ljust(-(-len(base.content) // size) * size, b"\0")
        cut = slice(None, len(base.content))
        first, second = content[one : one + size], content[other : other + size]
        yield "blocks exchanged", put(put(content, one, second), other, first)[cut]
        yield "block copied", put(content, one, second)[cut]
        yield "block of zeros", put(content, one, bytes(size))[cut]
        yield "block of ones", put(content, one, b"\xff" * size)[cut]


def exchanged(content: bytes, one: int, other: int, size: int) -> bytes:
    return put(put(content, one, content[other : other + size]), other, content[one : one + size])


def sentences(base: Base, dice: random.Random) -> Iterator[Mutant]:
    """Hashes, states, lengths and rows of two sentences exchanged; whole chunks with and without their entries."""
    layout, content = base.layout, base.content
    starts, count = layout.starts, layout.sentences
    for _ in range(15 * TIMES):
        i, j = (dice.randrange(count) for _ in range(2))
        for name, size in (("source_hashes", 8), ("target_hashes", 8), ("status", 1), ("offsets", 8)):
            at = starts[name]
            yield f"two {name} exchanged", exchanged(content, at + i * size, at + j * size, size)
        both = content
        for name in ("source_hashes", "target_hashes"):
            both = exchanged(both, starts[name] + 8 * i, starts[name] + 8 * j, 8)
        yield "two pairs of hashes exchanged", both
        one, other = starts["source_hashes"] + 8 * i, starts["target_hashes"] + 8 * i
        yield "source and target hash exchanged", exchanged(content, one, other, 8)
        row, another = (dice.randrange(layout.rows) for _ in range(2))
        size = base.record_bytes
        yield (
            "two rows exchanged",
            exchanged(content, starts["records"] + row * size, starts["records"] + another * size, size),
        )
        yield (
            "a row copied",
            put(
                content, starts["records"] + row * size, content[starts["records"] + another * size :][:size]
            ),
        )
    offsets = struct.unpack_from(f"<{count + 1}q", content, starts["offsets"])
    whole = [c * base.chunk_sentences for c in range(count // base.chunk_sentences)]
    for one in whole:
        for other in whole:
            spans = [(offsets[first], offsets[first + base.chunk_sentences]) for first in (one, other)]
            rows = [end - first for first, end in spans]
            if one >= other or rows[0] != rows[1]:
                continue
            mutant = content
            for name, size in HASHES_AND_STATUS:
                places = (starts[name] + one * size, starts[name] + other * size)
                mutant = exchanged(mutant, *places, size * base.chunk_sentences)
            places = [starts["records"] + span[0] * base.record_bytes for span in spans]
            mutant = exchanged(mutant, places[0], places[1], rows[0] * base.record_bytes)
            yield "chunks exchanged", mutant
            entries = [
                starts["chunk_table"] + c // base.chunk_sentences * base.entry_bytes for c in (one, other)
            ]
            mutant = exchanged(mutant, entries[0], entries[1], base.entry_bytes)
            yield "chunks and entries exchanged", mutant
            yield "chunks, entries exchanged, digests repaired", repaired(base, mutant)


def foreign_parts(base: Base, dice: random.Random) -> Iterator[Mutant]:
    """Sections and whole chunks of another store; a chunk comes with its own digest, which is right."""
    layout, starts = base.layout, base.layout.starts
    for name, start in starts.items():
        yield f"{name} of another store", put(base.content, start, base.other[start : layout.ends[name]])
    end = PREFIX_BYTES + layout.header_bytes
    yield "header of another store", base.other[:end] + base.content[end:]
    offsets = struct.unpack_from(f"<{layout.sentences + 1}q", base.content, starts["offsets"])
    for chunk in range(layout.chunks):
        first, last = (min((chunk + step) * base.chunk_sentences, layout.sentences) for step in (0, 1))
        spans = [
            (starts[name] + size * first, starts[name] + size * last) for name, size in HASHES_AND_STATUS
        ]
        spans.append(tuple(starts["records"] + offsets[i] * base.record_bytes for i in (first, last)))
        spans.append(tuple(starts["chunk_table"] + (chunk + step) * base.entry_bytes for step in (0, 1)))
        mutant = base.content
        for start, end in spans:
            mutant = put(mutant, start, base.other[start:end])
        yield "chunk of another store", mutant


# ---------------------------------------------------------------- the header's text


def with_header(content: bytes, values: Any, digest: bool = True) -> bytes | None:
    """The file with another header, whose digest is right when ``digest``; None when it does not fit."""
    size = struct.unpack_from("<I", content, 12)[0]
    area = json.dumps(values, ensure_ascii=False).encode("utf-8", errors="surrogatepass").ljust(size)
    if len(area) > size:
        return None
    made = hashlib.blake2b(content[:16] + area, digest_size=16).digest() if digest else content[16:32]
    return content[:16] + made + area + content[PREFIX_BYTES + size :]


def header_values(content: bytes) -> Any:
    size = struct.unpack_from("<I", content, 12)[0]
    return json.loads(content[PREFIX_BYTES : PREFIX_BYTES + size])


def repaired(base: Base, content: bytes) -> bytes:
    """The digests of table and header put right, as if somebody had edited the file on purpose."""
    values = header_values(content)
    table = content[base.layout.starts["chunk_table"] : base.layout.ends["chunk_table"]]
    values["table_digest"] = hashlib.blake2b(table, digest_size=16).hexdigest()
    made = with_header(content, values)
    assert made is not None
    return made


def leaves(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Paths to everything within a JSON value, itself but for the top."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from leaves(inner, (*path, key))


def changed_at(values: Any, path: tuple, change: Callable[[Any], Any]) -> Any:
    values = copy.deepcopy(values)
    holder = values
    for key in path[:-1]:
        holder = holder[key]
    if change is delete:
        del holder[path[-1]]
    else:
        holder[path[-1]] = change(holder[path[-1]])
    return values


def delete(value: Any) -> None:
    """Marks a key that goes away."""


def other_values(value: Any) -> list[Callable[[Any], Any]]:
    """Changes that turn ``value`` into another of the same kind, and into one of another kind."""
    changes: list[Callable[[Any], Any]] = [delete, lambda v: None, lambda v: [v]]
    if isinstance(value, bool):
        changes += [lambda v: not v, int]
    elif isinstance(value, int):
        changes += [
            lambda v: v + 1,
            lambda v: v - 1,
            lambda v: -v,
            lambda v: v + 2**32,
            lambda v: 10**30,
            float,
            str,
        ]
        changes += [bool] if value in (0, 1) else []
    elif isinstance(value, float):
        changes += [
            lambda v: v * (1 + 1e-9) + 1e-9,
            lambda v: -v,
            lambda v: float("nan"),
            lambda v: float("inf"),
            str,
        ]
    elif isinstance(value, str):
        changes += [lambda v: v + "x", lambda v: v[:-1], str.swapcase, lambda v: 1, lambda v: "\ud800"]
    elif isinstance(value, list):
        changes += [lambda v: v[::-1], lambda v: v[:-1], lambda v: v + v[-1:], lambda v: {}, lambda v: 7]
    elif isinstance(value, dict):
        changes += [lambda v: {}, lambda v: v | {"more": 1}, lambda v: [], lambda v: "x"]
    return changes


def header_edits(base: Base, dice: random.Random) -> Iterator[Mutant]:
    """One value of the header changed: without its digest, with it, and with the digest of the info too."""
    values = header_values(base.content)
    every = list(leaves(values))
    for path in dice.sample(every, min(10 * TIMES, len(every))):
        edited = changed_at(values, path, delete)
        yield "header edited", with_header(base.content, edited, digest=False) or b""
    for path in every:
        value = values
        for key in path:
            value = value[key]
        changes = other_values(value)
        for change in changes if TIMES > 1 else dice.sample(changes, 2):
            edited = changed_at(values, path, change)
            made = with_header(base.content, edited)
            if made is not None:
                yield f"header edited, digest repaired: {'.'.join(map(str, path))}", made
            if path[0] == "info" and isinstance(edited.get("info"), dict):
                text = json.dumps(edited["info"], sort_keys=True, separators=(",", ":")).encode()
                edited["info_digest"] = hashlib.blake2b(text, digest_size=16).hexdigest()
                made = with_header(base.content, edited)
                if made is not None:
                    yield "info edited, both digests repaired", made
    for text in (b"", b"{", b"[]", b"null", b"1", b"\xff", b"[" * 3000, b'{"info":' * 100):
        size = struct.unpack_from("<I", base.content, 12)[0]
        area = text.ljust(size)
        digest = hashlib.blake2b(base.content[:16] + area, digest_size=16).digest()
        yield (
            "another text, digest repaired",
            base.content[:16] + digest + area + base.content[PREFIX_BYTES + size :],
        )


def table_edits(base: Base, dice: random.Random) -> Iterator[Mutant]:
    """Entries changed or exchanged, with the digests of table and header repaired."""
    start, end, size = base.layout.starts["chunk_table"], base.layout.ends["chunk_table"], base.entry_bytes
    for _ in range(25 * TIMES):
        place = dice.randrange(start, end)
        mutant = put(base.content, place, bytes([base.content[place] ^ 1 << dice.randrange(8)]))
        yield "flip chunk_table, digests repaired", repaired(base, mutant)
    chunks = base.layout.chunks
    for one in range(chunks):
        for other in range(one):
            mutant = exchanged(base.content, start + one * size, start + other * size, size)
            yield "entries exchanged, digests repaired", repaired(base, mutant)
        yield (
            "entry of zeros, digests repaired",
            repaired(base, put(base.content, start + one * size, bytes(size))),
        )


def prefixes(base: Base, dice: random.Random) -> Iterator[Mutant]:
    magic, version, size, digest = struct.unpack_from("<8sII16s", base.content)
    for other in (0, 1, 3, 2**31, 2**32 - 1):
        yield "another version", put(base.content, 8, struct.pack("<I", other))
        prefix = struct.pack("<8sII", magic, other, size)
        made = hashlib.blake2b(prefix + base.content[PREFIX_BYTES:][:size], digest_size=16).digest()
        yield "another version, digest repaired", prefix + made + base.content[PREFIX_BYTES:]
    for other in (0, 1, size - 1, size + 1, size - 64, size + 64, len(base.content), 2**31, 2**32 - 1):
        yield "another header size", put(base.content, 12, struct.pack("<I", other))
        prefix = struct.pack("<8sII", magic, version, other)
        made = hashlib.blake2b(prefix + base.content[PREFIX_BYTES:][:other], digest_size=16).digest()
        yield "another header size, digest repaired", prefix + made + base.content[PREFIX_BYTES:]
    yield (
        "another byte order",
        struct.pack(">8sII16s", magic, version, size, digest) + base.content[PREFIX_BYTES:],
    )
    for other in (b"KDTOPKw\n", b"KDTOPK\n\n", b"kdtopk\r\n", bytes(8)):
        yield "another magic", other + base.content[8:]
    swapped = bytearray(base.content)
    for name, width in (("offsets", 8), ("source_hashes", 8), ("target_hashes", 8)):
        for place in range(base.layout.starts[name], base.layout.ends[name], width):
            swapped[place : place + width] = swapped[place : place + width][::-1]
    yield "sections in another byte order", bytes(swapped)


MUTATORS = [
    flipped_bits,
    random_bytes,
    other_sizes,
    blocks,
    sentences,
    foreign_parts,
    header_edits,
    table_edits,
    prefixes,
]

# ---------------------------------------------------------------- the test


def test_mutants(base, tmp_path, request):
    path = tmp_path / "mutant"
    refused, same, kinds, silent, crashed = 0, 0, Counter(), [], []
    for mutator in MUTATORS:
        dice = random.Random(f"{request.node.name} {mutator.__name__}")
        for kind, content in mutator(base, dice):
            if content == base.content:
                continue
            path.write_bytes(content)
            kinds[kind] += 1
            try:
                problems = verify_store(path)
            except Exception as error:
                crashed.append(f"{kind}: {error!r}")
                continue
            if problems:
                assert all(isinstance(line, str) and line for line in problems)
                refused += 1
            elif meaning(path) == base.meaning:
                same += 1
            else:
                silent.append(kind)
    total = sum(kinds.values())
    result = (
        f"{total} mutants: {refused} refused, {same} mean the same, {len(silent)} unnoticed {Counter(silent)}, "
        f"{len(crashed)} ended verify_store {Counter(crashed)}"
    )
    print(result)
    assert not silent, result
    assert not crashed, result
    assert total >= 400 * TIMES, result
    assert same < 0.05 * total, result  # nearly every byte means something
    assert all(kinds[f"flip {name}"] for name, (start, end) in base.regions().items() if start < end), kinds


def test_regions_are_the_whole_file(base):
    """No byte is left out, none counted twice."""
    regions = sorted(region for region in base.regions().values() if region[0] < region[1])
    assert regions[0][0] == 0
    assert regions[-1][1] == len(base.content)
    assert all(end == start for (_, end), (start, _) in pairwise(regions))


def test_mutants_that_mean_the_same_are_seen_as_such(base, tmp_path):
    """The other half of the comparison: spaces, order and unknown keys in the header change nothing."""
    path = tmp_path / "mutant"
    values = header_values(base.content)
    for edited in (dict(reversed(values.items())), values | {"later": 1}):
        content = with_header(base.content, edited)
        assert content is not None
        assert content != base.content
        path.write_bytes(content)
        assert verify_store(path) == []
        assert meaning(path) == base.meaning


def test_readers_of_mutants_fail_in_one_of_the_expected_ways(base, tmp_path):
    """Opening a damaged header is a ValueError of one line, whatever it says."""
    path, wrong = tmp_path / "mutant", []
    for mutator in (header_edits, prefixes, other_sizes):
        for kind, content in mutator(base, random.Random(0)):
            path.write_bytes(content)
            try:
                TopKReader(path, shard=True)
            except ValueError as error:
                if "\n" in str(error):
                    wrong.append(f"{kind}: {error}")
            except Exception as error:
                wrong.append(f"{kind}: {error!r}")
    assert not wrong, Counter(wrong)
