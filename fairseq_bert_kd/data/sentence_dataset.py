"""Rows of one or two texts with a label: batches of a sentence task, see `fairseq_bert_kd.batch`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from fairseq.data import FairseqDataset
from numpy.typing import NDArray
from torch import Tensor

from fairseq_bert_kd.data.length_buckets import rows_per_bucket, shuffled, sorted_in_buckets
from fairseq_bert_kd.data.token_sizes import TokenSizes
from fairseq_bert_kd.functional.truncation import cut_text, longest_first


class SentenceDataset(TokenSizes, FairseqDataset):
    """One or two texts a row, each ending with end of sentence, and a label or none.

    Args:
        texts: one or two sequences of ids with ``sizes``, as many rows each.
        targets: ``(rows,)`` int64 class numbers or float64 numbers; None if unlabelled.
        pad: padding index of the dictionary.
        shuffle_seed: seed of the epochs' orders, for training; None gives one order, by length.

    Attributes:
        lengths: ``(rows, texts)`` tokens of each text, after `truncate`.
        sizes: ``(rows,)`` tokens of each row.
    """

    def __init__(
        self,
        texts: Sequence[Any],
        targets: NDArray[Any] | None,
        pad: int,
        shuffle_seed: int | None = None,
    ):
        assert targets is None or len(targets) == len(texts[0]), (len(texts[0]), len(targets))
        self.texts = list(texts)
        self.targets = targets
        self.pad = pad
        self.shuffle_seed = shuffle_seed
        self.lengths = np.stack([np.asarray(text.sizes, np.int64) for text in self.texts], axis=1)
        self.sizes: NDArray[np.int64] = self.lengths.sum(axis=1)
        self._epoch = 1

    def truncate(self, limit: int) -> int:
        """Cut longer rows to ``limit`` tokens, ends of sentence included; the number of rows that were cut."""
        cut = int((self.sizes > limit).sum())
        if cut:
            self.lengths = longest_first(self.lengths, limit)
            self.sizes = self.lengths.sum(axis=1)
        return cut

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        lengths = self.lengths[index]
        texts = [
            cut_text(text[index], length) for text, length in zip(self.texts, lengths.tolist(), strict=True)
        ]
        target = None if self.targets is None else self.targets[index]
        return {"id": index, "texts": texts, "target": target}

    def collater(self, samples):
        """Mini-batch of rows; empty for no rows."""
        if not samples:
            return {}
        columns = list(zip(*(sample["texts"] for sample in samples), strict=True))
        lengths = tuple(torch.tensor([len(text) for text in column]) for column in columns)
        batch = {
            "id": torch.tensor([sample["id"] for sample in samples]),
            "nsentences": len(samples),
            "ntokens": int(sum(length.sum() for length in lengths)),
            "net_input": {
                "texts": tuple(padded(column, self.pad) for column in columns),
                "lengths": lengths,
            },
        }
        if self.targets is not None:
            batch["target"] = torch.from_numpy(np.array([sample["target"] for sample in samples]))
        return batch

    # ------------------------------------------------------------ order

    def set_epoch(self, epoch):
        self._epoch = epoch

    @property
    def can_reuse_epoch_itr_across_epochs(self):
        """Whether fairseq keeps the batches of the first epoch: not in training."""
        return self.shuffle_seed is None

    def ordered_indices(self):
        """Row numbers by length; in training shuffled by seed and epoch, and `batch_by_size` sorts them."""
        if self.shuffle_seed is None:
            return np.argsort(self.sizes, kind="stable")
        return shuffled(len(self), self.shuffle_seed, self._epoch)

    def batch_by_size(self, indices, max_tokens=None, max_sentences=None, required_batch_size_multiple=1):
        if self.shuffle_seed is not None and len(indices):
            bucket = rows_per_bucket(self.sizes, max_tokens, max_sentences)
            indices = sorted_in_buckets(indices, self.sizes, bucket)
        return super().batch_by_size(indices, max_tokens, max_sentences, required_batch_size_multiple)

    @property
    def supports_prefetch(self):
        return False


def padded(texts: Sequence[NDArray[Any]], pad: int) -> Tensor:
    """``(texts, longest)`` int64, right-padded."""
    width = max(len(text) for text in texts)
    rows = np.full((len(texts), width), pad, np.int64)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text)] = text
    return torch.from_numpy(rows)
