"""Format ``transformers`` of ``export-student``: a folder that ``from_pretrained`` loads, with its tokenizer."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairseq_bert_kd import compat

SUMMARY = (
    "a FOLDER with config, safetensors and tokenizer for transformers, of an encoder (--arch hf_encoder) or a masked "
    "language model (--arch hf_masked_lm)"
)
OPTIONS: dict[str, dict[str, Any]] = {
    "--encoder-only": {
        "action": "store_true",
        "help": "leave the head out, of classes or of masked words (for AutoModel)",
    },
}


def write(state: dict[str, Any], output: Path, args: argparse.Namespace) -> str:
    """Write the folder; what to say about it.

    Raises:
        ValueError: no encoder, another tokenizer than the student's, or a head that transformers cannot represent.
    """
    if _is_masked_lm(state) and not args.encoder_only:
        model, digest = _masked_lm(state)
    else:
        model, digest = _encoder(state, args)
    tokenizer = own_tokenizer(state, args, digest)
    model.save_pretrained(output)
    tokenizer.save(str(output))
    for file in output.iterdir():  # safetensors lets only the owner read the weights
        file.chmod((output / "config.json").stat().st_mode)
    return f"{type(model).__name__}, {model.num_parameters():,} parameters"


def _is_masked_lm(state: dict[str, Any]) -> bool:
    return compat.model_settings(state).get("_name") == "hf_masked_lm"


def _masked_lm(state: dict[str, Any]) -> tuple[Any, str]:
    """Transformers' model of a masked language model of ours, and the digest of its tokenizer."""
    from fairseq.models import MODEL_REGISTRY

    import fairseq_bert_kd.tasks  # noqa: F401  registers the model

    model = MODEL_REGISTRY["hf_masked_lm"].of_checkpoint(state)
    return model.to_transformers(), model.tokenizer_digest()


def _encoder(state: dict[str, Any], args: argparse.Namespace) -> tuple[Any, str]:
    """Transformers' model of an encoder of ours, with its classifier if it may, and the digest of its tokenizer."""
    from fairseq_bert_kd.modules.encoder_start import parts_of_state
    from fairseq_bert_kd.modules.sentence_classifier import to_transformers

    parts, spec = parts_of_state(state, args.checkpoint)
    read_others_as_unknown(parts.encoder.get_input_embeddings().weight.data, state)
    if args.encoder_only:
        parts = parts._replace(output=None)
    dropout = compat.model_settings(state).get("classification_dropout", 0.0)
    return to_transformers(parts, dropout=dropout), spec.digests["tokenizer"]


def _task_setting(state: dict[str, Any], name: str) -> Any:
    """An option of the task; None if the checkpoint has none."""
    task = (state.get("cfg") or {}).get("task") or {}
    return (task if isinstance(task, dict) else vars(task)).get(name)


def read_others_as_unknown(embedding: Tensor, state: dict[str, Any]) -> None:
    """Give every id that the student's dictionary does not hold the embedding of the unknown token, in place.

    The student reads a text by its dictionary, where such a piece is unknown; an exported model reads the tokenizer's ids.
    The encoder of a masked language model has no such map and stays as it is.

    Args:
        embedding: ``(encoder ids, d)`` word embeddings of the student.
        state: content of the checkpoint.
    """
    from fairseq.data import Dictionary

    held = state["model"].get("token_to_encoder")
    if held is None:
        return
    others = torch.ones(len(embedding), dtype=torch.bool)
    others[held] = False
    embedding[others] = embedding[held[Dictionary().unk_index]].clone()


def own_tokenizer(state: dict[str, Any], args: argparse.Namespace, digest: str) -> Any:
    """The tokenizer that a student was trained with.

    Args:
        state: content of the checkpoint.
        args: options of the command.
        digest: digest of the student's tokenizer.

    Raises:
        ValueError: none is known, or it is another one.
    """
    from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

    spec = json.loads((state.get("task_state") or {}).get("sentence_spec") or "{}")
    model = compat.model_settings(state)
    options = ("encoder_model", "teacher_tokenizer", "teacher_model")
    named = [_task_setting(state, "kd_tokenizer"), *(model.get(option) for option in options)]
    name = args.tokenizer or next(filter(None, named), None) or spec.get("tokenizer_name")
    if not name:
        raise ValueError(
            f"--format {args.format} needs --tokenizer: the folder or hub name of the tokenizer that the student was trained "
            "with, which is written into the folder"
        )
    tokenizer = HfTokenizer(name)
    if tokenizer.digest() != digest:
        raise ValueError(
            f"tokenizer `{name}` is not the one that `{args.checkpoint}` was trained with (sha256 {tokenizer.digest()[:12]} "
            f"against {digest[:12]}); give that one with --tokenizer"
        )
    return tokenizer
