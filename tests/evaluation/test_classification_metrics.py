import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_bert_kd.evaluation.metric import MetricSettings
from fairseq_bert_kd.evaluation.registry import METRICS, find_metric, signatures, table_metrics
from fairseq_bert_kd.evaluation.system_output import SystemOutput

# 3 hits of yes, 1 false yes, 2 missed yes, 4 hits of no
REFERENCES = ["yes"] * 5 + ["no"] * 5
PREDICTIONS = ["yes", "yes", "yes", "no", "no", "yes", "no", "no", "no", "no"]
F1_YES, F1_NO = 2 * 3 / (2 * 3 + 1 + 2), 2 * 4 / (2 * 4 + 2 + 1)


def output(metric, predictions=PREDICTIONS, references=REFERENCES, **settings):
    return SystemOutput(table_metrics(metric, MetricSettings(**settings)), predictions, references)


def score(name, predictions, references, positive=None):
    return METRICS[name](MetricSettings(positive=positive)).corpus_score(predictions, references)


def test_classes_by_hand():
    assert score("accuracy", PREDICTIONS, REFERENCES) == 70
    assert score("f1", PREDICTIONS, REFERENCES, "yes") == pytest.approx(100 * F1_YES)
    assert score("f1", PREDICTIONS, REFERENCES, "no") == pytest.approx(100 * F1_NO)
    assert score("f1", PREDICTIONS, REFERENCES) == pytest.approx(100 * (F1_YES + F1_NO) / 2)
    # (TP TN - FP FN) / sqrt((TP + FP) (TP + FN) (TN + FP) (TN + FN))
    expected = (3 * 4 - 1 * 2) / math.sqrt(4 * 5 * 5 * 6)
    assert score("mcc", PREDICTIONS, REFERENCES) == pytest.approx(100 * expected)


def test_three_classes_by_hand():
    references, predictions = ["a", "a", "b", "b", "c"], ["a", "b", "b", "b", "a"]
    # a: 1 hit, 1 false, 1 missed; b: 2 hits, 1 false; c: missed
    assert score("f1", predictions, references) == pytest.approx(100 * (0.5 + 0.8 + 0) / 3)
    assert score("f1", predictions, references, "c") == 0


def test_constant_predictions_have_a_matthews_correlation_of_zero():
    assert score("mcc", ["no"] * 10, REFERENCES) == 0


def test_numbers_by_hand():
    predictions, references = [1.0, 2.0, 4.0], [1.0, 3.0, 2.0]
    # deviations (-4, -1, 5) / 3 and (-1, 1, 0): 1 / sqrt(42 / 9 * 2)
    assert score("pearson", predictions, references) == pytest.approx(100 / math.sqrt(42 / 9 * 2))
    assert score("spearman", predictions, references) == pytest.approx(100 * (1 - 6 * (0 + 1 + 1) / (3 * 8)))
    assert score("spearman", [1, 10, 100], [1, 2, 3]) == pytest.approx(100)
    assert score("pearson", [3, 2, 1], [1, 2, 3]) == pytest.approx(-100)
    # ties have their mean rank: (1.5, 1.5, 3) against (1, 2, 3)
    assert score("spearman", [1, 1, 2], [1, 2, 3]) == pytest.approx(100 * 1.5 / math.sqrt(1.5 * 2))


@pytest.mark.parametrize("name", METRICS)
def test_unequal_lengths_and_nothing(name):
    with pytest.raises(ValueError, match="2 predictions for 3 references; give one prediction per reference"):
        score(name, [1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="no references; there is nothing to score"):
        score(name, [], [])


@pytest.mark.parametrize("name", ["pearson", "spearman"])
@pytest.mark.parametrize("sides", [([2, 2], [1, 2]), ([1, 2], [0.5, 0.5]), ([1, math.nan], [1, 2])])
def test_correlations_that_are_not_defined(name, sides):
    with pytest.raises(ValueError, match=f"{name} is not defined: one side is constant, or holds a number"):
        score(name, *sides)


def test_scores_and_signatures_of_a_table():
    scored = output("f1", positive="yes")
    assert scored.scores == {"f1": pytest.approx(100 * F1_YES), "accuracy": 70}
    assert list(signatures(scored.metrics)) == ["F1", "accuracy"]
    assert signatures(scored.metrics)["F1"].startswith("f1|class:yes|scikit-learn:")
    assert signatures(output("f1").metrics)["F1"].startswith("f1|macro|")
    assert list(output("spearman", [1, 2], [1, 3]).scores) == ["spearman", "pearson"]


def test_sentence_scores_of_accuracy():
    scored = output("accuracy", ["a", "b", "a"], ["a", "a", "b"])
    assert scored.sentence_scores("accuracy").tolist() == [100, 0, 0]
    assert scored.subset_score("accuracy", np.array([0, 0, 1])) == pytest.approx(200 / 3)


SETS = [("a",), ("a", "b"), (), ("c",), ("b",)]
TRUE_SETS = [("a",), ("b", "c"), (), (), ("b", "c")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("micro_f1", 200 * 3 / (5 + 5)),  # hits 1 + 1 + 0 + 0 + 1
        (
            "loose_f1",
            200 * 0.5 * 0.4 / 0.9,
        ),  # precision (1 + 1/2 + 0 + 0 + 1) / 5, recall (1 + 1/2 + 0 + 0 + 1/2) / 5
        ("strict_accuracy", 40.0),
    ],
)
def test_sets_of_classes(name, expected):
    assert score(name, SETS, TRUE_SETS) == pytest.approx(expected)
    assert score(name, [()] * 5, TRUE_SETS) == (40.0 if name == "strict_accuracy" else 0.0)
    # rows without a class have neither precision nor recall
    assert score(name, TRUE_SETS, TRUE_SETS) == pytest.approx(60.0 if name == "loose_f1" else 100.0)
    chosen = np.array([1, 1, 4])
    some, true = ([values[row] for row in chosen] for values in (SETS, TRUE_SETS))
    assert output(name, SETS, TRUE_SETS).subset_score(name, chosen) == pytest.approx(score(name, some, true))


def test_a_row_s_set_is_right_with_all_of_its_classes_and_no_other():
    """McNemar's test counts these rows; the last one lacks a class, the fourth has one too many."""
    scored = output("strict_accuracy", SETS, TRUE_SETS)
    assert scored.sentence_scores("strict_accuracy").tolist() == [100, 0, 100, 0, 0]


@pytest.mark.parametrize("name", ["f1", "mcc", "pearson", "spearman"])
def test_a_subset_has_the_score_of_these_sentences(name):
    references = REFERENCES if METRICS[name].kind == "classes" else list(range(10))
    predictions = PREDICTIONS if METRICS[name].kind == "classes" else [3, 1, 2, 5, 4, 6, 9, 7, 8, 0]
    chosen = [0, 4, 4, 5, 9]
    expected = METRICS[name](MetricSettings()).corpus_score(
        [predictions[i] for i in chosen], [references[i] for i in chosen]
    )
    assert output(name, predictions, references).subset_score(name, np.array(chosen)) == pytest.approx(
        expected
    )


def test_classes_that_a_resample_lacks_do_not_count():
    """Of a, b and c the drawn sentences have no b: a has a hit and a false one, c a hit and a missed one."""
    scored = output("f1", ["a", "b", "c", "a"], ["a", "b", "c", "c"])
    assert scored.subset_score("f1", np.array([0, 2, 3])) == pytest.approx(100 * (2 / 3 + 2 / 3) / 2)


def test_an_unknown_metric_names_the_known_ones():
    assert find_metric("rouge") is METRICS["rougeL"]
    assert find_metric("chrf") is METRICS["chrf2"]
    with pytest.raises(
        ValueError, match="`comet` is not a metric; the metrics are accuracy, bleu, chrf, chrf2, f1"
    ):
        find_metric("comet")


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_complete(name):
    metric = METRICS[name]
    assert set(metric.columns) <= METRICS.keys()
    assert {METRICS[column].kind for column in metric.columns} == {metric.kind}
    assert metric(MetricSettings()).signature


CLASSES = st.sampled_from("abc")


@settings(deadline=None)
@given(st.lists(st.tuples(CLASSES, CLASSES), min_size=1, max_size=30))
@pytest.mark.parametrize(("name", "positive"), [("f1", None), ("f1", "b"), ("mcc", None)])
def test_scores_of_counts_are_scikit_learn_s(name, positive, pairs):
    """Resamples are scored by counts, whatever classes they lack."""
    predictions, references = zip(*pairs, strict=True)
    metric = METRICS[name](MetricSettings(positive=positive))
    by_counts = metric.score_of(metric.statistics(predictions, references))
    assert by_counts == pytest.approx(metric.corpus_score(predictions, references), abs=1e-9)
