"""GLUE's metrics of a student in validation, by the names that fairseq's ``sentence_prediction`` gives them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from fairseq.criterions.sentence_prediction import acc_and_f1, matthews_corrcoef, pearson_and_spearman
from fairseq.logging import metrics
from torch import Tensor

from fairseq_bert_kd.modules.validation_metrics import REPORTS

PREDICTED, TRUE, NAMES = "pred", "targ", "reports"  # in what is logged
LISTS = (PREDICTED, TRUE, NAMES)
# name in the log -> share of 1, of predictions and labels
METRICS: dict[str, Callable[[Any, Any], float]] = {
    "mcc": matthews_corrcoef,
    "f1": lambda found, true: acc_and_f1(found, true)["f1"],
    "acc_and_f1": lambda found, true: acc_and_f1(found, true)["acc_and_f1"],
    "pearson": lambda found, true: pearson_and_spearman(found, true)["pearson"],
    "spearman": lambda found, true: pearson_and_spearman(found, true)["spearmanr"],
    "pearson_and_spearman": lambda found, true: pearson_and_spearman(found, true)["corr"],
}


def reported(cfg: Any) -> tuple[str, ...]:
    """Names of the metrics that the options ask for."""
    return tuple(name for option, names in REPORTS.items() if getattr(cfg, option) for name in names)


def kept(logits: Tensor, targets: Tensor, names: Iterable[str]) -> dict[str, Any]:
    """Predictions and labels of a batch, as lists: these metrics are no sums over batches.

    Args:
        logits: ``(batch, classes)``, or ``(batch, 1)`` numbers.
        targets: ``(batch,)``.
        names: metrics that `log_reports` shall log.
    """
    found = logits.view(-1).float() if logits.size(1) == 1 else logits.argmax(dim=1)
    return {PREDICTED: found.tolist(), TRUE: targets.tolist(), NAMES: tuple(names)}


def log_reports(logging_outputs: Sequence[Mapping[str, Any]]) -> None:
    """Log the metrics in per cent, over all batches that fairseq aggregates."""
    found, true = ([value for log in logging_outputs for value in log.get(key, ())] for key in LISTS[:2])
    if not found:
        return
    metrics.log_concat_tensor(PREDICTED, torch.tensor(found), dim=0)
    metrics.log_concat_tensor(TRUE, torch.tensor(true), dim=0)
    for name in dict.fromkeys(name for log in logging_outputs for name in log.get(NAMES, ())):
        metrics.log_derived(name, _of_all(METRICS[name]))


def _of_all(metric: Callable[[Any, Any], float]) -> Callable[[Any], float]:
    """A metric in per cent of what the meters have gathered."""

    def value(meters: Any) -> float:
        return round(100.0 * float(metric(meters[PREDICTED].tensor.numpy(), meters[TRUE].tensor.numpy())), 2)

    return value
