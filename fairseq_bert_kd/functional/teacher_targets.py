"""A teacher's rows of a mini-batch as a loss wants them: flat, decoded, and safe where there are none."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fairseq_bert_kd.batch import decode_logits, decode_normalisers


class TeacherTargets(NamedTuple):
    """What one teacher says of some positions.

    Attributes:
        ids: ``(positions, k)`` int64, best first, all different.
        logits: ``(positions, k)`` float, relative to the row's best.
        present: ``(positions,)`` bool; where it is False the others hold zeros.
        log_normalisers: ``(positions, temperatures)`` over the whole dictionary; no columns when not known.
        temperatures: of these columns.
        gold_logits: ``(positions,)``, or None.
        sample_ids: ``(positions, r)`` int64 drawn outside the stored tokens, or None.
        sample_logits: ``(positions, r)``, or None.
        full_logits: ``(positions, vocab)``, or None.
        gold_stored: the gold token is one of those that samples were drawn outside of.
        weight: of this teacher among several, positive.
    """

    ids: Tensor
    logits: Tensor
    present: Tensor
    log_normalisers: Tensor
    temperatures: tuple[float, ...] = ()
    gold_logits: Tensor | None = None
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


def teacher_targets(rows: dict[str, Any], prefix: int, kept: Tensor | None = None) -> TeacherTargets:
    """Decode a teacher's entry of `fairseq_bert_kd.batch`.

    Args:
        rows: the entry.
        prefix: target positions to leave out at the beginning (``--ignore-prefix-size``).
        kept: ``(positions,)`` int64 of the flattened positions to keep, after the prefix is left out; None for all.
    """

    def flat(name: str) -> Tensor | None:
        if name not in rows:
            return None
        part = rows[name][:, prefix:].flatten(0, 1)
        return part if kept is None else part.index_select(0, kept)

    def absent_as_zero(part: Tensor | None) -> Any:
        # an absent row may hold anything, and 0 * inf is nan, in a gradient too
        return None if part is None else part.masked_fill(absent.view(-1, *[1] * (part.dim() - 1)), 0)

    present = flat("present")
    assert present is not None
    absent = ~present
    ids, bits, gold, drawn, drawn_bits, full_logits = (
        absent_as_zero(flat(name))
        for name in ("ids", "logit_bits", "gold_logit_bits", "sample_ids", "sample_logit_bits", "full_logits")
    )
    normalisers = absent_as_zero(flat("normaliser_bits"))
    return TeacherTargets(
        ids.long(),
        decode_logits(bits),
        present,
        torch.empty(len(present), 0, device=ids.device)
        if normalisers is None
        else decode_normalisers(normalisers),
        tuple(rows.get("temperatures", ())),
        None if gold is None else decode_logits(gold),
        None if drawn is None else drawn.long(),
        None if drawn_bits is None else decode_logits(drawn_bits),
        full_logits,
        bool(rows.get("gold_stored", False)),
        float(rows.get("weight", 1.0)),
    )
