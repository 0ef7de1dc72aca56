"""A teacher's logits reduced to the rows that a store or a batch keeps."""

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

LEAST_LOGIT = -65504.0  # the least finite float16; e to that power is zero at every temperature in use


class TeacherRows(NamedTuple):
    """Rows of some positions, named as in a store's record; logits are relative to the row's best, which is 0.

    Rows that are not ``finite`` hold zeros. ``gold_nll`` and ``finite`` are for checks and the log, no store keeps them.

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
    excluded_ids: Tensor,
    k: int,
    temperatures: Sequence[float],
    uniforms: Tensor | None = None,
    keep_gold: bool = False,
) -> TeacherRows:
    """The k best tokens of each row, and log-normalisers that keep the rest's mass exact.

    Stored logits are rounded to float16. That alone would shift the sum of their probabilities by more than a small
    remaining mass. The normaliser at temperature T therefore belongs to the logits as stored:
    ``log(sum over stored exp(rounded / T) + sum over all others exp(exact / T))``. Probabilities from it sum
    to one, and the mass outside the stored tokens is exact to float32.

    Args:
        logits: ``(rows, vocab)`` float32; overwritten: afterwards relative to the row's best, minus infinity for
            excluded ids.
        gold: ``(rows,)`` int64.
        excluded_ids: ``(n,)`` int64, symbols that no target holds; they get no mass.
        k: tokens to keep.
        temperatures: positive.
        uniforms: ``(rows, samples)`` float64 in [0, 1); one token outside the stored ones is drawn for each,
            with replacement, from the teacher's distribution at temperature 1.
        keep_gold: whether the gold token is one of the stored ones.

    Raises:
        ValueError: fewer tokens with mass than are to be kept and drawn.
    """
    candidates = logits.size(1) - len(excluded_ids)
    needed = k + (1 if keep_gold else 0) + (1 if uniforms is not None else 0)
    if k > candidates or (uniforms is not None and needed > candidates):
        raise ValueError(
            f"k={k} needs {needed} tokens with mass, the dictionary has {candidates}; request fewer"
        )
    # a NaN or infinity survives a sum; much faster than isfinite of each
    finite = logits.sum(dim=1).isfinite()
    logits.index_fill_(1, excluded_ids, -math.inf)
    best, topk_ids = best_tokens(logits, k)
    logits -= best[:, :1]  # from here on relative to the best
    exact = best - best[:, :1]
    rounded = exact.clamp(min=LEAST_LOGIT).half()
    gold_exact = logits.gather(1, gold[:, None]).clamp(min=LEAST_LOGIT)  # (rows, 1)
    gold_rounded = gold_exact.half()
    # (rows, 1): gold is a further stored token
    extra = keep_gold & (topk_ids != gold[:, None]).all(dim=1, keepdim=True)
    sums = _sums_of_powers(logits, {*temperatures, 1.0})
    normalisers = []  # (rows, 1) each
    for temperature in temperatures:
        shift = _change(exact, rounded, temperature).sum(dim=1, keepdim=True)
        shift += _change(gold_exact, gold_rounded, temperature) * extra
        normalisers.append((sums[temperature] + shift).log())
    stored = torch.cat([topk_ids, gold[:, None]], dim=1) if keep_gold else topk_ids
    sample_ids = _drawn_outside(stored, logits, uniforms)
    rows = TeacherRows(
        topk_ids=topk_ids,
        topk_logits=rounded,
        log_normalisers=torch.cat([logits.new_empty(len(logits), 0), *normalisers], dim=1),
        gold_logit=gold_rounded.squeeze(1),
        gold_nll=(sums[1.0].log() - gold_exact).squeeze(1),
        finite=finite,
        sample_ids=sample_ids,
        sample_logits=logits.gather(1, sample_ids).clamp(min=LEAST_LOGIT).half(),
    )
    # `finite` as (rows, 1, ...) beside each field
    zeroed = (part.masked_fill(~finite.view(-1, *[1] * (part.dim() - 1)), 0) for part in rows)
    return TeacherRows(*zeroed)


def best_tokens(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Logits and ids of each row's k best tokens, best first; of equal logits the smaller id comes first.

    torch.topk orders equal values, and chooses among them at the end, as its algorithm happens to. With one order the
    tokens for a smaller k are the first ones for a larger k, on every device.

    Args:
        logits: ``(rows, vocab)``, at least k of them above minus infinity.
        k: tokens.

    Returns:
        ``(rows, k)`` logits, descending, and ``(rows, k)`` int64 ids.
    """
    vocab = logits.size(1)
    best, ids = logits.topk(min(k + 1, vocab), dim=1)  # one more shows a tie at the end
    if k < vocab:
        tied = best[:, k - 1] == best[:, k]  # (rows,)
        last, ids = best[:, k - 1 : k], ids[:, :k]
        if logits.is_cuda:  # asking how many are tied would wait for the device
            ids = torch.where(tied[:, None], _smallest_ids(logits, last, k), ids)
        elif tied.any():
            ids[tied] = _smallest_ids(logits[tied], last[tied], k)
    ids = ids.sort(dim=1).values
    best, order = logits.gather(1, ids).sort(dim=1, descending=True, stable=True)
    return best, ids.gather(1, order)


def _smallest_ids(logits: Tensor, last: Tensor, k: int) -> Tensor:
    """Ids of the k best tokens, in any order; of those equal to the last one the smallest ids.

    Args:
        logits: ``(rows, vocab)``.
        last: ``(rows, 1)`` each row's k-th best logit.
        k: tokens.

    Returns:
        ``(rows, k)`` int64; any ids for a row with NaN.
    """
    vocab = logits.size(1)
    above, equal = logits > last, logits == last
    missing = k - above.sum(dim=1, keepdim=True)
    chosen = above | (equal & (equal.cumsum(dim=1, dtype=torch.int32) <= missing))
    from_the_end = torch.arange(vocab, 0, -1, dtype=torch.int32, device=logits.device)
    return (vocab - (chosen * from_the_end).topk(k, dim=1).values.long()).clamp(max=vocab - 1)


def _sums_of_powers(logits: Tensor, temperatures: Collection[float]) -> dict[float, Tensor]:
    """``sum exp(logits / T)`` over each row, whose largest is 0: ``(rows, 1)`` by temperature."""
    scratch = torch.empty_like(logits)  # reused: fresh memory costs more than the arithmetic
    return {
        temperature: torch.div(logits, temperature, out=scratch).exp_().sum(dim=1, keepdim=True)
        for temperature in temperatures
    }


def _change(exact: Tensor, rounded: Tensor, temperature: float) -> Tensor:
    """Change of ``exp(logit / T)`` by rounding, in the shape of the logits."""
    return torch.exp(rounded.float() / temperature) - torch.exp(exact / temperature)


def _drawn_outside(stored: Tensor, logits: Tensor, uniforms: Tensor | None) -> Tensor:
    """``(rows, samples)`` int64 tokens drawn outside ``(rows, stored)`` ones; no columns without ``uniforms``."""
    if uniforms is None:
        return stored[:, :0]
    return _draw(logits.scatter(1, stored, -math.inf), uniforms)


def _draw(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Tokens by inversion of each row's cumulative distribution: ``(rows, samples)`` int64.

    Args:
        logits: ``(rows, vocab)``, minus infinity for tokens that must not be drawn.
        uniforms: ``(rows, samples)`` float64 in [0, 1).
    """
    best = logits.max(dim=1, keepdim=True)
    weights = torch.exp((logits - best.values).double())
    cumulated = weights.cumsum(dim=1)
    places = uniforms * cumulated[:, -1:]
    drawn = torch.searchsorted(cumulated, places, right=True).clamp(max=logits.size(1) - 1)
    # rounding can end on a token without weight: then the most likely one
    return torch.where(weights.gather(1, drawn) > 0, drawn, best.indices)
