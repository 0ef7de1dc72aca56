"""What a system put out for a set, with its scores."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.evaluation.metric import Metric, Values, check_pairs


class SystemOutput:
    """Predictions of a system and their scores. Each score is computed once, when it is first requested.

    Args:
        metrics: metrics by name.
        predictions: ``(sentences,)`` texts, classes or numbers, as the metrics need them.
        references: ``(sentences,)``.

    Raises:
        ValueError: unequal lengths, or nothing to score.
    """

    def __init__(self, metrics: Mapping[str, Metric], predictions: Values, references: Values):
        check_pairs(predictions, references)
        self.metrics = metrics
        self.predictions = list(predictions)
        self.references = list(references)
        self._statistics: dict[str, NDArray[Any]] = {}

    @cached_property
    def scores(self) -> dict[str, float]:
        """Corpus scores by name of the metric.

        Raises:
            ValueError: a metric has no value for these predictions.
        """
        return {
            name: metric.corpus_score(self.predictions, self.references)
            for name, metric in self.metrics.items()
        }

    def sentence_scores(self, name: str) -> NDArray[np.float64]:
        """``(sentences,)`` scores of the single sentences, 0 to 100.

        Raises:
            ValueError: the metric has a corpus score only.
        """
        return self.metrics[name].sentence_scores(self.predictions, self.references)

    def subset_score(self, name: str, sentences: NDArray[np.int64]) -> float:
        """Score of some sentences, repeats allowed: a corpus score (BLEU, F1 ...) or a mean (ROUGE, chrF2, accuracy).

        Args:
            name: name of the metric.
            sentences: ``(n,)`` their numbers.

        Returns:
            The score; NaN if it is not defined for these sentences.
        """
        if name not in self._statistics:
            self._statistics[name] = self.metrics[name].statistics(self.predictions, self.references)
        return self.metrics[name].score_of(self._statistics[name][sentences])
