"""Which metrics fairseq's ``sentence_prediction`` can report in validation, and by which of them a checkpoint can be chosen."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from omegaconf import II

# option of the criterion -> what it adds to the log
REPORTS = {
    "report_mcc": ("mcc",),
    "report_acc_and_f1": ("f1", "acc_and_f1"),
    "report_pearson_and_spearman": ("pearson", "spearman", "pearson_and_spearman"),
}
OF_CLASSES = ("accuracy", "agreement")  # logged without an option
GREATEST = (*OF_CLASSES, *(name for names in REPORTS.values() for name in names))
LEAST = ("loss", "nll_loss")


@dataclass
class BestCheckpointOptions(FairseqDataclass):
    """How fairseq chooses ``checkpoint_best.pt``."""

    best_checkpoint_metric: str = II("checkpoint.best_checkpoint_metric")
    maximize_best_checkpoint_metric: bool = II("checkpoint.maximize_best_checkpoint_metric")


def check_reports(cfg: Any, data: str, outputs: int) -> None:
    """Check that the labels have the metrics that a criterion shall report: scikit-learn would say so after an epoch.

    Args:
        cfg: options of a criterion with those of ``REPORTS``.
        data: data folder, for messages.
        outputs: classes of the data, 1 for numbers, 0 for unlabelled text.

    Raises:
        ValueError: a metric of other labels.
    """
    labels = {0: "none", 1: "numbers"}.get(outputs, f"{outputs} classes")
    needed = {
        "report_mcc": (outputs > 1, "classes"),
        "report_acc_and_f1": (outputs == 2, "two classes, the second of which is the one that counts"),
        "report_pearson_and_spearman": (outputs == 1, "numbers"),
    }
    for name, (fits, wanted) in needed.items():
        if getattr(cfg, name) and not fits:
            raise ValueError(
                f"{_option(name)} is for labels that are {wanted}, those of `{data}` are {labels}; leave it out. "
                "`fairseq-bert-kd evaluate-sentences` prints all metrics of a checkpoint"
            )


def check_best_metric(task_cfg: Any, cfg: Any, outputs: int) -> None:
    """Check that validation logs the metric of the best checkpoint, and that its better end is taken.

    Args:
        task_cfg: options of the task; those of older checkpoints lack `BestCheckpointOptions`, and pass.
        cfg: options of a criterion with those of ``REPORTS``.
        outputs: as in `check_reports`.

    Raises:
        ValueError: an option without which the metric is not logged, or the worst checkpoint would be kept.
    """
    metric = getattr(task_cfg, "best_checkpoint_metric", None)
    maximised = getattr(task_cfg, "maximize_best_checkpoint_metric", False)
    for name, logged in REPORTS.items():
        if metric in logged and not getattr(cfg, name):
            raise ValueError(
                f"--best-checkpoint-metric {metric} is not logged without {_option(name)}; give it, or choose by another metric"
            )
    if metric in OF_CLASSES and outputs < 2:
        raise ValueError(
            f"--best-checkpoint-metric {metric} is of classes, and the data have none; for numbers choose pearson or spearman, with "
            "--report-pearson-and-spearman, else loss"
        )
    check_best_end(metric, maximised, GREATEST, LEAST)


def check_best_end(
    metric: str | None, maximised: bool, greatest: Collection[str], least: Collection[str]
) -> None:
    """Check that the better end of the best checkpoint's metric is taken.

    Args:
        metric: ``--best-checkpoint-metric``.
        maximised: ``--maximize-best-checkpoint-metric``.
        greatest: metrics of which the greatest is the best.
        least: metrics of which the least is; others pass.

    Raises:
        ValueError: the worst checkpoint would be kept.
    """
    if metric in greatest and not maximised:
        raise ValueError(
            f"--best-checkpoint-metric {metric} is the better the greater it is, and the least would be kept; add "
            "--maximize-best-checkpoint-metric"
        )
    if metric in least and maximised:
        raise ValueError(
            f"--best-checkpoint-metric {metric} is the better the smaller it is, and the greatest would be kept; leave "
            "--maximize-best-checkpoint-metric out"
        )


@dataclass(frozen=True)
class _OfTwoRows:
    """A derived metric that is nan where fewer than two rows were predicted."""

    metric: Callable[[Any], float]

    def __call__(self, meters: Any) -> float:
        return self.metric(meters) if len(meters["pred"].tensor) > 1 else float("nan")


def allow_single_rows() -> None:
    """Let the correlations that a criterion has just logged be nan for one row, for which scipy raises an error.

    fairseq asks for the metrics of every batch by itself, and the last batch of a split may have one row. Those of the whole split
    stay as they are.
    """
    for meters in metrics.get_active_aggregators():
        for name in REPORTS["report_pearson_and_spearman"]:
            meter = meters.get(name)
            if hasattr(meter, "fn") and not isinstance(meter.fn, _OfTwoRows):
                meter.fn = _OfTwoRows(meter.fn)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
