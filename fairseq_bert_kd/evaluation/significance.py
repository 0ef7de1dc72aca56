"""Is a difference more than chance? Spread over seeds, paired tests over sentences, bootstrap intervals.

Sources: Koehn 2004 (paired bootstrap), McNemar 1947, Dror et al. 2018 (which test for which measure). Everything drawn
is drawn with a fixed seed.
"""

import logging
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sacrebleu.significance import PairedTest

from fairseq_bert_kd.evaluation.metric import UndefinedScoreError
from fairseq_bert_kd.evaluation.system_output import SystemOutput

RESAMPLES = 1000
SEED = 12345  # sacreBLEU's default
CONFIDENCE = 0.95
BOOTSTRAP = f"paired bootstrap resampling, two-sided, {RESAMPLES:,} resamples"  # for readers


class Spread(NamedTuple):
    """Mean and sample standard deviation.

    Attributes:
        mean: mean of the values.
        sd: standard deviation with n - 1; None for a single value.
        n: number of values.
    """

    mean: float
    sd: float | None
    n: int


class PairedResult(NamedTuple):
    """Outcome of a paired test.

    Attributes:
        p: two-sided p-value.
        signature: test and settings.
        description: the test in words.
    """

    p: float
    signature: str
    description: str


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation of at least one value."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), sd, len(values))


def paired_test(name: str, baseline: SystemOutput, system: SystemOutput) -> PairedResult:
    """Test whether a system differs from a baseline on the same references, by the test that the metric names.

    Args:
        name: name of the metric.
        baseline: scored output.
        system: scored output.
    """
    return PAIRED_TESTS[baseline.metrics[name].test](name, baseline, system)


def sacrebleu_test(name: str, baseline: SystemOutput, system: SystemOutput) -> PairedResult:
    """sacreBLEU's ``paired-bs``, for BLEU and chrF2.

    Sentences are drawn with replacement, the same ones for both sides. p is the share of resamples whose absolute
    difference, minus its mean over the resamples, exceeds the observed one; one is added to both counts. p is 1 if the
    two scores are equal. (The rule alone counts none of the resamples of two equal texts and calls them different.)
    """
    metric = baseline.metrics[name]
    texts = [("baseline", baseline.predictions), ("system", system.predictions)]
    logger = logging.getLogger("sacrebleu")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        test = PairedTest(
            texts, {name: metric.scorer}, [baseline.references], test_type="bs", n_samples=RESAMPLES  # type: ignore[attr-defined]
        )  # fmt: skip
        signatures, results = test()
    finally:
        logger.setLevel(level)
    title = next(iter(signatures))
    base, other = results[title]
    p = 1.0 if other.score == base.score else other.p_value
    return PairedResult(p, str(signatures[title]), BOOTSTRAP)


def sentence_test(name: str, baseline: SystemOutput, system: SystemOutput) -> PairedResult:
    """The rule of `sacrebleu_test` for means of sentence scores, such as ROUGE."""
    p = mean_p_value(baseline.sentence_scores(name), system.sentence_scores(name))
    return PairedResult(p, f"paired bootstrap of sentence F1|bs:{RESAMPLES}|seed:{SEED}", BOOTSTRAP)


def statistics_test(name: str, baseline: SystemOutput, system: SystemOutput) -> PairedResult:
    """The rule of `sacrebleu_test` for any corpus score, such as F1 and correlations.

    Resamples in which a score is not defined do not count.
    """
    signature = f"paired bootstrap of {name}|bs:{RESAMPLES}|seed:{SEED}"
    everything = np.arange(len(baseline.references))

    def difference(sentences: NDArray[np.int64]) -> float:
        return system.subset_score(name, sentences) - baseline.subset_score(name, sentences)

    if not (observed := difference(everything)):
        return PairedResult(1.0, signature, BOOTSTRAP)
    samples = np.abs(resampled(difference, everything, np.random.default_rng(SEED)))
    return PairedResult(_p_of(samples, observed), signature, BOOTSTRAP)


def mcnemar_test(name: str, baseline: SystemOutput, system: SystemOutput) -> PairedResult:
    """McNemar's exact test, for right and wrong classes."""
    right = [output.sentence_scores(name) > 0 for output in (baseline, system)]
    return PairedResult(mcnemar(*right), "McNemar|exact", "McNemar’s exact test, two-sided")


def mcnemar(baseline: NDArray[np.bool_], system: NDArray[np.bool_]) -> float:
    """Two-sided p-value of McNemar's exact test: a sign test of the sentences that only one system has right.

    Args:
        baseline: ``(sentences,)`` whether the baseline is right.
        system: ``(sentences,)`` whether the system is right.

    Raises:
        ValueError: unequal lengths.
    """
    from scipy.stats import binomtest

    _check_paired(len(baseline), len(system), "sentences")
    only_system = int((system & ~baseline).sum())
    only_one = int((system ^ baseline).sum())
    return float(binomtest(only_system, only_one).pvalue) if only_one else 1.0


def paired_runs(baseline: Sequence[float], system: Sequence[float], test: str = "wilcoxon") -> float:
    """Two-sided p-value of the differences of paired runs: the same seed, or the same training sample.

    Args:
        baseline: ``(runs,)`` scores.
        system: ``(runs,)`` scores, in the same order.
        test: "wilcoxon" (signed ranks) or "t" (normal differences).

    Raises:
        ValueError: unequal lengths, fewer than two runs, or another test.
    """
    from scipy.stats import ttest_rel, wilcoxon

    tests = {"wilcoxon": wilcoxon, "t": ttest_rel}
    _check_paired(len(baseline), len(system), "runs")
    if test not in tests:
        raise ValueError(f"`{test}` is not a test of paired runs; the tests are {', '.join(tests)}")
    if len(baseline) < 2:
        raise ValueError("a test of paired runs needs two or more runs; train with more seeds")
    if list(baseline) == list(system):
        return 1.0  # not defined for differences of 0 only
    return float(tests[test](system, baseline).pvalue)


def mean_p_value(baseline: NDArray[np.float64], system: NDArray[np.float64]) -> float:
    """p-value of a difference of means by the rule of `sacrebleu_test`; both ``(sentences,)``."""
    rng = np.random.default_rng(SEED)
    difference = system - baseline
    drawn = rng.choice(len(difference), size=(RESAMPLES, len(difference)), replace=True)
    return _p_of(np.abs(difference[drawn].mean(axis=1)), float(difference.mean()))


def bootstrap_interval(
    score: Callable[[NDArray[np.int64]], float], sentences: NDArray[np.int64], rng: np.random.Generator
) -> tuple[float, float]:
    """95 % percentile interval of a score over resampled sentences.

    Args:
        score: score of the sentences with these numbers.
        sentences: ``(n,)`` their numbers.
        rng: source of the draws.
    """
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(resampled(score, sentences, rng), [tail, 100 - tail])
    return float(low), float(high)


def resampled(
    score: Callable[[NDArray[np.int64]], float], sentences: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Scores of resamples of the sentences, drawn with replacement; at most `RESAMPLES`.

    Resamples in which the score is not defined are left out.

    Raises:
        UndefinedScoreError: it is defined in none.
    """
    scores = []
    for drawn in rng.choice(sentences, size=(RESAMPLES, len(sentences)), replace=True):
        try:
            scores.append(score(drawn))
        except UndefinedScoreError as error:
            reason = error
    if not scores:
        raise reason
    return np.array(scores)


def _check_paired(baseline: int, system: int, what: str) -> None:
    if baseline != system:
        raise ValueError(
            f"{baseline} {what} of the baseline and {system} of the system; a paired test needs both"
        )


def _p_of(samples: NDArray[np.float64], observed: float) -> float:
    """p-value of an observed difference, given the absolute differences of the resamples."""
    if not observed:
        return 1.0
    beyond = int((samples - samples.mean() > abs(observed)).sum())
    return (beyond + 1) / (len(samples) + 1)


PAIRED_TESTS: dict[str, Callable[[str, SystemOutput, SystemOutput], PairedResult]] = {
    "sacrebleu": sacrebleu_test,
    "sentences": sentence_test,
    "statistics": statistics_test,
    "mcnemar": mcnemar_test,
}
