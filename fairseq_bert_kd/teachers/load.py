"""Loads a teacher of token distributions from its checkpoint."""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch

from fairseq_bert_kd import compat
from fairseq_bert_kd.storage.folds import Fold
from fairseq_bert_kd.teachers.interface import TokenTeacher
from fairseq_bert_kd.teachers.probe import check_token_teacher


@dataclass
class Teacher:
    """A loaded teacher.

    Attributes:
        model: a `TokenTeacher`, a fairseq model in evaluation mode.
        task: its task, set up on the data folder to score.
        digest: sha256 of the checkpoint file, hexadecimal.
        fold: fold of pairs that it was trained without (``--teacher-fold``); None for a teacher of all pairs.
    """

    model: Any
    task: Any
    digest: str
    fold: Fold | None = None


def is_token_teacher(arch: str | None) -> bool:
    """Whether the model that is registered under a name is a `TokenTeacher`."""
    from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY

    model_class = MODEL_REGISTRY.get(arch) or ARCH_MODEL_REGISTRY.get(arch)
    return model_class is not None and issubclass(model_class, TokenTeacher)


def load_teacher(path: str, data: str) -> Teacher:
    """Load a teacher on a data folder; only the checkpoint is needed, not the original weights.

    Raises:
        ValueError: the checkpoint is not a teacher, is unsafe, was trained with other dictionaries, or its rows depend on
            more or less than they should (`probe`).
        FileNotFoundError: checkpoint or data folder missing.
    """
    state = compat.load_checkpoint(path)
    arch = compat.model_settings(state)["_name"]
    if not is_token_teacher(arch):  # before it is built: another model would fail on the data folder first
        raise ValueError(
            f"checkpoint `{path}` is not a teacher: it holds a `{arch}` model, which predicts no distribution over target "
            "tokens for a pair. Give the checkpoint that fairseq-train wrote with --task conditional_masked_lm."
        )
    if reads_single_texts(state):
        raise ValueError(
            f"checkpoint `{path}` is a masked language model of single sentences (--cmlm-one-sided), which knows no pairs of "
            "source and target. Give the checkpoint of a teacher that was trained without --cmlm-one-sided."
        )
    from fairseq import checkpoint_utils

    models, _, task = checkpoint_utils.load_model_ensemble_and_task([path], arg_overrides={"data": data})
    check_token_teacher(models[0], f"checkpoint `{path}`")
    return Teacher(models[0].eval(), task, compat.file_digest(path), held_out_fold(models[0]))


def held_out_fold(model: Any) -> Fold | None:
    """The fold that a teacher was trained without, as its weights say; None for a teacher of all pairs."""
    numbers = getattr(model, "held_out_fold", None)
    return Fold(*numbers.tolist()) if numbers is not None and bool(numbers.any()) else None


def entities_digest(model: Any) -> str:
    """Digest of the entity vectors that a teacher reads; empty for one that reads no entities."""
    return model.entities_digest() if hasattr(model, "entities_digest") else ""


def entity_span(model: Any) -> str:
    """Which pieces the mentions of a teacher's training mark; empty for one that reads no entities, or where it is not known."""
    return model.entity_span() if hasattr(model, "entity_span") else ""


def reads_single_texts(state: dict[str, Any]) -> bool:
    """Whether a checkpoint is a masked language model of single sentences."""
    task = (state.get("cfg") or {}).get("task")
    return bool(task.get("cmlm_one_sided")) if isinstance(task, dict) else False


def weights_digest(model: torch.nn.Module) -> str:
    """sha256 of a model's parameters but for classification heads, hexadecimal: names, shapes and float32 numbers."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if name.startswith("classification_heads."):
            continue
        digest.update(f"{name} {tuple(parameter.shape)}\n".encode())
        digest.update(parameter.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
