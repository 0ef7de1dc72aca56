"""Checks every byte of a top-k store, and whether it belongs to a folder of fairseq-preprocess's output."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.header import read_header, summarise
from fairseq_bert_kd.storage.records import ChunkData, chunk_digest, refuse_faulty, table_entry
from fairseq_bert_kd.storage.store_file import ChunkPlace, StoreFile
from fairseq_bert_kd.storage.store_info import OFFSET_DTYPE, new_digest, record_dtype
from fairseq_bert_kd.storage.topk_against_data import DataSide, open_data, sentence_problems

MOST_LINES = 20  # problems of one kind that are told
_SUM_TOLERANCE = 1e-9  # relative; the order of a sum of float64 depends on the processor
_WINDOW = 64  # chunks under way, for each worker
_BLOCK = 1 << 20  # bytes read together where all must be zero


def verify_store(
    path: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: Callable[[int], Any] = lambda size: None,
) -> list[str]:
    """Check every byte of a store or of a shard; what is wrong, one line each, nothing when all is well.

    Args:
        path: of the store.
        data_dir: folder of fairseq-preprocess's output; then also whether the store belongs to it.
        workers: threads; by default as many as there are cores.
        progress: told the bytes of each chunk's rows.

    Raises:
        FileNotFoundError: no such store, or a file of the data is absent.
        OSError: a file cannot be read.
    """
    path = Path(path).absolute()
    if not path.is_file():
        raise FileNotFoundError(f"top-k store {path} does not exist or is not a file; check the path")
    with open(path, "rb") as file:
        try:
            header = read_header(file, path)
        except OSError:
            raise
        except Exception as error:  # the digest fits and the content is absurd: a writer of another make
            return [str(error) if isinstance(error, ValueError) else f"its header is absurd: {error!r}"]
        store = StoreFile(path, file, header)
        data_problems, sides = ([], []) if data_dir is None else open_data(store, data_dir)
        table = store.table()
        problems = _gap_problems(store) + _dictionary_problems(store) + _index_problems(store)
        table_problems = _table_problems(store, table)
        chunk_problems, sentences = _all_chunks(store, table, sides, workers, progress)
        if not table_problems and not chunk_problems:
            table_problems = _summary_problems(store, table)
    problems += table_problems + chunk_problems.told("bad chunks") + data_problems
    return problems + sentences.told("sentences that differ from the data")


# ---------------------------------------------------------------- the file as a whole


def _gap_problems(store: StoreFile) -> list[str]:
    problems = []
    for start, end in store.header.layout.gaps():
        for place in range(start, end, _BLOCK):
            raw = store.span(place, min(end, place + _BLOCK))
            if any(raw):
                byte = place + next(i for i, value in enumerate(raw) if value)
                problems.append(f"byte {byte} between two sections must be zero, got {raw[byte - place]}")
                break
    return problems


def _dictionary_problems(store: StoreFile) -> list[str]:
    try:
        store.symbols()
    except ValueError as error:
        return [f"the dictionary section is damaged: {error}"]
    return []


def _index_problems(store: StoreFile) -> list[str]:
    sentences, rows = store.header.layout.sentences, store.header.layout.rows
    first = int(store.items("offsets", OFFSET_DTYPE, 0, 1)[0])
    last = int(store.items("offsets", OFFSET_DTYPE, sentences, 1)[0])
    problems = [f"the index must start at row 0, got {first}"] if first != 0 else []
    return problems + ([f"the index must end at row {rows}, the last, got {last}"] if last != rows else [])


def _table_problems(store: StoreFile, table: NDArray[Any]) -> list[str]:
    digest = new_digest()
    digest.update(table.tobytes())
    if digest.hexdigest() != store.header.table_digest:
        return ["the chunk table does not match its digest in the header"]
    return []


def _summary_problems(store: StoreFile, table: NDArray[Any]) -> list[str]:
    """Differences between the header's counts and means and those of its chunks."""
    stated = store.header.summary
    try:
        summed = summarise(table, store.info)
    except (ValueError, OverflowError) as error:  # infinities of both signs
        return [f"the chunk table cannot be summed up: {error}"]
    if not isinstance(stated, dict):
        return [f"the header's summary must be an object, got {stated!r}"]
    return [
        f"the header's summary says {name} {stated.get(name)!r}, its chunks give {summed.get(name)!r}"
        for name in sorted(summed.keys() | stated.keys())
        if stated.get(name) != summed.get(name) or (name in stated) != (name in summed)
    ]


# ---------------------------------------------------------------- chunks


class _Lines:
    """The first few problems of a kind, and how many there were."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def add(self, lines: list[str]) -> None:
        self.lines += lines[: MOST_LINES - len(self.lines)]
        self.count += len(lines)

    def told(self, kind: str) -> list[str]:
        more = self.count - len(self.lines)
        return self.lines + ([f"and {more:,} more {kind}"] if more else [])


def _all_chunks(
    store: StoreFile,
    table: NDArray[Any],
    sides: list[DataSide],
    workers: int | None,
    progress: Callable[[int], Any],
) -> tuple[_Lines, _Lines]:
    """Problems of the chunks, and of their sentences against the data."""
    bad_chunks, bad_sentences = _Lines(), _Lines()
    record_bytes = record_dtype(store.info).itemsize

    def look_at(place: ChunkPlace) -> tuple[list[str], list[str], int]:
        with np.errstate(all="ignore"):  # damaged numbers overflow; numpy keeps this state for each thread
            try:
                data = store.chunk(place)
            except ValueError as error:
                return [str(error)], [], 0
            wrong = _chunk_problem(place, table[place.local], data, store)
        different = [] if wrong else sentence_problems(place, data, sides)
        return ([wrong] if wrong else []), different, len(data.records) * record_bytes

    workers = workers or _cores()
    places = store.places()
    with ThreadPoolExecutor(workers) as pool:
        while window := list(islice(places, _WINDOW * workers)):
            for wrong, different, size in pool.map(look_at, window):
                bad_chunks.add(wrong)
                bad_sentences.add(different)
                progress(size)
    return bad_chunks, bad_sentences


def _chunk_problem(place: ChunkPlace, entry: NDArray[Any], data: ChunkData, store: StoreFile) -> str | None:
    """What is wrong with a chunk: its digest, its rows, or what the table says of them."""
    info = store.info
    if chunk_digest(place.number, entry, data, info) != entry["digest"].tobytes():
        return f"{place} does not match its digest"
    try:
        refuse_faulty(data, info, place.first)
    except ValueError as error:
        return f"{place} matches its digest, but was written wrong: {error}"
    counted = table_entry(place.number, data, info, int(entry["gold_correct"]), float(entry["gold_nll"]))
    for name in ("scored_rows", "missing"):
        if not np.array_equal(counted[name], entry[name]):
            return f"{place}: the chunk table says {name} {entry[name].tolist()}, counted {counted[name].tolist()}"
    if not np.allclose(counted["captured"], entry["captured"], rtol=_SUM_TOLERANCE, atol=0):
        return (
            f"{place}: the chunk table says captured mass {entry['captured'].tolist()}, summed "
            f"{counted['captured'].tolist()}"
        )
    return None


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
