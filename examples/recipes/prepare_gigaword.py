"""Gigaword headlines from the official files, with the paper's own dev and test-dev sets.

The paper draws 5,000 pairs each for dev and test-dev from the validation set, because the official test differs from
it. Which pairs it drew is not released: the draw here is ours, a function of ``--sample-seed`` and the pairs' numbers.
Run by ../gigaword/task.yaml.
"""

import argparse
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from corpus import Pair, add_part_arguments, count, parallel, read_lines, run, short_enough, write_split

LANGUAGES = ("article", "title")
# the two layouts in which the same pairs are handed on: article and title of each split
LAYOUTS = {
    "org_data": {
        "train": ("train.src.txt", "train.tgt.txt"),
        "valid": ("dev.src.txt", "dev.tgt.txt"),
        "test": ("test.src.txt", "test.tgt.txt"),
    },
    "sumdata": {
        "train": ("train/train.article.txt", "train/train.title.txt"),
        "valid": ("train/valid.article.filter.txt", "train/valid.title.filter.txt"),
        "test": ("Giga/input.txt", "Giga/task1_ref0.txt"),
    },
}
UNKNOWN_WORD = re.compile(r"(?<!\S)UNK(?!\S)")  # the test set's name for it; the training set has <unk>


def layout_of(folder: Path) -> dict[str, tuple[str, str]]:
    """Names of the files in ``folder``.

    Raises:
        FileNotFoundError: no known layout.
    """
    for layout in LAYOUTS.values():
        if any((folder / f"{layout['train'][0]}{ending}").exists() for ending in ("", ".gz")):
            return layout
    firsts = " or ".join(layout["train"][0] for layout in LAYOUTS.values())
    raise FileNotFoundError(
        f"`{folder}` must hold {firsts} (or .gz), but does not. Give the folder that does."
    )


def pairs(folder: Path, names: tuple[str, str]) -> Iterator[Pair]:
    """Articles and titles, with ``<unk>`` for unknown words."""
    sides = (read_lines(folder / name) for name in names)
    for article, title in parallel(*sides, " and ".join(names)):
        yield Pair(*(UNKNOWN_WORD.sub("<unk>", " ".join(line.split())) for line in (article, title)))


def sample(total: int, sizes: list[int], seed: int) -> list[list[int]]:
    """Disjoint random sets of sentence numbers, each in ascending order.

    A number's place in the draw is a hash of seed and number, so that every Python gives the same.

    Raises:
        ValueError: more are wanted than there are.
    """
    if sum(sizes) > total:
        raise ValueError(
            f"dev and test-dev take {sum(sizes):,} pairs of the validation set, which has {total:,}. "
            "Give a smaller --sample-pairs, or the whole validation set."
        )
    drawn = sorted(range(total), key=lambda number: hashlib.sha256(f"{seed} {number}".encode()).digest())
    sets, start = [], 0
    for size in sizes:
        sets.append(sorted(drawn[start : start + size]))
        start += size
    return sets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder", type=Path, help="org_data/ of UniLM's archive, or sumdata/ of the first release"
    )
    parser.add_argument("--out", type=Path, default=Path("."), help="gets text/ and reference/")
    parser.add_argument(
        "--sample-pairs", type=count, default=5000, help="of dev and of test-dev (the paper: 5,000)"
    )
    parser.add_argument("--sample-seed", type=int, default=1, help="of the draw (ours)")
    add_part_arguments(parser)
    args = parser.parse_args()
    if args.sample_pairs is None:
        parser.error("--sample-pairs must be a number; the validation set is shared by two sets")
    files = layout_of(args.folder)
    train = (pair for pair in pairs(args.folder, files["train"]) if pair.source and pair.target)
    write_split(args.out, "train", LANGUAGES, short_enough(train, args.max_words), args.pairs)
    held_out = list(pairs(args.folder, files["valid"]))
    numbers = sample(len(held_out), [args.sample_pairs] * 2, args.sample_seed)
    (args.out / "reference").mkdir(parents=True, exist_ok=True)
    for name, chosen in zip(("valid", "testdev"), numbers, strict=True):
        write_split(args.out, name, LANGUAGES, (held_out[number] for number in chosen), args.valid_pairs)
        lines = "".join(f"{number}\n" for number in chosen)
        (args.out / f"reference/{name}.numbers").write_text(lines, encoding="utf-8")  # from 0
    write_split(args.out, "test", LANGUAGES, pairs(args.folder, files["test"]), args.test_pairs)


if __name__ == "__main__":
    run(main)
