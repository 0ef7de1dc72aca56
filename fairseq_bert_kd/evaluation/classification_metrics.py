"""Metrics of classes and numbers, by scikit-learn and scipy: those of GLUE (Wang et al. 2019).

Classes are compared as strings, by name. All scores are per cent: 0 to 100, Matthews' and the other correlations
from -100.
"""

import importlib.metadata
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.evaluation.metric import Metric, Values


class Accuracy(Metric):
    """Share of right classes; a sentence has 0 or 100."""

    name, title, kind, columns, test = "accuracy", "accuracy", "classes", ("accuracy",), "mcnemar"

    @property
    def signature(self) -> str:
        return "accuracy|classes by name"

    def _corpus_score(self, predictions: Values, references: Values) -> float:
        return float(self.sentence_scores(predictions, references).mean())

    def sentence_scores(self, predictions: Values, references: Values) -> NDArray[np.float64]:
        return np.equal(np.array(predictions, str), np.array(references, str)) * 100.0


class _PairedValues(Metric):
    """Metric whose statistics are the predictions and references themselves."""

    _dtype: Any = str

    def statistics(self, predictions: Values, references: Values) -> NDArray[Any]:
        """``(sentences, 2)`` predictions and references."""
        return np.array([predictions, references], dtype=self._dtype).T

    def score_of(self, statistics: NDArray[Any]) -> float:
        return self._corpus_score(statistics[:, 0], statistics[:, 1])


class F1(_PairedValues):
    """F1 of the class that the settings name, else the unweighted mean over the classes (macro F1).

    A class without a hit counts as 0.
    """

    name, title, kind, columns = "f1", "F1", "classes", ("f1", "accuracy")

    @property
    def signature(self) -> str:
        of = "macro" if self.settings.positive is None else f"class:{self.settings.positive}"
        return f"f1|{of}|{_version('scikit-learn')}"

    def _corpus_score(self, predictions: Values, references: Values) -> float:
        from sklearn.metrics import f1_score

        labels = None if self.settings.positive is None else [self.settings.positive]
        score = f1_score(references, predictions, labels=labels, average="macro", zero_division=0)
        return 100 * float(score)


class Matthews(_PairedValues):
    """Matthews' correlation of classes (Gorodkin 2004 for more than two). It is 0 if all predictions are equal."""

    name, title, kind, columns = "mcc", "Matthews’ correlation", "classes", ("mcc", "accuracy")

    @property
    def signature(self) -> str:
        return f"mcc|{_version('scikit-learn')}"

    def _corpus_score(self, predictions: Values, references: Values) -> float:
        from sklearn.metrics import matthews_corrcoef

        return 100 * float(matthews_corrcoef(references, predictions))


class Pearson(_PairedValues):
    """Pearson's correlation of numbers; not defined if one side is constant or not finite."""

    name, title, kind, columns = "pearson", "Pearson’s r", "numbers", ("pearson", "spearman")
    _dtype = float

    @property
    def signature(self) -> str:
        return f"{self.name}|{_version('scipy')}"

    def _corpus_score(self, predictions: Values, references: Values) -> float:
        import scipy.stats

        correlate = getattr(scipy.stats, f"{self.name}r")  # pearsonr, spearmanr
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of constant sides: `corpus_score` reports them
            return 100 * float(correlate(predictions, references).statistic)


class Spearman(Pearson):
    """Spearman's rank correlation; ties have their mean rank."""

    name, title, columns = "spearman", "Spearman’s ρ", ("spearman", "pearson")


def _version(package: str) -> str:
    return f"{package}:{importlib.metadata.version(package)}"
