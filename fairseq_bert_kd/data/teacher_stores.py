"""Opens the stores of a corpus, part by part, and checks that they belong to its data."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fairseq import utils
from fairseq.data import Dictionary

from fairseq_bert_kd.batch import TeacherRequirements
from fairseq_bert_kd.data.absent_rows import AbsentRows
from fairseq_bert_kd.data.corpus_parts import CorpusPart, open_side
from fairseq_bert_kd.storage.alignment import (
    check_contents,
    check_dictionaries,
    check_sentences,
    check_settings,
)
from fairseq_bert_kd.storage.store_folders import store_folders
from fairseq_bert_kd.storage.topk_store import TopKReader, store_path

logger = logging.getLogger(__name__)


class TeacherStores:
    """The stores of a corpus for one criterion.

    Args:
        cfg: options of the task.
        dictionaries: dictionary of each side of the data, by the side's name.
        requirements: requirements of the criterion.
        label_only: parts of the corpus that have no store (``--kd-label-only``).
        check_tokenizer: raises ValueError for a teacher with another tokenizer than that of the data; given the store for
            the message, and the digest of its teacher's tokenizer ("" if not known).
    """

    def __init__(
        self,
        cfg: Any,
        dictionaries: Mapping[str, Dictionary],
        requirements: TeacherRequirements,
        label_only: set[str],
        check_tokenizer: Callable[[str, str], None],
    ):
        self.cfg, self.dictionaries, self.requirements = cfg, dictionaries, requirements
        self.label_only, self.check_tokenizer = label_only, check_tokenizer
        self._checked: set[Any] = set()
        folders = utils.split_paths(cfg.data)
        elsewhere = store_folders(folders, getattr(cfg, "kd_store_dir", None), "--kd-store-dir")
        self._folders = dict(zip(folders, elsewhere, strict=True))

    def path(self, part: CorpusPart, name: str) -> Path:
        """Path of a part's store."""
        folder = self._folders[part.folder]
        return store_path(folder, part.name, self.cfg.source_lang, self.cfg.target_lang, name)

    def exist(self, parts: Sequence[CorpusPart], names: Sequence[str]) -> bool:
        """Whether every part has all of these stores."""
        return all(self.path(part, name).exists() for part in parts for name in names)

    def open(self, parts: Sequence[CorpusPart], name: str) -> list[TopKReader | AbsentRows]:
        """The stores of consecutive parts; `AbsentRows` for a part of ``label_only``.

        Raises:
            FileNotFoundError: a part has no store.
            ValueError: a store does not belong to its part, or lacks what the criterion requires.
        """
        readers: dict[str, Any] = {
            part.name: self._open_one(part, name) for part in parts if part.name not in self.label_only
        }
        if self.requirements.samples:
            _check_same_draws(readers)
        info = next(iter(readers.values())).info
        for part in parts:
            if part.name in self.label_only:
                tokens = self._load(part, info.row_side)  # its sizes lie in memory that goes with it
                readers[part.name] = AbsentRows(self.path(part, name), info, np.array(tokens.sizes))
                logger.info("no teacher rows for %s: %d sentences of --kd-label-only", part.name, len(tokens))
        return [readers[part.name] for part in parts]

    def check(self, parts: Sequence[CorpusPart], name: str) -> None:
        """Check stores that are opened in a later epoch; raises as `open` does."""
        for part in parts:
            if part.name not in self.label_only:
                self._check_one(TopKReader(self.path(part, name)), part)

    def check_label_only(self, folders: Mapping[str, Sequence[CorpusPart]]) -> None:
        """Check the names of ``--kd-label-only``.

        Args:
            folders: parts of the training corpus, by data folder.

        Raises:
            ValueError: no folder has a part of that name, or a folder would have no store at all.
        """
        names = {folder: [part.name for part in parts] for folder, parts in folders.items()}
        known = list(dict.fromkeys(name for found in names.values() for name in found))
        unknown = sorted(self.label_only - set(known))
        if unknown:
            raise ValueError(
                f"--kd-label-only names `{unknown[0]}`, but the training corpus has the parts {', '.join(known)}; "
                "correct the name"
            )
        for folder, found in names.items():
            if found and self.label_only.issuperset(found):
                where = f" in {folder}" if len(names) > 1 else ""
                raise ValueError(
                    f"--kd-label-only names every part of the training corpus{where} ({', '.join(found)}), so no teacher is "
                    "left; use --kd-weight 0 for plain training"
                )

    def _open_one(self, part: CorpusPart, name: str) -> TopKReader:
        path = self.path(part, name)
        if not path.exists():
            raise FileNotFoundError(
                f"store {path} does not exist; write it with `fairseq-bert-kd dump`, or name the folder that holds it with "
                "--kd-store-dir"
            )
        reader = TopKReader(path)
        self._check_one(reader, part)
        logger.info(
            "teacher rows for %s: %s, k=%d of %d, %d of %d sentences covered",
            part.name,
            reader.path,
            self.requirements.topk,
            reader.info.k,
            len(reader) - reader.missing_sentences,
            len(reader),
        )
        return reader

    def _check_one(self, reader: TopKReader, part: CorpusPart) -> None:
        """Check that a store belongs to these files; once, though every epoch opens it again."""
        key = (reader.path, reader.header.digest)
        if key in self._checked:
            return
        self._check_header(reader, part)
        # the files themselves: what the task does to a source (--truncate-source) is not the teacher's
        sides = {side: self._load(part, side) for side in part.prefixes}
        compared = check_sentences(reader, sides, everything=str(self.cfg.kd_check) == "all")
        logger.info("%s belongs to these data: %d sentences compared by hash", reader.path, compared)
        self._checked.add(key)

    def _check_header(self, reader: TopKReader, part: CorpusPart) -> None:
        """Check what the header tells: languages, dictionaries, tokenizer, and what the criterion requires."""
        requirements = self.requirements
        check_settings(reader, part.name, self.cfg.source_lang, self.cfg.target_lang, requirements.topk)
        check_contents(reader, requirements.topk, requirements.temperatures, requirements.samples)
        symbols = {side: dictionary.symbols for side, dictionary in self.dictionaries.items()}
        check_dictionaries(reader, symbols)
        self.check_tokenizer(f"top-k store {reader.path}", reader.info.tokenizer_digest)

    def _load(self, part: CorpusPart, side: str) -> Any:
        return open_side(part.prefixes[side], self.dictionaries[side], self.cfg.dataset_impl)


def check_unchanged_lengths(
    sizes: Any, readers: Sequence[TopKReader | AbsentRows], upsample_first: int
) -> None:
    """Check that the task left targets as long as in their files, without prepended symbols for example.

    Args:
        sizes: ``(sentences,)`` tokens of each target in training, repeated parts counted again.
        readers: rows of consecutive parts.
        upsample_first: times that the first part is repeated.

    Raises:
        ValueError: the first target that differs.
    """
    start = 0
    for reader, times in zip(readers, [upsample_first, *[1] * len(readers)], strict=False):
        for _ in range(times):
            differs = np.asarray(sizes[start : start + len(reader)]) != reader.lengths
            if differs.any():
                sentence = int(differs.argmax())
                raise ValueError(
                    f"target {sentence} of {reader.path.name} has {sizes[start + sentence]} tokens in training and "
                    f"{reader.lengths[sentence]} in its file: an option prepends or appends symbols (a language id, for "
                    "example), and teacher rows would stand beside the wrong tokens. Leave the option out"
                )
            start += len(reader)


def check_names(names: Sequence[str]) -> None:
    """Raise ValueError where ``--kd-stores`` names a store twice, which would be no second teacher."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(
            f"--kd-stores names `{twice}` twice; name each store once, and give one a larger share with --kd-store-weights"
        )


def parse_weights(text: str | None, count: int) -> list[float]:
    """``--kd-store-weights``: positive numbers, one per teacher; equal ones for None.

    Raises:
        ValueError: another count, or a number that is not positive.
    """
    if text is None:
        return [1.0] * count
    try:
        weights = [float(part) for part in text.split(",")]
    except ValueError:
        weights = []
    if len(weights) != count or not all(0 < weight < float("inf") for weight in weights):
        raise ValueError(
            f"--kd-store-weights needs {count} positive numbers separated by commas, one for each of --kd-stores and one for "
            f"a live teacher, got `{text}`"
        )
    return weights


def _check_same_draws(readers: Mapping[str, TopKReader]) -> None:
    """Check that all parts drew their tokens outside the gold token, or none of them did."""
    with_gold = [part for part, reader in readers.items() if reader.info.gold]
    without = [part for part in readers if part not in with_gold]
    if with_gold and without:
        raise ValueError(
            f"--kd-objective sampled needs stores with the same kind of draws: {', '.join(with_gold)} was dumped with --gold, "
            f"{', '.join(without)} without; dump one of them again"
        )
