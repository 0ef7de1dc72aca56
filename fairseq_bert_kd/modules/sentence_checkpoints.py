"""From which checkpoint the training of a sentence model goes on, and what a checkpoint says about its model's outputs."""

import os
from collections.abc import Mapping
from typing import Any

from fairseq_bert_kd import compat
from fairseq_bert_kd.storage.sentence_data import SentenceSpec, check_head, check_same_pieces

SPEC = "sentence_spec"  # in the task's state, which checkpoints hold
LAST_CHECKPOINT = "checkpoint_last.pt"  # fairseq's default for --restore-file
STAGE = "layer_stage"  # option of the criterions of layers
STAGES_OF_LAYERS = ("general", "intermediate")  # which learn no predictions, unless a weight is given
HEADS = "classification_heads."  # beginning of the names of their weights


def continued_checkpoint(cfg: Any) -> str | None:
    """Checkpoint from which fairseq-train starts, by fairseq's own rule; None if it starts anew.

    Args:
        cfg: has ``save_dir``, ``restore_file`` and ``finetune_from_model``.
    """
    if cfg.restore_file and cfg.restore_file != LAST_CHECKPOINT:
        return cfg.restore_file if os.path.isfile(cfg.restore_file) else None
    last = os.path.join(cfg.save_dir or "", LAST_CHECKPOINT)
    if os.path.isfile(last):
        return last
    return (
        cfg.finetune_from_model
        if cfg.finetune_from_model and os.path.isfile(cfg.finetune_from_model)
        else None
    )


def spec_of(state: Mapping[str, Any]) -> SentenceSpec | None:
    """What the outputs of a checkpoint's model mean; None if it is not of this task."""
    stated = (state.get("task_state") or {}).get(SPEC)
    return SentenceSpec.from_json(stated) if stated else None


def trained_spec(path: str) -> SentenceSpec:
    """What the outputs of a checkpoint's model mean.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no checkpoint of this task.
    """
    spec = spec_of(compat.load_checkpoint(path))
    if spec is None:
        raise ValueError(
            f"checkpoint `{path}` is not of task sentence_prediction_with_teacher; give the checkpoint of a model of sentences"
        )
    return spec


def check_continued(cfg: Any, spec: SentenceSpec) -> None:
    """Compare data with the checkpoint from which training goes on, if it is one of sentences.

    Args:
        cfg: as of `continued_checkpoint`; also has ``data`` and ``classification_head_name``.
        spec: description of the data.

    Raises:
        ValueError: other pieces, or a head of that name whose outputs mean something else.
    """
    path = continued_checkpoint(cfg)
    if path is None:
        return
    state = compat.load_checkpoint(path)
    trained = spec_of(state)
    if trained is None:
        return
    names = (f"checkpoint `{path}`", f"data folder `{cfg.data}`")
    check_same_pieces(trained, spec, names)
    head = cfg.classification_head_name
    if state["cfg"]["task"].get("classification_head_name") == head:
        check_head(trained, spec, names, head)


def check_same_stage(path: str, task_cfg: Any, criterion_cfg: Any) -> None:
    """Check that a run goes on in its own folder with the stage of TinyBERT that it began with, unless its optimizer starts anew.

    Args:
        path: checkpoint from which training goes on.
        task_cfg: has ``save_dir`` and ``reset_optimizer``.
        criterion_cfg: options of the criterion.

    Raises:
        ValueError: another stage, which would replace the checkpoints of the one before.
    """
    stage = getattr(criterion_cfg, STAGE, None)
    last = os.path.join(task_cfg.save_dir or "", LAST_CHECKPOINT)
    if stage is None or path != last or task_cfg.reset_optimizer:
        return
    before = _criterion_settings(compat.load_checkpoint(path)).get(STAGE)
    if before is not None and str(before) != str(stage):
        raise ValueError(
            f"checkpoint `{path}`, from which training goes on, is of --layer-stage {before}, which is {stage} now: its checkpoints "
            f"would be replaced; give another --save-dir, and --encoder-init {path} to start from it"
        )


def untrained_head(path: str, state: Mapping[str, Any]) -> str:
    """What to say of a checkpoint with a head that its training did not reach; empty where it did, or there is none.

    Args:
        path: the checkpoint, for the message.
        state: its content.
    """
    settings = _criterion_settings(state)
    weights = (settings.get(f"layer_{term}_weight") for term in ("prediction", "label"))
    if str(settings.get(STAGE)) not in STAGES_OF_LAYERS or any(weights):
        return ""
    if not any(name.startswith(HEADS) for name in state["model"]):
        return ""
    return (
        f"--layer-stage {settings[STAGE]} has not trained the classification head of `{path}`, so its predictions say nothing of the "
        f"student; train it with --layer-stage prediction --encoder-init {path}"
    )


def _criterion_settings(state: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the criterion of a checkpoint; empty where it has none."""
    settings = (state.get("cfg") or {}).get("criterion") or {}
    return settings if isinstance(settings, dict) else vars(settings)
