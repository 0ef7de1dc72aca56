"""The binarised files that make up a corpus, and faults in them that fairseq does not see."""

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fairseq.data import Dictionary, indexed_dataset

from fairseq_bert_kd.storage.fairseq_data import IndexedTokens, check_parallel, is_mmap, text_files


class CorpusPart(NamedTuple):
    """One of the binarised corpora that fairseq concatenates for a split.

    Attributes:
        folder: data folder.
        name: ``train``, ``train1``, ...
        prefixes: path of each side without ``.idx`` and ``.bin``, by the side's name: source, target, input0, ...
    """

    folder: str
    name: str
    prefixes: Mapping[str, str]


def translation_parts(cfg: Any, folder: str, split: str, combine: bool) -> list[CorpusPart]:
    """The parts of a split of a translation task, each with a source and a target.

    Args:
        cfg: options of the task.
        folder: one data folder.
        split: ``train`` for example.
        combine: whether ``train1``, ``train2``, ... belong to it.
    """
    source, target = cfg.source_lang, cfg.target_lang
    parts: list[CorpusPart] = []
    for count in itertools.count():
        name = f"{split}{count or ''}"
        for a, b in ((source, target), (target, source)):  # fairseq also reads files of the other direction
            prefix = os.path.join(folder, f"{name}.{a}-{b}.")
            if indexed_dataset.dataset_exists(prefix + source, impl=cfg.dataset_impl):
                parts.append(CorpusPart(folder, name, {"source": prefix + source, "target": prefix + target}))
                break
        else:
            return parts
        if not combine:
            return parts
    raise AssertionError("unreachable")


def text_parts(folder: str, split: str, combine: bool, language: str | None = None) -> list[CorpusPart]:
    """The parts of a split of single sentences, whose only side is ``target``.

    Args:
        folder: one data folder.
        split: ``train`` for example.
        combine: whether ``train1``, ``train2``, ... belong to it.
        language: see `fairseq_data.text_files`.

    Raises:
        FileNotFoundError: the split is not there.
        ValueError: the folder holds pairs, or several languages.
    """
    parts = [CorpusPart(folder, split, {"target": text_files(folder, split, language).prefix})]
    while combine:
        name = f"{split}{len(parts)}"
        try:
            parts.append(CorpusPart(folder, name, {"target": text_files(folder, name, language).prefix}))
        except FileNotFoundError:
            break
    return parts


def check_parts(parts: Iterable[CorpusPart]) -> None:
    """Check the index of every side, and that all sides of a part have as many sentences.

    Only files in the mmap format are checked, which is fairseq-preprocess's default.

    Raises:
        ValueError: an index that fairseq damaged, or sides of unequal length.
    """
    for part in parts:
        sides = {
            side: IndexedTokens(prefix)
            for side, prefix in part.prefixes.items()
            if indexed_dataset.MMapIndexedDataset.exists(prefix) and is_mmap(prefix)
        }
        for tokens in sides.values():
            tokens.check()
        for one, other in itertools.pairwise(sides):
            check_parallel(part.name, len(sides[one]), len(sides[other]), (one, other))


def check_same_dictionaries(folders: Sequence[str], dictionaries: Mapping[str, Dictionary]) -> None:
    """Check that all data folders were binarised with the dictionaries of the first one.

    fairseq reads the ids of all folders (``a:b``) with the dictionaries of the first. Another dictionary would turn every
    word into a different one, without a message. A folder without dictionaries passes, and counts may differ.

    Args:
        folders: the data folders.
        dictionaries: dictionaries of the first folder, by the file's place in it: ``dict.en.txt``.

    Raises:
        ValueError: names the first symbol that differs.
    """
    for folder in folders[1:]:
        for name, first in dictionaries.items():
            path = os.path.join(folder, name)
            if not os.path.isfile(path):
                continue
            symbols = Dictionary.load(path).symbols
            pairs = itertools.zip_longest(symbols, first.symbols, fillvalue="(none)")
            for number, (symbol, expected) in enumerate(pairs):
                if symbol != expected:
                    raise ValueError(
                        f"{name} in {folder} is another dictionary: symbol {number} is `{symbol}` there and "
                        f"`{expected}` in {folders[0]} ({len(symbols)} and {len(first.symbols)} symbols). Binarise all "
                        "folders with the same dictionaries (fairseq-preprocess --srcdict/--tgtdict)"
                    )
