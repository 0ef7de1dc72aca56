"""The folder that a new store goes to: beside the data, or elsewhere."""

import argparse
import os
from pathlib import Path

NOT_WRITABLE = (
    "nothing can be written there (read-only, or without permission); put the store into another folder with --store-dir, and "
    "name that to training with --kd-store-dir"
)


def add_store_dir(parser: argparse.ArgumentParser) -> None:
    """Let a command take ``--store-dir``, see `storage.store_folders`."""
    parser.add_argument(
        "--store-dir",
        metavar="DIR",
        help="folder for the store, created where it is not there, or several separated by colons, one for each data folder; "
        "training finds it with --kd-store-dir (default: beside the data)",
    )


def check_writable(folder: Path) -> None:
    """PermissionError for a folder, existing or not, in which no file can be made."""
    if not is_writable(folder):
        raise PermissionError(f"{folder}: {NOT_WRITABLE}")


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or it can be made itself."""
    return os.access(existing_folder(folder), os.W_OK | os.X_OK)


def existing_folder(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
