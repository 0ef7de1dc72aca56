"""Two systems sentence by sentence: gain by length, the sentences that differ most, and where their words differ."""

import difflib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.evaluation.significance import SEED, bootstrap_interval
from fairseq_bert_kd.evaluation.system_output import SystemOutput
from fairseq_bert_kd.evaluation.text_metrics import word_counts

BINS = 5
FEWEST = 10  # sentences per bin; there are fewer bins for fewer sentences
SENTENCE_METRIC = "chrf2"


class LengthBin(NamedTuple):
    """References of some lengths.

    Attributes:
        shortest: words of the shortest reference.
        longest: words of the longest reference.
        sentences: number of sentences.
        gain: gain by the main metric, mean over the seeds.
        low: lower end of the confidence interval.
        high: upper end of the confidence interval.
    """

    shortest: int
    longest: int
    sentences: int
    gain: float
    low: float
    high: float


class DiffSpan(NamedTuple):
    """Words of a text that is compared with its reference.

    Attributes:
        kind: "same", "extra" (not in the reference) or "missing" (only in the reference).
        text: words with spaces between.
    """

    kind: str
    text: str


class ComparedSentence(NamedTuple):
    """A sentence with both outputs.

    Attributes:
        number: number in the corpus, from 0.
        difference: sentence chrF2 of the system minus that of the baseline, mean over the seeds.
        seed: seed whose outputs are shown.
        chrf: chrF2 of the shown outputs of baseline and system.
        source: source text; None if not known.
        reference: reference text.
        baseline: the baseline's output against the reference.
        system: the system's output against the reference.
    """

    number: int
    difference: float
    seed: int
    chrf: tuple[float, float]
    source: str | None
    reference: str
    baseline: list[DiffSpan]
    system: list[DiffSpan]


class SideBySide(NamedTuple):
    """A sentence with the outputs of several systems.

    Attributes:
        number: number in the corpus, from 0.
        source: source text; None if not known.
        reference: reference text.
        outputs: label of each system and its output.
    """

    number: int
    source: str | None
    reference: str
    outputs: list[tuple[str, str]]


def equal_bins(lengths: NDArray[np.int64], bins: int = BINS) -> list[NDArray[np.int64]]:
    """Sentences by length, in bins of counts about equal; sentences of one length share a bin.

    Args:
        lengths: ``(sentences,)``, at least one.
        bins: largest number of bins; fewer for few lengths, or if a bin would have less than `FEWEST` sentences.

    Returns:
        Numbers of the sentences of each bin, from short to long.
    """
    bins = max(1, min(bins, len(lengths) // FEWEST))
    longest = np.quantile(lengths, np.arange(1, bins + 1) / bins, method="inverted_cdf")  # (bins,) per bin
    of_sentence = np.searchsorted(longest, lengths)  # (sentences,)
    parts: list[NDArray[np.int64]] = []
    for i in np.unique(of_sentence):
        part = np.flatnonzero(of_sentence == i)
        if parts and min(len(part), len(parts[-1])) < FEWEST:  # equal lengths left few for one of them
            part = np.concatenate([parts.pop(), part])
        parts.append(part)
    return parts


def gain_by_length(
    name: str,
    pairs: Sequence[tuple[SystemOutput, SystemOutput]],
    bins: int = BINS,
    lengths: NDArray[np.int64] | None = None,
) -> list[LengthBin]:
    """Gain in each bin: the score of the bin's sentences as a corpus, minus the baseline's, mean over the seeds.

    The interval is the percentile bootstrap: the bin's sentences are drawn with replacement, the same ones for every
    seed and both systems.

    Args:
        name: name of the metric, see `SystemOutput.subset_score`.
        pairs: baseline and system with the same seed, one pair per seed, over the same references.
        bins: largest number of bins.
        lengths: ``(sentences,)`` by which they are sorted; None for the words of the references.
    """

    def mean_gain(sentences: NDArray[np.int64]) -> float:
        gains = [
            system.subset_score(name, sentences) - baseline.subset_score(name, sentences)
            for baseline, system in pairs
        ]
        return sum(gains) / len(gains)

    rng = np.random.default_rng(SEED)
    if lengths is None:
        first = pairs[0][0]
        lengths = word_counts(first.references, first.metrics[name].settings.tokenize)
    made = []
    for sentences in equal_bins(lengths, bins):
        low, high = bootstrap_interval(mean_gain, sentences, rng)
        inside = lengths[sentences]
        made.append(
            LengthBin(
                shortest=int(inside.min()), longest=int(inside.max()), sentences=len(sentences),
                gain=mean_gain(sentences), low=low, high=high,
            )
        )  # fmt: skip
    return made


def worst_and_best(
    pairs: Mapping[int, tuple[SystemOutput, SystemOutput]],
    sources: list[str] | None,
    count: int,
    lowercase: bool = False,
) -> tuple[list[ComparedSentence], list[ComparedSentence]]:
    """Sentences with the lowest and the highest difference, the most extreme first.

    The difference is one of sentence chrF2: most sentences share no 4-gram with their reference, and sentence BLEU then
    depends on its smoothing. Only sentences below 0 are among the worst, and above 0 among the best.

    Args:
        pairs: output of baseline and system by seed.
        sources: ``(sentences,)``, or None.
        count: largest number of each.
        lowercase: compare words without case.
    """
    scores = {
        seed: np.stack([output.sentence_scores(SENTENCE_METRIC) for output in pair])  # (2, sentences)
        for seed, pair in pairs.items()
    }
    by_seed = {seed: system - base for seed, (base, system) in scores.items()}
    mean = np.mean(list(by_seed.values()), axis=0)  # (sentences,)

    def compared(number: int) -> ComparedSentence:
        """Outputs of the seed whose own difference is nearest to the mean."""
        seed = min(by_seed, key=lambda seed: (abs(by_seed[seed][number] - mean[number]), seed))
        base, system = pairs[seed]
        reference = base.references[number]
        return ComparedSentence(
            number=number,
            difference=float(mean[number]),
            seed=seed,
            chrf=(float(scores[seed][0, number]), float(scores[seed][1, number])),
            source=sources[number] if sources is not None else None,
            reference=reference,
            baseline=diff_words(reference, base.predictions[number], lowercase),
            system=diff_words(reference, system.predictions[number], lowercase),
        )

    order = np.argsort(mean, kind="stable").tolist()
    worst = [compared(i) for i in order[:count] if mean[i] < 0]
    return worst, [compared(i) for i in order[::-1][:count] if mean[i] > 0]


def side_by_side(
    outputs: Mapping[str, Sequence[str]], sources: Sequence[str] | None, references: Sequence[str], count: int
) -> list[SideBySide]:
    """Sentences in equal steps from the first to the last: nobody has chosen them.

    Args:
        outputs: outputs of all sentences, by label of the system.
        sources: ``(sentences,)``, or None.
        references: ``(sentences,)``.
        count: largest number of sentences.
    """
    numbers = np.unique(np.linspace(0, len(references) - 1, count).round().astype(int)).tolist()
    return [
        SideBySide(
            number=number,
            source=None if sources is None else sources[number],
            reference=references[number],
            outputs=[(label, texts[number]) for label, texts in outputs.items()],
        )
        for number in numbers
    ]


def diff_words(reference: str, text: str, lowercase: bool = False) -> list[DiffSpan]:
    """The text as spans of words, with the missing words of the reference before those that replace them.

    Words are separated by white space. Python's `difflib.SequenceMatcher` aligns them.

    Args:
        reference: expected text.
        text: output of a system.
        lowercase: compare without case; spans keep theirs.
    """
    expected, words = reference.split(), text.split()
    a, b = ([word.lower() for word in side] if lowercase else side for side in (expected, words))
    # without autojunk, which drops the frequent words of 200 words and more
    matcher, spans = difflib.SequenceMatcher(None, a, b, autojunk=False), []
    for kind, i, j, k, m in matcher.get_opcodes():
        if kind == "equal":
            spans.append(DiffSpan("same", " ".join(words[k:m])))
            continue
        spans += [DiffSpan("missing", " ".join(expected[i:j]))] if j > i else []
        spans += [DiffSpan("extra", " ".join(words[k:m]))] if m > k else []
    return spans
