"""A part of a raw corpus: two files side by side, or columns of a table; all packed or not.

Run by the workflow for tasks whose text needs no other preparation.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from corpus import Pair, corpus_parser, count, is_there, parallel, read_lines, run, write_corpus


def pairs(
    folder: Path, split: str, languages: Sequence[str], table: bool, words: int | None
) -> Iterator[Pair]:
    """Pairs of a split.

    Raises:
        ValueError: a line of a table has not two columns, or one file is longer.
    """
    if table:
        sides: Iterator[Sequence[str]] = (line.split("\t") for line in read_lines(folder / f"{split}.tsv"))
    else:
        files = (read_lines(folder / f"{split}.{language}") for language in languages)
        sides = parallel(*files, f"{folder}/{split}")
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
    parser = corpus_parser(__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with SPLIT.LANGUAGE or SPLIT.tsv, or with .gz"
    )
    parser.add_argument("--languages", nargs=2, required=True, metavar=("SOURCE", "TARGET"))
    parser.add_argument(
        "--table",
        action="store_true",
        help="read SPLIT.tsv: source TAB target; so are they where there is no train.SOURCE",
    )
    parser.add_argument("--source-words", type=count, help="cut sources to so many words (or all)")
    args = parser.parse_args()
    table = args.table or (
        is_there(args.data / "train.tsv") and not is_there(args.data / f"train.{args.languages[0]}")
    )
    splits = {
        name: pairs(args.data, name, args.languages, table, args.source_words)
        for name in ("train", "valid", "test")
    }
    write_corpus(args, args.languages, **splits)


if __name__ == "__main__":
    run(main)
