"""``fairseq-bert-kd prepare-sentences``: files of sentences and labels as a data folder for fairseq."""

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.cli.sentence_labels import Labels, labels_for
from fairseq_bert_kd.cli.sentence_pieces import PieceNumbers, most_tokens, tokenise
from fairseq_bert_kd.cli.sentence_scan import Scanned, scan
from fairseq_bert_kd.cli.sentence_table import TableFormat, add_format_arguments, table_format
from fairseq_bert_kd.compat import require_fairseq
from fairseq_bert_kd.functional.truncation import longest_first
from fairseq_bert_kd.storage.fairseq_data import dictionary_digest
from fairseq_bert_kd.storage.sentence_data import (
    CLASSES,
    NUMBERS,
    UNLABELLED,
    SentenceSpec,
    check_tokenizer,
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
        spec = plan.spec(dictionary)
        for side in spec.sides:
            sentence_folder.write_dictionary(temporary, side, dictionary)
        if spec.kind == CLASSES:
            sentence_folder.write_dictionary(temporary, "label", classes)
        write_labels(temporary, spec, counts)
    print(f"dictionary: {len(dictionary):,} symbols")


def _class_dictionary(labels: Labels, scanned: Mapping[str, Scanned]) -> Any:
    """fairseq's dictionary of the classes, in the order of their numbers, with counts of the first labelled split."""
    from fairseq.data import Dictionary

    dictionary = Dictionary()
    values = next((split.labels for split in scanned.values() if split.labels is not None), np.zeros(0))
    for number, name in enumerate(labels.names):
        dictionary.add_symbol(name, int((values == number).sum()))
    return dictionary


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
