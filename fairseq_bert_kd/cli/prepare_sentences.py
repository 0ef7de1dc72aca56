"""``fairseq-bert-kd prepare-sentences``: files of sentences and labels as a data folder for fairseq."""

import argparse
import functools
import time
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fairseq_bert_kd.cli.sentence_labels import Labels, labels_for
from fairseq_bert_kd.cli.sentence_table import (
    Row,
    TableFormat,
    add_format_arguments,
    read_rows,
    table_format,
)
from fairseq_bert_kd.compat import require_fairseq
from fairseq_bert_kd.functional.truncation import longest_first
from fairseq_bert_kd.storage.alignment import check_tokenizer
from fairseq_bert_kd.storage.fairseq_data import dictionary_digest
from fairseq_bert_kd.storage.sentence_data import (
    CLASSES,
    NUMBERS,
    UNLABELLED,
    SentenceSpec,
    read_spec,
    write_labels,
)
from fairseq_bert_kd.tokenization.dictionary import full_dictionary, load_dictionary
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

HELP = "files of sentences, or pairs, and their labels as a data folder for --task sentence_prediction_with_teacher"
EXAMPLE = """examples:
  fairseq-bert-kd prepare-sentences --tokenizer bert-base-uncased --task sst2 --full-dictionary --max-tokens 128 \\
      --train SST-2/train.tsv --valid SST-2/dev.tsv --destdir data-sst2
  fairseq-bert-kd prepare-sentences --tokenizer bert-base-uncased --columns review --label-column stars \\
      --train mine.tsv --valid mine-dev.tsv --destdir data-mine

Files are tab-separated, one row a line, in UTF-8, and may be compressed by gzip (.gz). Of a known task both GLUE's tables and
headerless ones are read. The folder has the layout of fairseq's own task sentence_prediction."""
SPLITS = ("train", "valid", "test")
CHUNK_ROWS = 1000  # rows that are tokenised together
DEFAULT_MAX_TOKENS = 512  # positions of BERT
DEFAULT_METRICS = {CLASSES: "accuracy", NUMBERS: "spearman", UNLABELLED: ""}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tokenizer", required=True, metavar="PATH", help="folder or hub name of the encoder's tokenizer"
    )
    for split, said in zip(SPLITS, ("", "", ", which may be without labels"), strict=True):
        parser.add_argument(
            f"--{split}",
            nargs="+",
            metavar="FILE",
            default=[],
            help=f"files of the split {split}{said}; several are joined",
        )
    parser.add_argument("--destdir", required=True, metavar="DIR", help="folder to write")
    add_format_arguments(parser)
    parser.add_argument(
        "--classes",
        metavar="A,B[,...]",
        help="names of the classes in the order of their numbers (default: the task's, or those of the training file, sorted)",
    )
    parser.add_argument(
        "--full-dictionary",
        action="store_true",
        help="a dictionary of the tokenizer's whole vocabulary, so that all folders of one tokenizer share it and one model "
        "can be trained on one after another (default: of the training text)",
    )
    parser.add_argument(
        "--like",
        metavar="DIR",
        help="take dictionary and classes of a folder that was prepared before, for further data of its model",
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help="most tokens of a row in the encoder's input, special ones included; longer rows are cut, the longer text "
        f"first, and counted (default: that of the folder of --like, else {DEFAULT_MAX_TOKENS})",
    )
    parser.add_argument(
        "--drop-faulty",
        action="store_true",
        help="leave out rows of --train and --valid that have another number of columns, an empty text or a label that is none "
        "of the known ones, and count them, as for GLUE's QQP (default: they are errors, as those of --test always are)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a folder of prepared sentences")


def main(args: argparse.Namespace) -> None:
    """Read, check and number everything, then write; the folder gets its name when it is complete.

    Raises:
        ValueError: options that contradict each other, or a file that is not what they say; names the line.
        FileNotFoundError: a missing file or folder.
        FileExistsError: the folder exists.
    """
    started = time.monotonic()
    table = table_format(args)
    files = check_options(args, table)
    require_fairseq()
    from fairseq_bert_kd.cli.sentence_folder import check_folder

    folder = Path(args.destdir)
    check_folder(folder, args.overwrite)
    plan = make_plan(args, table)
    scanned = {
        split: scan(files[split], table, plan.labels, split, args.drop_faulty and split != "test")
        for split in files
    }
    write(plan, folder, scanned)
    print(f"{folder}: written in {time.monotonic() - started:.1f} seconds")


# ---------------------------------------------------------------- before the work


@dataclass(frozen=True)
class Plan:
    """What is done with the files.

    Attributes:
        table: format of the files.
        labels: their labels.
        tokenizer: makes the pieces.
        like: description of the folder of ``--like``, or None.
        dictionary: dictionary of the pieces; None for that of the training text.
        max_tokens: most tokens of a row in the encoder's input.
        limit: most tokens of a row in the folder, ends of sentence included.
    """

    table: TableFormat
    labels: Labels
    tokenizer: HfTokenizer
    like: SentenceSpec | None
    dictionary: Any
    max_tokens: int
    limit: int

    def spec(self, dictionary: Any) -> SentenceSpec:
        """Description of the new folder."""
        stated = self.table.preset or self.like
        kind, names = self.labels.kind, self.labels.names
        return SentenceSpec(
            kind=kind,
            names=names,
            texts=self.table.texts,
            tokenizer=self.tokenizer.digest(),
            dictionary=dictionary_digest(dictionary.symbols),
            tokenizer_name=self.tokenizer.name,
            metric=stated.metric if stated and stated.kind == kind else DEFAULT_METRICS[kind],
            positive=stated.positive if stated and stated.positive in names else None,
            max_tokens=self.max_tokens,
        )


def check_options(args: argparse.Namespace, table: TableFormat) -> dict[str, list[str]]:
    """Files of the given splits, by split, training first.

    Raises:
        ValueError: no file, no training file without ``--like``, or options that contradict each other.
        FileNotFoundError: a missing file.
    """
    files = {split: getattr(args, split) for split in SPLITS if getattr(args, split)}
    if not files:
        raise ValueError("no files to prepare; give --train, --valid or --test")
    if "train" not in files and not args.like:
        raise ValueError(
            "without --train there is no dictionary and there are no classes; give --like and the folder of the training data"
        )
    if args.like and args.full_dictionary:
        raise ValueError("--like takes the dictionary of a folder; leave --full-dictionary out, or --like")
    if args.classes and table.kind != CLASSES:
        raise ValueError(f"--classes names classes, but the labels are {table.kind}; leave it out")
    for name in (name for names in files.values() for name in names):
        if not Path(name).is_file():
            raise FileNotFoundError(f"`{name}` does not exist, or is no file. Check its path")
    return files


def most_tokens(tokenizer: HfTokenizer, texts: int, max_tokens: int) -> int:
    """Most tokens of a row, ends of sentence included, such that the encoder's input has at most ``max_tokens``.

    Raises:
        ValueError: nothing of the texts would be left.
    """
    text_format = tokenizer.text_format()
    # of a pair the separator between the texts stands for the first one's end of sentence
    special = len(text_format.prefix) + (len(text_format.middle) - 1 if texts == 2 else 0)
    least = special + 2 * texts  # a token and the end of each text
    if max_tokens < least:
        raise ValueError(
            f"--max-tokens must be at least {least} for rows of {texts} texts with this tokenizer's special tokens, got "
            f"{max_tokens}"
        )
    return max_tokens - special


def make_plan(args: argparse.Namespace, table: TableFormat) -> Plan:
    """Load tokenizer and dictionary.

    Raises:
        ValueError: options or a folder of ``--like`` that do not fit tokenizer and files.
    """
    like = read_spec(args.like) if args.like else None
    tokenizer = HfTokenizer(args.tokenizer)
    max_tokens = args.max_tokens
    if max_tokens is None:
        max_tokens = (like and like.max_tokens) or DEFAULT_MAX_TOKENS
    limit = most_tokens(tokenizer, table.texts, max_tokens)
    dictionary = full_dictionary(tokenizer) if args.full_dictionary else None
    names = tuple(name.strip() for name in args.classes.split(",")) if args.classes else ()
    if like is not None:
        check_tokenizer(f"--like `{args.like}`", like.tokenizer, tokenizer.digest(), args.tokenizer)
        _check_kind(args, like, table)
        dictionary = load_dictionary(args.like, like)
        names = like.names or names
    labels = labels_for(table.kind, table.preset, names)
    return Plan(table, labels, tokenizer, like, dictionary, max_tokens, limit)


def _check_kind(args: argparse.Namespace, like: SentenceSpec, table: TableFormat) -> None:
    """Check the labels of the folder of ``--like`` against those of the files."""
    if UNLABELLED not in (like.kind, table.kind) and like.kind != table.kind:
        raise ValueError(
            f"--like `{args.like}` has labels that are {like.kind}, these files have {table.kind}; give a folder of the same "
            "task"
        )
    if args.classes and like.names:
        raise ValueError(f"--like `{args.like}` has classes already; leave --classes out, or --like")


class Scanned:
    """A split that was read once and found right.

    Attributes:
        files: its files.
        rows: number of rows.
        labels: ``(rows,)`` int64 class numbers or float64 numbers; None if unlabelled.
        left_out: lines of faulty rows, by file.
        fault: what is wrong with the first of them.
    """

    def __init__(self, files: Sequence[str]):
        self.files = files
        self.rows = 0
        self.labels: NDArray[Any] | None = None
        self.left_out: dict[str, set[int]] = {path: set() for path in files}
        self.fault = ""

    def leave_out(self, path: str, line: int, fault: str) -> None:
        """Note a faulty row."""
        self.left_out[path].add(line)
        self.fault = self.fault or fault

    def rows_of(self, path: str, table: TableFormat) -> Iterator[Row]:
        """Rows of a file but those that are left out."""
        for row in read_rows(path, table, labelled=False, faulty=lambda _line, _fault: None):
            if row.line not in self.left_out[path]:
                yield row


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
    scanned, values = Scanned(files), array("d")
    learned = not labels.names and table.kind == CLASSES
    quoted = 0
    first_lines: list[tuple[str, Row]] = []
    for path in files:
        before = scanned.rows
        leave_out = functools.partial(scanned.leave_out, path) if drop_faulty else None
        for row in read_rows(path, table, split != "test", leave_out):
            if table.kind != UNLABELLED and row.label is not None:
                try:
                    values.append(labels.read(path, row))
                except ValueError as error:
                    if leave_out is None:
                        raise
                    leave_out(row.line, str(error))
                    continue
            scanned.rows += 1
            quoted += _looks_quoted(row)
            if row.line == 1:
                first_lines.append((path, row))
        if scanned.rows == before:
            raise ValueError(
                f"`{path}` has no row that is not faulty; the first: {scanned.fault}"
                if scanned.left_out[path]
                else f"`{path}` has a header and no row below it; give a file with at least one row"
            )
    if dropped := sum(map(len, scanned.left_out.values())):
        print(
            f"warning: {dropped:,} faulty rows of {split} are left out (--drop-faulty); the first: {scanned.fault}"
        )
    if quoted and table.quoting == "none":
        print(
            f"warning: {quoted:,} of {scanned.rows:,} rows of {split} have a text in double quotes, with doubled ones inside, as "
            "pandas and spreadsheets write them; they stay in the text, but --quoting double reads them as quotes"
        )
    if table.kind == UNLABELLED or not values:
        return scanned
    if len(values) != scanned.rows:
        raise ValueError(
            f"some files of --{split} have labels and some have none ({', '.join(files)}); give them as separate splits"
        )
    numbers = np.frombuffer(values, np.float64)
    scanned.labels = numbers.copy() if table.kind == NUMBERS else numbers.astype(np.int64)
    final = labels.close()
    if final is not None:
        scanned.labels = final[scanned.labels]
    if learned:
        if table.takes_first_line:
            _check_first_lines(first_lines, scanned.labels, labels)
        _warn_of_case(labels.names)
    return scanned


def _looks_quoted(row: Row) -> bool:
    """Whether a text is written as a csv writer writes one that holds quotation marks: ``"a ""fine"" film"``."""
    return any(
        len(text) > 2 and text[0] == text[-1] == '"' and '""' in text[1:-1] and text.count('"') % 2 == 0
        for text in row.texts
    )


def _check_first_lines(first_lines: Sequence[tuple[str, Row]], numbers: NDArray[Any], labels: Labels) -> None:
    """Refuse first lines whose class no other row has, where all other classes have more: a header of unknown words."""
    counts = np.bincount(numbers, minlength=len(labels.names))
    path, first = first_lines[0]
    same = all(row.label == first.label for _, row in first_lines)
    rare = counts <= len(first_lines)
    if same and rare.sum() == 1 and rare[labels.names.index(str(first.label))]:
        raise ValueError(
            f"`{path}`, line 1: no other row has the label `{first.label}`, so the line is probably a header. If it is, give "
            "--header, or names of columns; if it is not, name all classes with --classes"
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


# ---------------------------------------------------------------- the work


def write(plan: Plan, folder: Path, scanned: Mapping[str, Scanned]) -> None:
    """Tokenise all splits and write the folder."""
    from fairseq_bert_kd.cli import sentence_folder

    dictionary, classes, counts = plan.dictionary, _class_dictionary(plan.labels, scanned), {}
    training = None
    with sentence_folder.new_folder(folder) as temporary:
        for name, found in scanned.items():
            numbering = PieceNumbers(dictionary)
            split = tokenise(found, plan.table, plan.tokenizer, numbering, name)
            if dictionary is None:  # of the training text, which comes first
                dictionary, final = numbering.finish()
                split.renumber(final)
            lengths = longest_first(split.lengths(), plan.limit)
            hashes = sentence_folder.write_split(temporary, split, lengths, dictionary, classes)
            counts[name] = _counts(split, lengths)
            _report(plan, split, counts[name], lengths)
            _warn_of_unknown(name, numbering.unknown, counts[name])
            training = _compare_with_training(name, hashes, training)
        for number in range(plan.table.texts):
            sentence_folder.write_dictionary(temporary, f"input{number}", dictionary)
        if plan.labels.kind == CLASSES:
            sentence_folder.write_dictionary(temporary, "label", classes)
        write_labels(temporary, plan.spec(dictionary), counts)
    print(f"dictionary: {len(dictionary):,} symbols")


def _class_dictionary(labels: Labels, scanned: Mapping[str, Scanned]) -> Any:
    """fairseq's dictionary of the classes, in the order of their numbers, with counts of the first labelled split."""
    from fairseq.data import Dictionary

    dictionary = Dictionary()
    values = next((split.labels for split in scanned.values() if split.labels is not None), np.zeros(0))
    for number, name in enumerate(labels.names):
        dictionary.add_symbol(name, int((values == number).sum()))
    return dictionary


class PieceNumbers:
    """Pieces as ids of a dictionary, or, where there is none yet, as provisional ids in the order of their appearance.

    Args:
        dictionary: fairseq's; None to make one.

    Attributes:
        unknown: pieces that the dictionary does not have.
    """

    def __init__(self, dictionary: Any):
        self.unknown = 0
        self._unk = -1 if dictionary is None else dictionary.unk()
        self._ids: dict[str, int] = {} if dictionary is None else dictionary.indices
        self._growing = dictionary is None
        self._counts: Counter[int] = Counter()

    def ids(self, pieces: Sequence[str]) -> list[int]:
        """Ids of the pieces of a text."""
        if self._growing:
            ids = [self._ids.setdefault(piece, len(self._ids)) for piece in pieces]
            self._counts.update(ids)
            return ids
        ids = [self._ids.get(piece, self._unk) for piece in pieces]
        self.unknown += ids.count(self._unk)
        return ids

    def finish(self) -> tuple[Any, NDArray[np.int64]]:
        """A dictionary of the pieces so far, frequent ones first, and the final id of each provisional one."""
        from fairseq.data import Dictionary

        dictionary = Dictionary()
        for piece, number in self._ids.items():
            dictionary.add_symbol(piece, self._counts[number])
        dictionary.finalize(padding_factor=1)
        return dictionary, np.array([dictionary.index(piece) for piece in self._ids], np.int64)


def tokenise(
    scanned: Scanned, table: TableFormat, tokenizer: HfTokenizer, numbering: PieceNumbers, name: str
) -> Any:
    """A split's texts as ids, a `sentence_folder.Split`.

    Raises:
        ValueError: a text of which the tokenizer leaves nothing.
    """
    from fairseq_bert_kd.cli.sentence_folder import Split, Texts

    split = Split(name, [Texts() for _ in range(table.texts)], scanned.labels)
    with tqdm(total=scanned.rows, desc=name, unit=" rows", unit_scale=True) as progress:
        for path in scanned.files:
            for chunk in _chunks(scanned.rows_of(path, table)):
                for column, side in enumerate(split.texts):
                    pieces = tokenizer.encode_batch([row.texts[column] for row in chunk])
                    for row, symbols in zip(chunk, pieces, strict=True):
                        _check_left(path, row, column, symbols)
                        side.append(numbering.ids(symbols))
                progress.update(len(chunk))
    return split


def _check_left(path: str, row: Row, column: int, pieces: Sequence[str]) -> None:
    if not pieces:
        raise ValueError(
            f"`{path}`, line {row.line:,}: the tokenizer leaves nothing of {row.texts[column]!r}. Remove the line"
        )


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while chunk := list(islice(rows, CHUNK_ROWS)):
        yield chunk


# ---------------------------------------------------------------- what is said about it


def _counts(split: Any, lengths: NDArray[np.int64]) -> dict[str, int]:
    cut = (split.lengths() - lengths).sum(axis=1)  # (rows,) tokens
    return {
        "rows": len(split),
        "tokens": int(lengths.sum()),
        "truncated": int((cut > 0).sum()),
        "tokens_cut": int(cut.sum()),
    }


def _report(plan: Plan, split: Any, counts: Mapping[str, int], lengths: NDArray[np.int64]) -> None:
    sizes = lengths.sum(axis=1)
    said = (
        f"{split.name}: {counts['rows']:,} rows, {counts['tokens']:,} tokens (mean {sizes.mean():.1f}, longest {sizes.max()})",
        f"{counts['truncated']:,} rows cut to {plan.max_tokens} tokens",
        "no labels" if split.labels is None else plan.labels.describe(split.labels),
    )
    print("; ".join(said))


def _warn_of_unknown(name: str, unknown: int, counts: Mapping[str, int]) -> None:
    if unknown:
        print(
            f"warning: {unknown:,} of {counts['tokens']:,} pieces of {name} are not in the dictionary; --full-dictionary has all"
        )


def _compare_with_training(
    name: str, hashes: NDArray[np.uint64], training: NDArray[np.uint64] | None
) -> NDArray[np.uint64] | None:
    """Warn of rows that are in the training data too; gives the training data's rows, one number each."""
    keys = hashes[:, 0] if hashes.shape[1] == 1 else hashes[:, 0] * np.uint64(3) + hashes[:, 1]
    if name == "train":
        return keys
    if training is not None and (shared := int(np.isin(keys, training).sum())):
        print(
            f"warning: {shared:,} of {len(keys):,} rows of {name} have the same text as a row of train; scores on them say "
            "little"
        )
    return training
