"""Metrics of classes, sets of classes and numbers, by scikit-learn and scipy: those of GLUE (Wang et al. 2019).

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


class _OfConfusion(Metric):
    """Metric of classes that depends on how often each class was predicted for each.

    The score of all sentences is scikit-learn's. Those of resamples come from the counts, since scikit-learn takes
    milliseconds to look for the classes again.
    """

    def statistics(self, predictions: Values, references: Values) -> NDArray[Any]:
        """``(sentences, 2)`` class numbers of prediction and reference; the positive class is 0, if the settings name one."""
        names, numbers = np.unique(np.array([predictions, references], str), return_inverse=True)
        positive = self.settings.positive
        if positive is not None:
            numbers = np.where(names[numbers] == positive, 0, numbers + 1)
        return numbers.reshape(2, -1).T

    def score_of(self, statistics: NDArray[Any]) -> float:
        classes = int(statistics.max()) + 1
        counts = np.bincount(statistics[:, 0] * classes + statistics[:, 1], minlength=classes**2)
        return self._score_of_counts(counts.reshape(classes, classes).astype(float))

    def _score_of_counts(self, counts: NDArray[np.float64]) -> float:
        """Score of ``(classes, classes)`` counts, by prediction and reference."""
        raise NotImplementedError


class F1(_OfConfusion):
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

    def _score_of_counts(self, counts: NDArray[np.float64]) -> float:
        hits, both = counts.diagonal(), counts.sum(axis=0) + counts.sum(axis=1)
        if self.settings.positive is not None:
            return 200 * float(hits[0] / both[0]) if both[0] else 0.0
        return 200 * float((hits[both > 0] / both[both > 0]).mean())


class Matthews(_OfConfusion):
    """Matthews' correlation of classes (Gorodkin 2004 for more than two). It is 0 if all predictions are equal."""

    name, title, kind, columns = "mcc", "Matthews’ correlation", "classes", ("mcc", "accuracy")

    @property
    def signature(self) -> str:
        return f"mcc|{_version('scikit-learn')}"

    def _corpus_score(self, predictions: Values, references: Values) -> float:
        from sklearn.metrics import matthews_corrcoef

        return 100 * float(matthews_corrcoef(references, predictions))

    def _score_of_counts(self, counts: NDArray[np.float64]) -> float:
        sentences, predicted, present = counts.sum(), counts.sum(axis=1), counts.sum(axis=0)
        covariance = counts.trace() * sentences - predicted @ present
        variances = (sentences**2 - predicted @ predicted) * (sentences**2 - present @ present)
        return 100 * float(covariance / np.sqrt(variances)) if variances else 0.0


class _PairedNumbers(Metric):
    """Metric whose statistics are the predictions and references themselves."""

    def statistics(self, predictions: Values, references: Values) -> NDArray[Any]:
        """``(sentences, 2)`` predictions and references."""
        return np.array([predictions, references], dtype=float).T

    def score_of(self, statistics: NDArray[Any]) -> float:
        return self._corpus_score(statistics[:, 0], statistics[:, 1])


class Pearson(_PairedNumbers):
    """Pearson's correlation of numbers; not defined if one side is constant or not finite."""

    name, title, kind, columns = "pearson", "Pearson’s r", "numbers", ("pearson", "spearman")

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


class _OfSets(Metric):
    """Metric of sets of classes, any number for a row, none included."""

    kind = "sets"

    @property
    def signature(self) -> str:
        return f"{self.name}|sets of classes by name"

    def _corpus_score(self, predictions: Values, references: Values) -> float:
        return self.score_of(self.statistics(predictions, references))

    def statistics(self, predictions: Values, references: Values) -> NDArray[Any]:
        """``(rows, 3)`` numbers of right, predicted and true classes."""
        pairs = ((set(found), set(true)) for found, true in zip(predictions, references, strict=True))
        counts = [(len(found & true), len(found), len(true)) for found, true in pairs]
        return np.array(counts, np.float64).reshape(-1, 3)


class MicroF1(_OfSets):
    """F1 of all classes of all rows together; 0 without a hit."""

    name, title, columns = "micro_f1", "micro F1", ("micro_f1", "loose_f1", "strict_accuracy")

    def score_of(self, statistics: NDArray[Any]) -> float:
        hits, found, true = statistics.sum(axis=0)
        return 200 * float(hits / (found + true)) if found + true else 0.0


class LooseF1(_OfSets):
    """Loose macro F1 (Ling and Weld, AAAI 2012): of the means of the rows' precision and recall, each 0 where it has no value."""

    name, title, columns = "loose_f1", "loose macro F1", ("loose_f1", "micro_f1", "strict_accuracy")

    def score_of(self, statistics: NDArray[Any]) -> float:
        hits, found, true = statistics.T
        precision, recall = (float((hits / np.maximum(all_, 1)).mean()) for all_ in (found, true))
        return 200 * precision * recall / (precision + recall) if precision + recall else 0.0


class StrictAccuracy(_OfSets):
    """Share of rows whose set is right; a row has 0 or 100."""

    name, title, test = "strict_accuracy", "strict accuracy", "mcnemar"
    columns = ("strict_accuracy", "micro_f1", "loose_f1")

    def sentence_scores(self, predictions: Values, references: Values) -> NDArray[np.float64]:
        hits, found, true = self.statistics(predictions, references).T
        return ((hits == found) & (hits == true)) * 100.0

    def score_of(self, statistics: NDArray[Any]) -> float:
        hits, found, true = statistics.T
        return 100 * float(((hits == found) & (hits == true)).mean())


def _version(package: str) -> str:
    return f"{package}:{importlib.metadata.version(package)}"
