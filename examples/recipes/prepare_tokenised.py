"""Corpora that come in Moses's tokens (IWSLT15 En-Vi, WMT14 En-De): escapes and split hyphens go, references stay.

Files of subwords (``.bpe.`` in their names) are joined to words again. Run by the recipes.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from corpus import Pair, add_part_arguments, parallel, read_lines, run, short_enough, write_split
from moses_text import readable

SUBWORD_MARK = re.compile(r"@@( |$)")


def token_lines(prefix: str, language: str) -> Iterator[str]:
    """Lines of ``PREFIX.LANGUAGE`` in Moses's tokens, or of the same in subwords where only that is there."""
    plain, subwords = f"{prefix}.{language}", f"{prefix}.bpe.32000.{language}"
    if not any(Path(f"{plain}{packed}").exists() for packed in ("", ".gz")) and Path(subwords).exists():
        prefix = f"{prefix}.bpe.32000"
    in_subwords = ".bpe." in Path(prefix).name
    for line in read_lines(f"{prefix}.{language}"):
        yield " ".join((SUBWORD_MARK.sub("", line) if in_subwords else line).split())


def pairs(prefix: str, languages: tuple[str, str], raw: Path | None = None) -> Iterator[Pair]:
    """Pairs of two files; ``raw`` is the target before tokenisation, where there is one."""
    sides = parallel(token_lines(prefix, languages[0]), token_lines(prefix, languages[1]), prefix)
    if raw is None:
        for source, target in sides:
            yield Pair(readable(source), readable(target), tokens=target)
    else:
        raw_lines = read_lines(raw)
        for (source, target), line in parallel(sides, raw_lines, f"{prefix} and {raw}"):
            yield Pair(readable(source), readable(target), tokens=target, raw=line)


def training_pairs(prefix: str, languages: tuple[str, str]) -> Iterator[Pair]:
    """Pairs with text on both sides, without references."""
    for pair in pairs(prefix, languages):
        if pair.source and pair.target:
            yield Pair(pair.source, pair.target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("train", "valid", "test"):
        parser.add_argument(f"--{name}", required=True, metavar="PREFIX", help="files PREFIX.LANGUAGE")
    for name in ("valid", "test"):
        parser.add_argument(f"--{name}-raw", type=Path, metavar="FILE", help="its target before tokenisation")
    parser.add_argument("--languages", nargs=2, required=True, metavar=("SOURCE", "TARGET"))
    parser.add_argument("--out", type=Path, default=Path("."), help="gets text/ and reference/")
    add_part_arguments(parser)
    args = parser.parse_args()
    languages = tuple(args.languages)
    train = short_enough(training_pairs(args.train, languages), args.max_words)
    write_split(args.out, "train", languages, train, args.pairs)
    valid = short_enough(pairs(args.valid, languages, args.valid_raw), args.max_words)
    write_split(args.out, "valid", languages, valid, args.valid_pairs)
    write_split(args.out, "test", languages, pairs(args.test, languages, args.test_raw), args.test_pairs)


if __name__ == "__main__":
    run(main)
