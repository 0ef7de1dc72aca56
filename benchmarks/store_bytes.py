"""Bytes per target position: this store, the authors' shelve, and plain numpy arrays."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.authors_format import write_authors_shelve
from benchmarks.synthetic import DICTIONARY, TOKENS, make_info, write_store
from benchmarks.table import Row
from fairseq_bert_kd.storage.topk_store import TopKReader

K = (8, 64, 128)
GOAL_AT_8 = 36  # 8 ids and 8 logits of 16 bits, one normaliser of 32


def run(quick: bool) -> list[Row]:
    """A row for each k and format; bytes are exact."""
    sentences = 300 if quick else 5_000
    return [row for k in K for row in _rows_of(k, sentences)]


def _rows_of(k: int, sentences: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "store"
        write_store(path, make_info(k), sentences)
        reader = TopKReader(path)
        positions, layout = sentences * TOKENS, reader.header.layout

        record = (layout.ends["records"] - layout.starts["records"]) / positions
        goal, met = (f"at most {GOAL_AT_8}", record <= GOAL_AT_8) if k == 8 else ("-", None)
        yield Row("bytes", f"k={k}: a record", f"{record:g}", goal, met)
        once = layout.starts["offsets"]
        ours = layout.file_bytes - once
        index = f"k={k}: record, index, hashes and chunk table, {TOKENS} tokens a sentence"
        yield Row("bytes", index, f"{ours / positions:.2f}", "-", None)
        whole = f"k={k}: whole file of {sentences:,} sentences; header and {DICTIONARY:,} symbols are {once:,} bytes"
        yield Row("bytes", whole, f"{layout.file_bytes / positions:.2f}", "-", None)

        def against(size: int) -> str:
            return f"{size / positions:.2f} ({size / ours:.1f} times ours without header and dictionary)"

        write_authors_shelve(folder / "authors", _pairs(reader))
        theirs = sum(file.stat().st_size for file in folder.glob("authors.*"))
        yield Row(
            "bytes", f"k={k}: the authors' shelve with that k (theirs is 128)", against(theirs), "-", None
        )
        records = np.concatenate([reader.rows(sentence) for sentence in range(len(reader))])
        plain = folder / "plain.npz"
        ids, logits = records["topk_ids"].astype(np.int64), records["topk_logits"].astype(np.float32)
        np.savez(plain, ids=ids, logits=logits, lengths=reader.lengths)
        what = f"k={k}: numpy.savez of int64 ids and float32 logits, torch's usual types, not compressed"
        yield Row("bytes", what, against(plain.stat().st_size), "-", None)


def _pairs(reader: TopKReader) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Logits and ids in the authors' types."""
    for sentence in range(len(reader)):
        rows = reader.rows(sentence)
        yield rows["topk_logits"].copy(), rows["topk_ids"].astype(np.int64)
