"""Format ``fairseq`` of ``export-student``: a checkpoint for stock fairseq and CTranslate2."""

import argparse
from pathlib import Path
from typing import Any

from fairseq_bert_kd.storage.fairseq_data import dictionary_digest, read_dictionary
from fairseq_bert_kd.tokenization.dictionary import check_pieces
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

SUMMARY = "a FILE for stock fairseq and CTranslate2: weights and fairseq's own settings only"
OPTIONS: dict[str, dict[str, Any]] = {
    "--data": {
        "metavar": "FOLDER",
        "help": "folder of the dictionaries that will go with it: checked against those of the training",
    },
}
# our names -> fairseq's names that decode the same
FAIRSEQ_TASKS = {"translation_with_reward": "translation", "translation_with_teacher": "translation"}
FAIRSEQ_CRITERIONS = {
    "label_smoothed_cross_entropy_with_distillation": "label_smoothed_cross_entropy",
    "policy_gradient": "label_smoothed_cross_entropy",
}
TEACHER_TASK = "conditional_masked_lm"
OUR_PREFIXES = ("autocast", "cmlm_", "kd_", "rdrop_", "rl_", "smoothing_", "teacher_")
TRAINING_OPTIONS = ("eval_bleu", "eval_tokenized_bleu")  # they may name a detokenizer of ours
COMPARED = ("digests", "languages")  # of the task's state: what a later use is compared with
MACHINE_OPTIONS = {"user_dir", "save_dir", "restore_file", "finetune_from_model", "tensorboard_logdir"}


def write(state: dict[str, Any], output: Path, args: argparse.Namespace) -> str:
    """Write the checkpoint; what to say about it.

    Raises:
        ValueError: it is a teacher's, of a model that stock fairseq does not have, or was trained with other dictionaries or
            another tokenizer than those that are named.
        OSError: it cannot be written.
    """
    import torch

    checkpoint = exported(state, args.checkpoint)
    check_company(checkpoint, args.checkpoint, args.data, args.tokenizer)
    check_known_to_fairseq(checkpoint["args"].arch, args.checkpoint)
    try:
        torch.save(checkpoint, output)
    except RuntimeError as error:  # torch's word for a file that it cannot write to its end
        raise OSError(f"`{output}` could not be written whole; is the disk full? ({error})") from None
    return f"{checkpoint['args'].arch}, {_parameters(checkpoint['model']):,} parameters"


def check_known_to_fairseq(arch: str, name: str) -> None:
    """ValueError if a model is registered by this plugin, so that stock fairseq does not have it."""
    from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY

    import fairseq_bert_kd.tasks

    model = ARCH_MODEL_REGISTRY.get(arch) or MODEL_REGISTRY.get(arch)
    if model is not None and model.__module__.startswith(fairseq_bert_kd.__name__):
        raise ValueError(
            f"`{name}` holds a `{arch}` model, which stock fairseq does not have; load it with this plugin (--user-dir)"
        )


def exported(state: dict[str, Any], name: str) -> dict[str, Any]:
    """The checkpoint in fairseq's oldest layout (``args``), which its own tools and CTranslate2 read.

    Args:
        state: checkpoint of a student.
        name: its path, for messages.

    Returns:
        Weights, settings and what fairseq requires of every checkpoint; no optimizer, no option of ours.

    Raises:
        ValueError: the checkpoint is a teacher's.
    """
    settings = _settings(state)
    if settings.get("task") == TEACHER_TASK:
        raise ValueError(
            f"`{name}` is a teacher (task {TEACHER_TASK}), which only this plugin can load. "
            "Give the checkpoint of a student."
        )
    if not settings.get("arch"):
        raise ValueError(
            f"`{name}` does not name its architecture; give a checkpoint that fairseq-train wrote"
        )
    kept = {
        key: value
        for key, value in settings.items()
        if not key.startswith((*OUR_PREFIXES, *TRAINING_OPTIONS)) and key not in MACHINE_OPTIONS
    }
    kept["task"] = FAIRSEQ_TASKS.get(settings.get("task", ""), settings.get("task", "translation"))
    kept["criterion"] = FAIRSEQ_CRITERIONS.get(settings.get("criterion", ""), settings.get("criterion"))
    history, trained = state["optimizer_history"][-1], state.get("task_state", {})
    return {
        "args": argparse.Namespace(**kept),
        "cfg": None,
        "model": state["model"],
        "criterion": None,
        "optimizer_history": [
            {
                "criterion_name": "LabelSmoothedCrossEntropyCriterion",
                "optimizer_name": history.get("optimizer_name"),
                "lr_scheduler_state": {},
                "num_updates": history.get("num_updates", 0),
            }
        ],
        "task_state": {"digests": {}, **{name: trained[name] for name in COMPARED if name in trained}},
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "last_optimizer_state": None,
    }


def check_company(state: dict[str, Any], name: str, data: str | None, tokenizer: str | None) -> None:
    """Compare a student with the dictionaries and the tokenizer that are to go with it.

    Args:
        state: the exported checkpoint. One that was written before checkpoints held digests is compared by size.
        name: its path, for messages.
        data: folder with ``dict.LANGUAGE.txt``; None to compare none.
        tokenizer: folder or hub name; None to compare none.

    Raises:
        ValueError: they do not belong together.
    """
    digests, loaded = state["task_state"]["digests"], HfTokenizer(tokenizer) if tokenizer else None
    for side, module in {"source": "encoder", "target": "decoder"}.items() if data else ():
        weight = state["model"].get(f"{module}.embed_tokens.weight")
        rows, digest = (None if weight is None else len(weight)), digests.get(f"{side}_dictionary")
        read = _dictionaries(Path(data or ""), getattr(state["args"], f"{side}_lang"))
        if not any(
            digest in (None, dictionary_digest(symbols)) and rows in (None, len(symbols))
            for symbols in read.values()
        ):
            sizes = ", ".join(f"`{path}` ({len(symbols):,} symbols)" for path, symbols in read.items())
            raise ValueError(
                f"the {side} dictionary that `{name}` was trained with ({rows or 0:,} symbols) is not {sizes}. Give the data "
                "folder of its training."
            )
        for path, symbols in read.items():
            if loaded:
                check_pieces(loaded, symbols, f"`{path}`")
    if loaded and digests.get("tokenizer", loaded.digest()) != loaded.digest():
        raise ValueError(
            f"`{name}` was trained on pieces of another tokenizer than `{tokenizer}` (digest {digests['tokenizer'][:12]}, this "
            f"one {loaded.digest()[:12]}). Give the one that `fairseq-bert-kd tokenize` was run with."
        )


def _dictionaries(folder: Path, language: str | None) -> dict[Path, list[str]]:
    """The dictionary of a language; all of a folder if the checkpoint does not name the language.

    Raises:
        FileNotFoundError: no dictionary.
        ValueError: one that fairseq cannot read.
    """
    paths = [folder / f"dict.{language}.txt"] if language else sorted(folder.glob("dict.*.txt"))
    if not paths:
        raise FileNotFoundError(
            f"`{folder}` holds no dict.*.txt; give the folder that fairseq-preprocess wrote"
        )
    return {path: read_dictionary(path) for path in paths}


def _settings(state: dict[str, Any]) -> dict[str, Any]:
    """Flat settings, written by argparse (all in one Namespace) or by hydra (one dict per part)."""
    cfg = state.get("cfg") or {}
    given = state.get("args") or cfg["model"]
    task = _as_dict(cfg.get("task"))
    if isinstance(given, argparse.Namespace):
        settings = _as_dict(given)
    else:
        named = {key: _as_dict(cfg.get(key)).get("_name") for key in ("task", "criterion")}
        settings = {**task, **given, **named, "arch": given.get("_name")}
    for side in ("source_lang", "target_lang"):  # None: to be read from the data's file names
        settings[side] = settings.get(side) or task.get(side)
    return settings


def _as_dict(part: argparse.Namespace | dict[str, Any] | None) -> dict[str, Any]:
    return dict(vars(part) if isinstance(part, argparse.Namespace) else part or {})


def _parameters(weights: dict[str, Any]) -> int:
    """Parameter count; a shared tensor counts once, fairseq's version marks not at all."""
    shared = {t.data_ptr(): t.numel() for name, t in weights.items() if not name.endswith("version")}
    return sum(shared.values())
