"""The interface of all metrics. `evaluation.registry` finds them by name."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = Sequence[Any] | NDArray[Any]  # predictions or references: texts, classes, sets of classes or numbers


class MetricSettings(NamedTuple):
    """How predictions are compared with references.

    Attributes:
        lowercase: BLEU and chrF ignore case. ROUGE always does.
        tokenize: sacreBLEU's tokenizer for BLEU.
        positive: class whose F1 is computed; None for the mean over the classes.
        normalised: what both sides went through before, for the signature; empty for nothing.
    """

    lowercase: bool = False
    tokenize: str = "13a"
    positive: str | None = None
    normalised: str = ""


class Metric(ABC):
    """Score of a system's predictions against references.

    Attributes:
        name: key in the registry and in results files.
        title: name in tables.
        kind: what is compared, a key of `fairseq_output.READERS`: texts, classes, sets of classes or numbers.
        columns: metrics of a table whose main metric is this one, in their order.
        decimals: digits after the point in tables.
        test: paired test of two systems, a key of `significance.PAIRED_TESTS`.
        resampled: what the paired bootstrap resamples, if it is not the metric itself.
        signature_title: name beside the signature, if it is not the title.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    kind: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    decimals: ClassVar[int] = 2
    test: ClassVar[str] = "statistics"
    resampled: ClassVar[str] = ""
    signature_title: ClassVar[str] = ""

    def __init__(self, settings: MetricSettings):
        self.settings = settings

    @property
    @abstractmethod
    def signature(self) -> str:
        """Settings and versions on which the score depends."""

    def corpus_score(self, predictions: Values, references: Values) -> float:
        """Score of all predictions together, 0 to 100 (correlations from -100, length ratio from 0).

        Args:
            predictions: ``(sentences,)``.
            references: ``(sentences,)``.

        Raises:
            ValueError: unequal lengths, nothing to score, or no value, such as the correlation with a constant.
        """
        check_pairs(predictions, references)
        score = self._corpus_score(predictions, references)
        if not math.isfinite(score):
            raise ValueError(
                f"{self.name} is not defined: one side is constant, or holds a number that is not finite"
            )
        return score

    @abstractmethod
    def _corpus_score(self, predictions: Values, references: Values) -> float:
        """Score of predictions and references that fit each other."""

    def sentence_scores(self, predictions: Values, references: Values) -> NDArray[np.float64]:
        """``(sentences,)`` scores of the single sentences, 0 to 100.

        Raises:
            ValueError: the metric has a corpus score only.
        """
        raise ValueError(f"{self.name} has no scores of single sentences")

    def statistics(self, predictions: Values, references: Values) -> NDArray[Any]:
        """``(sentences, n)`` values from which `score_of` computes the score of any subset or resample."""
        return self.sentence_scores(predictions, references)[:, None]

    def score_of(self, statistics: NDArray[Any]) -> float:
        """Score of the sentences whose ``(sentences, n)`` statistics are given; NaN if it is not defined."""
        return float(statistics.mean())


def check_pairs(predictions: Values, references: Values) -> None:
    """Check that there is one prediction for each reference, and at least one.

    Raises:
        ValueError: unequal lengths, or nothing to score.
    """
    if len(predictions) != len(references):
        raise ValueError(
            f"{len(predictions)} predictions for {len(references)} references; give one prediction per reference"
        )
    if not len(references):
        raise ValueError("no references; there is nothing to score")
