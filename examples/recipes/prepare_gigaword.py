"""Gigaword headlines from the official files, with the paper's own dev and test-dev sets.

The paper draws 5,000 pairs each for dev and test-dev from the validation set, because the official test differs from
it. Which pairs it drew is not released: the draw here is ours, a function of ``--sample-seed`` and the pairs' numbers.
Run by ../gigaword/task.yaml.
"""

import hashlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from corpus import Pair, corpus_parser, is_there, parallel, read_lines, run, write_corpus, write_split

LANGUAGES = ("article", "title")
# the two layouts in which the same pairs are handed on: article and title of train, valid and test
LAYOUTS = [
    [(f"{split}.src.txt", f"{split}.tgt.txt") for split in ("train", "dev", "test")],
    [
        ("train/train.article.txt", "train/train.title.txt"),
        ("train/valid.article.filter.txt", "train/valid.title.filter.txt"),
        ("Giga/input.txt", "Giga/task1_ref0.txt"),
    ],
]
UNKNOWN_WORD = re.compile(r"(?<!\S)UNK(?!\S)")  # the test set's name for it; the training set has <unk>


def layout_of(folder: Path) -> list[tuple[str, str]]:
    """Names of the files in ``folder``.

    Raises:
        FileNotFoundError: no known layout.
    """
    for layout in LAYOUTS:
        if is_there(folder / layout[0][0]):
            return layout
    firsts = " or ".join(layout[0][0] for layout in LAYOUTS)
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
    ends = list(itertools.accumulate(sizes))
    return [sorted(drawn[end - size : end]) for end, size in zip(ends, sizes, strict=True)]


def main() -> None:
    parser = corpus_parser(__doc__)
    parser.add_argument("folder", type=Path, help="org_data/ of UniLM's, or sumdata/ of the first release")
    parser.add_argument("--sample-pairs", type=int, default=5000, help="of dev and of test-dev (the paper's)")
    parser.add_argument("--sample-seed", type=int, default=1, help="of the draw (ours)")
    args = parser.parse_args()
    train, held_out, test = (pairs(args.folder, names) for names in layout_of(args.folder))
    both_sides = (pair for pair in train if pair.source and pair.target)
    write_corpus(args, LANGUAGES, train=both_sides, test=test)
    known = list(held_out)
    numbers = sample(len(known), [args.sample_pairs] * 2, args.sample_seed)
    (args.out / "reference").mkdir(parents=True, exist_ok=True)
    for name, chosen in zip(("valid", "testdev"), numbers, strict=True):
        write_split(args.out, name, LANGUAGES, (known[number] for number in chosen), args.valid_pairs)
        lines = "".join(f"{number}\n" for number in chosen)
        (args.out / f"reference/{name}.numbers").write_text(lines, encoding="utf-8")  # from 0


if __name__ == "__main__":
    run(main)
