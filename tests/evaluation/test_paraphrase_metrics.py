"""Measures of paraphrases by hand."""

import pytest

from fairseq_bert_kd.evaluation.paraphrase_metrics import (
    bleu_counts,
    bleu_of_counts,
    copies,
    corpus_bleu,
    distance_places,
    distinct,
    edit_distances,
    ibleu,
    paraphrase_scores,
    several_references_bleu,
    source_bleu,
    word_entropy,
)

SOURCES = ["how do i learn to code ?", "what is a good book ?"]
COPIES = ["How do I learn  to code ?", "what is a good book ?"]


def test_ibleu_by_hand():
    """.9 of 30 less .1 of 40."""
    assert ibleu(30, 40, 0.9) == pytest.approx(23)


def test_copies_aside_from_case_and_space():
    assert copies(COPIES, SOURCES).tolist() == [True, True]
    assert copies(["how do i learn code ?", *COPIES[1:]], SOURCES).tolist() == [False, True]


def test_distinct():
    assert distinct(["a b a", "a"], 1) == 50  # a and b of four words
    assert distinct(["a b a", "a"], 2) == 100
    assert distinct(["a"], 2) == 0


def test_entropy_of_words_by_hand():
    """Shares 1/2, 1/4, 1/4 have 1.5 bits, whatever text a word stands in; one word over and over has none."""
    assert word_entropy(["a b a", "c"]) == pytest.approx(1.5)
    assert word_entropy(["a a", "a"]) == 0
    assert word_entropy(["", ""]) == 0


def test_the_best_of_several_references_counts():
    texts = ["the cat sat on the mat", "it rains a lot here"]
    references = [["a dog ran", texts[0]], [texts[1]]]
    assert several_references_bleu(texts, references) == pytest.approx(100)
    assert several_references_bleu(texts, [references[0][:1], references[1]]) < 60


def test_counts_of_parts_make_the_whole():
    texts = ["how do i learn code now ?", "what is a very good book ?"]
    parts = [bleu_counts(corpus_bleu([text], [source])) for text, source in zip(texts, SOURCES, strict=True)]
    summed = {name: parts[0][name] + parts[1][name] for name in parts[0]}
    assert bleu_of_counts(summed) == pytest.approx(source_bleu(texts, SOURCES))


def test_a_copy_has_the_whole_source_and_pays_for_it():
    scores = paraphrase_scores(SOURCES, SOURCES, [["how can i learn to program ?"], ["which book is good ?"]])
    assert (scores["copy_rate"], scores["source_bleu"]) == (100, pytest.approx(100))
    assert scores["ibleu_0.8"] == pytest.approx(0.8 * scores["bleu"] - 20)
    assert scores["ibleu_0.9"] == pytest.approx(0.9 * scores["bleu"] - 10)


def test_case_counts_for_both_bleus_unless_it_is_ignored():
    texts, sources, references = ["A Man Is There"], ["a man is there"], [["a man is there"]]
    cased, uncased = (paraphrase_scores(texts, sources, references, lowercase) for lowercase in (False, True))
    assert (cased["bleu"], cased["source_bleu"], cased["copy_rate"]) == (0, 0, 100)
    assert (uncased["bleu"], uncased["source_bleu"]) == (pytest.approx(100), pytest.approx(100))


def test_length_is_that_of_the_texts_over_the_first_references():
    scores = paraphrase_scores(["a b", "c"], ["x", "y"], [["a b c d", "a"], ["c d"]])
    assert scores["length"] == pytest.approx(50)


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="2 predictions for 1 references"):
        paraphrase_scores(SOURCES, SOURCES[:1], [["a"], ["b"]])


def test_edit_distances_and_their_places():
    texts, others = ["a b c", "a b", "x", ""], ["a c", "a b", "y z", "a"]
    distances = edit_distances(texts, others)
    assert distances.tolist() == [1, 0, 2, 1]
    assert distance_places(distances).tolist() == [2.5 / 4, 1 / 4, 4 / 4, 2.5 / 4]
