import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_bert_kd.functional.truncation import cut_text, longest_first


@pytest.mark.parametrize(
    ("lengths", "limit", "kept"),
    [
        ((5, 3), 8, (5, 3)),
        ((9, 3), 8, (5, 3)),
        ((3, 9), 8, (3, 5)),
        ((9, 9), 8, (4, 4)),
        ((9, 9), 7, (4, 3)),  # the odd token is the first text's
        ((4, 9), 7, (4, 3)),
        ((9, 1), 2, (1, 1)),
        ((9,), 4, (4,)),
        ((3,), 4, (3,)),
    ],
)
def test_by_hand(lengths, limit, kept):
    assert longest_first(np.array([lengths]), limit).tolist() == [list(kept)]


def one_by_one(first, second, limit):
    while first + second > limit:
        first, second = (first - 1, second) if first > second else (first, second - 1)
    return [first, second]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=20), st.integers(2, 40)
)
def test_equals_taking_tokens_one_by_one(rows, limit):
    assert longest_first(np.array(rows), limit).tolist() == [one_by_one(*row, limit) for row in rows]


def test_each_text_keeps_a_token():
    with pytest.raises(ValueError, match="a row of 2 texts needs at least 2 tokens, the limit is 1"):
        longest_first(np.array([[3, 3]]), 1)


def test_a_cut_text_keeps_its_end():
    text = np.array([5, 6, 7, 2])
    assert [cut_text(text, length).tolist() for length in (9, 4, 3, 1)] == [
        [5, 6, 7, 2],
        [5, 6, 7, 2],
        [5, 6, 2],
        [2],
    ]
