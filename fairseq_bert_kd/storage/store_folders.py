"""The folders that stores lie in, beside their data or elsewhere, and the names that they may have."""

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path


def check_store_name(name: str) -> None:
    """Raise ValueError for a store's name with characters other than letters, digits, ``_`` and ``-``, or without any."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(
            f"a store's name is of letters, digits, _ and -, got `{name}`; it becomes part of a file name"
        )


def store_folders(folders: Sequence[str], given: str | None, option: str) -> list[str]:
    """Folder of the stores of each data folder: the data folder itself, or the one that is given.

    Args:
        folders: data folders.
        given: folders, as many and separated as the data folders are; None for the data folders.
        option: name of the option, for the message.

    Raises:
        ValueError: another number of folders.
    """
    if given is None:
        return list(folders)
    others = given.split(os.pathsep)
    if len(others) != len(folders):
        raise ValueError(
            f"{option} must name a folder for each data folder, separated by `{os.pathsep}`: {len(folders)}, got {len(others)} "
            f"(`{given}`)"
        )
    return others


def rebuilding(store: Path, command: str, *options: str) -> str:
    """Advice to write a store again where it is: the command with its folder, and with the data if they are not there."""
    folder = shlex.quote(str(store.parent))
    beside_data = any(store.parent.glob("*.idx")) or (store.parent / "input0").is_dir()
    words = (command, folder if beside_data else f"DATA --store-dir {folder}", *options, "--overwrite")
    return f"rebuild it with `{' '.join(words)}`"
