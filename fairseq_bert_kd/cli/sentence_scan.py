"""Reads a split of labelled sentences for the first time: every row is checked, and labels become numbers."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.cli.sentence_labels import Labels
from fairseq_bert_kd.cli.sentence_table import Row, TableFormat, read_rows
from fairseq_bert_kd.storage.sentence_data import CLASSES, NUMBERS, UNLABELLED

CHUNK_ROWS = 1000  # rows that are tokenised together


class Scanned:
    """A split that was read once and found right.

    Args:
        files: its files.

    Attributes:
        rows: number of rows.
        labels: ``(rows,)`` int64 class numbers or float64 numbers; None if unlabelled.
        values: numbers of the labels so far, those of classes provisional.
        first_lines: file and row of each first line.
        quoted: rows that look quoted.
        left_out: lines of faulty rows, by file.
        fault: what is wrong with the first of them.
    """

    def __init__(self, files: Sequence[str]):
        self.files = files
        self.rows = self.quoted = 0
        self.labels: NDArray[Any] | None = None
        self.values = array("d")
        self.first_lines: list[tuple[str, Row]] = []
        self.left_out: dict[str, set[int]] = {path: set() for path in files}
        self.fault = ""

    def add(self, path: str, row: Row) -> None:
        """Count a row whose label is known."""
        self.rows += 1
        self.quoted += _looks_quoted(row)
        if row.line == 1:
            self.first_lines.append((path, row))

    def leave_out(self, path: str, line: int, fault: str) -> None:
        """Note a faulty row."""
        self.left_out[path].add(line)
        self.fault = self.fault or fault

    def chunks(self, table: TableFormat) -> Iterator[tuple[str, list[Row]]]:
        """File and rows of each part of the split that is tokenised together, without the rows that are left out."""
        for path in self.files:
            found = read_rows(path, table, labelled=False, faulty=lambda _line, _fault: None, again=True)
            kept = (row for row in found if row.line not in self.left_out[path])
            while chunk := list(islice(kept, CHUNK_ROWS)):
                yield path, chunk


def scan(
    files: Sequence[str], table: TableFormat, labels: Labels, split: str, drop_faulty: bool = False
) -> Scanned:
    """Read a split for the first time: every row is checked, and labels become numbers.

    Args:
        files: files of the split.
        table: their format.
        labels: reads the labels.
        split: name of the split.
        drop_faulty: whether faulty rows are left out.

    Raises:
        ValueError: see `sentence_table.read_rows` and `Labels.read`; also files with and without labels in one split, and a
            first line that is probably a header.
    """
    scanned = Scanned(files)
    learned = not labels.names and table.kind == CLASSES
    for path in files:
        _scan_file(scanned, path, table, labels, split != "test", drop_faulty)
    _warn_of_rows(scanned, table, split)
    if not scanned.values:
        return scanned
    if len(scanned.values) != scanned.rows:
        raise ValueError(
            f"some files of --{split} have labels and some have none ({', '.join(files)}); give them as separate splits"
        )
    numbers = np.frombuffer(scanned.values, np.float64)
    scanned.labels = numbers.copy() if table.kind == NUMBERS else numbers.astype(np.int64)
    final = labels.close()
    if final is not None:
        scanned.labels = final[scanned.labels]
    if learned:
        if table.takes_first_line:
            counts = np.bincount(scanned.labels, minlength=len(labels.names)).tolist()
            check_first_lines(
                scanned.first_lines,
                dict(zip(labels.names, counts, strict=True)),
                "name all classes with --classes",
            )
        _warn_of_case(labels.names)
    return scanned


def _scan_file(
    scanned: Scanned, path: str, table: TableFormat, labels: Labels, labelled: bool, drop_faulty: bool
) -> None:
    """Read a file of a split, see `scan`; ``labelled`` if it must have labels."""
    before = scanned.rows

    def leave_out(line: int, fault: str) -> None:
        scanned.leave_out(path, line, fault)

    for row in read_rows(path, table, labelled, leave_out if drop_faulty else None):
        if table.kind != UNLABELLED and row.label is not None:
            try:
                scanned.values.append(labels.read(path, row))
            except ValueError as error:
                if not drop_faulty:
                    raise
                leave_out(row.line, str(error))
                continue
        scanned.add(path, row)
    if scanned.rows == before:
        raise ValueError(
            f"`{path}` has no row that is not faulty; the first: {scanned.fault}"
            if scanned.left_out[path]
            else f"`{path}` has a header and no row below it; give a file with at least one row"
        )


def _warn_of_rows(scanned: Scanned, table: TableFormat, split: str) -> None:
    """Warn of rows that are left out, and of those that look quoted."""
    if dropped := sum(map(len, scanned.left_out.values())):
        print(
            f"warning: {dropped:,} faulty rows of {split} are left out (--drop-faulty); the first: {scanned.fault}"
        )
    if scanned.quoted and table.quoting == "none":
        print(
            f"warning: {scanned.quoted:,} of {scanned.rows:,} rows of {split} have a text in double quotes, with doubled ones inside, as "
            "pandas and spreadsheets write them; they stay in the text, but --quoting double reads them as quotes"
        )


def _looks_quoted(row: Row) -> bool:
    """Whether a text is written as a csv writer writes one that holds quotation marks: ``"a ""fine"" film"``."""
    return any(
        len(text) > 2 and text[0] == text[-1] == '"' and '""' in text[1:-1] and text.count('"') % 2 == 0
        for text in row.texts
    )


def check_first_lines(
    first_lines: Sequence[tuple[str, Row]], counts: Mapping[str, int], otherwise: str
) -> None:
    """Refuse first lines whose class no other row has, where all other classes have more: a header of unknown words.

    Args:
        first_lines: file and row of each.
        counts: rows by class, first lines included.
        otherwise: what to do if the line is no header.

    Raises:
        ValueError: see above.
    """
    if not first_lines:  # left out as faulty
        return
    path, first = first_lines[0]
    same = all(row.label == first.label for _, row in first_lines)
    rare = [name for name, count in counts.items() if count <= len(first_lines)]
    if same and len(counts) > 1 and rare == [first.label]:
        raise ValueError(
            f"`{path}`, line 1: no other row has the label `{first.label}`, so the line is probably a header. If it is, give "
            f"--header, or names of columns; if it is not, {otherwise}"
        )


def _warn_of_case(names: Sequence[str]) -> None:
    """Warn of classes that differ in case only."""
    spelled: dict[str, str] = {}
    for name in names:
        other = spelled.setdefault(name.casefold(), name)
        if other != name:
            print(
                f"warning: the classes `{other}` and `{name}` differ in case only; is it one class, spelled in two ways?"
            )
