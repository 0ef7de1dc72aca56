"""Gain of a system by the position in the sentence: of the reference's n-grams, how many more its output has; ours."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.evaluation.matched_ngrams import position_counts
from fairseq_bert_kd.evaluation.significance import SEED, bootstrap_interval
from fairseq_bert_kd.evaluation.system_output import SystemOutput
from fairseq_bert_kd.evaluation.text_metrics import DEFAULT_TOKENIZER

POSITION_BINS = 5
ORDER = 2  # pairs of words: single ones match anywhere, longer ones seldom


class PositionBin(NamedTuple):
    """A part of all references.

    Attributes:
        first: where it begins, in per cent of a reference.
        last: where it ends.
        ngrams: n-grams of the references in it.
        baseline: per cent of them that the baseline has, mean over the seeds.
        gain: how many more the system has, mean over the seeds.
        low: lower end of the confidence interval of the gain.
        high: upper end.
    """

    first: int
    last: int
    ngrams: int
    baseline: float
    gain: float
    low: float
    high: float


def gain_by_position(
    pairs: Sequence[tuple[SystemOutput, SystemOutput]],
    bins: int = POSITION_BINS,
    order: int = ORDER,
    lowercase: bool = False,
    tokenize: str = DEFAULT_TOKENIZER,
) -> list[PositionBin]:
    """Matched n-grams in each part of the references, of system and baseline; parts without n-grams are left out.

    The interval is the 95 % percentile bootstrap over sentences, the same ones for every seed and both systems.

    Args:
        pairs: baseline and system with the same seed, one pair per seed, over the same references.
        bins: parts of a reference.
        order: n.
        lowercase: compare without case.
        tokenize: sacreBLEU's tokenizer.

    Raises:
        ValueError: ``bins`` or ``order`` below 1.
    """
    if bins < 1 or order < 1:
        raise ValueError(f"--bins and --order must be at least 1, got {bins} and {order}")
    counts = np.stack(
        [
            [
                position_counts(output.predictions, output.references, order, bins, lowercase, tokenize)
                for output in pair
            ]
            for pair in pairs
        ]
    )  # (seeds, 2, sentences, bins, 2)

    def rates(sentences: NDArray[np.int64], place: int) -> NDArray[np.float64]:
        """``(2,)`` of baseline and system."""
        matched, total = counts[:, :, sentences, place].sum(axis=2).transpose(2, 0, 1)  # (seeds, 2) each
        return 100 * (matched / np.maximum(total, 1)).mean(axis=0)

    rng, made = np.random.default_rng(SEED), []
    for place in range(bins):
        ngrams = counts[0, 0, :, place, 1]
        sentences = np.flatnonzero(ngrams)
        if not len(sentences):
            continue

        def gain(drawn: NDArray[np.int64], place: int = place) -> float:
            base, system = rates(drawn, place)
            return float(system - base)

        low, high = bootstrap_interval(gain, sentences, rng)
        made.append(
            PositionBin(
                first=100 * place // bins, last=100 * (place + 1) // bins, ngrams=int(ngrams.sum()),
                baseline=float(rates(sentences, place)[0]), gain=gain(sentences), low=low, high=high,
            )
        )  # fmt: skip
    return made
