"""Tries a teacher on a few tokens when it is built and when it is loaded: does it see what it should, and nothing else."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fairseq_bert_kd.functional.context_probe import (
    IGNORES_RIGHT,
    READS_BATCH,
    READS_PADDING,
    SEES_RIGHT,
    Outputs,
    ProbeTexts,
    context_fault,
)
from fairseq_bert_kd.functional.text_input import LEFT_TO_RIGHT, PairLayout
from fairseq_bert_kd.teachers.interface import TokenTeacher

Pair = tuple[list[int], list[int]]  # student ids of a source without and a target with its last token
SHORT, LONGER = (
    (2, 4),
    (3, 6),
)  # tokens of source and target; nine together fit any teacher that learns a pair
_OTHER_MODEL = "What it teaches would change with the batch size; use a BERT, DistilBERT, RoBERTa, XLM-R, CamemBERT or ELECTRA model."
_NEXT_STEPS = {
    READS_BATCH: _OTHER_MODEL,
    READS_PADDING: _OTHER_MODEL,
    IGNORES_RIGHT: "It is a language model, or its config says `is_decoder: true`; train a masked language model, or a teacher "
    "with --teacher-attention left-to-right.",
    SEES_RIGHT: "It would teach what a left-to-right teacher must not know; train it without --teacher-attention "
    "left-to-right.",
}


def check_token_teacher(model: Any, name: str) -> None:
    """Check that a teacher's rows for a pair depend on that pair alone, and on the tokens that its attention names.

    Args:
        model: a `TokenTeacher` with its own weights, on any device.
        name: what to call it in the message, such as "checkpoint `x.pt`".

    Raises:
        ValueError: see `check_teacher`.
    """
    layout = model.pair_layout()
    bidirectional = layout.attention != LEFT_TO_RIGHT
    check_teacher(model, _rows_of(model, layout), _probe_pairs(layout), name, sees_right=bidirectional)


def check_teacher(
    model: nn.Module, outputs: Outputs, texts: ProbeTexts, name: str, sees_right: bool | None = None
) -> None:
    """Check what a model's outputs depend on, see `context_fault`; for a teacher of any kind.

    Four forward passes of at most two texts. Torch's random numbers and the modes of the modules stay as they are.

    Args:
        model: model with its own weights.
        outputs: runs it on texts of whatever kind it takes; a sentence's one vector is ``(1, width)``.
        texts: texts to try.
        name: what to call it in the message.
        sees_right: see `context_fault`.

    Raises:
        ValueError: an output depends on the other texts of the batch or on padding, or not as it should on what follows.
    """
    with evaluated(model):
        fault = context_fault(outputs, texts, sees_right)
    if fault is not None:
        raise ValueError(f"{name} cannot be a teacher: it {fault}. {_NEXT_STEPS[fault]}")


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards each module's mode and torch's random numbers are as before."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _probe_pairs(layout: PairLayout) -> ProbeTexts:
    """Pairs of tokens that the teacher tells apart."""
    teacher_ids, student_ids = np.unique(layout.target_to_teacher.cpu().numpy(), return_index=True)
    targets = student_ids[teacher_ids != layout.text_format.pad][::-1].tolist()
    teacher_ids, student_ids = np.unique(layout.source_to_teacher.cpu().numpy(), return_index=True)
    sources = student_ids[teacher_ids != layout.text_format.pad][::-1].tolist()

    def pair(lengths: tuple[int, int], start: int) -> Pair:
        source, target = (
            [ids[(start + place) % len(ids)] for place in range(length)]
            for ids, length in zip((sources, targets), lengths, strict=True)
        )
        return source, target

    short = pair(SHORT, 0)
    changed = short[0], [short[1][0], *pair(SHORT, 1)[1][1:]]
    return ProbeTexts(short, neighbour=pair(SHORT, 1), longer=pair(LONGER, 2), changed=changed)


def _rows_of(model: TokenTeacher, layout: PairLayout) -> Outputs:
    """Runs a teacher on pairs; its hidden states where it predicts the target's tokens, of which the first is hidden."""
    device = layout.target_to_teacher.device

    def rows(pairs: Sequence[Pair]) -> list[Tensor]:
        (sources, src_lengths), (targets, tgt_lengths) = (
            _padded(side, device) for side in zip(*pairs, strict=True)
        )
        predicted = torch.zeros_like(targets, dtype=torch.bool)
        predicted[:, 0] = True
        texts, predicted_at = layout.lay_out(sources, src_lengths, targets, tgt_lengths, predicted)
        inputs = {"input_ids": texts.input_ids, "token_type_ids": texts.token_type_ids}
        if not bool(texts.attention_mask.all()):  # as in a dump
            inputs["attention_mask"] = texts.attention_mask
        starts = torch.arange(len(pairs), device=device)[:, None] * texts.input_ids.size(1)
        inside = torch.arange(targets.size(1), device=device) < tgt_lengths[:, None]  # (pairs, tgt_len)
        features = model.extract_features((starts + predicted_at)[inside], **inputs)
        return list(features.split(tgt_lengths.tolist()))

    return rows


def _padded(side: Sequence[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """``(pairs, longest)`` ids, padded on the right with any id, and ``(pairs,)`` lengths."""
    ids = pad_sequence([torch.tensor(tokens) for tokens in side], batch_first=True)
    return ids.to(device), torch.tensor([len(tokens) for tokens in side], device=device)
