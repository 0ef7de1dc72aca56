"""Batches that cover every sentence, whatever the host does with the last one."""

import logging
from collections.abc import Sequence

import numpy as np
from fairseq.data import BaseWrapperDataset
from numpy.typing import NDArray

logger = logging.getLogger(__name__)


def complete_batches(batches: Sequence[NDArray], indices: NDArray) -> list[NDArray]:
    """Put back the last batch that fairseq drops.

    ``fairseq.data.data_utils.batch_by_size`` deletes the last batch when its size is no multiple of
    ``--required-batch-size-multiple`` (8 by default), without a word: in training always the longest
    sentences, in decoding the last up to seven of them. Batches are consecutive runs of ``indices``,
    so what is missing is one run at the end, and it respected the token limit when it was formed.
    """
    batches = list(batches)
    covered = sum(len(batch) for batch in batches)
    if covered < len(indices):
        batches.append(np.asarray(indices[covered:]))
    return batches


class CompleteBatchesDataset(BaseWrapperDataset):
    """A fairseq dataset whose batches leave no sentence out."""

    def batch_by_size(self, indices, **kwargs):
        if not len(indices):
            return []  # the host would look at its last batch
        return complete_batches(self.dataset.batch_by_size(indices, **kwargs), indices)

    @property
    def src(self):
        return self.dataset.src

    @property
    def tgt(self):
        return self.dataset.tgt

    @property
    def src_sizes(self):
        return self.dataset.src_sizes

    @property
    def tgt_sizes(self):
        return self.dataset.tgt_sizes

    def size(self, index):
        return self.dataset.size(index)
