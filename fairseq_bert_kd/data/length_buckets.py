"""The order of an epoch: shuffled, and sorted by length within buckets of many batches.

A batch then holds texts of about equal length, and little of it is padding; batches are others in every epoch. It is a
function of seed and epoch alone, so a resumed run forms the same batches.
"""

import numpy as np
from numpy.typing import NDArray

BATCHES_PER_BUCKET = 100  # our own choice: enough for little padding, few enough for varied batches


def shuffled(rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """``(rows,)`` row numbers in the order of an epoch, before `sorted_in_buckets`."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def rows_per_bucket(sizes: NDArray[np.int64], max_tokens: int | None, max_rows: int | None) -> int:
    """Rows of about `BATCHES_PER_BUCKET` batches.

    Args:
        sizes: ``(rows,)`` tokens of each row, at least one row.
        max_tokens: most tokens of a batch; None for no limit.
        max_rows: most rows of a batch; None for no limit.
    """
    by_tokens = max_tokens / sizes.mean() if max_tokens else len(sizes)
    return max(1, int(BATCHES_PER_BUCKET * min(by_tokens, max_rows or len(sizes))))


def sorted_in_buckets(order: NDArray[np.int64], sizes: NDArray[np.int64], bucket: int) -> NDArray[np.int64]:
    """The order with every ``bucket`` consecutive rows sorted by size; equal sizes stay as they are.

    Args:
        order: ``(n,)`` row numbers.
        sizes: ``(rows,)`` tokens of each row.
        bucket: rows that are sorted together.
    """
    buckets = np.arange(len(order)) // bucket
    return order[np.lexsort((sizes[order], buckets))]
