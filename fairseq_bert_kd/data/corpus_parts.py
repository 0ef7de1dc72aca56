"""The files that make up a corpus, and faults in them that the host does not see."""

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

from fairseq.data import Dictionary, indexed_dataset

from fairseq_bert_kd.storage.fairseq_data import IndexedTokens, is_mmap


def corpus_parts(cfg: Any, data_path: str, split: str, combine: bool) -> Iterator[tuple[str, str]]:
    """Name and path prefix of each pair of files that the host concatenates for ``split``.

    Args:
        cfg: of a translation task.
        data_path: one data folder.
        split: ``train``, for example.
        combine: whether ``train1``, ``train2``, ... belong to it.
    """
    source, target = cfg.source_lang, cfg.target_lang
    for count in itertools.count():
        part = f"{split}{count or ''}"
        prefixes = [
            os.path.join(data_path, f"{part}.{a}-{b}.") for a, b in ((source, target), (target, source))
        ]
        found = [p for p in prefixes if indexed_dataset.dataset_exists(p + source, impl=cfg.dataset_impl)]
        if not found:
            return
        yield part, found[0]
        if not combine:
            return


def refuse_damaged_parts(cfg: Any, data_path: str, split: str, combine: bool) -> None:
    """Raise ValueError for a part whose index the host damaged; other formats than mmap pass."""
    for _, prefix in corpus_parts(cfg, data_path, split, combine):
        for lang in (cfg.source_lang, cfg.target_lang):
            side = prefix + lang
            if indexed_dataset.MMapIndexedDataset.exists(side) and is_mmap(side):
                IndexedTokens(side).check()


def refuse_other_dictionaries(data_paths: Sequence[str], dictionaries: dict[str, Dictionary]) -> None:
    """Raise ValueError for a data folder that was binarised with other dictionaries than the first one.

    The host reads the ids of all folders (``a:b``) with the dictionaries of the first; another one would turn
    every word into a different one, without a word. A folder without dictionaries passes, and counts may differ.

    Args:
        data_paths: the folders.
        dictionaries: of the first folder, by language.
    """
    for folder in data_paths[1:]:
        for language, first in dictionaries.items():
            path = os.path.join(folder, f"dict.{language}.txt")
            if not os.path.isfile(path):
                continue
            here, there = Dictionary.load(path).symbols, first.symbols
            pairs = itertools.zip_longest(here, there, fillvalue="(none)")
            for number, (symbol, expected) in enumerate(pairs):
                if symbol != expected:
                    raise ValueError(
                        f"dict.{language}.txt in {folder} is another dictionary: symbol {number} is `{symbol}` there and "
                        f"`{expected}` in {data_paths[0]} ({len(here)} and {len(there)} symbols); binarise all folders "
                        "with the same dictionaries (fairseq-preprocess --srcdict/--tgtdict)"
                    )
