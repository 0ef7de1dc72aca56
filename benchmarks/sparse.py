"""Stores of any size that take no disk, for the time of opening: the header is sound, all else is a hole."""

import os
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.synthetic import SYMBOLS, TOKENS, make_info
from fairseq_bert_kd.storage.fairseq_data import encode_dictionary
from fairseq_bert_kd.storage.header import encode_header, plan_header
from fairseq_bert_kd.storage.schema import OFFSET_DTYPE
from fairseq_bert_kd.storage.shards import WHOLE
from fairseq_bert_kd.storage.topk_store import TopKReader


def write_sparse_store(path: Path, sentences: int) -> None:
    """A file of the layout and size of a store of that many sentences; its rows are zeros.

    Raises:
        OSError: the file system has no files of that size.
    """
    info, rows = make_info(), sentences * TOKENS
    header = plan_header(info, WHOLE, sentences, {"dictionary": len(encode_dictionary(SYMBOLS))}, rows)
    summary = info.summarise(np.zeros(0, dtype=info.table_dtype))
    layout = header.layout
    with open(path, "wb") as file:
        file.write(encode_header(replace(header, summary=summary, table_digest="00" * 16)))
        file.truncate(layout.file_bytes)
        last = layout.starts["offsets"] + OFFSET_DTYPE.itemsize * sentences
        os.pwrite(file.fileno(), np.array(rows, dtype=OFFSET_DTYPE).tobytes(), last)


def opening_seconds(path: Path, times: int = 20) -> list[float]:
    """How long opening takes, again and again."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        TopKReader(path)
        seconds.append(time.perf_counter() - started)
    return seconds


def sparse_opening_seconds(folder: Path, sentences: int) -> float | None:
    """Median time of opening a sparse store; None where the system cannot make or map one of that size."""
    path = folder / f"sparse-{sentences}"
    try:
        write_sparse_store(path, sentences)
        return statistics.median(opening_seconds(path))
    except OSError:
        return None
    finally:
        path.unlink(missing_ok=True)
