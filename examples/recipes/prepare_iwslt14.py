"""IWSLT14 German-English from its official files, as fairseq's prepare-iwslt14.sh makes it before subwords.

Moses tokens, training pairs of 1 to 175 tokens and at most 1.5 times as many on one side as on the other, lower
case, every 23rd training pair for validation, five official sets joined as test. Then the escapes go, as the paper's
authors have it. Run by ../iwslt14_de-en/task.yaml.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from corpus import Pair, corpus_parser, parallel, read_lines, run, write_corpus
from moses_text import readable, tokenise

LANGUAGES = ("de", "en")
TEST_SETS = ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012")
LEFT_OUT = ("<url>", "<talkid>", "<keywords>")  # lines that are no text
TITLE = re.compile(r"</?(?:title|description)>")  # tags around lines that are
SEGMENT = re.compile(r'<seg id="[0-9]*">\s*|\s*</seg>\s*')
# clean-corpus-n.perl -ratio 1.5 ... 1 175, and its longest word
MAX_TOKENS, MAX_RATIO, MAX_LETTERS = 175, 1.5, 1000
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


def pairs(folder: Path, names: str, read: Callable[[Path], Iterator[str]], training: bool) -> Iterator[Pair]:
    """Pairs of the German and the English file; of the training files those that are clean.

    The script makes apostrophes ASCII in the tests, and not in the training text.
    """
    sides = (read(folder / names.format(language)) for language in LANGUAGES)
    for raw in parallel(*sides, names.replace(".{}", "")):
        lines = raw if training else [line.replace("\u2019", "'") for line in raw]
        source, target = (
            " ".join(tokenise(line, language).split())
            for line, language in zip(lines, LANGUAGES, strict=True)
        )
        if not training or is_clean(source, target):
            source, target = source.lower(), target.lower()
            yield Pair(readable(source), readable(target), tokens=target, raw=" ".join(raw[1].split()))


def main() -> None:
    parser = corpus_parser(__doc__)
    parser.add_argument("folder", type=Path, help="de-en/ of the official archive")
    args = parser.parse_args()
    clean = list(pairs(args.folder, "train.tags.de-en.{}", training_lines, training=True))
    valid = clean[VALID_EVERY - 1 :: VALID_EVERY]
    del clean[VALID_EVERY - 1 :: VALID_EVERY]
    tests = (
        pairs(args.folder, f"IWSLT14.{name}.de-en.{{}}.xml", segments, training=False) for name in TEST_SETS
    )
    write_corpus(args, LANGUAGES, train=clean, valid=valid, test=itertools.chain.from_iterable(tests))


if __name__ == "__main__":
    run(main)
