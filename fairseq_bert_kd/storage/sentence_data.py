"""A folder that ``fairseq-bert-kd prepare-sentences`` wrote: its description, its labels and the hashes of its rows.

It has fairseq's ``sentence_prediction`` layout (`fairseq_data.sentence_files`), so stock fairseq reads it too, and beside
the sides' folders:

- ``labels.json``: what the labels mean and what the texts were made with, a `SentenceSpec`, and counts by split;
- ``SPLIT.hashes.npy``: ``(rows, texts)`` uint64, `fairseq_data.sentence_hash` of every text.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.fairseq_data import LABELS_FILE, SPECIAL_SYMBOLS, IndexedTokens

FORMAT = 1
CLASSES = "classes"
NUMBERS = "numbers"
UNLABELLED = "none"
SETS = "sets"  # of classes, any number for a row; not a kind of data folder: they stand beside its mentions
KINDS = (CLASSES, NUMBERS, UNLABELLED)

_ADVICE = "prepare the data again with `fairseq-bert-kd prepare-sentences`"


@dataclass(frozen=True)
class SentenceSpec:
    """What the labels of sentences mean, and what their texts were made with.

    It stands in ``labels.json`` of a data folder and in the task's settings of a checkpoint, so that neither needs the other
    to be understood. Classes are compared by name; a class's number is its place in ``names``.

    Attributes:
        kind: "classes", "numbers" or "none" (unlabelled).
        names: names of the classes; empty for other kinds.
        texts: texts of a row, 1 or 2.
        tokenizer: digest of the tokenizer that made the pieces.
        dictionary: digest of the pieces' dictionary.
        tokenizer_name: folder or hub name by which the tokenizer was loaded.
        metric: metric by which predictions are judged first.
        positive: class whose F1 counts; None for the mean over the classes.
        max_tokens: most tokens of a row in the encoder's input, special ones included; 0 where it is not known.
    """

    kind: str
    names: tuple[str, ...]
    texts: int
    tokenizer: str
    dictionary: str
    tokenizer_name: str = ""
    metric: str = ""
    positive: str | None = None
    max_tokens: int = 0

    @property
    def outputs(self) -> int:
        """Numbers that a classification head gives: one per class, 1 for numbers, 0 for unlabelled data."""
        return 1 if self.kind == NUMBERS else len(self.names)

    @property
    def sides(self) -> list[str]:
        """Sides of a row's texts: ``input0``, and ``input1`` for pairs."""
        return [f"input{number}" for number in range(self.texts)]

    def to_json(self) -> str:
        """One line with sorted keys."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_dict(cls, stated: Mapping[str, Any]) -> "SentenceSpec":
        """The description in a mapping that may hold more.

        Raises:
            KeyError, TypeError, ValueError: it holds less, or other types.
        """
        known = {item.name: stated[item.name] for item in fields(cls) if item.name in stated}
        spec = cls(**{**known, "names": tuple(map(str, stated["names"]))})
        if spec.kind not in KINDS or spec.texts not in (1, 2) or bool(spec.names) != (spec.kind == CLASSES):
            raise ValueError(f"kind {spec.kind!r} with {len(spec.names)} classes and {spec.texts!r} texts")
        return spec

    @classmethod
    def from_json(cls, text: str) -> "SentenceSpec":
        """The description of `to_json`."""
        return cls.from_dict(json.loads(text))


def write_labels(folder: str | Path, spec: SentenceSpec, rows: Mapping[str, Mapping[str, int]]) -> None:
    """Write ``labels.json``.

    Args:
        folder: data folder.
        spec: its description.
        rows: counts by split and name.
    """
    stated = {"format": FORMAT, **asdict(spec), "rows": rows}
    text = json.dumps(stated, indent=1, ensure_ascii=False)
    (Path(folder) / LABELS_FILE).write_text(text + "\n", encoding="utf-8")


def read_spec(folder: str | Path) -> SentenceSpec:
    """The description of a data folder.

    Raises:
        FileNotFoundError: no ``labels.json``.
        ValueError: it is damaged or of another format.
    """
    path = Path(folder) / LABELS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: `{folder}` holds no prepared sentences; {_ADVICE}")
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
        if stated["format"] != FORMAT:
            raise ValueError(f"format {stated['format']!r}, this code reads format {FORMAT}")
        return SentenceSpec.from_dict(stated)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged or of another version ({error}); {_ADVICE}") from None


def hashes_path(folder: str | Path, split: str) -> Path:
    """File of the rows' hashes of a split."""
    return Path(folder) / f"{split}.hashes.npy"


def numbers_path(folder: str | Path, split: str) -> Path:
    """File of a split's labels that are numbers, one per line, where fairseq's own task reads them."""
    return Path(folder) / "label" / f"{split}.label"


# ---------------------------------------------------------------- labels of a split


def read_targets(folder: str | Path, split: str, spec: SentenceSpec) -> NDArray[Any] | None:
    """Labels of a split: ``(rows,)`` int64 class numbers or float64 numbers; None where it has none.

    Args:
        folder: data folder.
        split: "train" for example.
        spec: description of the folder.

    Raises:
        ValueError: a damaged file, or a class that the folder does not name.
    """
    if spec.kind == NUMBERS:
        path = numbers_path(folder, split)
        return _read_numbers(path) if path.is_file() else None
    prefix = Path(folder) / "label" / split
    if spec.kind == UNLABELLED or not Path(f"{prefix}.idx").is_file():
        return None
    labels = IndexedTokens(prefix)
    labels.check()
    if (labels.sizes != 2).any():
        row = int((labels.sizes != 2).argmax())
        raise ValueError(
            f"{prefix}.idx has {labels.sizes[row]} symbols for row {row}, expected a class and end of sentence; {_ADVICE}"
        )
    classes = np.array([labels[row][0] for row in range(len(labels))], np.int64) - len(SPECIAL_SYMBOLS)
    outside = (classes < 0) | (classes >= len(spec.names))
    if outside.any():
        row = int(outside.argmax())
        raise ValueError(
            f"row {row} of {prefix} has class {classes[row]}, {LABELS_FILE} names {len(spec.names)}; {_ADVICE}"
        )
    return classes


def _read_numbers(path: Path) -> NDArray[np.float64]:
    try:
        return np.array(path.read_text(encoding="utf-8").split(), np.float64)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {_ADVICE}") from None


# ---------------------------------------------------------------- two descriptions that meet


def check_same_pieces(one: SentenceSpec, other: SentenceSpec, names: tuple[str, str]) -> None:
    """Raise ValueError where two descriptions have other tokenizers or dictionaries.

    Args:
        one: a description.
        other: a description.
        names: what they are of, for the message.
    """
    if one.tokenizer != other.tokenizer:
        raise ValueError(
            f"{names[0]} and {names[1]} were made with different tokenizers (digests {one.tokenizer[:12]} and "
            f"{other.tokenizer[:12]}): the same number would be another piece. Prepare the data with the tokenizer of "
            f"{names[0]}"
        )
    if one.dictionary != other.dictionary:
        raise ValueError(
            f"{names[0]} and {names[1]} have different dictionaries (digests {one.dictionary[:12]} and "
            f"{other.dictionary[:12]}): the same number would be another piece. Prepare both with --full-dictionary, or "
            "the second with --like and the folder of the first"
        )


def check_tokenizer(what: str, own_digest: str, tokenizer_digest: str, name: str) -> None:
    """Raise ValueError where a tokenizer is another one than that of some data, or of a model that was trained on them.

    Args:
        what: the data or the model, for the message.
        own_digest: digest of the tokenizer that made their pieces; "" where not known.
        tokenizer_digest: digest of the given tokenizer.
        name: its name, for the message.
    """
    if own_digest not in ("", tokenizer_digest):
        raise ValueError(
            f"{what} was made with another tokenizer than `{name}` (digest {own_digest[:12]}, this one {tokenizer_digest[:12]}): "
            f"the same number would be another piece; give its own tokenizer, or prepare the data with `{name}` and train again"
        )


def check_same_task(trained: SentenceSpec, folder: SentenceSpec, names: tuple[str, str]) -> None:
    """Raise ValueError for labelled data that are not of the task that a model was trained on.

    Data without some of the classes pass, and so do data with the classes in another order.

    Args:
        trained: description in the checkpoint.
        folder: description of the data.
        names: what they are of, for the message.
    """
    if UNLABELLED in (trained.kind, folder.kind):
        return
    if trained.kind != folder.kind:
        raise ValueError(
            f"{names[0]} predicts {trained.kind}, the labels of {names[1]} are {folder.kind}; give data of the same task"
        )
    if trained.texts != folder.texts:
        raise ValueError(
            f"{names[0]} was trained on rows of {trained.texts} texts, {names[1]} has rows of {folder.texts}; give data of "
            "the same task"
        )
    unknown = [name for name in folder.names if name not in trained.names]
    if unknown:
        raise ValueError(
            f"{names[1]} has the class `{unknown[0]}`, which {names[0]} does not know: it was trained on "
            f"{', '.join(trained.names)}. Give data of the same task; where only the spelling differs, prepare them again "
            "with --task or --classes"
        )


def check_head(trained: SentenceSpec, folder: SentenceSpec, names: tuple[str, str], head: str) -> None:
    """Raise ValueError where training goes on with a classification head whose outputs meant something else.

    Args:
        trained: description in the checkpoint.
        folder: description of the data to train on.
        names: what they are of, for the message.
        head: name of the head.
    """
    if UNLABELLED in (trained.kind, folder.kind) or (trained.kind, trained.names) == (
        folder.kind,
        folder.names,
    ):
        return
    if sorted(trained.names) == sorted(folder.names) and trained.kind == folder.kind:
        step = "the order differs: prepare the data with --like and the folder that the checkpoint was trained on"
    else:
        step = "for another task give the new head a name of its own, --classification-head-name NAME"
    raise ValueError(
        f"the head `{head}` of {names[0]} was trained for {_labels(trained)}, {names[1]} has {_labels(folder)}; {step}"
    )


def _labels(spec: SentenceSpec) -> str:
    return ", ".join(spec.names) if spec.kind == CLASSES else spec.kind


def named(targets: NDArray[Any], spec: SentenceSpec) -> list[Any]:
    """Labels as a user knows them: names of classes, or numbers."""
    values: list[Any] = targets.tolist()
    return [spec.names[value] for value in values] if spec.kind == CLASSES else values


def translated(targets: NDArray[Any], folder: SentenceSpec, trained: SentenceSpec) -> NDArray[Any]:
    """Labels of a folder in the class numbers of a model, by name (`check_same_task` has passed); numbers as they are."""
    if folder.kind != CLASSES or folder.names == trained.names:
        return targets
    to_trained = np.array([trained.names.index(name) for name in folder.names])  # [folder -> model]
    return to_trained[targets]
