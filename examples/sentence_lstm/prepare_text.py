"""Text of a task with pairs or single sentences, as tables and as lines for the report.

    python prepare_text.py --data DATA --task stsb --destdir text

A table has the columns label and sentence, or label and two sentences. The validation set is the task's own (`dev`) where the
task has a test set with labels, else every tenth row of the training set, and `dev` is the test set.
"""

import argparse
import random
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from fairseq_bert_kd.text_lines import open_lines


class Files(NamedTuple):
    """Files of a task.

    Attributes:
        train, valid, test: paths below the data folder; valid is empty if there is none.
        header: whether they begin with a header.
        label: column of the label.
        texts: columns of the sentences.
        names: names of the labels; empty for numbers and for names in the files.
    """

    train: str
    valid: str
    test: str
    header: bool
    label: int
    texts: tuple[int, ...]
    names: dict[str, str] = {}


TASKS = {
    "stsb": Files(
        "glue/STS-B/sts-train.csv.gz", "glue/STS-B/sts-dev.csv.gz", "glue/STS-B/sts-test.csv.gz", False, 4, (5, 6)
    ),
    "sst2": Files(
        "glue/SST-2/train.tsv.gz", "glue/SST-2/dev.tsv.gz", "glue/SST-2/test.tsv.gz", True, 0, (1,),
        {"0": "negative", "1": "positive"},
    ),
    "mrpc": Files(
        "glue/MRPC/msr_paraphrase_train.txt.gz", "", "glue/MRPC/msr_paraphrase_test.txt.gz", True, 0, (3, 4),
        {"0": "not_equivalent", "1": "equivalent"},
    ),
    "rte": Files("glue/RTE/train.tsv.gz", "", "glue/RTE/dev.tsv.gz", True, 3, (1, 2)),
}  # fmt: skip
VALID_SHARE = 10  # one row of so many, where a task has no validation set beside its test set


def rows_of(path: Path, files: Files) -> list[list[str]]:
    """Label and sentences of each row."""
    rows = []
    for number, line in enumerate(open_lines(path)):
        if number == 0 and files.header:
            continue
        fields = line.split("\t")
        label = fields[files.label]
        rows.append([files.names.get(label, label), *(fields[column].strip() for column in files.texts)])
    return rows


def splits_of(data: Path, files: Files) -> dict[str, list[list[str]]]:
    train, test = rows_of(data / files.train, files), rows_of(data / files.test, files)
    if files.valid:
        valid = rows_of(data / files.valid, files)
    else:
        valid = train[::VALID_SHARE]
        train = [row for place, row in enumerate(train) if place % VALID_SHARE]
    evaluated = {tuple(row[1:]) for row in (*valid, *test)}
    return {"train": [row for row in train if tuple(row[1:]) not in evaluated], "valid": valid, "test": test}


def draw(rows: list[list[str]], number: int, seed: int) -> list[list[str]]:
    """So many rows, as many of each label as there are."""
    by_label: dict[str, list[list[str]]] = {}
    for row in rows:
        by_label.setdefault(row[0], []).append(row)
    rng, found = random.Random(seed), []
    for place, label in enumerate(sorted(by_label)):
        share = (number - len(found)) // (len(by_label) - place)
        found += rng.sample(by_label[label], min(share, len(by_label[label])))
    rng.shuffle(found)
    return found


def unlabelled(rows: list[list[str]], draws: Iterable[list[list[str]]]) -> list[list[str]]:
    """Rows whose sentences no draw has, each sentence once and all with one label."""
    drawn = {tuple(row[1:]) for rows in draws for row in rows}
    label = min(row[0] for row in rows)
    return [
        [label, *sentences]
        for sentences in dict.fromkeys(tuple(row[1:]) for row in rows)
        if sentences not in drawn
    ]


def write(path: Path, rows: list[list[str]]) -> None:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, type=Path, help="folder with the tasks' files")
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument("--destdir", required=True, type=Path)
    parser.add_argument("--test-rows", type=int, help="of validation and test set (default: all)")
    parser.add_argument("--train-rows", type=int, help="of the training set (default: all)")
    parser.add_argument(
        "--draws",
        type=int,
        nargs="*",
        default=[],
        help="seeds, each of a training set of its own, train.SEED.tsv",
    )
    parser.add_argument(
        "--unlabelled",
        action="store_true",
        help="write unlabelled.tsv: training rows that no draw has, all with the first label, which learning from predictions does not "
        "read",
    )
    args = parser.parse_args()
    files = TASKS[args.task]
    splits = splits_of(args.data, files)
    args.destdir.mkdir(parents=True, exist_ok=True)
    columns = (
        ["label", *(f"sentence{n}" for n in range(1, 3))] if len(files.texts) == 2 else ["label", "sentence"]
    )
    draws = {seed: draw(splits["train"], args.train_rows or 1000, seed) for seed in args.draws}
    for seed, rows in draws.items():
        write(args.destdir / f"train.{seed}.tsv", [columns, *rows])
    if args.unlabelled:
        write(args.destdir / "unlabelled.tsv", [columns, *unlabelled(splits["train"], draws.values())])
    if args.train_rows:
        splits["train"] = draw(splits["train"], args.train_rows, seed=0)
    for split, rows in splits.items():
        kept = rows if split == "train" else rows[: args.test_rows]
        write(args.destdir / f"{split}.tsv", [columns, *kept])
        write(args.destdir / f"{split}.label", [[row[0]] for row in kept])
        write(args.destdir / f"{split}.sentence", [[" ||| ".join(row[1:])] for row in kept])
        print(f"{split}: {len(kept):,} rows")


if __name__ == "__main__":
    main()
