import numpy as np

from fairseq_bert_kd.evaluation.matched_ngrams import matched_ngrams, position_counts


def test_an_ngram_counts_as_often_as_it_occurs_first_ones_first():
    matched = matched_ngrams(["the", "cat", "the"], ["the", "dog", "the", "cat", "the"], 1)
    assert matched.tolist() == [True, False, True, True, False]
    assert matched_ngrams(["the", "cat"], ["a", "the", "cat", "the", "cat"], 2).tolist() == [
        False, True, False, False,
    ]  # fmt: skip
    assert matched_ngrams([], ["a"], 1).tolist() == [False]
    assert matched_ngrams(["a"], ["a"], 2).tolist() == []


def test_counts_by_position_by_hand():
    # four words in two halves; three pairs, whose middles are at 1/6, 1/2, 5/6: the middle one is in the second half
    one = position_counts(["a b x d"], ["a b c d"], 1, 2, lowercase=False)
    assert one.tolist() == [[[2, 2], [1, 2]]]
    two = position_counts(["a b x d"], ["a b c d"], 2, 2, lowercase=False)
    assert two.tolist() == [[[1, 1], [0, 2]]]


def test_case_and_empty_texts():
    assert position_counts(["A"], ["a"], 1, 1, lowercase=False).tolist() == [[[0, 1]]]
    assert position_counts(["A"], ["a"], 1, 1, lowercase=True).tolist() == [[[1, 1]]]
    assert np.array_equal(position_counts([""], ["a"], 2, 3, lowercase=True), np.zeros((1, 3, 2)))
