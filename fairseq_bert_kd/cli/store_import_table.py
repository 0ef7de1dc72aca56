"""A table of any teacher's rows, read by record batches, as the chunks of a store."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.cli.store_export import FORMATS, METADATA_KEY
from fairseq_bert_kd.cli.store_import_rows import RowColumns, Where, check_rows_of
from fairseq_bert_kd.storage.fairseq_data import Sides, sentence_hash
from fairseq_bert_kd.storage.schema import SCORED, ChunkData, empty_records
from fairseq_bert_kd.storage.topk import NOT_IMPORTED, TopKInfo

_BATCH_ROWS = 1 << 14  # rows of the table that are in memory together, beside those of a chunk


class ImportedTable:
    """An Arrow or Parquet file.

    Args:
        arrow: the pyarrow module.
        path: path of the file.
        sides: source and target of the data.
        symbols: the target dictionary in id order.
        topk: pieces to keep; None for all.

    Attributes:
        stated: header's info that `store export` wrote into the table; empty for another's table.
        columns: how a row is made.

    Raises:
        ValueError: not a table, or not the columns of one.
    """

    def __init__(self, arrow: Any, path: Path, sides: Sides, symbols: Sequence[str], topk: int | None):
        self._arrow, self._sides = arrow, sides
        try:
            self._dataset = arrow.dataset.dataset(path, format=FORMATS[path.suffix])
        except arrow.ArrowInvalid as error:
            raise ValueError(f"{path} is not a table of the form that its name says ({error})") from None
        self._names = set(self._dataset.schema.names)
        self.stated = _stated(self._dataset.schema.metadata or {})
        self.columns = RowColumns(arrow, self._names, self._batches, symbols, self.stated, topk)

    def chunks(self, info: TopKInfo) -> Iterator[tuple[int, ChunkData]]:
        """``(first sentence, data)`` of every chunk of the corpus in order; at most a chunk and a batch in memory.

        Raises:
            ValueError: rows out of order, of a sentence that the data lack or have otherwise, or an unknown piece.
        """
        size, sentences = info.chunk_sentences, len(self._sides["target"])
        parts: list[Any] = []
        chunk, last = 0, (-1, 0)
        for batch in self._batches():
            last = self._check_order(batch, last)
            numbers = self._integers(batch, "sentence") // size  # (rows,) chunk of each row
            start = 0
            while start < len(numbers):
                while chunk < numbers[start]:  # the table goes on with a later chunk
                    yield chunk * size, self._chunk(parts, chunk * size, info)
                    parts, chunk = [], chunk + 1
                end = int(np.searchsorted(numbers, chunk, side="right"))
                parts.append(batch.slice(start, end - start))
                start = end
        while chunk * size < sentences:
            yield chunk * size, self._chunk(parts, chunk * size, info)
            parts, chunk = [], chunk + 1

    # ------------------------------------------------------------ file

    def _batches(self) -> Iterator[Any]:
        """Record batches in the file's order, of at most `_BATCH_ROWS` rows."""
        return self._dataset.to_batches(
            batch_size=_BATCH_ROWS, batch_readahead=1, fragment_readahead=0, use_threads=False
        )

    def _integers(self, batch: Any, name: str) -> NDArray[np.int64]:
        column = batch.column(name)
        if column.null_count or not self._arrow.types.is_integer(column.type):
            raise ValueError(f"column {name} must hold integers without nulls, got {column.type}")
        return column.to_numpy(zero_copy_only=False).astype(np.int64)

    def _check_order(self, batch: Any, last: tuple[int, int]) -> tuple[int, int]:
        """Sentence and position of the last row; ValueError unless they ascend from ``last``."""
        sentence, position = where = self._integers(batch, "sentence"), self._integers(batch, "position")
        sentence_before = np.concatenate([[last[0]], sentence[:-1]])
        position_before = np.concatenate([[last[1]], position[:-1]])
        ascends = (sentence > sentence_before) | (
            (sentence == sentence_before) & (position > position_before)
        )
        check_rows_of(where, ~ascends, "rows must be sorted by sentence and position, each once")
        sentences = len(self._sides["target"])
        outside = (sentence < 0) | (sentence >= sentences)
        check_rows_of(where, outside, f"the data have sentences 0 to {sentences - 1}")
        return (int(sentence[-1]), int(position[-1])) if len(sentence) else last

    # ------------------------------------------------------------ chunks

    def _chunk(self, parts: list[Any], first: int, info: TopKInfo) -> ChunkData:
        """The chunk from the sentence ``first``, from the table's rows of it."""
        last = min(first + info.chunk_sentences, len(self._sides["target"]))
        lengths = np.asarray(self._sides["target"].sizes[first:last]).astype(np.int64)
        hashes = {
            side: np.array([sentence_hash(tokens[i]) for i in range(first, last)], dtype=np.uint64)
            for side, tokens in self._sides.items()
        }
        status = np.where(lengths > 0, NOT_IMPORTED, SCORED).astype(np.uint8)
        data = ChunkData(hashes, lengths, status, empty_records(int(lengths.sum()), info))
        if parts:
            (batch,) = self._arrow.Table.from_batches(parts).combine_chunks().to_batches()
            where = self._integers(batch, "sentence"), self._integers(batch, "position")
            self._check_hashes(data, batch, where, first)
            self._fill_missing(data, batch, where, first, info)
            self._fill_scored(data, batch, where, first, info)
        return data

    def _check_hashes(self, data: ChunkData, batch: Any, where: Where, first: int) -> None:
        for side in self._sides:
            if f"{side}_hash" in self._names:
                there = batch.column(f"{side}_hash").to_numpy(zero_copy_only=False)
                check_rows_of(
                    where,
                    there != data.hashes[side][where[0] - first],
                    f"the {side} of the data has other tokens than the one that the teacher scored; binarise the same "
                    "text",
                )

    def _fill_missing(self, data: ChunkData, batch: Any, where: Where, first: int, info: TopKInfo) -> None:
        """Put the reasons of rows with position -1 into the status."""
        missing = where[1] < 0
        if "status" in self._names and missing.any():
            names = batch.column("status").cast("string").to_pylist()
            codes = {name: code for code, name in enumerate(info.status_names) if code != SCORED}
            for row in np.flatnonzero(missing).tolist():
                data.status[where[0][row] - first] = codes.get(names[row], NOT_IMPORTED)

    def _fill_scored(self, data: ChunkData, batch: Any, where: Where, first: int, info: TopKInfo) -> None:
        """Put the other rows into the records."""
        scored = where[1] >= 0
        rows, where = batch.filter(self._arrow.array(scored)), (where[0][scored], where[1][scored])
        sentence, position = where[0] - first, where[1]  # (rows,), of the chunk
        counts = np.bincount(sentence, minlength=len(data.lengths))  # (sentences,) rows in the table
        # positions ascend, so as many as there are tokens are 0, 1, 2 ... when the last one fits too
        check_rows_of(
            where,
            (counts != data.lengths)[sentence] | (position >= data.lengths[sentence]),
            "a sentence needs a row for each of its target's tokens, end of sentence included",
            lambda row: f"{counts[sentence[row]]} rows, {data.lengths[sentence[row]]} tokens",
        )
        data.status[counts > 0] = SCORED
        # all rows of a sentence are there and sorted, so its tokens stand beside them
        targets = [self._sides["target"][first + i] for i in np.flatnonzero(counts).tolist()]
        gold = np.concatenate([np.zeros(0, np.int64), *targets])  # (rows,)
        starts = np.cumsum(data.lengths) - data.lengths
        data.records[starts[sentence] + position] = self.columns.records(rows, where, gold, info)


def _stated(metadata: dict[bytes, bytes]) -> dict[str, Any]:
    raw = metadata.get(METADATA_KEY)
    try:
        return dict(json.loads(raw)["info"]) if raw else {}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"the table's metadata `{METADATA_KEY.decode()}` cannot be read ({error}); remove them"
        ) from None
