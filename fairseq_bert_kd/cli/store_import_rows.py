"""Rows of a table of any teacher as records of a store: pieces to ids, logits or log-probabilities to stored logits."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.cli.store_export import NORMALISER_COLUMN, TOKEN_COLUMNS
from fairseq_bert_kd.storage.fairseq_data import dictionary_digest
from fairseq_bert_kd.storage.probabilities import gold_log_probs
from fairseq_bert_kd.storage.schema import ChunkData, empty_records
from fairseq_bert_kd.storage.topk import LOGIT_DTYPE, NORMALISER_SLACK, TopKInfo

Where = tuple[NDArray[Any], NDArray[Any]]  # (rows,) sentence and position of each row, for messages
_TEMPERATURE = re.compile(re.escape(NORMALISER_COLUMN) + r"(.+)")


def check_rows_of(where: Where, bad: NDArray[np.bool_], rule: str, got: Any = None) -> None:
    """Raise ValueError for the first bad row; ``got(row)`` is what it holds instead."""
    if bad.any():
        row = int(bad.argmax())
        found = f", got {got(row)}" if got is not None else ""
        raise ValueError(f"sentence {where[0][row]}, position {where[1][row]}: {rule}{found}")


class RowColumns:
    """The columns of a table from which a row is made.

    Args:
        arrow: the pyarrow module.
        names: the table's columns.
        batches: gives the table's record batches, of which the first row with pieces tells their number.
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
        batches: Callable[[], Iterable[Any]],
        symbols: Sequence[str],
        stated: Mapping[str, Any],
        topk: int | None,
    ):
        self._arrow, self._names, self._batches = arrow, set(names), batches
        # no table holds what UTF-8 cannot; of equal symbols fairseq takes the last
        last = {symbol: i for i, symbol in enumerate(symbols)}
        known = [s if last[s] == i and _is_utf8(s) else None for i, s in enumerate(symbols)]
        self._symbols = arrow.array(known, arrow.string())  # [id -> piece]
        # the pieces of an exported table lack what UTF-8 cannot hold; its ids are exact for the same dictionary
        self._by_id = stated.get("dictionary_digest") == dictionary_digest(symbols)
        self.gold = "gold_logit" in self._names
        self._check_names()
        self._logits = "topk_logprobs" if "topk_logprobs" in self._names else "topk_logits"
        self._normalisers = self._normaliser_columns(stated.get("temperatures", ()))
        self.temperatures = tuple(sorted(self._normalisers))
        self._stored = self._width(self._logits)
        self.k = self._stored if topk is None else topk
        if not 1 <= self.k <= self._stored:
            raise ValueError(f"--topk must be from 1 to {self._stored}, the pieces of a row, got {topk}")
        self.samples = self._width("sample_logits") if "sample_logits" in self._names else 0
        if self.samples and self.k < self._stored:
            raise ValueError(
                f"--topk must be {self._stored} for a table with samples, which were drawn outside of all of them, got "
                f"{topk}"
            )

    def _check_names(self) -> None:
        needed = ["sentence", "position", self._piece_column("topk_ids")]
        needed += [self._piece_column("gold_id")] if self.gold else []
        needed += [self._piece_column("sample_ids")] if "sample_logits" in self._names else []
        needed += ["topk_logits"] if "topk_logprobs" not in self._names else []
        absent = next((name for name in needed if name not in self._names), None)
        if absent is not None:
            raise ValueError(
                f"the table has no column {absent}; it has {', '.join(sorted(self._names))}. `store import --help` "
                "lists the columns"
            )
        if {"topk_logits", "topk_logprobs"} <= self._names:
            raise ValueError("the table has both topk_logits and topk_logprobs; leave one of them out")

    def _piece_column(self, ids: str) -> str:
        return ids if self._by_id and ids in self._names else TOKEN_COLUMNS[ids]

    def _normaliser_columns(self, temperatures: Sequence[float]) -> dict[float, str]:
        """[temperature -> column], "" for log-probabilities; names have six digits, ``temperatures`` has all."""
        exact = {f"{NORMALISER_COLUMN}{value:g}": float(value) for value in temperatures}
        columns = {}
        for match in filter(None, map(_TEMPERATURE.fullmatch, sorted(self._names))):
            if self._logits == "topk_logprobs":
                raise ValueError(f"topk_logprobs are of temperature 1; leave out the column {match[0]}")
            try:
                columns[exact[match[0]] if match[0] in exact else float(match[1])] = match[0]
            except ValueError:
                raise ValueError(f"column {match[0]} must end in a temperature, got `{match[1]}`") from None
        return columns if self._logits == "topk_logits" else {1.0: ""}

    def _width(self, name: str) -> int:
        """Values per row, 1 where none has any; those of other rows are checked later. Missing sentences have none."""
        widths = (int(self._lengths(batch.column(name), name).max(initial=0)) for batch in self._batches())
        return next(filter(None, widths), 1)

    # ------------------------------------------------------------ rows

    def records(self, rows: Any, where: Where, gold: NDArray[Any], info: TopKInfo) -> NDArray[Any]:
        """``(rows,)`` records.

        Args:
            rows: record batch of scored rows.
            where: places of these rows.
            gold: ``(rows,)`` the data's own tokens.
            info: info of the new store.
        """
        records = empty_records(rows.num_rows, info)
        records["topk_ids"] = self._pieces(rows, "topk_ids", self._stored, where)[:, : self.k]
        values = self._values(rows, self._logits, self._stored, where)[:, : self.k].astype(np.float64)
        best = values[:, :1]  # (rows, 1)
        with np.errstate(over="ignore", invalid="ignore"):  # the schema's rules find it
            logits = values - best
            records["topk_logits"] = logits.astype(LOGIT_DTYPE)
        for place, temperature in enumerate(self.temperatures):
            column = self._normalisers[temperature]
            total = self._values(rows, column, 0, where).astype(np.float64) if column else 0.0
            records["log_normalisers"][:, place] = self._normaliser(
                total - best[:, 0] / temperature, logits, records["topk_logits"], temperature, where
            )
        if self.gold:
            records["gold_id"] = self._pieces(rows, "gold_id", 0, where)
            rule = "the gold token is not the target's token in the data"
            check_rows_of(where, records["gold_id"] != gold, rule)
            records["gold_logit"] = self._values(rows, "gold_logit", 0, where) - best[:, 0]
        if self.samples:
            records["sample_ids"] = self._pieces(rows, "sample_ids", self.samples, where)
            records["sample_logits"] = self._values(rows, "sample_logits", self.samples, where) - best
        return records

    @staticmethod
    def _normaliser(
        total: NDArray[np.float64],
        logits: NDArray[np.float64],
        rounded: NDArray[Any],
        temperature: float,
        where: Where,
    ) -> NDArray[np.float64]:
        """``(rows,)`` log-normalisers of the logits as stored: the others keep the mass that they have exactly."""
        with np.errstate(all="ignore"):
            exact = np.exp(logits / temperature).sum(axis=1)
            check_rows_of(
                where,
                ~np.isfinite(total) | (total < np.log(exact) - NORMALISER_SLACK),
                f"the probabilities at temperature {temperature:g} must be finite, with a sum of at most 1",
                lambda row: f"a sum of {exact[row] / np.exp(total[row]):g}",
            )
            stored = np.exp(rounded.astype(np.float64) / temperature).sum(axis=1)
            others = np.maximum(np.exp(total) - exact, 0)
            changed = (rounded.astype(np.float64) != logits).any(axis=1)
            return np.where(changed, np.log(stored + others), total)

    def measured(self, data: ChunkData, info: TopKInfo) -> dict[str, Any]:
        """Columns of the chunk table that need the gold tokens, where the table has them."""
        if not self.gold or 1.0 not in self.temperatures:
            return {}
        records = data.records[data.scored]
        nll = -gold_log_probs(records, info.temperatures, 1.0)
        correct = records["topk_ids"][:, 0] == records["gold_id"]
        return {"gold_correct": int(correct.sum()), "gold_nll": float(nll.sum())}

    # ------------------------------------------------------------ columns

    def _values(self, rows: Any, name: str, width: int, where: Where) -> NDArray[Any]:
        """``(rows, width)`` numbers of a column of lists, or ``(rows,)`` for a width of 0."""
        column = self._flat(rows, name, width, where)
        if not self._arrow.types.is_floating(column.type):
            raise ValueError(f"column {name} must hold floating-point numbers, got {column.type}")
        values = column.to_numpy(zero_copy_only=False)
        return values.reshape(-1, width) if width else values

    def _pieces(self, rows: Any, ids_name: str, width: int, where: Where) -> NDArray[np.int64]:
        """``(rows, width)`` ids of a column of lists of pieces, or ``(rows,)`` for a width of 0."""
        name = self._piece_column(ids_name)
        column = self._flat(rows, name, width, where)
        if name != ids_name:
            pieces = column.cast(self._arrow.string())
            column = self._arrow.compute.index_in(pieces, value_set=self._symbols)
            if column.null_count:
                value = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
                row = value // max(width, 1)
                raise ValueError(
                    f"sentence {where[0][row]}, position {where[1][row]}: piece {pieces[value].as_py()!r} is not in the "
                    "target dictionary; the teacher must use the pieces of the data"
                )
        ids = column.to_numpy(zero_copy_only=False).astype(np.int64)
        return ids.reshape(-1, width) if width else ids

    def _flat(self, rows: Any, name: str, width: int, where: Where) -> Any:
        """The values of all rows in one array, ``width`` in each row; 0 for a column of values."""
        column = rows.column(name)
        if width:
            lengths = self._lengths(column, name)
            rule = f"column {name} must hold {width} values in every row"
            check_rows_of(where, lengths != width, rule, lambda row: lengths[row])
            column = column.flatten()
        if column.null_count:
            raise ValueError(f"column {name} must not hold nulls")
        return column

    def _lengths(self, column: Any, name: str) -> NDArray[np.int64]:
        """``(rows,)`` values of each row; 0 for null."""
        compute = self._arrow.compute
        try:
            lengths = compute.fill_null(compute.list_value_length(column), 0)
        except self._arrow.ArrowNotImplementedError:
            raise ValueError(f"column {name} must hold lists, got {column.type}") from None
        return lengths.to_numpy(zero_copy_only=False).astype(np.int64)


def _is_utf8(text: str) -> bool:
    return text.encode("utf-8", "replace").decode() == text
