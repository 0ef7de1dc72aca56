import pytest
from sacrebleu.metrics import CHRF

from fairseq_bert_kd.evaluation.text_metrics import Metrics, MetricSettings, Output
from fairseq_bert_kd.report.differences import Part
from fairseq_bert_kd.report.sentences import worst_and_best

REFERENCES = ["the old house", "a red chair", "two dogs", "nothing"]
METRICS = Metrics(MetricSettings())


def output(*texts):
    return Output(METRICS, texts, REFERENCES)


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
    assert worst[0].system == [Part("same", "the"), Part("lacking", "old house")]
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
