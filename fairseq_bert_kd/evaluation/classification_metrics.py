"""Metrics of classes and numbers, by scikit-learn and scipy: those of GLUE (Wang et al. 2019).

Classes are compared as strings, by name. All scores are per cent: 0 to 100, Matthews' and the other correlations
from -100.
"""

import importlib.metadata
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.evaluation.metric import Metric, UndefinedScoreError, Values, check_pairs


def accuracy(predictions: Values, references: Values) -> float:
    """Share of predictions that equal their reference.

    Args:
        predictions: ``(sentences,)`` classes.
        references: ``(sentences,)`` classes.

    Returns:
        Per cent, 0 to 100.
    """
    return float(_correct(predictions, references).mean() * 100)


def f1(predictions: Values, references: Values, positive: str | None = None) -> float:
    """F1 of one class, or the unweighted mean over the classes (macro F1). A class without a hit counts as 0.

    Args:
        predictions: ``(sentences,)`` classes.
        references: ``(sentences,)`` classes.
        positive: the class; None for the mean.

    Returns:
        Per cent, 0 to 100.

    Raises:
        ValueError: unequal lengths, or nothing to score.
        UndefinedScoreError: one class only, or ``positive`` is not among the references.
    """
    from sklearn.metrics import f1_score

    classes = _classes("f1", predictions, references)
    if positive is not None and positive not in classes:
        raise UndefinedScoreError(f"no reference has the class `{positive}`; there are {', '.join(classes)}")
    labels = None if positive is None else [positive]
    score = f1_score(list(references), list(predictions), labels=labels, average="macro", zero_division=0)
    return 100 * float(score)


def matthews(predictions: Values, references: Values) -> float:
    """Matthews' correlation of classes (Gorodkin 2004 for more than two). It is 0 if all predictions are equal.

    Args:
        predictions: ``(sentences,)`` classes.
        references: ``(sentences,)`` classes.

    Returns:
        Per cent, -100 to 100.

    Raises:
        ValueError: unequal lengths, or nothing to score.
        UndefinedScoreError: the references hold one class only.
    """
    from sklearn.metrics import matthews_corrcoef

    _classes("mcc", predictions, references)
    return 100 * float(matthews_corrcoef(list(references), list(predictions)))


def pearson(predictions: Values, references: Values) -> float:
    """Pearson's correlation of numbers.

    Args:
        predictions: ``(sentences,)`` numbers.
        references: ``(sentences,)`` numbers.

    Returns:
        Per cent, -100 to 100.

    Raises:
        ValueError: unequal lengths, or nothing to score.
        UndefinedScoreError: one of the sides is constant or holds a number that is not finite.
    """
    from scipy.stats import pearsonr

    return _correlation("pearson", pearsonr, predictions, references)


def spearman(predictions: Values, references: Values) -> float:
    """Spearman's rank correlation of numbers; ties have their mean rank. Arguments and errors as in `pearson`."""
    from scipy.stats import spearmanr

    return _correlation("spearman", spearmanr, predictions, references)


class Accuracy(Metric):
    """Share of right classes; a sentence has 0 or 100."""

    name, title, kind, columns, test = "accuracy", "accuracy", "classes", ("accuracy",), "mcnemar"

    @property
    def signature(self) -> str:
        return "accuracy|classes by name"

    def _corpus_score(self, predictions: Values, references: Values) -> float:
        return accuracy(predictions, references)

    def sentence_scores(self, predictions: Values, references: Values) -> NDArray[np.float64]:
        return 100 * _correct(predictions, references).astype(np.float64)


class _PairedValues(Metric):
    """Metric whose statistics are the predictions and references themselves."""

    test = "statistics"
    _dtype: Any = str

    def statistics(self, predictions: Values, references: Values) -> NDArray[Any]:
        """``(sentences, 2)`` predictions and references."""
        check_pairs(predictions, references)
        return np.array([list(predictions), list(references)], dtype=self._dtype).T

    def score_of(self, statistics: NDArray[Any]) -> float:
        return self._corpus_score(statistics[:, 0], statistics[:, 1])


class F1(_PairedValues):
    """F1 of the class that the settings name, else the mean over the classes."""

    name, title, kind, columns = "f1", "F1", "classes", ("f1", "accuracy")

    @property
    def signature(self) -> str:
        of = "macro" if self.settings.positive is None else f"class:{self.settings.positive}"
        return f"f1|{of}|{_version('scikit-learn')}"

    def _corpus_score(self, predictions: Values, references: Values) -> float:
        return f1(predictions, references, self.settings.positive)


class Matthews(_PairedValues):
    """Matthews' correlation."""

    name, title, kind, columns = "mcc", "Matthews’ correlation", "classes", ("mcc", "accuracy")

    @property
    def signature(self) -> str:
        return f"mcc|{_version('scikit-learn')}"

    def _corpus_score(self, predictions: Values, references: Values) -> float:
        return matthews(predictions, references)


class Pearson(_PairedValues):
    """Pearson's correlation."""

    name, title, kind, columns = "pearson", "Pearson’s r", "numbers", ("pearson", "spearman")
    _dtype = float

    @property
    def signature(self) -> str:
        return f"{self.name}|{_version('scipy')}"

    def _corpus_score(self, predictions: Values, references: Values) -> float:
        return pearson(predictions, references)


class Spearman(Pearson):
    """Spearman's rank correlation."""

    name, title, columns = "spearman", "Spearman’s ρ", ("spearman", "pearson")

    def _corpus_score(self, predictions: Values, references: Values) -> float:
        return spearman(predictions, references)


def _correct(predictions: Values, references: Values) -> NDArray[np.bool_]:
    check_pairs(predictions, references)
    return np.array([given == right for given, right in zip(predictions, references, strict=True)])


def _classes(name: str, predictions: Values, references: Values) -> list[str]:
    """Classes of the references, sorted."""
    check_pairs(predictions, references)
    classes = sorted({str(label) for label in references})
    if len(classes) < 2:
        raise UndefinedScoreError(
            f"{name} is not defined: all {len(references)} references are of the class `{classes[0]}`; "
            "score a set that holds two classes or more"
        )
    return classes


def _correlation(name: str, correlate: Callable[..., Any], predictions: Values, references: Values) -> float:
    check_pairs(predictions, references)
    for side, values in (("predictions", predictions), ("references", references)):
        numbers = np.asarray(values, dtype=np.float64)
        if not np.isfinite(numbers).all():
            raise UndefinedScoreError(
                f"{name} is not defined: {side} {np.flatnonzero(~np.isfinite(numbers))[0]} (from 0) is not finite"
            )
        if (numbers == numbers[0]).all():
            raise UndefinedScoreError(f"{name} is not defined: all {side} are {numbers[0]:g}")
    return 100 * float(correlate(predictions, references).statistic)


def _version(package: str) -> str:
    return f"{package}:{importlib.metadata.version(package)}"
