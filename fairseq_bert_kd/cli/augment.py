"""``fairseq-bert-kd augment``: labelled sentences and copies of them with words replaced."""

import argparse
import csv
import importlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import compress, islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from tqdm import tqdm

from fairseq_bert_kd.cli.sentence_scan import check_first_lines
from fairseq_bert_kd.cli.sentence_table import (
    TAB,
    Row,
    TableFormat,
    add_format_arguments,
    read_rows,
    table_format,
)
from fairseq_bert_kd.functional.augmentation import draw_rows
from fairseq_bert_kd.output_files import check_new_file, whole_file
from fairseq_bert_kd.storage.sentence_data import CLASSES
from fairseq_bert_kd.storage.word_vectors import read_word_vectors
from fairseq_bert_kd.teachers.load_masked_lm import load_masked_lm, names_transformers
from fairseq_bert_kd.teachers.word_candidates import (
    CONTEXTS,
    MASKED_ONLY,
    ORIGINAL,
    Candidates,
    WordCandidates,
)
from fairseq_bert_kd.tokenization.replaceable_words import STOP_WORDS, SentenceSplitter, read_stop_words

HELP = (
    "labelled sentences and copies of them, in which words are replaced by a masked language model (TinyBERT's data "
    "augmentation)"
)
EXAMPLE = """example:
  fairseq-bert-kd augment train.tsv --task sst2 --masked-lm bert-base-uncased --output train.augmented.tsv
  fairseq-bert-kd prepare-sentences --task sst2 --train train.augmented.tsv ...
"""
ROW = "row"  # column of the number of the row that a copy is of
CHUNK_ROWS = 256  # read, scored and written together


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", help="tab-separated file of sentences or pairs, plain or gzip")
    add_format_arguments(parser)
    parser.add_argument(
        "--masked-lm",
        required=True,
        metavar="T",
        help="masked language model: transformers folder or hub name, or a checkpoint of --task conditional_masked_lm "
        "--cmlm-one-sided",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="PATH",
        help="folder or hub name of its tokenizer (default: the model's own, or the one that the checkpoint names)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="file to write, with a header and the columns row (number of the original, from 0), texts, label; where columns are "
        "numbers, these stay in their places, row comes last, and there is a header with --header alone (default: the name of "
        "the data with `.augmented` before its ending)",
    )
    parser.add_argument(
        "--probability",
        type=float,
        default=0.4,
        metavar="P",
        help="of replacing a word in a copy (paper and default: %(default)s)",
    )
    parser.add_argument(
        "--candidates",
        type=int,
        default=15,
        metavar="K",
        help="words among which a replacement is drawn (paper and default: %(default)s)",
    )
    parser.add_argument(
        "--copies",
        type=int,
        default=20,
        metavar="N",
        help="copies drawn of each text; equal ones are written once (paper and default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="of all draws, with the row's number (default: %(default)s)"
    )
    parser.add_argument(
        "--context",
        choices=CONTEXTS,
        default=ORIGINAL,
        help="what the model sees beside the masked sentence: the sentence as it is, as in the authors' code, or nothing "
        "(`masked-only`), as in their paper (default: %(default)s)",
    )
    parser.add_argument(
        "--word-vectors",
        metavar="FILE",
        help="vectors for words of several pieces, in GloVe's text format (default: the mean of the pieces' vectors in the "
        "model's input embeddings, against those of its whole words)",
    )
    parser.add_argument(
        "--stop-words",
        metavar="FILE",
        help="words that are never replaced, separated by white space (default: a short English list)",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=64,
        metavar="N",
        help="masked sentences that go through the model together; those of one sentence always do (default: %(default)s)",
    )
    parser.add_argument(
        "--drop-faulty",
        action="store_true",
        help="leave out and count rows of another number of columns or with an empty text, as for GLUE's QQP (default: an error)",
    )
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")


def main(args: argparse.Namespace) -> None:
    """Write the augmented file under a temporary name, then under its own.

    Raises:
        ValueError: options out of range, data that are not what the options say, or no usable masked language model.
        FileNotFoundError: a missing file, or no folder for the output.
        FileExistsError: the output exists.
    """
    table = table_format(args)
    output = check_options(args)
    header(table, labelled=True)
    importlib.import_module("fairseq_bert_kd.tasks")  # registers the models
    faults: list[str] | None = [] if args.drop_faulty else None
    total = check_rows(args.data, table, faults)
    if faults:
        print(f"warning: {len(faults):,} faulty rows are left out (--drop-faulty); the first: {faults[0]}")
    stop_words = read_stop_words(args.stop_words) if args.stop_words else STOP_WORDS
    vectors = read_word_vectors(args.word_vectors) if args.word_vectors else None
    model, tokenizer = load_masked_lm(args.masked_lm, args.tokenizer)
    if args.context == ORIGINAL and not names_transformers(args.masked_lm):
        print(
            f"warning: checkpoint `{args.masked_lm}` was trained on single sentences (--cmlm-one-sided), and --context {ORIGINAL} shows "
            f"it two; --context {MASKED_ONLY} is right for it",
            file=sys.stderr,
        )
    model.to(torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu"))
    finder = WordCandidates(model, tokenizer, args.candidates, args.context, args.batch_size, vectors)
    splitter = SentenceSplitter(tokenizer, stop_words)
    augmenter = Augmenter(finder, splitter, args.probability, args.copies, args.seed)
    started = time.monotonic()
    with whole_file(output) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        rows = rows_of(args.data, table, [] if args.drop_faulty else None)
        write_rows(file, rows, table, augmenter, total)
    report(output, total, augmenter.counts, time.monotonic() - started, args.context)


def check_options(args: argparse.Namespace) -> Path:
    """The output's path.

    Raises:
        ValueError: options out of range, or an output that is the data.
        FileNotFoundError: missing data or another missing file, or no folder for the output.
        FileExistsError: the output exists.
    """
    if not 0.0 <= args.probability <= 1.0:
        raise ValueError(f"--probability must be from 0 to 1, got {args.probability}; the paper's is 0.4")
    bounds = {"candidates": (1, "paper's is 15"), "copies": (1, "paper's is 20")}
    bounds |= {"seed": (0, "default is 1"), "batch_size": (1, "default is 64")}
    for name, (least, usual) in bounds.items():
        if (value := getattr(args, name)) < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {value}; the {usual}")
    data = Path(args.data)
    if not data.is_file():
        raise FileNotFoundError(f"`{data}` does not exist, or is no file. Check its path")
    for option in ("word_vectors", "stop_words"):
        if (name := getattr(args, option)) and not Path(name).is_file():
            raise FileNotFoundError(
                f"--{option.replace('_', '-')} `{name}` does not exist, or is no file. Check its path"
            )
    named = data.with_suffix("") if data.suffix == ".gz" else data
    output = Path(args.output) if args.output else named.with_name(f"{named.stem}.augmented{named.suffix}")
    if output.exists() and output.samefile(data):
        raise ValueError(f"--output `{output}` must not be the data. Choose another name")
    check_new_file("--output", output, args.overwrite)
    return output


class Augmenter:
    """Makes the copies of rows.

    Args:
        finder: finds the candidates.
        splitter: splits texts into words.
        probability: chance of a word to be replaced, see `augmentation.draw_copies`.
        copies: number of draws, see `augmentation.draw_copies`.
        seed: seed of all draws, with the row's number.

    Attributes:
        counts: numbers of texts, of those too long for the model, of words, of those with candidates, and of rows written.
    """

    def __init__(
        self, finder: WordCandidates, splitter: SentenceSplitter, probability: float, copies: int, seed: int
    ):
        self.counts: Counter[str] = Counter()
        self._finder, self._splitter = finder, splitter
        self._probability, self._copies, self._seed = probability, copies, seed

    def augment(self, first: int, rows: Sequence[Row]) -> Iterator[tuple[int, list[str], str | None]]:
        """Number of the original, texts and label of each row to write.

        Copies are a function of the seed and the row's number alone, given the candidates.

        Args:
            first: number of the first row.
            rows: consecutive rows.
        """
        split = [self._splitter.split(text) for row in rows for text in row.texts]
        fits = [self._finder.fits(sentence) for sentence in split]
        found = iter(self._finder.of(list(compress(split, fits))))
        candidates: list[Candidates] = [next(found) if fitting else {} for fitting in fits]
        self.counts["texts"] += len(split)
        self.counts["too long"] += fits.count(False)
        self.counts["words"] += sum(len(sentence.words) for sentence in split)
        self.counts["with candidates"] += sum(map(len, candidates))
        sides = [
            (list(map("".join, sentence.words)), known)
            for sentence, known in zip(split, candidates, strict=True)
        ]
        width = len(rows[0].texts)
        for place, row in enumerate(rows):
            draws = np.random.default_rng([self._seed, first + place])
            own = sides[place * width : (place + 1) * width]
            for texts in draw_rows(own, self._probability, self._copies, draws):
                self.counts["written"] += 1
                yield first + place, list(map(" ".join, texts)), row.label


def rows_of(data: str, table: TableFormat, faults: list[str] | None) -> Iterator[Row]:
    """Rows of the data; faulty ones are left out and added to ``faults``, or are an error without it."""
    faulty = None if faults is None else lambda _line, fault: faults.append(fault)
    return read_rows(data, table, labelled=False, faulty=faulty)


def check_rows(data: str, table: TableFormat, faults: list[str] | None) -> int:
    """Check all rows before the work; their number.

    Args:
        data: file of the data.
        table: its format.
        faults: see `rows_of`.

    Raises:
        ValueError: see `sentence_table.read_rows`; also no row, and a first line that is probably a header.
    """
    counts: Counter[str] = Counter()
    first_lines = []
    for row in rows_of(data, table, faults):
        counts[row.label or ""] += 1
        if row.line == 1:
            first_lines.append((data, row))
    if not counts:
        raise ValueError(
            f"`{data}` has no row that is not faulty; the first: {faults[0]}"
            if faults
            else f"`{data}` has a header and no row below it; give a file with at least one row"
        )
    if table.takes_first_line and table.kind == CLASSES:
        check_first_lines(first_lines, counts, "put another row first")
    return counts.total()


def write_rows(
    file: TextIO, rows: Iterator[Row], table: TableFormat, augmenter: Augmenter, total: int
) -> None:
    """Write the header and, for each row of the data, it and its copies.

    Args:
        file: stream of text.
        rows: the data.
        table: format of the data.
        augmenter: makes the copies.
        total: rows of the data, for the progress bar.
    """
    write = _row_writer(file, table.quoting)
    number = 0
    with tqdm(total=total, desc="augment", unit=" rows", unit_scale=True, file=sys.stderr) as progress:
        while chunk := list(islice(rows, CHUNK_ROWS)):
            if number == 0 and not table.takes_first_line:
                write(header(table, labelled=chunk[0].label is not None))
            for row, texts, label in augmenter.augment(number, chunk):
                write(cells(table, row, texts, label))
            number += len(chunk)
            progress.update(len(chunk))


def _row_writer(file: TextIO, quoting: str) -> Callable[[list[Any]], Any]:
    """Function that writes a row as `sentence_table.read_rows` reads it."""
    if quoting == "double":
        return csv.writer(file, delimiter=TAB, lineterminator="\n").writerow
    return lambda cells: file.write(TAB.join(map(str, cells)) + "\n")


def header(table: TableFormat, labelled: bool) -> list[str]:
    """Names of the columns; with `cells` ``prepare-sentences`` finds them again with the same options."""
    if table.preset is not None:
        texts, label = [names[0] for names in table.preset.texts], (*table.preset.label, "label")[0]
    elif table.by_number:
        texts, label = ["text"] if table.texts == 1 else ["text1", "text2"], "label"
    else:
        texts, label = list(table.columns), table.label or "label"
    if ROW in (*texts, label):
        raise ValueError(
            f"a column is called `{ROW}`, as the one with the row's number that is written; give it another name in the data"
        )
    return cells(table, ROW, texts, label if labelled else None)


def cells(table: TableFormat, row: int | str, texts: Sequence[str], label: str | None) -> list[Any]:
    """A line of the output: the row's number first, or last where the user gave the places of the others."""
    found = [*texts, *([] if label is None else [label])]
    if not table.by_number:
        return [row, *found]
    numbers = [int(number) for number in (*table.columns, table.label) if number is not None]
    places = dict(zip(numbers, found, strict=True))
    return [*(places.get(number, "") for number in range(1, max(numbers) + 1)), row]


def report(output: Path, rows: int, counts: Counter[str], seconds: float, context: str) -> None:
    """Print what was written, and how fast."""
    print(
        f"{output}: {counts['written']:,} rows from {rows:,} ({counts['written'] / rows:.1f} each); candidates for "
        f"{counts['with candidates']:,} of {counts['words']:,} words; {seconds:.1f} seconds, "
        f"{counts['texts'] / max(seconds, 1e-9):,.1f} sentences per second"
    )
    if counts["too long"]:
        less = f"; --context {MASKED_ONLY} takes half of the room" if context == ORIGINAL else ""
        print(
            f"warning: {counts['too long']:,} of {counts['texts']:,} texts are too long for the model's positions and have "
            f"no copies{less}",
            file=sys.stderr,
        )
