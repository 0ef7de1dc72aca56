"""Rows of a table, as `store export` or another program writes it, as chunks of a store."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.cli.store_export import NORMALISER_COLUMN
from fairseq_bert_kd.storage.fairseq_data import Sides, dictionary_digest, sentence_hash
from fairseq_bert_kd.storage.probabilities import gold_log_probs
from fairseq_bert_kd.storage.schema import SCORED, ChunkData, empty_records
from fairseq_bert_kd.storage.topk import LOGIT_DTYPE, NORMALISER_SLACK, NOT_IMPORTED, TopKInfo

Where = tuple[NDArray[Any], NDArray[Any]]  # (rows,) sentence and position of each row, for messages
_TEMPERATURE = re.compile(re.escape(NORMALISER_COLUMN) + r"(.+)")


class ImportedTable:
    """Columns of a table, checked, and how they become rows.

    Args:
        arrow: the pyarrow module.
        names: the table's columns.
        first: a record batch with rows, which tells the number of pieces; None for an empty table.
        sides: source and target of the data.
        symbols: the target dictionary in id order.
        stated: header's info of an exported table, else empty.
        topk: pieces to keep; None for all.

    Attributes:
        k: pieces of each row.
        temperatures: those with a log-normaliser, ascending.
        gold: whether gold logits are there.
        samples: drawn pieces of each row.

    Raises:
        ValueError: a column is absent or of a wrong type, or ``topk`` is impossible.
    """

    def __init__(
        self,
        arrow: Any,
        names: Iterable[str],
        first: Any,
        sides: Sides,
        symbols: Sequence[str],
        stated: Mapping[str, Any],
        topk: int | None,
    ):
        self._arrow, self.sides, self._symbols = arrow, sides, symbols
        self._names = set(names)
        self._ids = {symbol: i for i, symbol in enumerate(symbols)}  # [piece -> id], of equal ones the last
        # pieces of an exported table may have lost what UTF-8 cannot hold; its ids are exact for the same dictionary
        self._by_id = stated.get("dictionary_digest") == dictionary_digest(symbols)
        self._check_columns()
        self._logprobs = "topk_logprobs" in self._names
        self._value_column = "topk_logprobs" if self._logprobs else "topk_logits"
        self._normalisers = self._normaliser_columns(stated.get("temperatures", ()))
        self.temperatures = tuple(sorted(self._normalisers))
        self.gold = "gold_logit" in self._names
        self._stored = self._width(first, self._value_column)
        self.k = self._stored if topk is None else topk
        if not 1 <= self.k <= self._stored:
            raise ValueError(f"--topk must be from 1 to {self._stored}, the pieces of a row, got {topk}")
        self.samples = self._width(first, "sample_logits") if "sample_logits" in self._names else 0
        if self.samples and self.k < self._stored:
            raise ValueError(
                f"--topk must be {self._stored} for a table with samples, which were drawn outside of all of them, got "
                f"{topk}"
            )

    # ------------------------------------------------------------ columns

    def _check_columns(self) -> None:
        needed = ["sentence", "position", self._piece_column("topk")]
        if {"topk_logits", "topk_logprobs"}.isdisjoint(self._names):
            needed.append("topk_logits")
        for one, other in (("gold_logit", "gold"), ("sample_logits", "sample")):
            if one in self._names:
                needed.append(self._piece_column(other))
        absent = next((name for name in needed if name not in self._names), None)
        if absent is not None:
            raise ValueError(
                f"the table has no column {absent}; it has {', '.join(sorted(self._names))}. `store import --help` "
                "lists the columns"
            )
        if {"topk_logits", "topk_logprobs"} <= self._names:
            raise ValueError("the table has both topk_logits and topk_logprobs; leave one of them out")

    def _piece_column(self, kind: str) -> str:
        ids = {"topk": "topk_ids", "gold": "gold_id", "sample": "sample_ids"}[kind]
        pieces = {"topk": "topk_tokens", "gold": "gold_token", "sample": "sample_tokens"}[kind]
        return ids if self._by_id and ids in self._names else pieces

    def _normaliser_columns(self, temperatures: Sequence[float]) -> dict[float, str]:
        """[temperature -> column]; a temperature's name in the table has six digits, so exact ones come first."""
        exact = {f"{NORMALISER_COLUMN}{value:g}": float(value) for value in temperatures}
        columns = {}
        for name in self._names:
            match = _TEMPERATURE.fullmatch(name)
            if match is None:
                continue
            try:
                columns[exact[name] if name in exact else float(match[1])] = name
            except ValueError:
                raise ValueError(f"column {name} must end in a temperature, got `{match[1]}`") from None
        if self._logprobs:
            other = next((name for name in columns.values()), None)
            if other is not None:
                raise ValueError(f"topk_logprobs are of temperature 1; leave out the column {other}")
            columns[1.0] = ""
        return columns

    def _width(self, batch: Any, column: str) -> int:
        """Values per row; those of other rows are checked later."""
        if batch is None:
            return 1
        lengths = self._lengths(batch.column(column), column)
        return int(lengths.max(initial=1))

    def _lengths(self, values: Any, name: str) -> NDArray[np.int64]:
        """``(rows,)`` values of each row; 0 for null."""
        types = self._arrow.types
        if not any(
            test(values.type) for test in (types.is_list, types.is_large_list, types.is_fixed_size_list)
        ):
            raise ValueError(f"column {name} must hold lists, got {values.type}")
        lengths = self._arrow.compute.list_value_length(values)
        return self._arrow.compute.fill_null(lengths, 0).to_numpy(zero_copy_only=False).astype(np.int64)

    # ------------------------------------------------------------ chunks

    def chunks(self, batches: Iterable[Any], info: TopKInfo) -> Iterator[tuple[int, ChunkData]]:
        """``(first sentence, data)`` of every chunk of the corpus in order; at most a chunk and a batch in memory.

        Raises:
            ValueError: rows out of order, of a sentence that the data lack or have otherwise, or an unknown piece.
        """
        size, sentences = info.chunk_sentences, len(self.sides["target"])
        parts: list[Any] = []
        chunk, last = 0, (-1, 0)
        for batch in batches:
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

    def _integers(self, batch: Any, name: str) -> NDArray[np.int64]:
        column = batch.column(name)
        if column.null_count or not self._arrow.types.is_integer(column.type):
            raise ValueError(f"column {name} must hold integers without nulls, got {column.type}")
        return column.to_numpy(zero_copy_only=False).astype(np.int64)

    def _check_order(self, batch: Any, last: tuple[int, int]) -> tuple[int, int]:
        """Sentence and position of the last row; ValueError unless they ascend from ``last``."""
        sentence, position = self._integers(batch, "sentence"), self._integers(batch, "position")
        before = np.concatenate([[last[0]], sentence[:-1]]), np.concatenate([[last[1]], position[:-1]])
        ascends = (sentence > before[0]) | ((sentence == before[0]) & (position > before[1]))
        sentences = len(self.sides["target"])
        for bad, rule in (
            (~ascends, "rows must be sorted by sentence and position, each once"),
            ((sentence < 0) | (sentence >= sentences), f"the data have sentences 0 to {sentences - 1}"),
        ):
            if bad.any():
                row = int(bad.argmax())
                raise ValueError(f"sentence {sentence[row]}, position {position[row]}: {rule}")
        return (int(sentence[-1]), int(position[-1])) if len(sentence) else last

    def _chunk(self, parts: list[Any], first: int, info: TopKInfo) -> ChunkData:
        """The chunk from the sentence ``first``, from the table's rows of it."""
        last = min(first + info.chunk_sentences, len(self.sides["target"]))
        lengths = np.asarray(self.sides["target"].sizes[first:last]).astype(np.int64)
        hashes = {
            side: np.array([sentence_hash(tokens[i]) for i in range(first, last)], dtype=np.uint64)
            for side, tokens in self.sides.items()
        }
        status = np.where(lengths > 0, NOT_IMPORTED, SCORED).astype(np.uint8)
        data = ChunkData(hashes, lengths, status, empty_records(int(lengths.sum()), info))
        if parts:
            self._fill(
                data, self._arrow.Table.from_batches(parts).combine_chunks().to_batches()[0], first, info
            )
        return data

    def _fill(self, data: ChunkData, batch: Any, first: int, info: TopKInfo) -> None:
        """Put the table's rows into a chunk's status and records."""
        sentence = self._integers(batch, "sentence") - first  # (rows,) sentence of the chunk
        position = self._integers(batch, "position")
        for side in self.sides:
            if f"{side}_hash" in self._names:
                there = batch.column(f"{side}_hash").to_numpy(zero_copy_only=False)
                self._check(
                    there != data.hashes[side][sentence],
                    f"the {side} of the data has other tokens than the one that the teacher scored; binarise the same "
                    "text",
                    sentence + first,
                    position,
                )
        missing = position < 0
        if "status" in self._names and missing.any():
            names = np.array(batch.column("status").cast("string").to_pylist(), dtype=object)[missing]
            codes = {name: code for code, name in enumerate(info.status_names) if code != SCORED}
            data.status[sentence[missing]] = [codes.get(name, NOT_IMPORTED) for name in names]
        rows, sentence, position = (
            batch.filter(self._arrow.array(~missing)),
            sentence[~missing],
            position[~missing],
        )
        counts = np.bincount(sentence, minlength=len(data.lengths))
        wrong = (counts > 0) & (counts != data.lengths)
        # positions ascend, so as many as there are tokens are 0, 1, 2 ... when the last one fits too
        self._check(
            wrong[sentence] | (position >= data.lengths[sentence]),
            "a sentence needs a row for each of its target's tokens, end of sentence included",
            sentence + first,
            position,
            lambda row: f"{counts[sentence[row]]} rows, {data.lengths[sentence[row]]} tokens",
        )
        data.status[counts > 0] = SCORED
        starts = np.cumsum(data.lengths) - data.lengths
        targets = [self.sides["target"][first + i] for i in np.flatnonzero(counts)]
        gold = np.concatenate(
            [np.zeros(0, np.int64), *targets]
        )  # (rows,) as the rows are complete and sorted
        data.records[starts[sentence] + position] = self._records(
            rows, sentence + first, position, gold, info
        )

    # ------------------------------------------------------------ rows

    def _records(
        self, rows: Any, sentence: NDArray[Any], position: NDArray[Any], gold: NDArray[Any], info: TopKInfo
    ) -> NDArray[Any]:
        """``(rows,)`` records; ``gold`` are the data's own tokens."""
        records = empty_records(rows.num_rows, info)
        where = (sentence, position)
        records["topk_ids"] = self._pieces(rows, "topk", self._stored, where)[:, : self.k]
        values = self._values(rows, self._value_column, self._stored, where)[:, : self.k].astype(np.float64)
        best = values[:, :1]  # (rows, 1)
        logits = values - best
        with np.errstate(over="ignore", invalid="ignore"):  # checked afterwards
            records["topk_logits"] = logits.astype(LOGIT_DTYPE)
        for place, temperature in enumerate(self.temperatures):
            column = self._normalisers[temperature]
            total = -best[:, 0]  # log-probabilities have the log-normaliser 0
            if column:
                total = self._values(rows, column, 0, where).astype(np.float64) - best[:, 0] / temperature
            records["log_normalisers"][:, place] = self._normaliser(
                total, logits, records["topk_logits"], temperature, where
            )
        if self.gold:
            records["gold_id"] = self._pieces(rows, "gold", 0, where)
            self._check(
                records["gold_id"] != gold, "the gold token is not the target's token in the data", *where
            )
            records["gold_logit"] = self._values(rows, "gold_logit", 0, where) - best[:, 0]
        if self.samples:
            records["sample_ids"] = self._pieces(rows, "sample", self.samples, where)
            records["sample_logits"] = self._values(rows, "sample_logits", self.samples, where) - best
        return records

    def _normaliser(
        self,
        total: NDArray[np.float64],
        logits: NDArray[np.float64],
        rounded: NDArray[Any],
        temperature: float,
        where: Where,
    ) -> NDArray[np.float64]:
        """``(rows,)`` log-normalisers of the logits as stored: the rest's mass is that of the exact logits."""
        with np.errstate(all="ignore"):
            exact = np.exp(logits / temperature).sum(axis=1)
            stored = np.exp(rounded.astype(np.float64) / temperature).sum(axis=1)
            rest = np.exp(total) - exact
            self._check(
                ~np.isfinite(total) | (total < np.log(exact) - NORMALISER_SLACK),
                f"the probabilities at temperature {temperature:g} must be finite, with a sum of at most 1",
                *where,
                lambda row: f"a sum of {exact[row] / np.exp(total[row]):g}",
            )
            changed = (rounded.astype(np.float64) != logits).any(axis=1)
            return np.where(changed, np.log(stored + np.maximum(rest, 0)), total)

    def _values(self, rows: Any, name: str, width: int, where: Where) -> NDArray[Any]:
        """``(rows, width)`` numbers of a column of lists, or ``(rows,)`` for a width of 0."""
        column = self._list(rows.column(name), name, width, where)
        if column.null_count or not self._arrow.types.is_floating(column.type):
            raise ValueError(
                f"column {name} must hold floating-point numbers without nulls, got {column.type}"
            )
        values = column.to_numpy(zero_copy_only=False)
        return values.reshape(-1, width) if width else values

    def _pieces(self, rows: Any, kind: str, width: int, where: Where) -> NDArray[np.int64]:
        """``(rows, width)`` ids of a column of lists of pieces, or ``(rows,)`` for a width of 0."""
        name = self._piece_column(kind)
        column = self._list(rows.column(name), name, width, where)
        if column.null_count:
            raise ValueError(f"column {name} must not hold nulls")
        if not name.startswith(f"{kind}_token"):
            ids = column.to_numpy(zero_copy_only=False).astype(np.int64)
            return ids.reshape(-1, width) if width else ids
        if not self._arrow.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        pieces = column.dictionary.to_pylist()
        known = np.array([self._ids.get(piece, -1) for piece in pieces], dtype=np.int64)
        ids = known[column.indices.to_numpy(zero_copy_only=False)]
        if (ids < 0).any():
            at = int((ids < 0).argmax())
            row, piece = at // max(width, 1), pieces[column.indices[at].as_py()]
            raise ValueError(
                f"sentence {where[0][row]}, position {where[1][row]}: piece {piece!r} is not in the target dictionary; "
                "the teacher must use the pieces of the data"
            )
        return ids.reshape(-1, width) if width else ids

    def _list(self, column: Any, name: str, width: int, where: Where) -> Any:
        """The values of all rows in one array, after a check of their number."""
        if not width:
            return column
        lengths = self._lengths(column, name)
        self._check(
            lengths != width,
            f"column {name} must hold {width} values in every row",
            *where,
            lambda row: str(lengths[row]),
        )
        return column.flatten()

    def _check(
        self,
        bad: NDArray[np.bool_],
        rule: str,
        sentence: NDArray[Any],
        position: NDArray[Any],
        got: Any = None,
    ) -> None:
        if bad.any():
            row = int(bad.argmax())
            found = f", got {got(row)}" if got is not None else ""
            raise ValueError(f"sentence {sentence[row]}, position {position[row]}: {rule}{found}")

    def measured(self, data: ChunkData, info: TopKInfo) -> dict[str, Any]:
        """Columns of the chunk table that need the gold tokens, where the table has them."""
        if not self.gold or 1.0 not in self.temperatures:
            return {}
        records = data.records[data.scored]
        nll = -gold_log_probs(records, info.temperatures, 1.0)
        correct = records["topk_ids"][:, 0] == records["gold_id"]
        return {"gold_correct": int(correct.sum()), "gold_nll": float(nll.sum())}
