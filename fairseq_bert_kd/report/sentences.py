"""The sentences where two systems differ most."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.evaluation.text_metrics import Output
from fairseq_bert_kd.report.differences import Part, marked_words, shortened


class ComparedSentence(NamedTuple):
    """A sentence with both outputs.

    Attributes:
        number: in the corpus, from 0.
        difference: of sentence chrF2, system minus baseline, mean over the seeds.
        seed: whose outputs are shown.
        chrf: of the baseline's and the system's output shown.
        source: text; None where it is not known.
        reference: text.
        baseline: its output against the reference.
        system: its output against the reference.
    """

    number: int
    difference: float
    seed: int
    chrf: tuple[float, float]
    source: str | None
    reference: str
    baseline: list[Part]
    system: list[Part]


def worst_and_best(
    pairs: Mapping[int, tuple[Output, Output]], sources: list[str] | None, count: int
) -> tuple[list[ComparedSentence], list[ComparedSentence]]:
    """Sentences with the lowest and the highest difference, the most extreme first.

    Sentence chrF2 is taken, as most sentences have no 4-gram in common with their reference and a sentence BLEU
    then depends on its smoothing. Only sentences below 0 are among the worst, and above 0 among the best.

    Args:
        pairs: baseline's and system's output by seed.
        sources: ``(sentences,)``, or None.
        count: at most, of each.
    """
    by_seed = {seed: system.sentence_chrf - base.sentence_chrf for seed, (base, system) in pairs.items()}
    mean = np.mean(list(by_seed.values()), axis=0)
    order = np.argsort(mean, kind="stable")
    worst = [int(i) for i in order[:count] if mean[i] < 0]
    best = [int(i) for i in np.argsort(-mean, kind="stable")[:count] if mean[i] > 0]
    made = [[_compared(i, mean, by_seed, pairs, sources) for i in chosen] for chosen in (worst, best)]
    return made[0], made[1]


def _compared(
    number: int,
    mean: NDArray[np.float64],
    by_seed: Mapping[int, NDArray[np.float64]],
    pairs: Mapping[int, tuple[Output, Output]],
    sources: list[str] | None,
) -> ComparedSentence:
    """With the outputs of the seed whose own difference is nearest to the mean."""
    seed = min(by_seed, key=lambda seed: (abs(by_seed[seed][number] - mean[number]), seed))
    base, system = pairs[seed]
    reference, lowercase = base.references[number], base.metrics.settings.lowercase
    return ComparedSentence(
        number,
        float(mean[number]),
        seed,
        (float(base.sentence_chrf[number]), float(system.sentence_chrf[number])),
        shortened(sources[number]) if sources is not None else None,
        shortened(reference),
        marked_words(reference, base.hypotheses[number], lowercase),
        marked_words(reference, system.hypotheses[number], lowercase),
    )
