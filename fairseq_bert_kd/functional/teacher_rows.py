"""From a teacher's logits to what the store keeps of them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

LEAST_LOGIT = -65504.0  # the least float16; e to that power is zero at every temperature in use


class TeacherRows(NamedTuple):
    """One row for each position; logits are relative to the row's best one, which is 0.

    Rows that are not ``finite`` hold zeros.

    Attributes:
        topk_ids: ``(rows, k)`` int64.
        topk_logits: ``(rows, k)`` float16, descending.
        log_normalisers: ``(rows, temperatures)`` float32, see `teacher_rows`.
        gold_logit: ``(rows,)`` float16.
        gold_nll: ``(rows,)`` float32, negative log-likelihood of the gold token at temperature 1, nats.
        finite: ``(rows,)`` bool, False where the teacher gave a NaN or an infinity.
        sample_ids: ``(rows, samples)`` int64.
        sample_logits: ``(rows, samples)`` float16.
    """

    topk_ids: Tensor
    topk_logits: Tensor
    log_normalisers: Tensor
    gold_logit: Tensor
    gold_nll: Tensor
    finite: Tensor
    sample_ids: Tensor
    sample_logits: Tensor


def teacher_rows(
    logits: Tensor,
    gold: Tensor,
    barred: Tensor,
    k: int,
    temperatures: Sequence[float],
    uniforms: Tensor | None = None,
    keep_gold: bool = False,
) -> TeacherRows:
    """The k best tokens of each row, and log-normalisers that keep the rest's mass exact.

    Stored logits are rounded to float16, which by itself would shift the sum of their probabilities by more
    than a small remaining mass. The normaliser at temperature T therefore belongs to the logits as stored:
    ``log(sum over stored exp(rounded / T) + sum over all others exp(exact / T))``. Probabilities from it sum
    to one, and what is outside the stored tokens is exact to float32.

    Args:
        logits: ``(rows, vocab)`` float32; overwritten: afterwards relative to the row's best, minus infinity where
            barred.
        gold: ``(rows,)`` int64.
        barred: ``(n,)`` int64, symbols that no target holds; they get no mass.
        k: tokens to keep.
        temperatures: positive.
        uniforms: ``(rows, samples)`` float64 in [0, 1); one token outside the stored ones is drawn for each,
            with replacement, from the teacher's distribution at temperature 1.
        keep_gold: the gold token belongs to the stored ones.

    Raises:
        ValueError: fewer tokens with mass than are to be kept and drawn.
    """
    candidates = logits.size(1) - len(barred)
    needed = k + (1 if keep_gold else 0) + (1 if uniforms is not None else 0)
    if k > candidates or (uniforms is not None and needed > candidates):
        raise ValueError(
            f"k={k} needs {needed} tokens with mass, the dictionary has {candidates}; ask for less"
        )
    finite = logits.sum(dim=1).isfinite()  # one NaN or infinity is enough; much faster than to ask for each
    logits.index_fill_(1, barred, -math.inf)
    best, topk_ids = logits.topk(k, dim=1)
    logits -= best[:, :1]  # from here on relative to the best
    exact = best - best[:, :1]
    rounded = exact.clamp(min=LEAST_LOGIT).half()
    gold_exact = logits.gather(1, gold[:, None]).clamp(min=LEAST_LOGIT)  # (rows, 1)
    gold_rounded = gold_exact.half()
    extra = keep_gold & (topk_ids != gold[:, None]).all(dim=1, keepdim=True)  # gold is a further stored token
    sums = _sums_of_powers(logits, [*temperatures, 1.0])
    normalisers = []
    for temperature, total in zip(temperatures, sums, strict=False):
        shift = _change(exact, rounded, temperature).sum(dim=1, keepdim=True)
        shift += _change(gold_exact, gold_rounded, temperature) * extra
        normalisers.append((total + shift.squeeze(1)).log())
    gold_nll = sums[-1].log() - gold_exact.squeeze(1)
    empty = logits.new_empty(len(logits), 0)
    sample_ids, sample_logits = empty.long(), empty.half()
    if uniforms is not None:
        stored = torch.cat([topk_ids, gold[:, None]], dim=1) if keep_gold else topk_ids
        sample_ids = _draw(logits.scatter(1, stored, -math.inf), uniforms)
        sample_logits = logits.gather(1, sample_ids).clamp(min=LEAST_LOGIT).half()
    rows = TeacherRows(
        topk_ids,
        rounded,
        torch.stack(normalisers, dim=1) if normalisers else empty,
        gold_rounded.squeeze(1),
        gold_nll,
        finite,
        sample_ids,
        sample_logits,
    )
    zeroed = (part.masked_fill(~finite.view(-1, *[1] * (part.dim() - 1)), 0) for part in rows)
    return TeacherRows(*zeroed)


def _sums_of_powers(logits: Tensor, temperatures: Sequence[float]) -> list[Tensor]:
    """``sum exp(logits / T)`` over each row, whose largest is 0, for each temperature: ``(rows,)`` each."""
    known: dict[float, Tensor] = {}
    scratch = torch.empty_like(logits)  # used again and again: fresh memory costs more than the arithmetic
    for temperature in temperatures:
        if temperature not in known:
            known[temperature] = torch.div(logits, temperature, out=scratch).exp_().sum(dim=1)
    return [known[temperature] for temperature in temperatures]


def _change(exact: Tensor, rounded: Tensor, temperature: float) -> Tensor:
    """How much rounding adds to ``exp(logit / T)``."""
    return torch.exp(rounded.float() / temperature) - torch.exp(exact / temperature)


def _draw(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Tokens by inversion of each row's cumulative distribution: ``(rows, samples)`` int64.

    Args:
        logits: ``(rows, vocab)``, minus infinity where nothing may be drawn.
        uniforms: ``(rows, samples)`` float64 in [0, 1).
    """
    best = logits.max(dim=1, keepdim=True)
    weights = torch.exp((logits - best.values).double())
    cumulated = weights.cumsum(dim=1)
    places = uniforms * cumulated[:, -1:]
    drawn = torch.searchsorted(cumulated, places, right=True).clamp(max=logits.size(1) - 1)
    # rounding can end on a token without weight: then the likeliest one
    return torch.where(weights.gather(1, drawn) > 0, drawn, best.indices)
