"""Bytes per target position: this store, the authors' shelve, and plain numpy arrays."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.authors_format import write_authors_shelve
from benchmarks.synthetic import DICTIONARY, Corpus, scratch, store_in
from benchmarks.table import Row
from fairseq_bert_kd.storage.topk_store import TopKReader

K = (8, 64, 128)
GOAL_AT_8 = 36  # bytes of a record: 8 ids and 8 logits of 16 bits, one normaliser of 32


def run(quick: bool) -> list[Row]:
    """One row for each k and format."""
    sentences = 300 if quick else 5_000
    rows = [row for k in K for row in _rows_of(k, sentences)]
    return rows


def _rows_of(k: int, sentences: int) -> Iterator[Row]:
    with scratch() as folder:
        corpus = Corpus(sentences, k)
        corpus.write(store_in(folder))
        reader = TopKReader(store_in(folder))
        positions, layout = corpus.rows, reader.header.layout

        def each(size: float) -> str:
            return f"{size / positions:.2f} bytes"

        record = (layout.ends["records"] - layout.starts["records"]) / positions
        goal, met = (f"at most {GOAL_AT_8}", record <= GOAL_AT_8) if k == 8 else ("-", None)
        at = f"k={k}"
        yield Row("bytes", f"{at}: this store, records alone, 1 temperature", f"{record:.2f} bytes", goal, met)
        fixed = layout.starts["offsets"]
        what = f"{at}: this store, whole file but for header and dictionary ({fixed:,} bytes once)"
        yield Row("bytes", what, each(layout.file_bytes - fixed))
        what = f"{at}: this store, whole file of {sentences:,} sentences, dictionary {DICTIONARY:,}"
        yield Row("bytes", what, each(layout.file_bytes))

        ours = layout.file_bytes - fixed
        shelve = folder / "authors"
        write_authors_shelve(shelve, _pairs(reader))
        theirs = _size(folder, "authors.*")
        yield Row("bytes", f"{at}: authors' shelve, this k stored", _against(theirs, ours, positions))
        plain = folder / "plain.npz"
        records = np.concatenate([reader.rows(sentence) for sentence in range(len(reader))])
        np.savez(
            plain,
            ids=records["topk_ids"].astype(np.int64),
            logits=records["topk_logits"].astype(np.float32),
            lengths=corpus.lengths,
        )
        what = f"{at}: numpy.savez of int64 ids, float32 logits and lengths, as a first script does"
        yield Row("bytes", what, _against(plain.stat().st_size, ours, positions))


def _pairs(reader: TopKReader) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Logits and ids in the authors' types."""
    for sentence in range(len(reader)):
        rows = reader.rows(sentence)
        yield rows["topk_logits"].copy(), rows["topk_ids"].astype(np.int64)


def _against(size: int, ours: int, positions: int) -> str:
    return f"{size / positions:.2f} bytes, {size / ours:.1f} times this store without header and dictionary"


def _size(folder: Path, pattern: str) -> int:
    sizes = [path.stat().st_size for path in folder.glob(pattern)]
    assert sizes, (folder, pattern)
    return sum(sizes)


