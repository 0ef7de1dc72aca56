"""Files of a corpus: reading the official ones, taking a part of them, writing ``text/`` and ``reference/``."""

import argparse
import contextlib
import gzip
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, TypeVar

Left, Right = TypeVar("Left"), TypeVar("Right")


@dataclass(frozen=True)
class Pair:
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


def add_part_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that take a part of the corpus; all of it without them."""
    parser.add_argument("--pairs", type=count, default=None, help="first training pairs to take, or all")
    parser.add_argument("--valid-pairs", type=count, default=None, help="of the validation set (or all)")
    parser.add_argument("--test-pairs", type=count, default=None, help="of the test set (or all)")
    parser.add_argument(
        "--max-words",
        type=count,
        default=None,
        help="leave out training and validation pairs with more words on either side (or all)",
    )


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


def read_lines(path: str | Path) -> Iterator[str]:
    """Lines of a UTF-8 file, or of the same with ``.gz``, without their line feeds.

    Raises:
        FileNotFoundError: neither is there.
        ValueError: not UTF-8.
    """
    path, packed = Path(path), Path(f"{path}.gz")
    if not path.exists() and not packed.exists():
        raise FileNotFoundError(
            f"`{path}` is missing (and {packed.name} too); see the recipe's README for the files"
        )
    with open(path, "rb") if path.exists() else gzip.open(packed, "rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield line.decode().rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise ValueError(f"`{path}`, line {number:,}: text must be UTF-8 ({error.reason})") from None


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


def write_split(
    out: Path, name: str, languages: tuple[str, str], pairs: Iterable[Pair], limit: int | None = None
) -> None:
    """``text/NAME.LANGUAGE``, and ``reference/NAME.tok`` and ``reference/NAME.raw`` where the pairs have them.

    Raises:
        ValueError: no pair is left.
    """
    written = 0
    with contextlib.ExitStack() as stack:
        files: dict[str, TextIO] = {}
        for pair in itertools.islice(pairs, limit):
            lines = {
                f"text/{name}.{languages[0]}": pair.source,
                f"text/{name}.{languages[1]}": pair.target,
                f"reference/{name}.tok": pair.tokens,
                f"reference/{name}.raw": pair.raw,
            }
            for file, line in lines.items():
                if line is not None:
                    if file not in files:
                        (out / file).parent.mkdir(parents=True, exist_ok=True)
                        files[file] = stack.enter_context(open(out / file, "w", encoding="utf-8"))
                    files[file].write(f"{line}\n")
            written += 1
    if not written:
        raise ValueError(f"the {name} set has no pair left; look at its files, or raise --max-words")
    print(f"{name}: {written:,} pairs")


def run(main: Callable[[], None]) -> None:
    """A script's main function; a mistake of the user's ends in one line on standard error and status 2."""
    try:
        main()
    except (ValueError, OSError, ImportError) as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)
