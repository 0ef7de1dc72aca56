"""What commands check of a file that they will write, before they begin their work."""

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
        ValueError: it is a folder.
        FileExistsError: it exists and is not to be replaced.
    """
    path = Path(path)
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"the folder of {option} `{path}` does not exist. Create it first")
    if path.is_dir():
        raise ValueError(f"{option} `{path}` is a folder; name a file")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{option} `{path}` exists; pass --overwrite to replace it")
