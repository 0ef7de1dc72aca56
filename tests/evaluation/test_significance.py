import json
import math
import subprocess
import sys
from itertools import product

import numpy as np
import pytest

from fairseq_bert_kd.evaluation import significance
from fairseq_bert_kd.evaluation.metric import MetricSettings
from fairseq_bert_kd.evaluation.registry import table_metrics
from fairseq_bert_kd.evaluation.significance import (
    BOOTSTRAP,
    RESAMPLES,
    SEED,
    Spread,
    bootstrap_interval,
    paired_test,
    runs_test,
    signed_rank_p,
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
    p, signature, description, level = paired_test("bleu", base, system)
    assert level == 0.025  # its p is that of one tail
    assert p == pytest.approx(expected["p_value"], abs=1e-9)
    assert description == BOOTSTRAP
    assert system.scores["bleu"] == pytest.approx(expected["score"], abs=0.06)  # it prints one digit
    assert signature == f"nrefs:1|bs:{RESAMPLES}|seed:{SEED}|" + "|".join(
        metrics["bleu"].signature.split("|")[1:]
    )


def test_p_of_a_mean_against_the_slow_way():
    references, worse, better = corpus(30)
    metrics = table_metrics("rouge", MetricSettings())
    base, system = (SystemOutput(metrics, texts, references) for texts in (worse, better))
    difference = system.sentence_scores("rougeL") - base.sentence_scores("rougeL")
    drawn = np.random.default_rng(SEED).choice(30, size=(RESAMPLES, 30), replace=True)
    samples = [abs(np.mean([difference[i] for i in row])) for row in drawn.tolist()]
    mean, observed = sum(samples) / RESAMPLES, abs(difference.mean())
    expected = (sum(sample - mean > observed for sample in samples) + 1) / (RESAMPLES + 1)
    result = paired_test("rougeL", base, system)
    assert result.p == pytest.approx(expected, abs=1e-12)
    assert result.signature == f"paired bootstrap of sentence F1|bs:{RESAMPLES}|seed:{SEED}"
    assert paired_test("rougeL", system, base) == result  # the same in both directions


def test_equal_texts_do_not_differ():
    references, worse, _ = corpus(10)
    for name in ("bleu", "chrf2", "rougeL", "accuracy", "f1"):
        metrics = table_metrics(name, MetricSettings())
        same = [SystemOutput(metrics, worse, references) for _ in range(2)]
        assert paired_test(name, *same).p == 1.0


def test_mcnemar_by_hand():
    def p(baseline, system):
        metrics, references = table_metrics("accuracy", MetricSettings()), ["yes"] * len(baseline)
        return paired_test(
            "accuracy", *(SystemOutput(metrics, side, references) for side in (baseline, system))
        ).p

    right, wrong = ["yes"] * 8, ["no"] * 8
    assert p(wrong, right) == pytest.approx(2 / 2**8)  # all 8 on one side, two-sided
    assert p(right, right) == 1
    # of 5 sentences that only one system has right, 4 are the system's: 2 * (1 + 5) / 32
    assert p(["yes"] + ["no"] * 8, ["no"] + ["yes"] * 4 + ["no"] * 4) == pytest.approx(12 / 32)


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
    metrics, references = table_metrics("pearson", MetricSettings()), [1.0, 2.0]
    base, system = (SystemOutput(metrics, values, references) for values in ([2.0, 1.0], [1.0, 2.0]))
    # resamples of one sentence alone have no correlation; all others have the same difference
    assert 400 < 1 / paired_test("pearson", base, system).p - 1 < 600


def test_an_interval_leaves_resamples_without_a_score_out():
    """Of three rows that lie on a line every resample with a correlation has 100."""
    values = [1.0, 2.0, 3.0]
    output = SystemOutput(table_metrics("pearson", MetricSettings()), values, values)
    low, high = bootstrap_interval(
        lambda rows: output.subset_score("pearson", rows), np.arange(3), np.random.default_rng(SEED)
    )
    assert (low, high) == pytest.approx((100, 100))


def test_spread_by_hand():
    assert spread([1.0, 2.0, 6.0]) == Spread(3.0, pytest.approx(7**0.5), 3)
    assert spread([4.0]) == Spread(4.0, None, 1)


@pytest.mark.parametrize(
    ("differences", "counts", "sign_p", "wilcoxon_p"),
    [
        ([1, 2, 3, 4, 5, 6], (6, 0, 0), 2 / 2**6, 2 / 2**6),
        # the smaller rank sum is 4; of 2**4 sign patterns 7 have at most that: {}, 1, 2, 3, 4, 1+2, 1+3
        ([1, 2, 3, -4], (3, 0, 1), 2 * (1 + 4) / 2**4, 2 * 7 / 2**4),
        ([0, -2, -1, 0], (0, 2, 2), 2 / 2**2, 2 / 2**2),  # equal runs do not count
        ([0, 0], (0, 2, 0), 1, 1),
        ([0.5], (1, 0, 0), 1, 1),
    ],
)
def test_runs_by_hand(differences, counts, sign_p, wilcoxon_p):
    found = runs_test(differences)
    assert (found.better, found.equal, found.worse) == counts
    assert found.gain == spread(differences)
    assert (found.sign_p, found.wilcoxon_p) == pytest.approx((sign_p, wilcoxon_p))


def test_differences_that_are_equal_but_for_rounding_share_a_rank():
    """60.2 - 60.1 is as much as 80.2 - 80.1, and 0.1 + 0.2 is 0.3."""
    computed = [70.2 - 70.1, 80.2 - 80.1, 60.1 - 60.2, 51.3 - 51.0, 0.1 + 0.2 - 0.3]
    assert len({*map(abs, computed)}) > 3
    assert runs_test(computed)[1:] == runs_test([0.1, 0.1, -0.1, 0.3, 0.0])[1:]


@pytest.mark.parametrize(
    "differences",
    [[1, 1, 2, 3, 4, -5], [0.5, -0.5, 0.5, 2, 2, -1, 3, 0.5], [-1, -1, -2, 4, 4, 4, 5, 6, 6, -3]],
)
def test_p_of_signed_ranks_counts_all_signs(differences):
    """Differences of one size have their mean rank, under every one of the 2**n patterns of signs."""
    sizes = sorted(map(abs, differences))
    ranks = [(2 * sizes.index(abs(d)) + sizes.count(abs(d)) + 1) / 2 for d in differences]
    patterns = list(product([0, 1], repeat=len(ranks)))
    sums = [sum(rank for rank, kept in zip(ranks, pattern, strict=True) if kept) for pattern in patterns]
    seen = sum(rank for rank, d in zip(ranks, differences, strict=True) if d > 0)
    tail = min(sum(value <= seen for value in sums), sum(value >= seen for value in sums))
    assert signed_rank_p(differences) == pytest.approx(min(1, 2 * tail / len(patterns)))


def test_runs_of_equal_size_in_many_runs():
    """The same difference everywhere: the signed-rank test is the sign test."""
    n = 45
    found = runs_test([2.0] * 40 + [-2.0] * 5)
    assert found.sign_p == pytest.approx(2 * sum(math.comb(n, k) for k in range(6)) / 2**n)
    assert found.wilcoxon_p == pytest.approx(found.sign_p)
