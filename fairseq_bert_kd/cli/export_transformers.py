"""Format ``transformers`` of ``export-student``: a folder that ``from_pretrained`` loads, with its tokenizer."""

import argparse
import json
from pathlib import Path
from typing import Any

from fairseq_bert_kd import compat

SUMMARY = (
    "a FOLDER with config, safetensors and tokenizer for transformers, of an encoder (--arch hf_encoder)"
)
OPTIONS: dict[str, dict[str, Any]] = {
    "--encoder-only": {
        "action": "store_true",
        "help": "leave the classification head out (for AutoModel)",
    },
}


def write(state: dict[str, Any], output: Path, args: argparse.Namespace) -> str:
    """Write the folder; what to say about it.

    Raises:
        ValueError: no encoder, another tokenizer than the student's, or a head that transformers cannot represent.
    """
    from fairseq_bert_kd.modules.encoder_start import parts_of_state
    from fairseq_bert_kd.modules.sentence_classifier import to_transformers

    parts, spec = parts_of_state(state, args.checkpoint)
    settings = compat.model_settings(state)
    tokenizer = own_tokenizer(state, args, spec.digests["tokenizer"])
    if args.encoder_only:
        parts = parts._replace(output=None)
    model = to_transformers(parts, dropout=settings.get("classification_dropout", 0.0))
    model.save_pretrained(output)
    tokenizer.save(str(output))
    for file in output.iterdir():  # safetensors lets only the owner read the weights
        file.chmod((output / "config.json").stat().st_mode)
    return f"{type(model).__name__}, {model.num_parameters():,} parameters"


def _task_setting(state: dict[str, Any], name: str) -> Any:
    """An option of the task; None if the checkpoint has none."""
    task = (state.get("cfg") or {}).get("task") or {}
    return (task if isinstance(task, dict) else vars(task)).get(name)


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
    named = _task_setting(state, "kd_tokenizer") or compat.model_settings(state).get("encoder_model")
    name = args.tokenizer or named or spec.get("tokenizer_name")
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
