"""Checks every byte of a store, and whether it belongs to a folder of fairseq-preprocess's output."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.alignment import (
    dictionary_differences,
    sentence_differences,
    size_differences,
)
from fairseq_bert_kd.storage.chunk import check_rows
from fairseq_bert_kd.storage.fairseq_data import IndexedTokens, Sides, decode_dictionary, read_dictionary
from fairseq_bert_kd.storage.header import Schemas, check_exists, read_header
from fairseq_bert_kd.storage.known_schemas import SCHEMAS
from fairseq_bert_kd.storage.schema import OFFSET_DTYPE, ChunkData, new_digest
from fairseq_bert_kd.storage.store_file import StoreFile, pread

MOST_LINES = 20  # problems of one kind that are listed
_SUM_TOLERANCE = 1e-9  # relative; the order of a sum of float64 depends on the processor
_WINDOW = 64  # chunks under way, for each worker
_BLOCK = 1 << 20  # bytes read together where all must be zero


def verify_store(
    path: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: Callable[[int], Any] = lambda size: None,
    schemas: Schemas = SCHEMAS,
) -> list[str]:
    """Check every byte of a store or of a shard; one line per problem, nothing when all is well.

    Args:
        path: path of the store.
        data_dir: folder of fairseq-preprocess's output; then also whether the store belongs to it.
        workers: threads; by default as many as there are cores.
        progress: function that is called with the bytes of each chunk's rows.
        schemas: those that the store may have.

    Raises:
        FileNotFoundError: no such store, or a file of the data is absent.
        OSError: a file cannot be read.
    """
    path = Path(path).absolute()
    check_exists(path)
    with open(path, "rb") as file:
        try:
            header = read_header(file, path, schemas)
        except ValueError as error:
            return [str(error)]
        store = StoreFile(path, header, pread(file, path))
        data_problems, sides = ([], Sides()) if data_dir is None else _open_data(store, data_dir)
        table = store.table()
        problems = _section_problems(store)
        table_problems = []
        if new_digest(table.tobytes()).hexdigest() != header.table_digest:
            table_problems.append("the chunk table does not match its digest in the header")
        bad_chunks, bad_sentences = _Lines(), _Lines()
        workers, chunks = workers or os.cpu_count() or 1, iter(range(header.layout.chunks))
        with ThreadPoolExecutor(workers) as pool:
            while window := list(islice(chunks, _WINDOW * workers)):
                for wrong, different, size in pool.map(partial(_check_chunk, store, table, sides), window):
                    bad_chunks.add(wrong)
                    bad_sentences.add(different)
                    progress(size)
        if not table_problems and not bad_chunks.count:
            table_problems = _summary_problems(store, table)
    problems += table_problems + bad_chunks.summary("bad chunks") + data_problems
    return problems + bad_sentences.summary("sentences that differ from the data")


# ---------------------------------------------------------------- the file as a whole


def _section_problems(store: StoreFile) -> list[str]:
    """Problems of the gaps, the blobs and the ends of the index."""
    problems = []
    layout = store.header.layout
    for start, end in layout.gaps():
        for place in range(start, end, _BLOCK):
            nonzero = np.flatnonzero(np.frombuffer(store.read(place, min(end, place + _BLOCK)), np.uint8))
            if len(nonzero):
                byte = place + int(nonzero[0])
                value = store.read(byte, byte + 1)[0]
                problems.append(f"byte {byte} between two sections must be zero, got {value}")
                break
    for name in store.info.blobs:
        try:
            store.checked_blob(name)
        except ValueError as error:
            problems.append(f"the {name} section is damaged: {error}")
    for item, row, what in (
        (0, 0, "start at row 0"),
        (layout.sentences, layout.rows, f"end at row {layout.rows}, the last"),
    ):
        found = int(store.items("offsets", OFFSET_DTYPE, item, 1)[0])
        problems += [f"the index must {what}, got {found}"] if found != row else []
    return problems


def _summary_problems(store: StoreFile, table: NDArray[Any]) -> list[str]:
    """Differences between the header's counts and means and those of its chunks."""
    stated = store.header.summary
    if not isinstance(stated, dict):
        return [f"the header's summary must be an object, got {stated!r}"]
    try:
        summed = store.info.summarise(table)
    except (ValueError, OverflowError) as error:  # infinities of both signs
        return [f"the chunk table cannot be summed up: {error}"]
    return [
        f"the header's summary says {name} {stated.get(name)!r}, its chunks give {summed.get(name)!r}"
        for name in sorted(summed.keys() | stated.keys())
        if name not in summed or name not in stated or stated[name] != summed[name]
    ]


# ---------------------------------------------------------------- chunks


class _Lines:
    """The first few problems of a kind, and how many there were."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0

    def add(self, lines: list[str]) -> None:
        self.lines += lines[: MOST_LINES - len(self.lines)]
        self.count += len(lines)

    def summary(self, kind: str) -> list[str]:
        more = self.count - len(self.lines)
        return self.lines + ([f"and {more:,} more {kind}"] if more else [])


def _check_chunk(
    store: StoreFile, table: NDArray[Any], sides: Sides, local: int
) -> tuple[list[str], list[str], int]:
    """Problems of a chunk, those of its sentences against the data, and the bytes of its rows."""
    with np.errstate(all="ignore"):  # damaged numbers overflow; numpy keeps this state for each thread
        try:
            data = store.checked_chunk(local)
            wrong = _chunk_problems(store, local, table[local], data)
        except ValueError as error:
            return [str(error)], [], 0
    different = [] if wrong else _sentence_problems(store, store.sentences(local), data, sides)
    return wrong, different, data.records.nbytes


def _chunk_problems(store: StoreFile, local: int, entry: NDArray[Any], data: ChunkData) -> list[str]:
    """The problem of a chunk whose digest matches: its rows, or the table's counts of them; none in a sound one."""
    info, name_of_chunk = store.info, store.chunk_name(local)
    try:
        check_rows(data, info, store.sentences(local).start)
    except ValueError as error:
        return [f"{name_of_chunk} matches its digest, but was written wrong: {error}"]
    for name, counted in info.count(data).items():
        there, here = entry[name], np.asarray(counted)
        tolerance = 0 if there.dtype.kind in "iu" else _SUM_TOLERANCE
        if not np.allclose(here, there, rtol=tolerance, atol=0):
            return [
                f"{name_of_chunk}: the chunk table says {name} {there.tolist()}, its rows give {here.tolist()}"
            ]
    return []


# ---------------------------------------------------------------- data


def _open_data(store: StoreFile, folder: str | os.PathLike[str]) -> tuple[list[str], Sides]:
    """Differences of the data's dictionaries and sizes, and the sides whose sentences can be compared."""
    info, problems, symbols, sides = store.info, [], {}, Sides()
    files = info.files(Path(folder))
    for side in info.sides:
        try:
            if info.dictionaries().get(side, ("", ""))[1]:  # else the store does not know it
                symbols[side] = read_dictionary(files[side].dictionary)
        except ValueError as error:
            problems.append(str(error))
        try:
            tokens = IndexedTokens(files[side].prefix)
            tokens.check()
            sides[side] = tokens
        except ValueError as error:
            problems.append(str(error))
    differences = [
        *dictionary_differences(info, lambda: decode_dictionary(store.checked_blob("dictionary")), symbols),
        *size_differences(store.header.corpus_sentences, sides),
    ]
    step = "give the folder that it was dumped from, or dump again"
    return problems + [f"it {line}; {step}" for line in differences], sides


def _sentence_problems(store: StoreFile, numbers: range, data: ChunkData, sides: Sides) -> list[str]:
    """A line for each sentence of a chunk, and side, that differs from the data."""
    return [
        f"it {line}"
        for i, number in enumerate(numbers)
        for line in sentence_differences(
            store.info, number, int(data.lengths[i]), {side: data.hashes[side][i] for side in sides}, sides
        )
    ]
