"""Text of a task with few labels: a training set of its own for each draw, the task's validation and test set.

    python prepare_text.py --data DATA --task trec --draws 1 2 3 --out text

DATA holds TASK.train.tsv, TASK.dev.tsv and TASK.test.tsv, or the same with .gz: label TAB sentence, without a header. Training
sentences that stand in the validation or test set are left out, and validation sentences of the test set. Writes
train.DRAW.tsv (10 sentences of each class, drawn with the draw's number as seed, as the authors' later code does),
valid.tsv (as many, where there are so many, drawn from the validation set with seed 0), test.tsv, all.txt (all training
sentences, without labels: the text of the smoother, with --general more of it, without sentences of the validation and test
set), and SPLIT.sentence and SPLIT.label of valid and test for the report.
"""

import argparse
import random
from pathlib import Path

from fairseq_bert_kd.text_lines import open_lines, packed_or_not

HEADER = ("label", "sentence")


def read(data: Path, task: str, split: str) -> list[list[str]]:
    """Label and sentence of each row, lower-cased as in the authors' later code.

    Raises:
        ValueError: a row that is not a label and a sentence.
    """
    path = packed_or_not(data / f"{task}.{split}.tsv")
    rows = []
    for number, line in enumerate(open_lines(path), start=1):
        row = [cell.strip() for cell in line.split("\t")]
        if len(row) != len(HEADER) or not all(row):
            raise ValueError(
                f"{path}, line {number}: expected a label, a tab and a sentence, got {line[:60].rstrip()!r}; mend the line"
            )
        rows.append([row[0], row[1].lower()])
    return rows


def further_text(files: list[Path], number: str, evaluated: set[str]) -> list[str]:
    """So many lines of files of text, or all, lower-cased and in random order, without those of the evaluation sets."""
    lines = [line.strip().lower() for path in files for line in open_lines(path)]
    lines = [line for line in lines if line and line not in evaluated]
    random.Random(0).shuffle(lines)
    return lines if number == "all" else lines[: int(number)]


def drawn(rows: list[list[str]], per_class: int, seed: int) -> list[list[str]]:
    """``per_class`` rows of each label, or all where there are fewer, in random order."""
    rng = random.Random(seed)
    labels = sorted({label for label, _ in rows})
    by_label = [[row for row in rows if row[0] == label] for label in labels]
    chosen = [row for group in by_label for row in rng.sample(group, min(per_class, len(group)))]
    rng.shuffle(chosen)
    return chosen


def write_table(path: Path, rows: list[list[str]]) -> None:
    lines = ["\t".join(row) for row in ([*HEADER], *rows)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_columns(folder: Path, split: str, rows: list[list[str]]) -> None:
    """One file per column, as the report reads them."""
    for place, column in enumerate(HEADER):
        text = "".join(f"{row[place]}\n" for row in rows)
        (folder / f"{split}.{column}").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--draws", type=int, nargs="+", required=True)
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument(
        "--general", type=Path, nargs="*", default=[], help="files of further text for the smoother"
    )
    parser.add_argument("--general-rows", default="all", help="lines of that text, or all")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    train, valid, test = (read(args.data, args.task, split) for split in ("train", "dev", "test"))
    seen = {sentence for _, sentence in test}
    valid = [row for row in valid if row[1] not in seen]
    seen |= {sentence for _, sentence in valid}
    kept = [row for row in train if row[1] not in seen]
    print(
        f"{len(train) - len(kept)} of {len(train)} training sentences stand in the validation or test set and are left out"
    )
    train, valid = kept, drawn(valid, args.per_class, 0)
    for draw in args.draws:
        write_table(args.out / f"train.{draw}.tsv", drawn(train, args.per_class, draw))
    text = [sentence for _, sentence in train] + further_text(args.general, args.general_rows, seen)
    (args.out / "all.txt").write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
    (args.out / "all.valid.txt").write_text("".join(f"{s}\n" for _, s in valid), encoding="utf-8")
    for split, rows in (("valid", valid), ("test", test)):
        write_table(args.out / f"{split}.tsv", rows)
        write_columns(args.out, split, rows)


if __name__ == "__main__":
    main()
