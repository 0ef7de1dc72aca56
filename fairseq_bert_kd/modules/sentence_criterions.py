"""Which models and criterions a sentence task takes, and whether a criterion's options fit the labels of its data."""

import inspect
from typing import Any

from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY

from fairseq_bert_kd.modules.validation_metrics import check_best_metric, check_reports
from fairseq_bert_kd.storage.sentence_data import NUMBERS, UNLABELLED, SentenceSpec

SEQUENCE_CRITERIONS = ("cross_entropy", "label_smoothed_cross_entropy")  # of fairseq, the likely mistakes
LABEL_CRITERIONS = ("sentence_prediction", "smoothed_sentence_prediction")


def check_reads_texts(arch: str | None) -> None:
    """Check, before a model is built, that its class reads the batches of sentence tasks: one or two ``texts``.

    Args:
        arch: name of the model or the architecture.

    Raises:
        ValueError: it reads something else, such as fairseq's own RoBERTa one sequence of ``src_tokens``.
    """
    model_class = MODEL_REGISTRY.get(arch) or ARCH_MODEL_REGISTRY.get(arch)
    if model_class is not None and "texts" not in inspect.signature(model_class.forward).parameters:
        raise ValueError(
            f"--arch {arch} reads no sentences as this task lays them out; give --arch hf_encoder with --encoder-model, a folder or "
            "hub name of transformers (RoBERTa's too), or tinybert_4x312, sentence_lstm or another of ours"
        )


def learns_labels(cfg: Any) -> bool:
    """Whether the criterion of these options cannot do without labels."""
    return getattr(cfg, "_name", None) in LABEL_CRITERIONS


def check_criterion(cfg: Any, task_cfg: Any, spec: SentenceSpec, outputs: int) -> None:
    """Check the options of a criterion against a task's data.

    Args:
        cfg: options of the criterion.
        task_cfg: those of the task.
        spec: what the model's outputs mean.
        outputs: classes of the data, 1 for numbers, 0 for unlabelled text.

    Raises:
        ValueError: a criterion of sequences, or one that needs other labels; a metric that these labels do not have.
    """
    name = getattr(cfg, "_name", None)
    if name in SEQUENCE_CRITERIONS:
        raise ValueError(
            f"--criterion {name} (cross_entropy is fairseq's default) scores sequences, not sentences: give --criterion "
            "sentence_prediction, or layer_distillation with --kd-teacher"
        )
    if learns_labels(cfg):
        _check_labels(cfg, task_cfg.data, spec)
    if hasattr(cfg, "report_mcc"):
        check_reports(cfg, task_cfg.data, outputs)
        check_best_metric(task_cfg, cfg, outputs)


def _check_labels(cfg: Any, data: str, spec: SentenceSpec) -> None:
    """Compare the options of a criterion that learns from labels with their kind."""
    if spec.kind == UNLABELLED:
        raise ValueError(
            f"--criterion {cfg._name} learns from labels, `{data}` has none; prepare the data with labels, or choose another "
            "criterion"
        )
    if cfg.regression_target != (spec.kind == NUMBERS):
        said = "add" if spec.kind == NUMBERS else "leave out"
        raise ValueError(f"the labels of `{data}` are {spec.kind}; {said} --regression-target")
