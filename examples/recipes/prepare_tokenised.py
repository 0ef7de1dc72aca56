"""Corpora that come in Moses's tokens (IWSLT15 En-Vi, WMT14 En-De): escapes and split hyphens go, references stay.

Files of subwords (``.bpe.`` in their names) are joined to words again. Run by the recipes.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from corpus import Pair, corpus_parser, is_there, parallel, read_lines, run, write_corpus
from moses_text import readable

SUBWORD_MARK = re.compile(r"@@( |$)")


def token_lines(prefix: str, language: str) -> Iterator[str]:
    """Lines of ``PREFIX.LANGUAGE`` in Moses's tokens, or of the same in subwords where only that is there."""
    if not is_there(Path(f"{prefix}.{language}")) and Path(f"{prefix}.bpe.32000.{language}").exists():
        prefix = f"{prefix}.bpe.32000"
    in_subwords = ".bpe." in Path(prefix).name
    for line in read_lines(f"{prefix}.{language}"):
        yield " ".join((SUBWORD_MARK.sub("", line) if in_subwords else line).split())


def pairs(prefix: str, languages: Sequence[str], raw: Path | None = None) -> Iterator[Pair]:
    """Pairs of two files; ``raw`` is the target before tokenisation, where there is one."""
    sides = parallel(*(token_lines(prefix, language) for language in languages), prefix)
    texts = (Pair(readable(source), readable(target), tokens=target) for source, target in sides)
    if raw is None:
        return texts
    both = parallel(texts, read_lines(raw), f"{prefix} and {raw}")
    return (pair._replace(raw=line) for pair, line in both)


def main() -> None:
    parser = corpus_parser(__doc__)
    for name in ("train", "valid", "test"):
        parser.add_argument(f"--{name}", required=True, metavar="PREFIX", help="files PREFIX.LANGUAGE")
    for name in ("valid", "test"):
        parser.add_argument(f"--{name}-raw", type=Path, metavar="FILE", help="its target before tokenisation")
    parser.add_argument("--languages", nargs=2, required=True, metavar=("SOURCE", "TARGET"))
    args = parser.parse_args()
    train = (pair for pair in pairs(args.train, args.languages) if pair.source and pair.target)
    valid, test = (
        pairs(args.valid, args.languages, args.valid_raw),
        pairs(args.test, args.languages, args.test_raw),
    )
    write_corpus(args, args.languages, train=train, valid=valid, test=test)


if __name__ == "__main__":
    run(main)
