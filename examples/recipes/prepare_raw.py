"""A part of a raw corpus: two files side by side, or columns of a table; all packed or not.

Run by the workflow for tasks whose text needs no other preparation.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from corpus import Pair, add_part_arguments, count, parallel, read_lines, run, short_enough, write_split


def pairs(
    folder: Path, split: str, languages: tuple[str, str], table: bool, words: int | None
) -> Iterator[Pair]:
    """Pairs of a split.

    Raises:
        ValueError: a line of a table has not two columns, or one file is longer.
    """
    if table:
        sides: Iterator[tuple[str, ...]] = (
            tuple(line.split("\t")) for line in read_lines(folder / f"{split}.tsv")
        )
    else:
        left, right = (read_lines(folder / f"{split}.{language}") for language in languages)
        sides = parallel(left, right, f"{folder}/{split}")
    for number, columns in enumerate(sides, 1):
        if len(columns) < 2:
            raise ValueError(
                f"{folder}/{split}.tsv, line {number:,}: must be source TAB target, got {columns[0]!r}"
            )
        source = columns[0]
        if words is not None:
            source = " ".join(re.split("[ \t]+", source.strip(" \t"))[:words])
        yield Pair(source, columns[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with SPLIT.LANGUAGE or SPLIT.tsv, or with .gz"
    )
    parser.add_argument("--languages", nargs=2, required=True, metavar=("SOURCE", "TARGET"))
    parser.add_argument("--splits", nargs="+", default=["train", "valid", "test"])
    parser.add_argument("--table", action="store_true", help="read SPLIT.tsv: source TAB target")
    parser.add_argument(
        "--source-words", type=count, default=None, help="cut sources to so many words (or all)"
    )
    parser.add_argument("--out", type=Path, default=Path("."), help="gets text/")
    add_part_arguments(parser)
    args = parser.parse_args()
    languages = tuple(args.languages)
    limits = {"train": args.pairs, "valid": args.valid_pairs}
    for split in args.splits:
        found = pairs(args.data, split, languages, args.table, args.source_words)
        if split in limits:
            found = short_enough(found, args.max_words)
        write_split(args.out, split, languages, found, limits.get(split, args.test_pairs))


if __name__ == "__main__":
    run(main)
