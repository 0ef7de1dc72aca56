"""Files of a corpus: reading the official ones, taking a part of them, writing ``text/`` and ``reference/``."""

import argparse
import contextlib
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO, TypeVar

from fairseq_bert_kd.text_lines import open_lines, packed_or_not

Left, Right = TypeVar("Left"), TypeVar("Right")


class Pair(NamedTuple):
    """A sentence pair as teacher and student read it, and the target as it is scored.

    Attributes:
        source: text of the source.
        target: text of the target.
        tokens: the target in the official files' tokens (with Moses's escapes), for tokenised scores; None
            where the task has none.
        raw: the target before any tokenisation; None where the official files lack it.
    """

    source: str
    target: str
    tokens: str | None = None
    raw: str | None = None


def corpus_parser(doc: str | None) -> argparse.ArgumentParser:
    """Options of every script that prepares a corpus; all of it is taken without them."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--out", type=Path, default=Path("."), help="gets text/ and reference/")
    parser.add_argument("--pairs", type=count, help="first training pairs to take, or all")
    parser.add_argument("--valid-pairs", type=count, help="of the validation set (or all)")
    parser.add_argument("--test-pairs", type=count, help="of the test set (or all)")
    parser.add_argument(
        "--max-words", type=count, help="longest side of training and validation pairs, or all"
    )
    return parser


def count(value: str) -> int | None:
    """A number from 1, or None for ``all``.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    if value == "all":
        return None
    if not value.isdigit() or int(value) == 0:
        raise argparse.ArgumentTypeError(f"must be a number from 1, or `all`, but is `{value}`")
    return int(value)


def is_there(path: Path) -> bool:
    """Whether a file or folder is there, packed or not."""
    return packed_or_not(path).exists()


def read_lines(path: str | Path) -> Iterator[str]:
    """Lines of a UTF-8 file, or of the same with ``.gz``, without their line feeds.

    Raises:
        FileNotFoundError: neither is there.
        ValueError: not UTF-8 text.
    """
    if not is_there(Path(path)):
        raise FileNotFoundError(
            f"`{path}` is missing (and {Path(path).name}.gz too); see the recipe's README for the files"
        )
    yield from open_lines(packed_or_not(path))


def parallel(left: Iterable[Left], right: Iterable[Right], names: str) -> Iterator[tuple[Left, Right]]:
    """Two files line by line.

    Raises:
        ValueError: one of them is longer.
    """
    for number, (first, second) in enumerate(itertools.zip_longest(left, right)):
        if first is None or second is None:
            raise ValueError(
                f"files of a corpus must have as many lines, but of {names} the {'first' if first is None else 'second'} "
                f"ends after {number:,}. Get the files again, of the same release."
            )
        yield first, second


def short_enough(pairs: Iterable[Pair], max_words: int | None) -> Iterator[Pair]:
    """Pairs with at most ``max_words`` words on either side."""
    for pair in pairs:
        if max_words is None or max(len(pair.source.split()), len(pair.target.split())) <= max_words:
            yield pair


def write_corpus(args: argparse.Namespace, languages: Sequence[str], **splits: Iterable[Pair]) -> None:
    """Write the part of each split that the options of `corpus_parser` take; no references of the training text."""
    limits = {"train": args.pairs, "valid": args.valid_pairs, "test": args.test_pairs}
    for name, pairs in splits.items():
        if name != "test":
            pairs = short_enough(pairs, args.max_words)
        if name == "train":
            pairs = (Pair(pair.source, pair.target) for pair in pairs)
        write_split(args.out, name, languages, pairs, limits[name])


def write_split(
    out: Path, name: str, languages: Sequence[str], pairs: Iterable[Pair], limit: int | None = None
) -> None:
    """``text/NAME.LANGUAGE``, and ``reference/NAME.tok`` and ``reference/NAME.raw`` where the pairs have them.

    Raises:
        ValueError: no pair is left.
    """
    names = [f"text/{name}.{language}" for language in languages]
    names += [f"reference/{name}.{ending}" for ending in ("tok", "raw")]
    files: dict[str, TextIO] = {}
    written = 0
    with contextlib.ExitStack() as stack:
        for pair in itertools.islice(pairs, limit):
            written += 1
            for file, line in zip(names, pair, strict=True):
                if line is not None:
                    if file not in files:
                        (out / file).parent.mkdir(parents=True, exist_ok=True)
                        files[file] = stack.enter_context(open(out / file, "w", encoding="utf-8"))
                    files[file].write(f"{line}\n")
    if not written:
        raise ValueError(f"the {name} set has no pair left; look at its files, or raise --max-words")
    print(f"{name}: {written:,} pairs")


def run(main: Callable[[], None]) -> None:
    """A script's main function; a mistake of the user's ends in one line on standard error and status 2."""
    try:
        main()
    except (ValueError, OSError, ImportError) as error:
        hint = "; pip install 'fairseq-bert-kd[recipes]'" if isinstance(error, ImportError) else ""
        print(f"{Path(sys.argv[0]).name}: {error}{hint}", file=sys.stderr)
        sys.exit(2)
