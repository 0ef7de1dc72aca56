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
        ValueError: another number of folders, one folder for the stores of two data folders, or two for those of one.
    """
    if given is None:
        return list(folders)
    others = given.split(os.pathsep)
    if len(others) != len(folders):
        raise ValueError(
            f"{option} must name a folder for each data folder, separated by `{os.pathsep}`: {len(folders)}, got {len(others)} "
            f"(`{given}`)"
        )
    _check_one_to_one(folders, others, option)
    return others


def _check_one_to_one(folders: Sequence[str], others: Sequence[str], option: str) -> None:
    """Raise ValueError where stores of two data folders would have one name, or those of one data folder two."""
    stores_of: dict[Path, Path] = {}
    data_of: dict[Path, Path] = {}
    for data, stores in (
        (Path(one).resolve(), Path(other).resolve()) for one, other in zip(folders, others, strict=True)
    ):
        if data_of.setdefault(stores, data) != data:
            raise ValueError(
                f"{option} must name another folder for each data folder: {stores} would hold the stores of {data_of[stores]} and "
                f"of {data}, which have the same names"
            )
        if stores_of.setdefault(data, stores) != stores:
            raise ValueError(
                f"{option} names two folders for the stores of {data}: {stores_of[data]} and {stores}; give one of them each time"
            )


def rebuilding(store: Path, command: str, *options: str) -> str:
    """Advice to write a store again where it is: the command with its folder, and with the data if they are not there."""
    folder = shlex.quote(str(store.parent))
    beside_data = any(store.parent.glob("*.idx")) or (store.parent / "input0").is_dir()
    words = (command, folder if beside_data else f"DATA --store-dir {folder}", *options, "--overwrite")
    return f"rebuild it with `{' '.join(words)}`"
