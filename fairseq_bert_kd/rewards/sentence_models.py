"""Loads the checkpoints of sentence models that judge generated text."""

import os
from typing import Any, NamedTuple

import torch

from fairseq_bert_kd import compat
from fairseq_bert_kd.storage.sentence_data import SentenceSpec, check_tokenizer
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer


class Stated(NamedTuple):
    """What a checkpoint says of itself, read before its model is built.

    Attributes:
        path: the checkpoint.
        what: option and path, for messages.
        spec: what its outputs mean.
    """

    path: str
    what: str
    spec: SentenceSpec


class SentenceModel(NamedTuple):
    """A frozen sentence model.

    Attributes:
        model: fairseq model in evaluation mode.
        task: its task.
        tokenizer: tokenizer of its data.
    """

    model: Any
    task: Any
    tokenizer: HfTokenizer


def read_stated(path: str, option: str, wanted: str) -> Stated:
    """What a checkpoint says of itself.

    Args:
        path: checkpoint of a sentence model; its data folder must be where it was.
        option: option that names it, for messages.
        wanted: what it should be, for messages: what it is, and what to give.

    Raises:
        FileNotFoundError: checkpoint or data folder missing.
        ValueError: not a checkpoint of a sentence model.
    """
    state = compat.load_checkpoint(path)
    stated = (state.get("task_state") or {}).get("sentence_spec")
    what = f"{option} `{path}`"
    if not stated:
        raise ValueError(f"{what} is not {wanted}")
    data = state["cfg"]["task"]["data"]
    if missing := [folder for folder in data.split(os.pathsep) if not os.path.isdir(folder)]:
        raise FileNotFoundError(
            f"{what} was trained on `{missing[0]}`, which is not here (seen from `{os.getcwd()}`); run where it was "
            "trained, or copy its data folder here"
        )
    return Stated(path, what, SentenceSpec.from_json(stated))


def load_model(stated: Stated) -> SentenceModel:
    """The model; torch's random numbers go on as without it.

    Raises:
        ValueError: its tokenizer is another one now, or it reads entities, which no text names.
    """
    from fairseq import checkpoint_utils

    with torch.random.fork_rng(devices=[]):  # weights are drawn before those of the checkpoint replace them
        models, _, task = checkpoint_utils.load_model_ensemble_and_task([stated.path])
    if hasattr(models[0], "entities_digest"):
        raise ValueError(
            f"{stated.what} reads entities, which generated text does not name; give a model without them"
        )
    tokenizer = HfTokenizer(task.cfg.kd_tokenizer or stated.spec.tokenizer_name)
    check_tokenizer(stated.what, stated.spec.tokenizer, tokenizer.digest(), tokenizer.name)
    return SentenceModel(models[0].eval().requires_grad_(False), task, tokenizer)
