"""Reads tables that an experiment's own scripts wrote (``table-NAME.json``) about what is no run, such as its judges."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fairseq_bert_kd.report.read_experiment import Experiment, Notes

TABLE_FORMAT = 1
PREFIX = "table-"


@dataclass(frozen=True)
class FurtherTable:
    """A table of an experiment.

    Attributes:
        name: name of the file, without ``table-`` and ``.json``.
        title: title of the table.
        head: titles of the columns; the first is that of the rows' names.
        rows: for each row its name and the cells after it.
        remarks: sentences below the table.
        record: content of the file.
    """

    name: str
    title: str
    head: list[str]
    rows: list[list[str]]
    remarks: list[str]
    record: Mapping[str, Any]


def read_further_tables(experiment: Experiment, notes: Notes) -> list[FurtherTable]:
    """Every ``table-*.json`` in the experiment's folder; the notes name those that are not valid."""
    tables = []
    for path in sorted(experiment.folder.glob(f"{PREFIX}*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            tables.append(further_table(path.stem.removeprefix(PREFIX), record))
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            notes.add(path.name, f"left out, not a table: {type(error).__name__}: {error}")
    return tables


def further_table(name: str, record: Mapping[str, Any]) -> FurtherTable:
    """The table in the content of a file.

    Args:
        name: name of the table.
        record: ``format``, ``title``, ``head``, ``rows`` and, if there are any, ``remarks``. A cell is a text, a number
            (four digits are shown) or None where there is none.

    Raises:
        ValueError: another format, no row, a row of another length than the head, or a number that is not finite; also
            TypeError, KeyError and AttributeError if the record has another structure.
    """
    if record["format"] != TABLE_FORMAT:
        raise ValueError(f"format {record['format']!r}, this code reads format {TABLE_FORMAT}")
    head, rows = (
        [str(title) for title in record["head"]],
        [[_cell(cell) for cell in row] for row in record["rows"]],
    )
    if not head or not rows:
        raise ValueError("it has no row" if head else "it has no head")
    for number, row in enumerate(rows, 1):
        if len(row) != len(head):
            raise ValueError(f"row {number} has {len(row)} cells, the head has {len(head)}")
    remarks = [str(remark) for remark in record.get("remarks", ())]
    return FurtherTable(name, str(record["title"]), head, rows, remarks, record)


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        raise ValueError("a number is not finite")
    return f"{value:.4g}"
