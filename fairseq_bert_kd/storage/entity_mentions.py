"""Which pieces of a folder's sentences name which entity: ``entities.json`` and ``SPLIT.entities.npy`` beside the data.

``SPLIT.entities.npy`` is ``(mentions, 5)`` int64: row, text of the row, first piece, piece after the last, and row of the table
of vectors (row 0 is no entity), sorted by row. ``entities.json`` holds the digest of the vectors and, for each split, that of
its rows' hashes.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.sentence_data import hashes_path

FILE = "entities.json"
FORMAT = 1
COLUMNS = 5
ALL = "all"
FIRST = "first"
_ADVICE = "run `fairseq-bert-kd entities` on the folder again"


class Mentions(NamedTuple):
    """Mentions of a split.

    Attributes:
        rows: ``(mentions, 5)`` int64, see the module.
        digest: of the vectors whose rows they name.
        span: "first" if a mention marks its first piece alone, or "all".
    """

    rows: NDArray[np.int64]
    digest: str
    span: str


def mentions_path(folder: str | Path, split: str) -> Path:
    """File of a split's mentions."""
    return Path(folder) / f"{split}.entities.npy"


def rows_digest(folder: str | Path, split: str) -> str:
    """Digest of the rows of a split, by their hashes."""
    return hashlib.sha256(np.load(hashes_path(folder, split)).tobytes()).hexdigest()


def write_mentions(
    folder: str | Path, digest: str, span: str, splits: Mapping[str, NDArray[np.int64]]
) -> None:
    """Write the mentions of some splits; the description, which makes them valid, comes last.

    Args:
        folder: data folder.
        digest: of the vectors.
        span: "first" or "all".
        splits: ``(mentions, 5)`` by split.
    """
    for split, rows in splits.items():
        temporary = mentions_path(folder, f"{split}.{os.getpid()}.tmp")
        np.save(temporary, rows)
        os.replace(temporary, mentions_path(folder, split))
    described = {
        "format": FORMAT,
        "vectors": digest,
        "span": span,
        "splits": {split: {"rows": rows_digest(folder, split), "mentions": len(rows)} for split, rows in splits.items()},
    }  # fmt: skip
    path = Path(folder) / FILE
    temporary = path.with_name(f"{FILE}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def read_mentions(folder: str | Path, split: str) -> Mentions:
    """Mentions of a split.

    Raises:
        FileNotFoundError: the folder or the split has none.
        ValueError: they are of other rows than those of the folder.
    """
    path = Path(folder) / FILE
    described: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    stated = described.get("splits", {}).get(split)
    if stated is None:
        raise FileNotFoundError(
            f"split `{split}` of `{folder}` has no mentions of entities; run `fairseq-bert-kd entities` on it"
        )
    if stated["rows"] != rows_digest(folder, split):
        raise ValueError(f"the mentions of split `{split}` of `{folder}` are of other rows; {_ADVICE}")
    rows = np.load(mentions_path(folder, split))
    if rows.shape != (stated["mentions"], COLUMNS):
        raise ValueError(f"{mentions_path(folder, split)} is damaged; {_ADVICE}")
    return Mentions(rows, described["vectors"], described["span"])
