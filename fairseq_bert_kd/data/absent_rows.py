"""A part of a corpus that no teacher has scored."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairseq_bert_kd.storage.topk import TopKInfo


class AbsentRows:
    """Stands in for a `TopKReader`: no sentence has a row, so the student learns from labels alone.

    Args:
        path: where the store would be, for messages.
        info: description of the stores of the other parts, whose fields these rows have.
        lengths: ``(sentences,)`` tokens of each target, end of sentence included.
    """

    def __init__(self, path: Any, info: TopKInfo, lengths: ArrayLike):
        self.path, self.info = path, info
        self.lengths: NDArray[np.int64] = np.asarray(lengths, dtype=np.int64)

    def __len__(self) -> int:
        """Number of sentences."""
        return len(self.lengths)

    def gather_records(self, sentence_ids: ArrayLike, width: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """``(batch, width)`` empty records, and False everywhere."""
        shape = (len(np.asarray(sentence_ids)), width)
        return np.zeros(shape, self.info.record_dtype), np.zeros(shape, dtype=bool)
