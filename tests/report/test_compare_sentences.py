import numpy as np
import pytest
from sacrebleu.metrics import CHRF

from fairseq_bert_kd.evaluation.metric import MetricSettings
from fairseq_bert_kd.evaluation.registry import table_metrics
from fairseq_bert_kd.evaluation.system_output import SystemOutput
from fairseq_bert_kd.evaluation.text_metrics import word_counts
from fairseq_bert_kd.report.compare_sentences import (
    DiffSpan,
    diff_words,
    equal_bins,
    gain_by_length,
    side_by_side,
    worst_and_best,
)

REFERENCES = ["the old house", "a red chair", "two dogs", "nothing"]
METRICS = table_metrics("chrf", MetricSettings())


def test_words_are_those_of_13a():
    assert word_counts(["", "a b", "Don't go, 3,000 times!"]).tolist() == [
        0,
        2,
        6,
    ]  # Don't go , 3,000 times !


def test_bins_have_equal_counts():
    lengths = np.repeat([3, 4, 5, 6], 10)
    assert [set(lengths[part]) for part in equal_bins(lengths, 2)] == [{3, 4}, {5, 6}]
    assert [len(part) for part in equal_bins(lengths, 4)] == [10, 10, 10, 10]


def test_sentences_of_one_length_share_a_bin():
    lengths = np.array([1] * 5 + [2] * 30 + [9] * 10)
    bins = equal_bins(lengths, 4)
    assert [sorted(set(lengths[part].tolist())) for part in bins] == [[1, 2], [9]]
    assert sorted(np.concatenate(bins).tolist()) == list(range(45))


@pytest.mark.parametrize("lengths", [[7] * 49 + [9], [3] + [7] * 49, [1] * 5 + [2] * 30 + [9] * 5])
def test_no_bin_has_fewer_sentences_than_an_interval_needs(lengths):
    (bin_,) = equal_bins(np.array(lengths))
    assert sorted(bin_.tolist()) == list(range(len(lengths)))


@pytest.mark.parametrize(("count", "bins"), [(3, 1), (25, 2), (1000, 5)])
def test_few_sentences_have_few_bins(count, bins):
    assert len(equal_bins(np.arange(count), 5)) == bins


def outputs(texts, references, metric):
    return SystemOutput(table_metrics(metric, MetricSettings()), texts, references)


def test_gain_of_a_bin_is_the_difference_of_its_corpora(monkeypatch):
    references = ["a b c d e"] * 10 + ["a b c d e f g h i j"] * 10
    base = ["a b c d x"] * 10 + ["a b c d e f g h i j"] * 10
    better = ["a b c d e"] * 10 + ["a b c d e f g h i x"] * 10
    pair = (outputs(base, references, "bleu"), outputs(better, references, "bleu"))
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
    pair = (outputs(["x"] * 40, references, "rouge"), outputs(texts, references, "rouge"))
    (only,) = gain_by_length("rougeL", [pair])
    share = texts.count("one two three") / 40
    half = 1.96 * 100 * (share * (1 - share) / 40) ** 0.5  # of the normal approximation
    assert only.gain == pytest.approx(100 * share)
    assert only.low == pytest.approx(100 * share - half, abs=4)
    assert only.high == pytest.approx(100 * share + half, abs=4)
    assert gain_by_length("rougeL", [pair]) == [only]  # the same every time


def output(*texts):
    return SystemOutput(METRICS, texts, REFERENCES)


def chrf(text, number):
    return CHRF().sentence_score(text, [REFERENCES[number]]).score


def test_the_most_extreme_come_first():
    base = output("the old house", "a chair", "dogs", "nothing")
    system = output("the", "a red chair", "two dogs", "nothing")
    worst, best = worst_and_best({1: (base, system)}, ["q", "r", "s", "t"], 5)
    assert [item.number for item in worst] == [0]
    assert sorted(item.number for item in best) == [1, 2]
    assert best[0].difference >= best[1].difference > 0
    assert worst[0].difference == pytest.approx(chrf("the", 0) - 100)
    assert worst[0].chrf == (pytest.approx(100), pytest.approx(chrf("the", 0)))
    assert (worst[0].source, worst[0].reference) == ("q", "the old house")
    assert worst[0].system == [DiffSpan("same", "the"), DiffSpan("missing", "old house")]
    assert worst_and_best({1: (base, system)}, None, 1)[1][0].source is None


def test_seeds_are_averaged_and_the_nearest_is_shown():
    base = output("the", "a red chair", "two dogs", "nothing")
    far, near = output("the old house", *REFERENCES[1:]), output("the old", *REFERENCES[1:])
    same = output("the", *REFERENCES[1:])
    _, (best,) = worst_and_best({1: (base, far), 2: (base, near), 3: (base, same)}, None, 3)
    gains = [chrf(text, 0) - chrf("the", 0) for text in ("the old house", "the old", "the")]
    assert best.difference == pytest.approx(sum(gains) / 3)
    assert best.seed == 1 + min(range(3), key=lambda i: abs(gains[i] - sum(gains) / 3))


def test_equal_outputs_have_neither():
    base = output(*REFERENCES)
    assert worst_and_best({1: (base, base)}, None, 3) == ([], [])


@pytest.mark.parametrize(
    ("reference", "text", "spans"),
    [
        ("a b c", "a b c", [DiffSpan("same", "a b c")]),
        (
            "a b c",
            "a x c",
            [DiffSpan("same", "a"), DiffSpan("missing", "b"), DiffSpan("extra", "x"), DiffSpan("same", "c")],
        ),
        ("a b c", "a c", [DiffSpan("same", "a"), DiffSpan("missing", "b"), DiffSpan("same", "c")]),
        ("a c", "a b b c", [DiffSpan("same", "a"), DiffSpan("extra", "b b"), DiffSpan("same", "c")]),
        ("a b", "", [DiffSpan("missing", "a b")]),
        ("", "a", [DiffSpan("extra", "a")]),
        ("", "", []),
        (
            "שלום עולם",
            "שלום לך",
            [DiffSpan("same", "שלום"), DiffSpan("missing", "עולם"), DiffSpan("extra", "לך")],
        ),
    ],
)
def test_diff(reference, text, spans):
    assert diff_words(reference, text) == spans


def test_frequent_words_of_a_long_sentence_are_aligned_too():
    text = " ".join(["a", "b"] * 150)
    assert diff_words(f"x {text}", text) == [DiffSpan("missing", "x"), DiffSpan("same", text)]


def test_case():
    assert diff_words("The Man", "the man", lowercase=True) == [DiffSpan("same", "the man")]
    assert diff_words("The", "the") == [DiffSpan("missing", "The"), DiffSpan("extra", "the")]


def test_sentences_side_by_side_are_in_equal_steps():
    texts = [str(number) for number in range(21)]
    found = side_by_side({"one": texts, "other": texts[::-1]}, None, texts, 3)
    assert [(item.number, item.source, item.reference, item.outputs) for item in found] == [
        (number, None, str(number), [("one", str(number)), ("other", str(20 - number))])
        for number in (0, 10, 20)
    ]
    assert len(side_by_side({}, texts[:2], texts[:2], 10)) == 2
