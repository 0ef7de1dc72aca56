"""Text of the TinyBERT experiment: SST-2 as tables and as lines for the report, and unlabelled text for the general stage.

    python examples/tinybert/prepare_text.py --data SST-2 --train-rows 20000 --general a.txt b.txt.gz --general-rows 60000 --out text

SST-2 holds {train,dev,test}.tsv or the same with .gz: a header, then label TAB sentence. dev becomes valid, on which checkpoints
are chosen; figures are those of test. Training sentences that also stand in valid or test are left out. General lines are drawn
evenly from the files, without lines that stand in valid or test; the last 500 are its own validation set.
"""

import argparse
from pathlib import Path

import numpy as np

from fairseq_bert_kd.text_lines import open_lines, packed_or_not

NAMES = {"0": "negative", "1": "positive"}
SPLITS = {"train": "train", "dev": "valid", "test": "test"}
GENERAL_VALID = 500  # at most
WORDS = range(4, 61)  # of a general line; shorter ones say little, longer ones are seldom sentences


def rows_of(path: Path) -> list[tuple[str, str]]:
    """Label and sentence of each row.

    Raises:
        ValueError: a row has no label or no sentence.
    """
    rows = []
    for number, line in enumerate(open_lines(packed_or_not(path)), start=1):
        label, _, sentence = line.partition("\t")
        if number == 1 and label not in NAMES:
            continue  # the header
        if label not in NAMES or not sentence.strip():
            raise ValueError(
                f"{path}, line {number}: expected 0 or 1, a tab and a sentence, got {line[:60]!r}"
            )
        rows.append((label, sentence.strip()))
    return rows


def drawn(rows: list, number: str, seed: int) -> list:
    """So many rows, or all of them, in an order of their own."""
    order = np.random.default_rng(seed).permutation(len(rows))
    return [rows[i] for i in order[: len(rows) if number == "all" else int(number)]]


def general_lines(files: list[Path], number: int, known: set[str]) -> list[str]:
    """Lines of all files, as many of each as there are, without repetitions and what is known."""
    found: list[str] = []
    seen = set(known)
    for place, file in enumerate(files):
        share = (number - len(found)) // (len(files) - place)
        fresh: dict[str, str] = {}
        for line in open_lines(packed_or_not(file)):
            text = " ".join(line.split())
            if text.lower() not in seen and len(text.split()) in WORDS:
                fresh.setdefault(text.lower(), text)
        taken = drawn(list(fresh.values()), str(share), seed=place)
        seen |= {text.lower() for text in taken}
        found += taken
    return drawn(found, "all", seed=len(files))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--train-rows", default="all", help="training sentences, or all")
    parser.add_argument("--test-rows", default="all", help="validation and test sentences each, or all")
    parser.add_argument("--general", type=Path, nargs="*", default=[], help="files of unlabelled text")
    parser.add_argument("--general-rows", type=int, default=60000)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    splits = {name: rows_of(args.data / f"{file}.tsv") for file, name in SPLITS.items()}
    evaluated = {sentence.lower() for name in ("valid", "test") for _, sentence in splits[name]}
    fresh = [row for row in splits["train"] if row[1].lower() not in evaluated]
    left_out = len(splits["train"]) - len(fresh)
    splits["train"] = drawn(fresh, args.train_rows, seed=1)
    if args.test_rows != "all":
        splits |= {name: rows[: int(args.test_rows)] for name, rows in splits.items() if name != "train"}
    for name, rows in splits.items():
        columns = {
            "tsv": [f"{label}\t{sentence}" for label, sentence in rows],
            "sentence": [sentence for _, sentence in rows],
            "label": [NAMES[label] for label, _ in rows],
        }
        for ending, lines in columns.items():
            (args.out / f"{name}.{ending}").write_text(
                "".join(f"{line}\n" for line in lines), encoding="utf-8"
            )
        print(f"{name}: {len(rows):,} sentences")
    print(f"left out of train because they stand in valid or test: {left_out:,}")
    general = general_lines(args.general, args.general_rows, evaluated)
    cut = max(len(general) - GENERAL_VALID, int(0.9 * len(general)))
    for name, lines in (("train", general[:cut]), ("valid", general[cut:])):
        (args.out / f"general.{name}.txt").write_text(
            "".join(f"{line}\n" for line in lines), encoding="utf-8"
        )
        print(f"general.{name}: {len(lines):,} sentences")


if __name__ == "__main__":
    main()
