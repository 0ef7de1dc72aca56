"""Loads a masked language model of single sentences: a transformers folder, or a checkpoint of ours."""

import os
from typing import Any

import torch

from fairseq_bert_kd import compat
from fairseq_bert_kd.teachers.load import is_token_teacher, reads_single_texts
from fairseq_bert_kd.teachers.probe import check_token_teacher
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

MODEL = "hf_masked_lm"


def names_transformers(path: str) -> bool:
    """Whether a name is that of a transformers folder or hub model, not of a checkpoint of ours."""
    return not os.path.isfile(path) and not path.endswith(".pt")


def load_masked_lm(path: str, tokenizer: str | None = None) -> tuple[Any, HfTokenizer]:
    """A masked language model in evaluation mode, a `WordPredictor`, and its tokenizer.

    Args:
        path: transformers folder or hub name; or a checkpoint of ``--task conditional_masked_lm --cmlm-one-sided``.
        tokenizer: folder or hub name of the tokenizer; None for the model's own, or the one that the checkpoint was trained
            with.

    Raises:
        ValueError: it is no masked language model of single sentences with a trained head, or the tokenizer is another one.
        FileNotFoundError: no such checkpoint.
    """
    from fairseq.models import MODEL_REGISTRY

    if names_transformers(path):
        loaded = HfTokenizer(tokenizer or path)
        own_ids = torch.arange(loaded.vocab_size)
        model = MODEL_REGISTRY[MODEL].of_transformers(path, own_ids, loaded.text_format(), {})
        check_token_teacher(model, f"`{path}`")
        return model.eval(), loaded
    state = compat.load_checkpoint(path)
    arch = compat.model_settings(state)["_name"]
    if not (is_token_teacher(arch) and reads_single_texts(state)):
        raise ValueError(
            f"checkpoint `{path}` is not a masked language model of single sentences but a `{arch}`"
            f"{' of pairs' if is_token_teacher(arch) else ''}; give one that fairseq-train wrote with --task "
            "conditional_masked_lm --cmlm-one-sided, or a transformers folder"
        )
    model = MODEL_REGISTRY[arch].of_checkpoint(state)
    trained_with = compat.model_settings(state)
    name = tokenizer or trained_with["teacher_tokenizer"] or trained_with["teacher_model"]
    loaded = HfTokenizer(name)
    if loaded.digest() != model.tokenizer_digest():
        raise ValueError(
            f"tokenizer `{name}` is not the one with which checkpoint `{path}` was trained (digest {loaded.digest()[:12]} "
            f"against {model.tokenizer_digest()[:12]}); name that one with --tokenizer"
        )
    check_token_teacher(model, f"checkpoint `{path}`")
    return model.eval(), loaded
