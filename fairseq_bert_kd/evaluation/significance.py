"""Is a difference more than chance? Spread over seeds, paired tests over sentences, bootstrap intervals.

Sources: Koehn 2004 (paired bootstrap), McNemar 1947, Wilcoxon 1945 (signed ranks, over runs), Dror et al. 2018 (which test
for which measure). Everything drawn is drawn with a fixed seed.
"""

import logging
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sacrebleu.significance import PairedTest

from fairseq_bert_kd.evaluation.system_output import SystemOutput

RESAMPLES = 1000
SEED = 12345  # sacreBLEU's default
LEVEL = 0.05  # of a two-sided p
BOOTSTRAP_LEVEL = LEVEL / 2  # its p is about half of that
BOOTSTRAP = (  # for readers
    f"paired bootstrap resampling by sacreBLEU's rule, {RESAMPLES:,} resamples, about half of a two-sided p: read "
    f"{BOOTSTRAP_LEVEL:g} as {LEVEL:g}"
)


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
        p: p-value; two-sided if exact, about half of that by the bootstrap, see `sacrebleu_test`.
        signature: test and settings.
        description: the test in words.
        level: p below which a difference is beyond sampling noise.
    """

    p: float
    signature: str
    description: str
    level: float = LEVEL


class RunsTest(NamedTuple):
    """Two systems over many paired runs.

    Attributes:
        gain: mean and spread of the differences.
        better: runs in which the system is better than its baseline.
        equal: runs in which it is equal.
        worse: runs in which it is worse.
        sign_p: two-sided p-value of the sign test, which leaves equal runs out.
        wilcoxon_p: two-sided p-value of Wilcoxon's signed-rank test, which leaves them out too.
    """

    gain: Spread
    better: int
    equal: int
    worse: int
    sign_p: float
    wilcoxon_p: float


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
    two scores are equal. (The rule alone counts none of the resamples of two equal texts and calls them different.) Since it
    is the absolute differences that are centred, p is that of a one-sided test where a difference is clear.
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
    return PairedResult(p, str(signatures[title]), BOOTSTRAP, BOOTSTRAP_LEVEL)


def statistics_test(name: str, baseline: SystemOutput, system: SystemOutput) -> PairedResult:
    """The rule of `sacrebleu_test` for any other score, such as ROUGE, F1 and correlations.

    Resamples in which a score is not defined do not count.
    """
    signature = f"paired bootstrap of {baseline.metrics[name].resampled or name}|bs:{RESAMPLES}|seed:{SEED}"
    everything = np.arange(len(baseline.references))

    def difference(sentences: NDArray[np.int64]) -> float:
        return system.subset_score(name, sentences) - baseline.subset_score(name, sentences)

    observed = abs(difference(everything))
    if not observed:
        return PairedResult(1.0, signature, BOOTSTRAP, BOOTSTRAP_LEVEL)
    samples = np.abs(resampled(difference, everything, np.random.default_rng(SEED)))
    samples = samples[np.isfinite(samples)]
    beyond = int((samples - samples.mean() > observed).sum())
    return PairedResult((beyond + 1) / (len(samples) + 1), signature, BOOTSTRAP, BOOTSTRAP_LEVEL)


def mcnemar_test(name: str, baseline: SystemOutput, system: SystemOutput) -> PairedResult:
    """McNemar's exact test: a sign test of the sentences that only one system has right."""
    from scipy.stats import binomtest

    base, other = (output.sentence_scores(name) > 0 for output in (baseline, system))  # (sentences,) each
    only_one = int((base ^ other).sum())
    p = float(binomtest(int((other & ~base).sum()), only_one).pvalue) if only_one else 1.0
    return PairedResult(p, "McNemar|exact", "McNemar’s exact test, two-sided")


def runs_test(differences: Sequence[float]) -> RunsTest:
    """Test whether a system differs from a baseline over runs that are paired: same data and seed on both sides.

    Both tests are exact, whatever the number of runs. p is 1 where no run differs. Differences that are equal to nine decimals
    are equal.

    Args:
        differences: of the scores, system minus baseline, one for each of at least one run.
    """
    from scipy.stats import binomtest

    # 60.2 - 60.1 and 80.2 - 80.1 differ in their last bits, and would share no rank
    values = [round(value, 9) for value in differences]
    better, worse = (sum(sign * value > 0 for value in values) for sign in (1, -1))
    sign_p = wilcoxon_p = 1.0
    if better + worse:
        sign_p = float(binomtest(better, better + worse).pvalue)
        wilcoxon_p = signed_rank_p([value for value in values if value])
    return RunsTest(spread(differences), better, len(values) - better - worse, worse, sign_p, wilcoxon_p)


def signed_rank_p(differences: Sequence[float]) -> float:
    """Exact two-sided p-value of Wilcoxon's signed-rank test; differences of one size share their mean rank.

    scipy's p depends on its version where sizes are equal, as differences of accuracies often are.

    Args:
        differences: at least one, none of them 0.
    """
    from scipy.stats import rankdata

    values = np.array(differences)
    ranks = (2 * rankdata(np.abs(values))).astype(np.int64)  # doubled, since mean ranks have halves
    chances = np.zeros(ranks.sum() + 1)  # of each sum of the positive differences' ranks, if signs were drawn
    chances[0] = 1
    for rank in ranks:
        with_it = np.concatenate([np.zeros(rank), chances[:-rank]])
        chances = (chances + with_it) / 2
    positive = ranks[values > 0].sum()
    return float(min(1.0, 2 * min(chances[: positive + 1].sum(), chances[positive:].sum())))


def bootstrap_interval(
    score: Callable[[NDArray[np.int64]], float], sentences: NDArray[np.int64], rng: np.random.Generator
) -> tuple[float, float]:
    """95 % percentile interval of a score over resampled sentences; resamples in which it is not defined do not count.

    Args:
        score: score of the sentences with these numbers.
        sentences: ``(n,)`` their numbers.
        rng: source of the draws.
    """
    low, high = np.nanpercentile(resampled(score, sentences, rng), [2.5, 97.5])
    return float(low), float(high)


def resampled(
    score: Callable[[NDArray[np.int64]], float], sentences: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """``(RESAMPLES,)`` scores of resamples of the sentences, drawn with replacement."""
    return np.array([score(drawn) for drawn in rng.choice(sentences, size=(RESAMPLES, len(sentences)))])


PAIRED_TESTS: dict[str, Callable[[str, SystemOutput, SystemOutput], PairedResult]] = {
    "sacrebleu": sacrebleu_test,
    "statistics": statistics_test,
    "mcnemar": mcnemar_test,
}
