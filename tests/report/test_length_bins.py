import numpy as np
import pytest

from fairseq_bert_kd.evaluation.text_metrics import Metrics, MetricSettings, Output
from fairseq_bert_kd.report import length_bins
from fairseq_bert_kd.report.length_bins import equal_bins, gain_by_length, reference_lengths


def test_words_are_those_of_13a():
    assert reference_lengths(["", "a b", "Don't go, 3,000 times!"]).tolist() == [
        0,
        2,
        6,
    ]  # Don't go , 3,000 times !


def test_bins_have_equal_counts():
    lengths = np.repeat([3, 4, 5, 6], 10)
    assert [set(lengths[part]) for part in equal_bins(lengths, 2)] == [{3, 4}, {5, 6}]
    assert [len(part) for part in equal_bins(lengths, 4)] == [10, 10, 10, 10]


def test_sentences_of_one_length_share_a_bin():
    lengths = np.array([1] * 5 + [2] * 30 + [9] * 5)
    bins = equal_bins(lengths, 4)
    assert [sorted(set(lengths[part].tolist())) for part in bins] == [[1], [2], [9]]
    assert sorted(np.concatenate(bins).tolist()) == list(range(40))


@pytest.mark.parametrize(("count", "bins"), [(0, 0), (3, 1), (25, 2), (1000, 5)])
def test_few_sentences_have_few_bins(count, bins):
    assert len(equal_bins(np.arange(count), 5)) == bins


def outputs(texts, references, metrics):
    return Output(metrics, texts, references)


def test_gain_of_a_bin_is_the_difference_of_its_corpora(monkeypatch):
    references = ["a b c d e"] * 10 + ["a b c d e f g h i j"] * 10
    base = ["a b c d x"] * 10 + ["a b c d e f g h i j"] * 10
    better = ["a b c d e"] * 10 + ["a b c d e f g h i x"] * 10
    metrics = Metrics(MetricSettings())
    pair = (outputs(base, references, metrics), outputs(better, references, metrics))
    same = (pair[0], pair[0])
    short, long = gain_by_length("bleu", [pair], 2)
    assert short[:3] == (5, 5, 10)
    assert long[:3] == (10, 10, 10)
    # 4 of 5 words, 3 of 4, 2 of 3 and 1 of 2 n-grams: the fourth root of 0.8 * 0.75 * 0.667 * 0.5 is 0.6687
    assert short.gain == pytest.approx(100 - 66.87, abs=0.01)
    # all sentences of a bin are alike, so every resample is
    assert (short.low, short.high) == (pytest.approx(short.gain), pytest.approx(short.gain))
    # 9/10 * 8/9 * 7/8 * 6/7 = 0.6
    assert long.gain == pytest.approx(100 * 0.6**0.25 - 100, abs=0.01)
    assert gain_by_length("bleu", [pair, same], 2)[0].gain == pytest.approx(
        short.gain / 2
    )  # mean of the seeds


def test_interval_of_a_mean_of_sentence_scores():
    rng = np.random.default_rng(4)
    references = ["one two three"] * 40
    texts = ["one two three" if kept else "four five six" for kept in rng.random(40) < 0.5]
    metrics = Metrics(MetricSettings(rouge=True))
    pair = (outputs(["x"] * 40, references, metrics), outputs(texts, references, metrics))
    (found,) = gain_by_length("rougeL", [pair])
    share = texts.count("one two three") / 40
    half = 1.96 * 100 * (share * (1 - share) / 40) ** 0.5  # of the normal approximation
    assert found.gain == pytest.approx(100 * share)
    assert found.low == pytest.approx(100 * share - half, abs=4)
    assert found.high == pytest.approx(100 * share + half, abs=4)
    assert gain_by_length("rougeL", [pair]) == [found]  # the same every time
    assert length_bins.RESAMPLES == 1000
