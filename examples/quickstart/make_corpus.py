#!/usr/bin/env python3
"""Write a German-English parallel corpus of our own making, for the quickstart.

Every pair is built from one meaning by two small grammars, so the corpus needs no download and no licence. The same
seed gives the same bytes on every Python version. No German sentence appears twice, in any split.

Example:
    python examples/quickstart/make_corpus.py --out /tmp/corpus --seed 1
"""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # the sibling modules, from wherever this is run

from clauses import Pair
from sentences import sentence
from speaker import Speaker

logger = logging.getLogger("make_corpus")

MIN_WORDS, MAX_WORDS = 4, 27  # on either side, the closing mark not counted
PATIENCE = 50  # draws per wanted pair before giving up on finding new sentences


def make_pairs(count: int, seed: int) -> list[Pair]:
    """``count`` pairs with distinct German sides, in random order of patterns.

    Raises:
        ValueError: if the grammar does not yield that many distinct sentences.
    """
    speaker = Speaker(seed)
    pairs: dict[str, str] = {}
    for _ in range(count * PATIENCE):
        if len(pairs) == count:
            break
        german, english = sentence(speaker)
        lengths = len(german.split()), len(english.split())
        if german not in pairs and min(lengths) >= MIN_WORDS and max(lengths) <= MAX_WORDS:
            pairs[german] = english
    if len(pairs) < count:
        raise ValueError(
            f"found only {len(pairs)} distinct sentences of the {count} asked for; "
            "ask for fewer with --train, --valid and --test"
        )
    return list(pairs.items())


def write_corpus(out: Path, sizes: dict[str, int], seed: int, overwrite: bool = False) -> list[Path]:
    """Write ``{split}.de`` and ``{split}.en`` for every split.

    Args:
        out: folder, made if missing.
        seed: of the whole corpus.
        overwrite: whether files that exist are replaced.
        sizes: pairs per split, in the order in which they are drawn.

    Raises:
        FileExistsError: if a file is there already and ``overwrite`` is False.
        ValueError: for a negative size, or more pairs than the grammar yields.
    """
    for split, size in sizes.items():
        if size < 0:
            raise ValueError(f"--{split} is {size}; a number of pairs cannot be negative")
    paths = [out / f"{split}.{language}" for split in sizes for language in ("de", "en")]
    existing = [str(path) for path in paths if path.exists()]
    if existing and not overwrite:
        raise FileExistsError(
            f"{', '.join(existing)} already there; give --overwrite to replace, or another --out"
        )
    pairs = make_pairs(sum(sizes.values()), seed)
    out.mkdir(parents=True, exist_ok=True)
    start = 0
    for split, size in sizes.items():
        for side, language in enumerate(("de", "en")):
            lines = [pair[side] + "\n" for pair in pairs[start : start + size]]
            (out / f"{split}.{language}").write_bytes("".join(lines).encode("utf-8"))
        start += size
    return paths


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the six files; made if missing")
    parser.add_argument("--seed", type=int, default=1, help="another seed gives another corpus (default: 1)")
    parser.add_argument("--train", type=int, default=18000, help="training pairs (default: 18000)")
    parser.add_argument("--valid", type=int, default=500, help="validation pairs (default: 500)")
    parser.add_argument("--test", type=int, default=1000, help="test pairs (default: 1000)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are already there")
    return parser


def main(args: argparse.Namespace) -> None:
    sizes = {"train": args.train, "valid": args.valid, "test": args.test}
    write_corpus(args.out, sizes, args.seed, args.overwrite)
    counts = ", ".join(f"{size} {split}" for split, size in sizes.items())
    logger.info("wrote %d pairs to %s (%s; seed %d)", sum(sizes.values()), args.out, counts, args.seed)


def cli_main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        main(get_parser().parse_args())
    except (FileExistsError, ValueError) as error:
        print(f"make_corpus: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(cli_main())
