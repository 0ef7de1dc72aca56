"""Gain by length of the reference, in bins of equal counts, with bootstrap confidence over sentences."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from fairseq_bert_kd.evaluation.significance import RESAMPLES, SEED
from fairseq_bert_kd.evaluation.text_metrics import Output

BINS = 5
CONFIDENCE = 0.95
FEWEST = 10  # sentences of a bin; with less there are fewer bins


class LengthBin(NamedTuple):
    """References of some lengths.

    Attributes:
        shortest: words.
        longest: words, inclusive.
        sentences: how many.
        gain: of the main metric, mean over the seeds.
        low: lower end of the confidence interval.
        high: upper end.
    """

    shortest: int
    longest: int
    sentences: int
    gain: float
    low: float
    high: float


def reference_lengths(references: Sequence[str]) -> NDArray[np.int64]:
    """``(sentences,)`` words by sacreBLEU's 13a tokenizer."""
    tokenize = Tokenizer13a()
    return np.array([len(tokenize(reference).split()) for reference in references], dtype=np.int64)


def equal_bins(lengths: NDArray[np.int64], bins: int = BINS) -> list[NDArray[np.int64]]:
    """Sentences by length in bins of counts as equal as they can be: all of one length share a bin.

    Each border is drawn after the length at which the count of sentences up to it is nearest to the bin's share.

    Args:
        lengths: ``(sentences,)``.
        bins: at most; fewer where there are fewer lengths, or fewer than `FEWEST` sentences a bin.

    Returns:
        Numbers of the sentences of each bin, from short to long.
    """
    if not len(lengths):
        return []
    bins = max(1, min(bins, len(lengths) // FEWEST))
    values, counts = np.unique(lengths, return_counts=True)
    up_to = np.cumsum(counts)
    borders = {int(np.abs(up_to - share * len(lengths) / bins).argmin()) for share in range(1, bins)}
    edges = [-1, *sorted(borders - {len(values) - 1}), len(values) - 1]
    ranks = np.searchsorted(values, lengths)
    inside = [(ranks > low) & (ranks <= high) for low, high in pairwise(edges)]
    return [np.flatnonzero(chosen) for chosen in inside]


def gain_by_length(key: str, pairs: Sequence[tuple[Output, Output]], bins: int = BINS) -> list[LengthBin]:
    """The gain in each bin: the score of the bin's sentences as a corpus, minus the baseline's, mean over the seeds.

    The interval is the percentile bootstrap: the bin's sentences are drawn with replacement, the same ones for every
    seed and both systems, and the mean gain is computed again.

    Args:
        key: "bleu", "rougeL" or "chrf2", see `Output.subset_score`.
        pairs: baseline and system with the same seed, one pair a seed, over the same references.
        bins: at most.
    """
    rng = np.random.default_rng(SEED)
    tail = 100 * (1 - CONFIDENCE) / 2
    lengths = reference_lengths(pairs[0][0].references)
    found = []
    for sentences in equal_bins(lengths, bins):
        drawn = rng.choice(sentences, size=(RESAMPLES, len(sentences)), replace=True)
        low, high = np.percentile([_mean_gain(key, pairs, sample) for sample in drawn], [tail, 100 - tail])
        inside = lengths[sentences]
        gain = _mean_gain(key, pairs, sentences)
        found.append(
            LengthBin(int(inside.min()), int(inside.max()), len(sentences), gain, float(low), float(high))
        )
    return found


def _mean_gain(key: str, pairs: Sequence[tuple[Output, Output]], sentences: NDArray[np.int64]) -> float:
    gains = [
        system.subset_score(key, sentences) - baseline.subset_score(key, sentences)
        for baseline, system in pairs
    ]
    return sum(gains) / len(gains)
