"""Packages that only a report needs, imported where they are used."""

import importlib
from typing import Any

INSTALL = "pip install 'fairseq-bert-kd[report]'"


def import_extra(module: str) -> Any:
    """A module of the extra ``report``.

    Raises:
        ImportError: it is not installed; the message names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0].replace("_", "-")
        raise ImportError(f"a report needs {package} ({error}). Install it with:\n  {INSTALL}") from error
