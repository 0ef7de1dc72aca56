"""Bytes to lines of text: the one way in for every command, file, pipe and server. The standard library only.

Only a line feed ends a line, as for fairseq; carriage returns before it belong to the line's end.
"""

import gzip
import io
import logging
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

STANDARD_STREAM = "-"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # U+FEFF
# first bytes of a file, what it is then, and what to do
FOREIGN = (
    (b"\xff\xfe\x00\x00", "UTF-32", "Convert it with `iconv -f utf-32 -t utf-8`."),
    (b"\x00\x00\xfe\xff", "UTF-32", "Convert it with `iconv -f utf-32 -t utf-8`."),
    (b"\xff\xfe", "UTF-16", "Convert it with `iconv -f utf-16 -t utf-8`."),
    (b"\xfe\xff", "UTF-16", "Convert it with `iconv -f utf-16 -t utf-8`."),
    (b"\x1f\x8b", "gzip", "Give it a name in .gz, or unpack it with `gzip -dc`."),
    (b"\xfd7zXZ\x00", "xz", "Unpack it with `xz -dc`."),
    (b"\x28\xb5\x2f\xfd", "zstd", "Unpack it with `zstd -dc`."),
    (b"PK\x03\x04", "zip", "Unpack it with `unzip -p`."),
    (b"version https://git-lfs", "a Git LFS pointer", "Get the file itself with `git lfs pull`."),
)


def open_lines(path: str | Path, keep_ends: bool = False, again: bool = False) -> Iterator[str]:
    """Lines of a file, unpacked if its name ends in .gz; ``-`` is standard input. See `text_lines`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as `text_lines`, or a damaged gzip file.
    """
    name = str(path)
    if name == STANDARD_STREAM:
        yield from text_lines(sys.stdin.buffer, "standard input", keep_ends, again)
    elif name.endswith(".gz"):
        with gzip.open(name, "rb") as stream:
            try:
                yield from text_lines(stream, name, keep_ends, again)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise ValueError(
                    f"`{name}` must be a complete gzip file, as its name says, but is not ({error}). "
                    "Copy or compress it again."
                ) from None
    else:
        with open(name, "rb") as stream:
            yield from text_lines(stream, name, keep_ends, again)


def packed_or_not(path: str | Path) -> Path:
    """A file, or the same with .gz where that alone is there."""
    plain, packed = Path(path), Path(f"{path}.gz")
    return packed if packed.exists() and not plain.exists() else plain


def text_lines(
    content: Iterable[bytes] | bytes, name: str, keep_ends: bool = False, again: bool = False
) -> Iterator[str]:
    """Lines of UTF-8 text, without the byte order mark at its head and without line ends.

    A line comes out before the next one is read, so an error loses nothing of what stands above it.

    Args:
        content: a binary stream, or anything else that gives bytes up to each line feed; or all bytes.
        name: name of the file, for messages.
        keep_ends: leave each line feed, and what stands before it, at its line.
        again: the content was read before, and the log has what is unusual in it.

    Raises:
        ValueError: text that is not UTF-8; names file and line, or what the file is.
    """
    warn: Callable[..., None] = logger.debug if again else logger.warning
    marked_inside = False
    for number, raw in enumerate(io.BytesIO(content) if isinstance(content, bytes) else content, 1):
        if number == 1:
            _check_head(raw, name, warn)
            if raw.startswith(BYTE_ORDER_MARK):
                warn("`%s` begins with a byte order mark, which is left out", name)
                raw = raw.removeprefix(BYTE_ORDER_MARK)
        elif not marked_inside and raw.startswith(BYTE_ORDER_MARK):
            marked_inside = True
            warn(
                "`%s`, line %d begins with a byte order mark, which stays in the text. Were files joined that have one "
                "each? Remove it from every file but the first.",
                *(name, number),
            )
        if number <= 2:  # the line feed of an empty first line stands apart from its zero byte
            _check_zero_bytes(raw, name)
        try:
            line = raw.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"`{name}`, line {number:,}: text must be UTF-8, but byte 0x{raw[error.start]:02X} at place "
                f"{error.start + 1} of the line is not ({error.reason}). Repair the line, or convert the file from its own "
                "encoding with `iconv -f ENCODING -t utf-8`. `file FILE` guesses the encoding; a wrong one gives wrong "
                "letters, without an error."
            ) from None
        yield line if keep_ends else line.rstrip("\r\n")


def _check_head(raw: bytes, name: str, warn: Callable[..., None]) -> None:
    """Check the first line for what is no UTF-8 text; warn if its line ends may be of another kind.

    Raises:
        ValueError: another encoding or a packed file.
    """
    for head, kind, advice in FOREIGN:
        if raw.startswith(head):
            raise ValueError(f"`{name}` must be UTF-8 text, but is {kind}. {advice}")
    inside = raw.rstrip(b"\r\n").count(b"\r")
    if inside:
        warn(
            "`%s`, line 1 holds %d carriage returns. Only a line feed ends a line; where the carriage returns should, "
            r"convert the file with `tr '\r' '\n'`.",
            *(name, inside),
        )


def _check_zero_bytes(raw: bytes, name: str) -> None:
    """ValueError for a line of UTF-16 or UTF-32 without a byte order mark."""
    if raw and 3 * raw.count(b"\0") >= len(raw):
        raise ValueError(
            f"`{name}` must be UTF-8 text, but looks like UTF-16: it has zero bytes between the letters. Convert it with "
            "`iconv -f utf-16le -t utf-8` (or utf-16be, utf-32le, utf-32be)."
        )


def batches(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    """Lists of ``size`` lines, the last one shorter. Where reading fails, the lines before come out first."""
    batch: list[str] = []
    try:
        for line in lines:
            batch.append(line)
            if len(batch) == size:
                full, batch = batch, []
                yield full
    except (ValueError, OSError):
        if batch:
            yield batch
        raise
    if batch:
        yield batch
