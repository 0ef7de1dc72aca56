"""Format ``transformers`` of ``export-student``: a folder that ``from_pretrained`` loads, with its tokenizer."""

import argparse
import json
from pathlib import Path
from typing import Any

from fairseq_bert_kd import compat

SUMMARY = "a FOLDER with config, safetensors and tokenizer for transformers, of an hf_encoder"
TOKENIZER: dict[str, dict[str, Any]] = {
    "--tokenizer": {
        "metavar": "PATH",
        "help": "folder or hub name of the tokenizer that the student was trained with (default: the one that its training "
        "named, if it is still there)",
    }
}
OPTIONS: dict[str, dict[str, Any]] = {
    **TOKENIZER,
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
    tokenizer = own_tokenizer(
        state, args.tokenizer, spec.digests["tokenizer"], args.checkpoint, "transformers"
    )
    if args.encoder_only:
        parts = parts._replace(output=None)
    model = to_transformers(
        parts,
        pooling=str(settings.get("classification_pooling")),
        form=str(settings.get("classifier")),
        dropout=settings.get("classification_dropout", 0.0),
    )
    model.save_pretrained(output)
    tokenizer.save(str(output))
    return f"{type(model).__name__}, {model.num_parameters():,} parameters"


def _task_setting(state: dict[str, Any], name: str) -> Any:
    """An option of the task; None if the checkpoint has none."""
    task = (state.get("cfg") or {}).get("task") or {}
    return (task if isinstance(task, dict) else vars(task)).get(name)


def own_tokenizer(state: dict[str, Any], given: str | None, digest: str, checkpoint: str, form: str) -> Any:
    """The tokenizer that a student was trained with.

    Args:
        state: content of the checkpoint.
        given: ``--tokenizer``; None for the one that training named.
        digest: of the student's tokenizer.
        checkpoint: its path, for messages.
        form: the format, for messages.

    Raises:
        ValueError: none is known, or it is another one.
    """
    from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

    spec = json.loads((state.get("task_state") or {}).get("sentence_spec") or "{}")
    name = (
        given
        or _task_setting(state, "kd_tokenizer")
        or compat.model_settings(state).get("encoder_model")
        or spec.get("tokenizer_name")
    )
    if not name:
        raise ValueError(
            f"--format {form} needs --tokenizer: the folder or hub name of the tokenizer that the student was trained "
            "with, which is written into the folder"
        )
    tokenizer = HfTokenizer(name)
    if tokenizer.digest() != digest:
        raise ValueError(
            f"tokenizer `{name}` is not the one that `{checkpoint}` was trained with (sha256 {tokenizer.digest()[:12]} "
            f"against {digest[:12]}); give that one with --tokenizer"
        )
    return tokenizer
