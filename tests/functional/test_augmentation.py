import math

import numpy as np
import torch

from fairseq_bert_kd.functional.augmentation import draw_copies, draw_rows, nearest_rows

WORDS = ["a", "good", "film"]
CANDIDATES = {1: ["bad", "fine", "good"], 2: ["movie"]}


def copies(probability=0.4, count=20, seed=(1, 0), words=WORDS, candidates=CANDIDATES):
    return draw_copies(words, candidates, probability, count, np.random.default_rng(list(seed)))


def test_copies_are_those_of_the_stream_by_hand():
    rng = np.random.default_rng([1, 0])
    replaced = rng.random((8, 2)) < 0.4
    choices = rng.integers([3, 1], size=(8, 2))
    expected = ["a good film"]
    for row in range(8):
        copy = ["a", "good", "film"]
        if replaced[row, 0]:
            copy[1] = ["bad", "fine", "good"][choices[row, 0]]
        if replaced[row, 1]:
            copy[2] = "movie"
        if " ".join(copy) not in expected:
            expected.append(" ".join(copy))
    assert len(expected) > 2  # or this test shows nothing
    assert [" ".join(copy) for copy in copies(count=8)] == expected


def test_same_seed_and_row_give_the_same_copies():
    assert copies() == copies()
    assert len({str(copies(seed=(1, row), count=3)) for row in range(20)}) > 1
    np.random.seed(3)
    before = copies()
    np.random.seed(4)
    assert copies() == before


def test_the_original_comes_first_and_nothing_twice():
    found = copies(probability=1.0, count=200)
    assert found[0] == WORDS
    assert sorted(map(" ".join, found)) == ["a bad movie", "a fine movie", "a good film", "a good movie"]


def test_every_copy_has_as_many_words_and_keeps_those_without_candidates():
    for copy in copies(count=50):
        assert len(copy) == 3
        assert copy[0] == "a"


def test_probability_0_gives_the_original_alone():
    assert copies(probability=0.0) == [WORDS]


def test_a_sentence_without_candidates_comes_back_alone():
    assert copies(candidates={}) == [WORDS]


def test_share_of_replaced_words():
    many = draw_copies(["x"] * 400, {i: [str(i)] for i in range(400)}, 0.4, 25, np.random.default_rng(0))
    replaced = np.array([[word != "x" for word in copy] for copy in many[1:]])
    assert abs(replaced.mean() - 0.4) < 4.5 * math.sqrt(0.24 / replaced.size)


def test_each_sentence_of_a_pair_is_replaced_beside_the_original_other():
    other = ["so", "new"]
    sides = [(WORDS, CANDIDATES), (other, {1: ["old"]})]
    rows = draw_rows(sides, 1.0, 20, np.random.default_rng([1, 0]))
    assert rows[0] == (WORDS, other)
    texts = [tuple(map(" ".join, row)) for row in rows]
    assert len(set(texts)) == len(texts) == 1 + 3 + 1
    assert texts[-1] == ("a good film", "so old")
    assert all(first == "a good film" or second == "so new" for first, second in texts)


def test_first_sentence_of_a_pair_is_drawn_as_if_alone():
    rows = draw_rows([(WORDS, CANDIDATES), (["x"], {})], 0.4, 20, np.random.default_rng([1, 0]))
    assert [first for first, _ in rows] == copies()


def test_nearest_by_cosine_by_hand():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [math.sqrt(0.5), math.sqrt(0.5)]])
    queries = torch.tensor([[10.0, 1.0], [0.0, 0.1]])  # length does not count
    assert nearest_rows(queries, vectors, 2).tolist() == [[0, 2], [1, 2]]
    assert nearest_rows(queries, vectors, 9).tolist() == [[0, 2, 1], [1, 2, 0]]
