import json
import subprocess
import sys

import numpy as np
import pytest

from fairseq_bert_kd.evaluation import significance
from fairseq_bert_kd.evaluation.metric import MetricSettings, UndefinedScoreError
from fairseq_bert_kd.evaluation.registry import table_metrics
from fairseq_bert_kd.evaluation.significance import (
    BOOTSTRAP,
    RESAMPLES,
    SEED,
    Spread,
    bootstrap_interval,
    mcnemar,
    mean_p_value,
    paired_runs,
    paired_test,
    spread,
)
from fairseq_bert_kd.evaluation.system_output import SystemOutput

WORDS = [
    "a",
    "man",
    "is",
    "sitting",
    "on",
    "the",
    "red",
    "chair",
    "in",
    "front",
    "of",
    "an",
    "old",
    "house",
    "with",
    "two",
    "dogs",
]


def corpus(sentences=60):
    """References, and two texts that lack words of them."""
    rng = np.random.default_rng(1)
    references = [" ".join(rng.choice(WORDS, 9)) for _ in range(sentences)]
    worse, better = (
        [" ".join(word for word in text.split() if rng.random() > lost) for text in references]
        for lost in (0.3, 0.2)
    )
    return references, worse, better


def test_p_is_that_of_sacrebleus_command_line(tmp_path):
    references, worse, better = corpus()
    for file, lines in (("ref", references), ("worse", worse), ("better", better)):
        (tmp_path / file).write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "sacrebleu", "ref", "-i", "worse", "better", "-m", "bleu", "--paired-bs"]
    command += ["--paired-bs-n", str(RESAMPLES), "-f", "json"]
    child = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = json.loads(child.stdout)[1]["BLEU"]
    metrics = table_metrics("bleu", MetricSettings())
    base, system = (SystemOutput(metrics, texts, references) for texts in (worse, better))
    p, signature, description = paired_test("bleu", base, system)
    assert p == pytest.approx(expected["p_value"], abs=1e-9)
    assert description == BOOTSTRAP
    assert system.scores["bleu"] == pytest.approx(expected["score"], abs=0.06)  # it prints one digit
    assert signature == f"nrefs:1|bs:{RESAMPLES}|seed:{SEED}|" + "|".join(
        metrics["bleu"].signature.split("|")[1:]
    )


def test_mean_p_value_against_the_slow_way():
    rng = np.random.default_rng(2)
    base, system = rng.random(30), rng.random(30) + 0.15
    drawn = np.random.default_rng(SEED).choice(30, size=(RESAMPLES, 30), replace=True)
    samples = [abs(np.mean([system[i] - base[i] for i in row])) for row in drawn.tolist()]
    mean, observed = sum(samples) / RESAMPLES, abs(system.mean() - base.mean())
    expected = (sum(sample - mean > observed for sample in samples) + 1) / (RESAMPLES + 1)
    assert mean_p_value(base, system) == pytest.approx(expected, abs=1e-12)
    assert mean_p_value(system, base) == mean_p_value(base, system)  # two-sided


def test_a_large_difference_is_significant_and_a_small_one_is_not():
    base = np.random.default_rng(3).random(200)
    assert mean_p_value(base, base + 1) == 1 / (RESAMPLES + 1)
    flipped = base.copy()
    flipped[:2] = [base[1] + 0.01, base[0] - 0.009]
    assert mean_p_value(base, flipped) > 0.2


def test_equal_texts_do_not_differ():
    references, worse, _ = corpus(10)
    for name in ("bleu", "chrf2", "rougeL", "accuracy", "f1"):
        metrics = table_metrics(name, MetricSettings())
        same = [SystemOutput(metrics, worse, references) for _ in range(2)]
        assert paired_test(name, *same).p == 1.0


def test_mcnemar_by_hand():
    right, wrong = np.array([True] * 8), np.array([False] * 8)
    assert mcnemar(wrong, right) == pytest.approx(2 / 2**8)  # all 8 on one side, two-sided
    assert mcnemar(right, right) == 1
    # of 5 sentences that only one system has right, 4 are the system's: 2 * (1 + 5) / 32
    assert mcnemar(np.arange(9) < 1, (np.arange(9) > 0) & (np.arange(9) < 5)) == pytest.approx(12 / 32)
    with pytest.raises(ValueError, match="8 sentences of the baseline and 2 of the system"):
        mcnemar(right, right[:2])


@pytest.mark.parametrize("name", ["f1", "mcc", "spearman"])
def test_corpus_scores_are_tested_by_resampling(name, monkeypatch):
    monkeypatch.setattr(significance, "RESAMPLES", 99)
    rng = np.random.default_rng(5)
    references = rng.integers(0, 2, 200).tolist()
    noisy = [value if rng.random() > 0.4 else 1 - value for value in references]
    better = [value if rng.random() > 0.1 else 1 - value for value in references]
    metrics = table_metrics(name, MetricSettings())
    base, system = (SystemOutput(metrics, values, references) for values in (noisy, better))
    result = paired_test(name, base, system)
    assert result.p == 1 / 100
    assert result.signature == f"paired bootstrap of {name}|bs:99|seed:12345"
    assert paired_test(name, system, base) == result  # two-sided, and the same every time
    other = [1 - value if i < 2 else value for i, value in enumerate(noisy)]
    assert paired_test(name, base, SystemOutput(metrics, other, references)).p > 0.05


def test_an_interval_of_a_mean():
    values = np.random.default_rng(6).random(400)
    everything = np.arange(400)
    low, high = bootstrap_interval(
        lambda sentences: values[sentences].mean(), everything, np.random.default_rng(SEED)
    )
    half = 1.96 * values.std() / 20  # of the normal approximation
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=half / 10)


def test_resamples_without_a_score_do_not_count():
    def score(sentences):
        if 0 not in sentences:
            raise UndefinedScoreError("no such sentence")
        return 7.0

    assert bootstrap_interval(score, np.arange(3), np.random.default_rng(1)) == (7.0, 7.0)
    with pytest.raises(UndefinedScoreError, match="no such sentence"):
        bootstrap_interval(score, np.arange(1, 3), np.random.default_rng(1))


def test_paired_runs_by_hand():
    base, system = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 4.0, 6.0, 8.0, 10.0]
    assert paired_runs(base, system) == pytest.approx(2 / 2**5)  # all five signed ranks on one side
    # differences 1 to 5: t = 3 / (sqrt(2.5) / sqrt(5)) = 4.243, 4 degrees of freedom
    assert paired_runs(base, system, "t") == pytest.approx(0.0132, abs=1e-4)
    assert paired_runs(base, base) == 1
    with pytest.raises(ValueError, match="needs two or more runs"):
        paired_runs([1.0], [2.0])
    with pytest.raises(ValueError, match="`sign` is not a test of paired runs; the tests are wilcoxon, t"):
        paired_runs(base, system, "sign")
    with pytest.raises(ValueError, match="5 runs of the baseline and 1 of the system"):
        paired_runs(base, [1.0])


def test_spread_by_hand():
    assert spread([1.0, 2.0, 6.0]) == Spread(3.0, pytest.approx(7**0.5), 3)
    assert spread([4.0]) == Spread(4.0, None, 1)
