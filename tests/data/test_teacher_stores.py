"""Targets in training must be as long as those that the teachers scored, part by part."""

from pathlib import Path

import numpy as np
import pytest

from fairseq_bert_kd.data.teacher_stores import check_unchanged_lengths


class Part:
    """What the check reads of a store."""

    def __init__(self, name, *lengths):
        self.path, self.lengths = Path(name), np.array(lengths)

    def __len__(self):
        return len(self.lengths)


PARTS = [Part("train.topk", 3, 1), Part("train1.topk", 2)]


@pytest.mark.parametrize(("sizes", "upsampled"), [([3, 1, 2], 1), ([3, 1, 3, 1, 2], 2)])
def test_parts_stand_behind_each_other_and_the_first_one_may_be_repeated(sizes, upsampled):
    check_unchanged_lengths(np.array(sizes), PARTS, upsampled)


@pytest.mark.parametrize(
    ("sizes", "upsampled", "said"),
    [
        ([3, 2, 2], 1, "target 1 of train.topk has 2 tokens in training and 1 in its file"),
        ([3, 1, 3], 1, "target 0 of train1.topk has 3 tokens in training and 2 in its file"),
        ([3, 1, 4, 1, 2], 2, "target 0 of train.topk has 4 tokens in training and 3 in its file"),
        ([3, 1, 3, 1, 3], 2, "target 0 of train1.topk has 3 tokens in training and 2 in its file"),
    ],
)
def test_another_length_is_named(sizes, upsampled, said):
    with pytest.raises(ValueError, match=said):
        check_unchanged_lengths(np.array(sizes), PARTS, upsampled)
