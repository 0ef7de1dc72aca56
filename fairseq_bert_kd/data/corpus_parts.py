"""The files that make up a split, and faults of the host in them."""

import itertools
import os
from collections.abc import Iterator
from typing import Any

from fairseq.data import indexed_dataset

from fairseq_bert_kd.storage.indexed_data import IndexedTokens, is_mmap


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
