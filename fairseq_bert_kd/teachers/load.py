"""Loads a C-MLM teacher from its checkpoint."""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fairseq_bert_kd import compat


@dataclass
class Teacher:
    """A loaded C-MLM teacher.

    Attributes:
        model: the fairseq model, in evaluation mode.
        task: its task, set up on the data folder to score.
        digest: sha256 of the checkpoint file, hexadecimal.
    """

    model: Any
    task: Any
    digest: str


def load_teacher(path: str, data: str) -> Teacher:
    """Load a C-MLM teacher on a data folder; only the checkpoint is needed, not the original weights.

    Raises:
        ValueError: the checkpoint is no teacher, is unsafe, or was trained with other dictionaries.
        FileNotFoundError: checkpoint or data folder missing.
    """
    state = compat.load_checkpoint(path)
    settings = state.get("cfg") or {}
    model_settings = settings.get("model")
    name = (
        model_settings.get("_name")
        if isinstance(model_settings, dict)
        else getattr(model_settings, "arch", "?")
    )
    if name != "hf_masked_lm":
        raise ValueError(
            f"checkpoint `{path}` is no teacher: it holds a `{name}` model, and a teacher is `hf_masked_lm`; "
            "give the checkpoint that fairseq-train wrote with --task conditional_masked_lm"
        )
    from fairseq import checkpoint_utils

    models, _, task = checkpoint_utils.load_model_ensemble_and_task([path], arg_overrides={"data": data})
    return Teacher(models[0].eval(), task, file_digest(path))


def never_a_target(dictionary: Any) -> Tensor:
    """``(n,)`` ids of start, padding and the host's filler words, which no target holds."""
    filler = [index in (dictionary.bos_index, dictionary.pad_index) for index in range(len(dictionary))]
    for index, symbol in enumerate(dictionary.symbols):
        filler[index] = filler[index] or symbol.startswith("madeupword")
    return torch.tensor(filler).nonzero().squeeze(1)


def file_digest(path: str) -> str:
    """sha256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
