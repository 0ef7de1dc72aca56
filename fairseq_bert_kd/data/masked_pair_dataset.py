"""Sentence pairs with target positions to predict: inputs for training the teacher."""

from collections.abc import Callable
from typing import Optional

import numpy as np
import torch
from fairseq.data import FairseqDataset, data_utils
from numpy.typing import NDArray


class MaskedPairDataset(FairseqDataset):
    """Pairs of student ids, the target with a mask that is a function of epoch and sentence.

    Args:
        source: indexed dataset of source ids, each ending with end of sentence.
        target: indexed dataset of target ids, each ending with end of sentence.
        mask: ``(length, epoch, index) -> (length,) bool``, target positions to predict.
        pad: padding index of both dictionaries.
        shuffle_seed: seed of the order of equally long pairs; None keeps corpus order.
    """

    def __init__(
        self,
        source,
        target,
        mask: Callable[[int, int, int], NDArray[np.bool_]],
        pad: int,
        shuffle_seed: Optional[int],
    ):
        if len(source) != len(target):
            raise ValueError(
                f"source and target differ: {len(source)} and {len(target)} sentences; "
                "run fairseq-preprocess again on files with the same number of lines"
            )
        self.source = source
        self.target = target
        self.mask = mask
        self.pad = pad
        self.shuffle_seed = shuffle_seed
        # tokens of source (without its end of sentence) and target (with it)
        self.sizes: NDArray[np.int64] = (
            np.asarray(source.sizes, np.int64) - 1 + np.asarray(target.sizes, np.int64)
        )
        # fairseq keeps its data-loading workers alive across epochs, each with its own copy of this
        # object: an ordinary attribute would stay at the first epoch there, and so would the masks.
        self._epoch = torch.ones((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch):
        self._epoch.fill_(epoch)

    def __getitem__(self, index):
        target = self.target[index]
        return {
            "id": index,
            "source": self.source[index][:-1],
            "target": target,
            "masked": self.mask(len(target), int(self._epoch), index),
        }

    def __len__(self):
        return len(self.source)

    def collater(self, samples):
        """Mini-batch of the model's inputs, right-padded to ``(batch, longest)``; empty for no samples.

        ``masked`` is False on padding. ``target`` holds all target ids, and the criterion picks the masked
        ones. ``ntokens`` counts source and target tokens.
        """
        if not samples:
            return {}
        src_lengths = torch.tensor([len(sample["source"]) for sample in samples])
        tgt_lengths = torch.tensor([len(sample["target"]) for sample in samples])
        target = self._collate_tokens([sample["target"] for sample in samples])
        masked = torch.zeros(target.shape, dtype=torch.bool)
        for row, sample in enumerate(samples):
            masked[row, : len(sample["masked"])] = torch.from_numpy(sample["masked"])
        return {
            "id": torch.tensor([sample["id"] for sample in samples]),
            "nsentences": len(samples),
            "ntokens": int(src_lengths.sum() + tgt_lengths.sum()),
            "net_input": {
                "src_tokens": self._collate_tokens([sample["source"] for sample in samples]),
                "src_lengths": src_lengths,
                "tgt_tokens": target,
                "tgt_lengths": tgt_lengths,
                "masked": masked,
            },
            "target": target,
        }

    def _collate_tokens(self, values):
        """``(batch, longest)`` int64, right-padded."""
        return data_utils.collate_tokens([value.long() for value in values], self.pad, left_pad=False)

    def num_tokens(self, index):
        return int(self.sizes[index])

    def num_tokens_vec(self, indices):
        return self.sizes[indices]

    def size(self, index):
        return int(self.sizes[index])

    def ordered_indices(self):
        """Indices by pair length, equal lengths mixed.

        fairseq forms batches once and keeps them for all epochs. A seed of our own lets a resumed run form the
        same ones: fairseq's seed here is that of the epoch in which the run starts.
        """
        order = np.arange(len(self))
        if self.shuffle_seed is not None:
            order = np.random.default_rng(self.shuffle_seed).permutation(order)
        return order[np.argsort(self.sizes[order], kind="mergesort")]

    @property
    def supports_prefetch(self):
        return False
