"""Files that commands write: what is checked before the work begins, and how they get their names after it."""

import os
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


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file under a temporary name, then under its own, so that it is there whole or not at all; a link stays a link."""
    path = Path(path).resolve()
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
