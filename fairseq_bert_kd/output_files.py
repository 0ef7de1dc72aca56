"""Files that commands write: what is checked before the work begins, and how they get their names after it."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def check_new_file(option: str, path: str | os.PathLike[str], overwrite: bool) -> None:
    """Check that a file can get its name.

    Args:
        option: option that names it, for messages.
        path: the file.
        overwrite: whether an existing one is replaced.

    Raises:
        FileNotFoundError: its folder does not exist.
        ValueError: it is a folder, or a device.
        FileExistsError: it exists and is not to be replaced.
    """
    path = Path(path)
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"the folder of {option} `{path}` does not exist. Create it first")
    if path.exists() and not path.is_file():
        raise ValueError(f"{option} `{path}` is a {'folder' if path.is_dir() else 'device'}; name a file")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{option} `{path}` exists; pass --overwrite to replace it")


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name for a file that gets its own when the block has succeeded, so that it is there whole or not at all.

    What a link points to is replaced; the link stays.
    """
    path = Path(path).resolve()
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file, see `whole_file`."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
