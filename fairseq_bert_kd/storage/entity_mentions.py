"""Which pieces of a data folder's sentences or pairs name which entity: ``entities.json`` and ``SPLIT.entities.npy`` beside the data.

``SPLIT.entities.npy`` is ``(mentions, 6)`` int64, sorted by row: row, text of the row, first piece, piece after the last, row of
the table of vectors (0 is no entity), and number of the argument that the mention is (0 is none; see `Mentions`).
``SPLIT.types.npy``, where the mentions are to be typed, is ``(types, 2)`` int64: row, and place of a type in ``types`` of the
description. The texts of a pair are its source and its target. ``entities.json`` holds the digest of the vectors and, for each split, those of
its rows and of its files.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.output_files import whole_file, write_text
from fairseq_bert_kd.storage.fairseq_data import IndexedTokens

FILE = "entities.json"
FORMAT = 3
COLUMNS = 6
NO_ARGUMENT = 0
ALL = "all"
FIRST = "first"
_BLOCK = 1 << 22  # tokens that are hashed together
_ADVICE = "run `fairseq-bert-kd entities` on the folder again"


Spans = list[tuple[int, int, int]]  # first piece, piece after the last, and entity of each mention of a text


class Mentions(NamedTuple):
    """Mentions of a split.

    Attributes:
        rows: ``(mentions, 6)`` int64, see the module. Argument 1 is the head of a relation or the mention to type, argument 2
            the tail; they stand here even if no vector belongs to them.
        digest: of the vectors whose rows they name.
        span: "first" if a mention marks its first piece alone, or "all".
    """

    rows: NDArray[np.int64]
    digest: str
    span: str

    def own_digest(self) -> str:
        """Hexadecimal sha256 of the mentions themselves and of the pieces that they mark."""
        return hashlib.sha256(f"{self.span} {_array_digest(self.rows)}".encode()).hexdigest()


def mentions_path(folder: str | Path, split: str) -> Path:
    """File of a split's mentions."""
    return Path(folder) / f"{split}.entities.npy"


class SplitMentions(NamedTuple):
    """What is written of a split.

    Attributes:
        texts: its texts.
        rows: ``(mentions, 6)`` int64, see the module.
        types: names of the types of each row's first argument.
    """

    texts: Sequence[IndexedTokens]
    rows: NDArray[np.int64]
    types: Sequence[Sequence[str]] = ()


class MentionsByRow:
    """Mentions that name an entity or are an argument, by row and text.

    Args:
        mentions: of a split.
        rows: rows of the split.
        texts: texts of a row.

    Attributes:
        every_piece: whether all pieces of a mention carry its entity, and not the first alone.
        digest: of the mentions.
    """

    def __init__(self, mentions: Mentions, rows: int, texts: int):
        self.digest = mentions.own_digest()
        self.every_piece = mentions.span == ALL
        self._texts = texts
        self._named = mentions.rows[mentions.rows[:, 4] != 0]
        self._starts = np.searchsorted(self._named[:, 0], np.arange(rows + 1))
        self._arguments = mentions.rows[mentions.rows[:, 5] != NO_ARGUMENT]
        self._argument_starts = np.searchsorted(self._arguments[:, 0], np.arange(rows + 1))

    def arguments(self, row: int) -> list[list[tuple[int, int]]]:
        """First piece and number of the arguments in each text of a row, with and without an entity."""
        found: list[list[tuple[int, int]]] = [[] for _ in range(self._texts)]
        part = slice(self._argument_starts[row], self._argument_starts[row + 1])
        for _, text, begin, _, _, number in self._arguments[part].tolist():
            found[text].append((begin, number))
        return found

    def arguments_within(self, lengths: NDArray[np.int64], arguments: int) -> NDArray[np.int64]:
        """``(rows,)`` how many of a row's first arguments begin within its texts.

        Args:
            lengths: ``(rows, texts)`` pieces of each text.
            arguments: number of the last argument that counts.
        """
        row, text, begin, _, _, number = self._arguments.T
        counted = (number <= arguments) & (begin < lengths[row, text])
        return np.bincount(row[counted], minlength=len(lengths)).astype(np.int64)

    def spans(self, row: int) -> list[Spans]:
        """Mentions of each text of a row that name an entity."""
        found: list[Spans] = [[] for _ in range(self._texts)]
        for _, text, begin, end, entity, _ in self._named[self._starts[row] : self._starts[row + 1]].tolist():
            found[text].append((begin, end, entity))
        return found


def span_of(folder: str | Path) -> str:
    """Which pieces a folder's mentions mark, "first" or "all"; empty where it has none."""
    return str(_described(folder).get("span", ""))


def types_path(folder: str | Path, split: str) -> Path:
    """File of the types of a split's mentions."""
    return Path(folder) / f"{split}.types.npy"


def rows_digest(texts: Sequence[IndexedTokens]) -> str:
    """Digest of the rows of a split, by the ids of their texts."""
    hashed = hashlib.sha256()
    for text in texts:
        hashed.update(np.ascontiguousarray(text.sizes).data)
        for start in range(0, len(text.tokens), _BLOCK):
            hashed.update(np.ascontiguousarray(text.tokens[start : start + _BLOCK], "<i4").data)
    return hashed.hexdigest()


def write_mentions(
    folder: str | Path,
    digest: str,
    span: str,
    splits: Mapping[str, SplitMentions],
) -> None:
    """Write the mentions of some splits; the description, which makes them valid, comes last.

    Splits that the folder has already stay, if they are of the same vectors and pieces; others are no longer described.

    Args:
        folder: data folder.
        digest: of the vectors.
        span: "first" or "all".
        splits: what to write, by split.
    """
    kept = {
        split: stated for split, stated in kept_splits(folder, digest, span).items() if split not in splits
    }
    old_names = type_names(folder) if kept else ()
    names = sorted({*old_names, *(name for split in splits.values() for row in split.types for name in row)})
    stated: dict[str, Any] = {}
    for split, values in kept.items():
        stated[split] = dict(values)
        if values["types"] is not None and tuple(names) != old_names:
            pairs = np.load(types_path(folder, split))
            pairs[:, 1] = np.array([names.index(name) for name in old_names], np.int64)[pairs[:, 1]]
            stated[split]["types"] = _save(types_path(folder, split), pairs)
    for split, (texts, rows, types) in splits.items():
        stated[split] = {"rows": rows_digest(texts), "mentions": _save(mentions_path(folder, split), rows)}
        listed = [(row, names.index(name)) for row, of_row in enumerate(types) for name in of_row]
        array = np.array(listed, np.int64).reshape(-1, 2)
        stated[split]["types"] = _save(types_path(folder, split), array) if len(array) else None
    described = {"format": FORMAT, "vectors": digest, "span": span, "types": names, "splits": stated}
    write_text(Path(folder) / FILE, json.dumps(described, indent=1) + "\n")


def kept_splits(folder: str | Path, digest: str, span: str) -> dict[str, dict[str, Any]]:
    """What ``entities.json`` says of the splits that stay beside new ones of these vectors and pieces."""
    path = Path(folder) / FILE
    described = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    same = (FORMAT, digest, span) == tuple(described.get(name) for name in ("format", "vectors", "span"))
    return dict(described["splits"]) if same else {}


def _save(path: Path, array: NDArray[np.int64]) -> str:
    """Write an array; return its digest."""
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array)
    return _array_digest(array)


def _array_digest(array: NDArray[np.int64]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array, "<i8").reshape(-1).data).hexdigest()


def _load(path: Path, digest: str) -> NDArray[np.int64]:
    """An array that `_save` wrote.

    Raises:
        ValueError: the file is not the one that the description was written for.
    """
    array: NDArray[np.int64] = np.load(path, allow_pickle=False)
    if _array_digest(array) != digest:
        raise ValueError(
            f"{path} is not what {FILE} describes (a run was stopped, or it is damaged); {_ADVICE}"
        )
    return array


def type_names(folder: str | Path) -> tuple[str, ...]:
    """Names of the types that a folder's mentions have; empty where they have none."""
    return tuple(_described(folder).get("types", ()))


def read_types(folder: str | Path, split: str, rows: int) -> NDArray[np.uint8]:
    """``(rows, types)`` 1 where a row's first argument has a type.

    Raises:
        FileNotFoundError: the split has no types.
    """
    path = types_path(folder, split)
    digest = _described(folder).get("splits", {}).get(split, {}).get("types")
    if digest is None:
        raise FileNotFoundError(
            f"the mentions of split `{split}` of `{folder}` have no types; {_ADVICE}, with `types` in the rows"
        )
    pairs = _load(path, digest)
    found = np.zeros((rows, len(type_names(folder))), np.uint8)
    found[pairs[:, 0], pairs[:, 1]] = 1
    return found


def _described(folder: str | Path) -> dict[str, Any]:
    """Content of ``entities.json``; empty where there is none."""
    path = Path(folder) / FILE
    described: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if described and described.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {described.get('format')!r}, this code reads format {FORMAT}; {_ADVICE}"
        )
    return described


def read_mentions(
    folder: str | Path,
    split: str,
    texts: Sequence[IndexedTokens],
    vectors: str | None = None,
    span: str = "",
) -> Mentions:
    """Mentions of a split.

    Args:
        folder: data folder.
        split: its name.
        texts: its texts.
        vectors: digest of the model's vectors; None to take any.
        span: which pieces the mentions of the model's training marked; empty to take any.

    Raises:
        FileNotFoundError: the folder or the split has none.
        ValueError: they are of other rows than those of the folder, of other vectors, or mark other pieces.
    """
    described = _description_of(folder, split, vectors)
    if span not in ("", described["span"]):
        raise ValueError(
            f"the mentions of split `{split}` of `{folder}` mark pieces by --entity-span {described['span']}, those that the model was "
            f"trained with by {span}; {_ADVICE}, with --entity-span {span} --overwrite"
        )
    stated = described["splits"][split]
    if stated["rows"] != rows_digest(texts):
        raise ValueError(f"the mentions of split `{split}` of `{folder}` are of other rows; {_ADVICE}")
    rows = _load(mentions_path(folder, split), stated["mentions"])
    return Mentions(rows, described["vectors"], described["span"])


def check_folders(folders: Sequence[str], split: str, vectors: str) -> None:
    """Before the first epoch, check that all folders, which the epochs take in turn, describe mentions of a split.

    Args:
        folders: data folders.
        split: its name.
        vectors: digest of the model's vectors.

    Raises:
        FileNotFoundError: a folder or its split has none.
        ValueError: they are of other vectors, or mark other pieces than those of the first folder.
    """
    spans = [_description_of(folder, split, vectors)["span"] for folder in folders]
    for folder, span in zip(folders, spans, strict=True):
        if span != spans[0]:
            raise ValueError(
                f"the mentions of `{folders[0]}` mark pieces by --entity-span {spans[0]}, those of `{folder}` by {span}; run "
                "`fairseq-bert-kd entities` on one of them again"
            )


def _description_of(folder: str | Path, split: str, vectors: str | None) -> dict[str, Any]:
    """What ``entities.json`` says, checked as `read_mentions` does for a split and for vectors."""
    described = _described(folder)
    if split not in described.get("splits", {}):
        raise FileNotFoundError(
            f"split `{split}` of `{folder}` has no mentions of entities; run `fairseq-bert-kd entities` on it"
        )
    if vectors not in (None, described["vectors"]):
        raise ValueError(
            f"the mentions of split `{split}` of `{folder}` are of other entity vectors (sha256 {described['vectors'][:12]}) than "
            f"the model's ({str(vectors)[:12]}); run `fairseq-bert-kd entities` with the model's vectors"
        )
    return described
