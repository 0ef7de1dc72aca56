"""Stores of input rows, for text smoothing: a masked language model's k best tokens for every position of an input text.

A row is a row of `topk`, with the original token's logit. The header names another schema and the file ends in another
suffix, so neither can be taken for a store of targets.
"""

import math
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.fairseq_data import SideFiles, sentence_files, translation_files
from fairseq_bert_kd.storage.header import check_exists, open_header
from fairseq_bert_kd.storage.schema import ChunkData
from fairseq_bert_kd.storage.store_folders import check_store_name, rebuilding
from fairseq_bert_kd.storage.topk import STRIDED_PLAN, TopKInfo
from fairseq_bert_kd.storage.topk_store import DEFAULT_NAME, TopKReader

UNMASKED = "unmasked"
MASKED = "masked"
VIEWS = (UNMASKED, MASKED)
SOURCE = "source"
SENTENCES = "sentences"
NOTHING_TO_SMOOTH = 0.9  # mean probability of the original token; our choice


@dataclass(frozen=True, kw_only=True)
class SmoothingInfo(TopKInfo):
    """Statement of the creator of a store of input rows; the target's fields of `TopKInfo` are the smoothed text's.

    ``mask_plan`` is the view: "unmasked" where the model saw the whole text, "strided" where each position was hidden in
    one of ``passes`` passes.
    """

    gold: bool = True

    version: ClassVar[int] = 3
    suffix: ClassVar[str] = "smooth"
    mask_plans: ClassVar[tuple[str, ...]] = (UNMASKED, STRIDED_PLAN)
    kind: ClassVar[str]  # of --side

    @property
    def view(self) -> str:
        """One of `VIEWS`."""
        return UNMASKED if self.mask_plan == UNMASKED else MASKED

    @property
    def hides(self) -> bool:
        return self.view == MASKED

    @property
    def judged_temperature(self) -> float:
        """Temperature of the original token's probability: 1 where it is stored, otherwise the lowest."""
        return 1.0 if 1.0 in self.temperatures else self.temperatures[0]

    def too_sure(self, original: float) -> str:
        """Advice where the masked language model expects nothing but the words that are there; "" where it does not.

        Args:
            original: mean probability of the original token.
        """
        if original < NOTHING_TO_SMOOTH:
            return ""
        masked = "" if self.hides else "dump --view masked, or "
        return (
            f"the original token has a mean probability of {original:.3f} at temperature {self.judged_temperature:g}, so "
            f"smoothing at it changes almost nothing; {masked}train with a higher --smoothing-temperature"
        )

    @property
    def table_columns(self) -> list[tuple]:
        return [*super().table_columns, ("original", "<f8")]  # probability of the original token, summed

    def check(self) -> None:
        super().check()
        if not self.gold or not self.temperatures:
            raise ValueError(
                "a store for text smoothing holds the original token's logit and log-normalisers"
            )

    def stated(self) -> dict[str, Any]:
        return {**super().stated(), "mask_plan": self.mask_plan}

    def count(self, data: ChunkData) -> dict[str, Any]:
        records = data.records[data.scored]
        return super().count(data) | {"original": float(original_probs(records, self).sum())}

    def summarise(self, table: NDArray[Any]) -> dict[str, Any]:
        summary = super().summarise(table)
        rows = summary["scored_rows"]
        return summary | {"original_probability": math.fsum(table["original"]) / rows if rows else None}

    @classmethod
    def rebuild_command(cls, path: Path, *more: str) -> str:
        split, *rest = path.name.split(".")
        options = ["--path SMOOTHER.pt", f"--subset {shlex.quote(split)}", f"--side {cls.kind}"]
        end = next((place for place in (3, 2) if rest[place : place + 1] == [cls.suffix]), None)
        if end is not None:  # SPLIT.MIDDLE.VIEW.NAME.smooth or SPLIT.MIDDLE.VIEW.smooth, or a shard of it
            middle, view, *name = rest[:end]
            if cls.kind == SOURCE and "-" in middle:
                source, target = map(shlex.quote, middle.split("-", 1))
                options.append(f"--source-lang {source} --target-lang {target}")
            options.append(f"--view {shlex.quote(view)}")
            options += [f"--name {shlex.quote(part)}" for part in name]
        return rebuilding(path, cls.command, *options, *more)


@dataclass(frozen=True, kw_only=True)
class SourceSmoothingInfo(SmoothingInfo):
    """Rows for the tokens of a translation corpus's sources, see `SmoothingInfo`."""

    schema: ClassVar[str] = "smoothed sources"
    kind: ClassVar[str] = SOURCE
    sides: ClassVar[tuple[str, ...]] = ("source",)
    row_side: ClassVar[str | None] = "source"
    dictionary_side: ClassVar[str | None] = "source"

    def files(self, folder: str | Path) -> dict[str, SideFiles]:
        both = translation_files(folder, self.split, self.source_lang, self.target_lang)
        return {"source": both["source"]}

    def dictionaries(self) -> dict[str, tuple[str, str]]:
        return {"source": (f"dict.{self.source_lang}.txt", self.dictionary_digest)}


@dataclass(frozen=True, kw_only=True)
class SentenceSmoothingInfo(SmoothingInfo):
    """Rows for the tokens of single sentences, see `SmoothingInfo`."""

    schema: ClassVar[str] = "smoothed sentences"
    kind: ClassVar[str] = SENTENCES
    sides: ClassVar[tuple[str, ...]] = ("input0",)
    row_side: ClassVar[str | None] = "input0"
    dictionary_side: ClassVar[str | None] = "input0"

    def files(self, folder: str | Path) -> dict[str, SideFiles]:
        return sentence_files(folder, self.split, self.sides)

    def dictionaries(self) -> dict[str, tuple[str, str]]:
        return {"input0": ("input0/dict.txt", self.dictionary_digest)}


class SourceSmoothingReader(TopKReader):
    """Reads a store of smoothed sources, see `StoreReader`."""

    schema = SourceSmoothingInfo
    info: SmoothingInfo


class SentenceSmoothingReader(TopKReader):
    """Reads a store of smoothed sentences, see `StoreReader`."""

    schema = SentenceSmoothingInfo
    info: SmoothingInfo


def open_rows(path: str | os.PathLike[str]) -> TopKReader:
    """A reader of token rows of any schema, or of a shard of them.

    Raises:
        FileNotFoundError, ValueError: see `StoreReader`.
    """
    readers = (TopKReader, SourceSmoothingReader, SentenceSmoothingReader)
    check_exists(Path(path))
    found = open_header(Path(path), tuple(reader.schema for reader in readers)).info
    return next(reader for reader in readers if reader.schema is type(found))(path, shard=True)


def original_probs(records: NDArray[Any], info: SmoothingInfo) -> NDArray[np.float64]:
    """``(rows,)`` probability of the original token at the judged temperature."""
    column = info.temperatures.index(info.judged_temperature)
    logits = records["gold_logit"].astype(np.float64) / info.judged_temperature
    return np.exp(logits - records["log_normalisers"][:, column])


def smoothing_store_path(
    folder: str | os.PathLike[str], split: str, middle: str, view: str, name: str = DEFAULT_NAME
) -> Path:
    """Path of the store of a split: ``train.sentences.unmasked.smooth`` or ``train.de-en.unmasked.smooth``.

    Args:
        folder: folder of the data, or of the stores of one data folder.
        split: "train", for example.
        middle: "sentences", or the languages of a translation corpus, ``de-en``.
        view: one of `VIEWS`.
        name: name among several stores of the same view, ``train.sentences.unmasked.NAME.smooth``.

    Raises:
        ValueError: a name with characters other than letters, digits, ``_`` and ``-``.
    """
    check_store_name(name)
    part = "" if name == DEFAULT_NAME else f".{name}"
    return Path(folder) / f"{split}.{middle}.{view}{part}.{SmoothingInfo.suffix}"
