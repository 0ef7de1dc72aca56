"""A teacher's rows of a mini-batch in the form of a loss: flat, unpacked, and zero where absent."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fairseq_bert_kd.batch import unpack


class TeacherTargets(NamedTuple):
    """One teacher's rows at some positions; the fields are those of `fairseq_bert_kd.batch`.

    Attributes:
        topk_ids: ``(positions, k)`` int64, best first, all different.
        topk_logits: ``(positions, k)`` float, relative to the row's best.
        present: ``(positions,)`` bool; where it is False the other fields hold zeros.
        log_normalisers: ``(positions, temperatures)`` over the whole dictionary; no columns if not known.
        temperatures: temperatures of these columns.
        gold_logit: ``(positions,)``, or None.
        sample_ids: ``(positions, r)`` int64 drawn outside the stored tokens, or None.
        sample_logits: ``(positions, r)``, or None.
        full_logits: ``(positions, vocab)``, or None.
        gold_stored: whether samples were drawn outside the gold token too.
        weight: weight of this teacher among several, positive.
    """

    topk_ids: Tensor
    topk_logits: Tensor
    present: Tensor
    log_normalisers: Tensor
    temperatures: tuple[float, ...] = ()
    gold_logit: Tensor | None = None
    sample_ids: Tensor | None = None
    sample_logits: Tensor | None = None
    full_logits: Tensor | None = None
    gold_stored: bool = False
    weight: float = 1.0

    def select(self, rows: slice) -> "TeacherTargets":
        """Some of the positions."""
        parts: dict[str, Any] = {
            name: part[rows] for name, part in self._asdict().items() if isinstance(part, Tensor)
        }
        return self._replace(**parts)


def teacher_targets(
    teacher_batch: dict[str, Any], skipped: int, positions: Tensor | None = None
) -> TeacherTargets:
    """Unpack one dict of ``sample[TEACHER]``, see `fairseq_bert_kd.batch`.

    Args:
        teacher_batch: packed fields of ``(batch, tgt_len, ...)``, and settings.
        skipped: target positions to leave out at the beginning of every sentence.
        positions: ``(positions,)`` int64 of the flattened positions to keep, counted after ``skipped`` ones are left out;
            None for all.
    """
    packed, settings = {}, {}
    for name, part in teacher_batch.items():
        if isinstance(part, Tensor):
            part = part[:, skipped:].flatten(0, 1)  # (batch * rest, ...)
            packed[name] = part if positions is None else part.index_select(0, positions)
        else:
            settings[name] = part
    present = packed.pop("present")
    absent = ~present
    for name, part in packed.items():
        # an absent row may hold anything, and 0 * inf is nan, in a gradient too
        packed[name] = part.masked_fill(absent.view(-1, *[1] * (part.dim() - 1)), 0)
    fields: dict[str, Any] = unpack(packed)
    fields.setdefault("log_normalisers", torch.empty(len(present), 0, device=present.device))
    temperatures = tuple(settings.pop("temperatures", ()))  # a DataLoader that pins memory makes a list of it
    return TeacherTargets(present=present, temperatures=temperatures, **fields, **settings)
