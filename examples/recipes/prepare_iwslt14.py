"""IWSLT14 German-English from its official files, as fairseq's prepare-iwslt14.sh makes it before subwords.

Moses tokens, training pairs of 1 to 175 tokens and at most 1.5 times as many on one side as on the other, lower
case, every 23rd training pair for validation, five official sets joined as test. Then the escapes go, as the paper's
authors have it. Run by ../iwslt14_de-en/task.yaml.
"""

import argparse
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from corpus import Pair, add_part_arguments, parallel, read_lines, run, short_enough, write_split
from moses_text import readable, tokenise

LANGUAGES = ("de", "en")
TEST_SETS = ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012")
LEFT_OUT = ("<url>", "<talkid>", "<keywords>")  # lines that are no text
TITLE = re.compile(r"</?(?:title|description)>")  # tags around lines that are
SEGMENT = re.compile(r'<seg id="[0-9]*">\s*|\s*</seg>\s*')
MAX_TOKENS, MAX_RATIO, MAX_LETTERS = (
    175,
    1.5,
    1000,
)  # clean-corpus-n.perl -ratio 1.5 ... 1 175, and its longest word
VALID_EVERY = 23


def training_lines(path: Path) -> Iterator[str]:
    """Sentences, titles and descriptions of a ``train.tags`` file."""
    for line in read_lines(path):
        if not any(tag in line for tag in LEFT_OUT):
            yield TITLE.sub("", line)


def segments(path: Path) -> Iterator[str]:
    """Segments of an ``.xml`` file."""
    return (SEGMENT.sub("", line) for line in read_lines(path) if "<seg id" in line)


def is_clean(source: str, target: str) -> bool:
    """Whether Moses's clean-corpus-n.perl keeps a tokenised pair."""
    left, right = source.split(), target.split()
    if not (1 <= len(left) <= MAX_TOKENS and 1 <= len(right) <= MAX_TOKENS):
        return False
    if max(len(left), len(right)) / min(len(left), len(right)) > MAX_RATIO:
        return False
    return max(map(len, left + right)) <= MAX_LETTERS


def training_pairs(folder: Path) -> Iterator[Pair]:
    """Clean pairs of the training files, in their order."""
    sides = (training_lines(folder / f"train.tags.de-en.{language}") for language in LANGUAGES)
    for source, target in parallel(*sides, "train.tags.de-en"):
        tokens = [
            " ".join(tokenise(line, language).split())
            for line, language in zip((source, target), LANGUAGES, strict=True)
        ]
        if is_clean(*tokens):
            yield _pair(tokens[0], tokens[1], target)


def test_pairs(folder: Path) -> Iterator[Pair]:
    """The five test sets, one after the other."""
    for name in TEST_SETS:
        sides = (segments(folder / f"IWSLT14.{name}.de-en.{language}.xml") for language in LANGUAGES)
        for source, target in parallel(*sides, f"IWSLT14.{name}.de-en"):
            # the script makes these apostrophes ASCII here, and not in the training text
            tokens = [
                tokenise(line.replace("\u2019", "'"), language)
                for line, language in zip((source, target), LANGUAGES, strict=True)
            ]
            yield _pair(tokens[0], tokens[1], target)


def _pair(source: str, target: str, raw: str) -> Pair:
    source, target = source.lower(), target.lower()
    return Pair(readable(source), readable(target), tokens=target, raw=" ".join(raw.split()))


def every(pairs: Iterable[Pair], step: int, chosen: bool) -> Iterator[Pair]:
    """Every ``step``-th pair, or all others."""
    return (pair for number, pair in enumerate(pairs, 1) if (number % step == 0) == chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="de-en/ of the official archive")
    parser.add_argument("--out", type=Path, default=Path("."), help="gets text/ and reference/")
    add_part_arguments(parser)
    args = parser.parse_args()
    pairs = list(training_pairs(args.folder))
    valid = short_enough(every(pairs, VALID_EVERY, chosen=True), args.max_words)
    train = short_enough(every(pairs, VALID_EVERY, chosen=False), args.max_words)
    train_text = (Pair(pair.source, pair.target) for pair in train)  # nothing is scored there
    write_split(args.out, "train", LANGUAGES, train_text, args.pairs)
    write_split(args.out, "valid", LANGUAGES, valid, args.valid_pairs)
    write_split(args.out, "test", LANGUAGES, test_pairs(args.folder), args.test_pairs)


if __name__ == "__main__":
    run(main)
