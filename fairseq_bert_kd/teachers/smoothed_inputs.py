"""What tasks with smoothed inputs share: the rows of a training split, or the counts of a control."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq import utils

from fairseq_bert_kd.data.smoothed_dataset import (
    SmoothedDataset,
    open_smoothing,
    text_of_sentences,
    text_of_sources,
)
from fairseq_bert_kd.data.store_rows import StoreRows
from fairseq_bert_kd.modules.text_smoother import TextSmoother
from fairseq_bert_kd.storage.smoothing_store import SENTENCES, smoothing_store_path
from fairseq_bert_kd.storage.store_folders import store_folders

COUNTED_TOGETHER = 4096  # sentences


def smoothed_sentences(
    smoother: TextSmoother, dataset: Any, task: Any, folder: str, split: str, tokens: Any, tokenizer: str
) -> Any:
    """A training dataset of sentences with what its text is smoothed by.

    Args:
        smoother: of the criterion.
        dataset: of the split.
        task: its options and dictionary.
        folder: data folder of the split.
        split: its name.
        tokens: ids by sentence, as in the file.
        tokenizer: digest of the tokenizer of the data.

    Raises:
        FileNotFoundError, ValueError: see `open_smoothing`; or an end of sentence that is smoothed has no row, since its
            sentence was cut.
    """
    if not smoother.needs_store:
        smoother.take_counts(word_counts([tokens], task.dictionary))
        return dataset
    if smoother.cfg.smoothing_special and (cut := int((dataset.sizes != np.asarray(tokens.sizes)).sum())):
        raise ValueError(
            f"--smoothing-special smooths ends of sentences, and {cut} sentences of {split} were cut before theirs; leave it "
            "out, or raise --max-positions"
        )
    path = _path(smoother, task.cfg.data, folder, split, SENTENCES)
    reader, needed = open_smoothing(
        path,
        True,
        _stated(smoother, split, tokenizer),
        task.dictionary.symbols,
        {"input0": tokens},
        smoother.requirements,
        False,
    )
    return SmoothedDataset(dataset, StoreRows([reader], needed), text_of_sentences, task.dictionary.pad())


def smoothed_sources(
    smoother: TextSmoother,
    pairs: Any,
    src_sizes: Any,
    task: Any,
    parts: Sequence[Any],
    sources: Sequence[Any],
) -> Any:
    """A training dataset of pairs with what its sources are smoothed by.

    Args:
        smoother: of the task.
        pairs: of the split.
        src_sizes: ``(pairs,)`` tokens of each source in training.
        task: its options and dictionaries.
        parts: parts of the corpus.
        sources: for each part, ids by sentence as in its file.

    Raises:
        FileNotFoundError, ValueError: see `open_smoothing`; or an option changes the sources' tokens.
    """
    cfg, dictionary = task.cfg, task.src_dict
    repeats = cfg.upsample_primary if len(parts) > 1 else 1
    sizes = [np.asarray(part.sizes) for part in sources]
    if not np.array_equal(np.concatenate([sizes[0]] * repeats + sizes[1:]), src_sizes):
        raise ValueError(
            "an option changes the sources (--truncate-source, or symbols that are added), and rows for smoothing would stand "
            "beside the wrong tokens; leave it out"
        )
    if not smoother.needs_store:
        smoother.take_counts(word_counts(sources, dictionary))
        return pairs
    readers, needed = source_readers(smoother, task, parts, sources)
    return SmoothedDataset(
        pairs, StoreRows(readers, needed, upsample_first=repeats), text_of_sources, dictionary.pad()
    )


def source_readers(
    smoother: TextSmoother, task: Any, parts: Sequence[Any], sources: Sequence[Any]
) -> tuple[list[Any], Any]:
    """Readers of the stores of a corpus's parts, and what of the rows of all of them is used; arguments as `smoothed_sources`.

    Raises:
        FileNotFoundError, ValueError: see `open_smoothing`.
    """
    cfg, readers, needs = task.cfg, [], []
    for part, tokens in zip(parts, sources, strict=True):
        path = _path(smoother, cfg.data, part.folder, part.name, f"{cfg.source_lang}-{cfg.target_lang}")
        reader, needed = open_smoothing(
            path,
            False,
            _stated(smoother, part.name, getattr(task, "tokenizer_digest", "") or ""),
            task.src_dict.symbols,
            {"source": tokens},
            smoother.requirements,
            str(cfg.kd_check) == "all",
        )
        readers.append(reader)
        needs.append(needed)
    # --smoothing-topk 0 takes as many words as all parts have
    return readers, min(needs, key=lambda needed: needed.topk)


def word_counts(texts: Sequence[Any], dictionary: Any) -> torch.Tensor:
    """``(dictionary,)`` occurrences of each symbol, 0 for special ones."""
    counts = np.zeros(len(dictionary), np.int64)
    for text in texts:
        for start in range(0, len(text), COUNTED_TOGETHER):
            block = [np.asarray(text[i]) for i in range(start, min(start + COUNTED_TOGETHER, len(text)))]
            counts += np.bincount(np.concatenate(block), minlength=len(counts))
    counts[: dictionary.nspecial] = 0
    return torch.from_numpy(counts)


def _path(smoother: TextSmoother, data: str, folder: str, split: str, middle: str) -> Path:
    cfg, folders = smoother.cfg, utils.split_paths(data)
    elsewhere = store_folders(folders, cfg.smoothing_store_dir, "--smoothing-store-dir")
    view = str(cfg.smoothing_view)
    return smoothing_store_path(elsewhere[folders.index(folder)], split, middle, view, cfg.smoothing_store)


def _stated(smoother: TextSmoother, split: str, tokenizer: str) -> dict[str, str]:
    return {"split": split, "view": str(smoother.cfg.smoothing_view), "tokenizer": tokenizer}
