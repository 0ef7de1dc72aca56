"""Reads rows of sentences and labels from tab-separated files, by a task's preset or by columns that the user names."""

import argparse
import csv
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fairseq_bert_kd.cli.sentence_presets import HEADER_WORDS, PRESETS, Preset
from fairseq_bert_kd.storage.sentence_data import CLASSES, NUMBERS, UNLABELLED
from fairseq_bert_kd.text_lines import open_lines

TAB = "\t"
QUOTINGS = ("none", "double")
LONGEST_FIELD = 1 << 24  # characters; the csv module's own limit is 131,072


class Row(NamedTuple):
    """A row of a file.

    Attributes:
        line: number of its first line, from 1.
        texts: one or two texts.
        label: label as the file spells it; None if the file has no labels.
    """

    line: int
    texts: tuple[str, ...]
    label: str | None


class Columns(NamedTuple):
    """Columns of a file, counted from 0.

    Attributes:
        texts: columns of the texts.
        label: column of the label; None if the file has none.
        width: columns of a line.
        header: whether the first line is a header.
        open_end: whether a line may have more columns.
    """

    texts: tuple[int, ...]
    label: int | None
    width: int
    header: bool
    open_end: bool = False


@dataclass(frozen=True)
class TableFormat:
    """How the files of a data set are read.

    Attributes:
        preset: the task; None where the user names the columns.
        columns: the user's columns of texts, names or numbers from 1.
        label: the user's column of labels.
        header: whether the user says that the first line is a header, although columns are given by number.
        quoting: "none": a quotation mark is a character; "double": fields in double quotes may hold tabs and line feeds.
        kind: what the labels are.
    """

    preset: Preset | None
    columns: tuple[str, ...] = ()
    label: str | None = None
    header: bool = False
    quoting: str = "none"
    kind: str = CLASSES

    @property
    def by_number(self) -> bool:
        """Whether the user gave numbers of columns."""
        return bool(self.columns) and self.columns[0].isdecimal()

    @property
    def takes_first_line(self) -> bool:
        """Whether the first line is data only because the user gave numbers of columns and named no header."""
        return self.by_number and not self.header

    @property
    def texts(self) -> int:
        """Texts of a row."""
        return len(self.columns) or len(self.preset.texts if self.preset else ())


def add_format_arguments(parser: argparse.ArgumentParser) -> None:
    """Options from which `table_format` is made."""
    parser.add_argument(
        "--task",
        choices=PRESETS,
        help="a known task: columns, header, names of the classes and metric of its files; `plain` is unlabelled text, one a "
        "line",
    )
    parser.add_argument(
        "--columns",
        metavar="A[,B]",
        help="columns of the text, or of both texts of a pair, in files of your own: names in the header, or numbers from 1",
    )
    parser.add_argument(
        "--label-column", metavar="C", help="column of the label; without it the text is unlabelled"
    )
    parser.add_argument(
        "--header", action="store_true", help="the first line is a header, although columns are numbers"
    )
    parser.add_argument(
        "--label-kind",
        choices=(CLASSES, NUMBERS),
        default=CLASSES,
        help="what the labels of --label-column are (default: %(default)s)",
    )
    parser.add_argument(
        "--quoting",
        choices=QUOTINGS,
        default="none",
        help="`double`: fields in double quotes may hold tabs and line feeds, as in Quora's own file of questions; "
        "`none`: a quotation mark is a character, as in GLUE's tables (default: %(default)s)",
    )


def table_format(args: argparse.Namespace) -> TableFormat:
    """The format that the options of `add_format_arguments` describe.

    Raises:
        ValueError: neither a task nor columns, or options that contradict each other.
    """
    if (args.task is None) == (args.columns is None):
        raise ValueError(
            "give either --task, for files of a known task, or --columns (with --label-column), for your own"
        )
    if args.task:
        if args.label_column or args.header or args.label_kind != CLASSES:
            raise ValueError(
                f"--task {args.task} says itself which columns its files have; leave out --label-column, --header and "
                "--label-kind, or give --columns instead of --task"
            )
        preset = PRESETS[args.task]
        return TableFormat(preset, quoting=args.quoting, kind=preset.kind)
    columns = tuple(name.strip() for name in args.columns.split(","))
    label = args.label_column and args.label_column.strip()
    named = columns if label is None else (*columns, label)
    if len(columns) > 2 or "" in named or len(set(named)) < len(named):
        raise ValueError(
            f"--columns takes one column or two, all different and none the label's, got {args.columns!r} and "
            f"--label-column {args.label_column!r}"
        )
    numbered = {name.isdecimal() for name in named}
    if len(numbered) > 1 or "0" in named:
        raise ValueError(
            f"columns are given either all by name or all by number, from 1; got {', '.join(named)}"
        )
    if label is None and args.label_kind != CLASSES:
        raise ValueError(
            f"--label-kind {args.label_kind} needs --label-column; give it, or leave --label-kind out"
        )
    kind = args.label_kind if label else UNLABELLED
    return TableFormat(None, columns, label, args.header, args.quoting, kind)


# ---------------------------------------------------------------- files


def read_rows(
    path: str,
    table: TableFormat,
    labelled: bool,
    faulty: Callable[[int, str], None] | None = None,
    again: bool = False,
) -> Iterator[Row]:
    """Rows of a file.

    Args:
        path: plain text, or gzip.
        table: its format.
        labelled: whether a file without a column of labels is an error.
        faulty: gets the line and the fault of a row of another width or with an empty text, which is left out; None for an
            error.
        again: whether the file was read before, see `text_lines`.

    Raises:
        ValueError: a line of another width, an empty text, columns that are not there, or a header that would be read as
            data. It names the line.
    """
    lines = _cells(path, table.quoting, again)
    first = next(lines, None)
    if first is None:
        raise ValueError(f"`{path}` is empty; give a file with at least one row")
    columns = _columns(path, first[1], table)
    if labelled and columns.label is None and table.kind != UNLABELLED:
        raise ValueError(
            f"`{path}` has no column of labels ({_shown(first[1])}); training and validation need them. Only --test may be "
            "without"
        )
    rest = lines if columns.header else itertools.chain([first], lines)
    for line, cells in rest:
        texts = tuple(cells[column].strip() for column in columns.texts if column < len(cells))
        if fault := _fault(path, line, cells, texts, columns):
            if faulty is None:
                raise ValueError(fault)
            faulty(line, fault)
            continue
        yield Row(line, texts, None if columns.label is None else cells[columns.label].strip())


def _fault(path: str, line: int, cells: Sequence[str], texts: Sequence[str], columns: Columns) -> str:
    """What is wrong with a row; empty if nothing is."""
    if len(cells) != columns.width and not (columns.open_end and len(cells) > columns.width):
        return _wrong_width(path, line, cells, columns)
    if "" in texts:
        return (
            f"`{path}`, line {line:,}: column {columns.texts[texts.index('')] + 1} must hold a text, but is empty. "
            "Remove the line, or give its text"
        )
    return ""


def _cells(path: str, quoting: str, again: bool) -> Iterator[tuple[int, list[str]]]:
    """Number of the first line of each row, from 1, and its cells."""
    if quoting == "none":
        yield from ((number, line.split(TAB)) for number, line in enumerate(open_lines(path, again=again), 1))
        return
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(open_lines(path, keep_ends=True, again=again), delimiter=TAB, strict=True)
    start = 1
    try:
        for cells in reader:
            yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"`{path}`, line {start:,}: its double quotes are broken ({error}). A quotation mark inside a quoted field is "
            "written twice; where the marks are ordinary characters, leave --quoting out"
        ) from None


def _columns(path: str, first: Sequence[str], table: TableFormat) -> Columns:
    """Columns of a file whose first line has these cells."""
    names = [cell.strip().lower() for cell in first]
    if table.preset is not None:
        return _columns_of_preset(path, first, names, table.preset)
    named = table.columns if table.label is None else (*table.columns, table.label)
    if named[0].isdecimal():
        return _columns_by_number(path, first, names, table, [int(number) - 1 for number in named])
    absent = [name for name in table.columns if name.lower() not in names]
    if absent:
        raise ValueError(
            f"`{path}` has no column `{absent[0]}` in its first line ({_shown(first)}); name columns of the header, or give "
            "numbers from 1 if there is none. Columns are separated by tabs"
        )
    label = table.label.lower() if table.label else None
    return Columns(
        tuple(names.index(name.lower()) for name in table.columns),
        names.index(label) if label in names else None,
        len(names),
        header=True,
    )


def _columns_of_preset(path: str, first: Sequence[str], names: list[str], preset: Preset) -> Columns:
    found = [next((name for name in known if name in names), None) for known in preset.texts]
    if None not in found:
        label = next((name for name in preset.label if name in names), None)
        return Columns(
            tuple(names.index(name) for name in found if name),
            names.index(label) if label else None,
            len(names),
            header=True,
        )
    plain = preset.headerless
    if plain is None:
        expected = ", ".join(" or ".join(known) for known in (*preset.texts, preset.label))
        raise ValueError(
            f"`{path}`, line 1: files of this task begin with a header that names {expected}, got {_shown(first)}. Give the "
            "columns with --columns and --label-column instead of --task"
        )
    if len(first) < plain.width or (len(first) > plain.width and not plain.open_end):
        raise ValueError(
            f"`{path}`, line 1: a file of this task has {plain.width} columns, or a header, got {len(first)}: "
            f"{_shown(first)}. Give the columns with --columns and --label-column instead of --task"
        )
    columns = Columns(plain.texts, plain.label, plain.width, header=False, open_end=plain.open_end)
    if preset.kind == CLASSES:
        spelled = {name.lower() for name in preset.classes} | {
            spelling for others in preset.classes.values() for spelling in others
        }
        _check_no_header(path, first, names, columns, known=spelled)
    elif preset.kind == NUMBERS:
        _check_no_header(path, first, names, columns, known=set())
    return columns


def _columns_by_number(
    path: str, first: Sequence[str], names: list[str], table: TableFormat, numbers: list[int]
) -> Columns:
    if max(numbers) >= len(first):
        raise ValueError(
            f"`{path}`, line 1: column {max(numbers) + 1} was named, but there are {len(first)}: {_shown(first)}. Columns are "
            "separated by tabs"
        )
    texts = len(table.columns)
    label = numbers[texts] if table.label else None
    columns = Columns(tuple(numbers[:texts]), label, len(first), table.header)
    if not table.header and label is not None:
        _check_no_header(path, first, names, columns, known=set())
    return columns


def _check_no_header(
    path: str, first: Sequence[str], names: list[str], columns: Columns, known: set[str]
) -> None:
    """Refuse a first line that names columns: an unknown label, and names of columns beside it."""
    assert columns.label is not None
    label, beside = names[columns.label], [names[column] for column in columns.texts]
    if (
        label not in known
        and (label in HEADER_WORDS or HEADER_WORDS.intersection(beside))
        and not _is_number(label)
    ):
        raise ValueError(
            f"`{path}`, line 1: {_shown(first)} looks like a header, and would be read as data. Name its columns with "
            "--columns and --label-column, or remove the line"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _wrong_width(path: str, line: int, cells: Sequence[str], columns: Columns) -> str:
    expected = "1 column" if columns.width == 1 else f"{columns.width} columns"
    said = (
        f"`{path}`, line {line:,}: every line must have {expected}, separated by tabs, like the first one, but "
        f"this one has {len(cells)}: {_shown(cells)}. "
    )
    if any(cell.startswith('"') or cell.endswith('"') for cell in cells):
        return (
            said
            + "If double quotes enclose fields with tabs or line feeds inside, give --quoting double; else mend the line"
        )
    return said + "Mend the line, or remove it"


def _shown(cells: Sequence[str]) -> str:
    """Cells for a message."""
    text = " | ".join(cells)
    return repr(text if len(text) <= 100 else text[:97] + "...")
