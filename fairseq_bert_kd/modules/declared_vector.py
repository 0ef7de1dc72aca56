"""What a sentence encoder's folder says about its vectors, in the files of sentence-transformers."""

import json
from pathlib import Path
from typing import Any

from fairseq_bert_kd import compat
from fairseq_bert_kd.storage.vector_store import COSINE

POOLING_FILE = "1_Pooling/config.json"
SIMILARITY_FILE = "config_sentence_transformers.json"
_MODE = "pooling_mode_"  # followed by cls_token, mean_tokens, ...
_NAMES = {"cls_token": "cls", "mean_tokens": "mean"}


def declared_vector(name: str) -> tuple[str | None, str]:
    """The vector that an encoder was made for, and what it is compared by.

    Args:
        name: folder or hub name.

    Returns:
        "cls" or "mean", and "cosine" or "" where not known; None and "" for an encoder that declares nothing.

    Raises:
        ValueError: it declares a vector that we do not make.
    """
    pooling = _content(name, POOLING_FILE)
    if pooling is None:
        return None, ""
    modes = [
        mode.removeprefix(_MODE) for mode, on in pooling.items() if mode.startswith(_MODE) and on is True
    ]
    if len(modes) != 1 or modes[0] not in _NAMES:
        raise ValueError(
            f"`{name}` was made for the pooling {' and '.join(modes) or 'none'} ({POOLING_FILE}), which is not one of "
            f"{', '.join(_NAMES)}; take another encoder, or one of these vectors where the command has --vector"
        )
    similarity = (_content(name, SIMILARITY_FILE) or {}).get("similarity_fn_name") or COSINE
    return _NAMES[modes[0]], similarity if similarity == COSINE else ""


def _content(name: str, file: str) -> dict[str, Any] | None:
    """A JSON file of a folder or of a hub name; None where it has none."""
    path: Any = Path(name) / file
    if not Path(name).is_dir():
        hub = compat.import_transformers(models=False).utils.hub
        try:
            path = hub.cached_file(name, file, _raise_exceptions_for_missing_entries=False)
        except OSError:  # not reachable from here, and not in the cache
            path = None
    if path is None or not Path(path).is_file():
        return None
    return json.loads(Path(path).read_text(encoding="utf-8"))
