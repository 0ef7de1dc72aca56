"""Attention of a student that is compared with its teacher's scores while they are in the processor's cache.

With dropout on a CPU torch's attention makes the scores of a whole batch, and a loss of scores makes them again. Here a
sentence's scores are made once: attention and loss take them, and one backward pass serves both.

Shapes: B sentences, L positions, heads, d and d' widths of a teacher's and a student's head.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fairseq_bert_kd.functional.layer_matching import Projected, sentences_at_once

STEPS = 2**16  # dropout's probability is rounded to 1 / STEPS: four draws come out of one random number
Attend = Callable[..., Tensor]


class ReplacedAttention(TorchFunctionMode):
    """Context in which `attend` takes the place of ``torch.nn.functional.scaled_dot_product_attention``.

    Args:
        attend: gets the number of the call, from 1, which is that of an encoder's layer, and all that torch's function gets.
    """

    def __init__(self, attend: Attend):
        super().__init__()
        self._attend = attend
        self._calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        self._calls += 1
        return self._attend(self._calls, *args, **(kwargs or {}))


def compared_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    teacher: Projected,
    valid: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Attention, and `layer_matching.projected_score_mse` of its scores.

    Args:
        query: ``(B, heads, L, d')`` float32.
        key: the same.
        value: the same.
        teacher: queries and keys, ``(B, L, heads d)`` each, heads side by side; they get no gradient.
        valid: ``(B, L)`` bool, positions whose scores are compared, as query and as key.
        attn_mask: ``(B or 1, 1, L or 1, L)`` bool, keys that a query attends to, or numbers that are added to the scores; None
            for all keys.
        dropout_p: probability that a query's attention to a key is left out, up to 1 / 65,536.

    Returns:
        ``(B, heads, L, d')`` what attention gives, and ``(B,)`` losses.
    """
    others = [vectors.unflatten(2, (query.size(1), -1)).transpose(1, 2) for vectors in teacher]
    mask = None if attn_mask is None else attn_mask.expand(len(query), -1, query.size(2), -1)
    return _ComparedAttention.apply(query, key, value, *others, valid, mask, dropout_p)


class _ComparedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, teacher_query, teacher_key, valid, mask, dropout):
        ctx.set_materialize_grads(False)
        batch, heads, length, width = query.shape
        scale, teacher_scale = width**-0.5, teacher_query.size(3) ** -0.5
        # heads side by side in memory, as the layer after attention wants them
        output, by_query, by_key = (query.new_empty(batch, length, heads, width) for _ in range(3))
        probs = query.new_empty(batch, heads, length, length)
        kept = torch.empty(probs.shape if dropout else 0, dtype=torch.bool)
        sums = query.new_empty(batch)
        rows = ctx.rows = sentences_at_once(query.device, heads * length**2)
        ctx.scale, ctx.kept_share = scale, 1.0 - round(dropout * STEPS) / STEPS
        padded = not bool(valid.all())
        for start in range(0, batch, rows):
            part = slice(start, start + rows)
            queries, keys, values, teacher_queries, teacher_keys = (
                vectors[part].flatten(0, 1) for vectors in (query, key, value, teacher_query, teacher_key)
            )
            queries = queries * scale
            scores = torch.bmm(queries, keys.mT)  # (rows * heads, L, L)
            difference = torch.baddbmm(scores, teacher_queries, teacher_keys.mT, alpha=-teacher_scale)
            if padded:
                both = valid[part, None, :, None] & valid[part, None, None, :]
                difference.view(-1, heads, length, length).masked_fill_(~both, 0.0)
            by_sentence = difference.view(-1, heads * length**2)
            sums[part] = torch.linalg.vecdot(by_sentence, by_sentence)
            by_query[part] = _by_position(torch.bmm(difference, keys), heads)
            by_key[part] = _by_position(torch.bmm(difference.mT, queries), heads)
            if mask is not None:
                _restrict(scores.view(-1, heads, length, length), mask[part])
            attention = probs[part].flatten(0, 1)
            torch.softmax(scores, dim=-1, out=attention)
            if dropout:
                attention = attention * _draw(kept[part].flatten(0, 1), dropout)
            output[part] = _by_position(torch.bmm(attention, values), heads)
        if dropout:
            output /= ctx.kept_share
        numbers = heads * valid.sum(dim=1).square().clamp(min=1)  # (B,) scores of a sentence
        ctx.save_for_backward(query, key, value, probs, kept, by_query, by_key, numbers)
        return output.transpose(1, 2), sums / numbers

    @staticmethod
    def backward(ctx, grad, loss_grad):
        *tensors, by_query, by_key, numbers = ctx.saved_tensors
        if loss_grad is None:
            loss_grad = torch.zeros_like(numbers, dtype=by_query.dtype)
        factors = (2 * loss_grad / numbers)[:, None, None, None]
        if grad is None:  # nothing reads the output: values get no gradient
            query_grad, key_grad, value_grad = by_query * factors, by_key * factors, None
            query_grad *= ctx.scale
        else:
            query_grad, key_grad, value_grad = _attention_gradients(ctx, grad, *tensors)
            query_grad.addcmul_(by_query, factors).mul_(ctx.scale)
            key_grad.mul_(ctx.scale).addcmul_(by_key, factors)
            value_grad = value_grad.transpose(1, 2)
        return query_grad.transpose(1, 2), key_grad.transpose(1, 2), value_grad, None, None, None, None, None


def _attention_gradients(ctx, grad, query, key, value, probs, kept):
    """``(B, L, heads, d')`` gradients of queries and keys, before their scale, and of values."""
    batch, heads, length, width = query.shape
    query_grad, key_grad, value_grad = (query.new_empty(batch, length, heads, width) for _ in range(3))
    for start in range(0, batch, ctx.rows):
        part = slice(start, start + ctx.rows)
        queries, keys, values, attention, outer = (
            tensor[part].flatten(0, 1) for tensor in (query, key, value, probs, grad)
        )
        outer = outer / ctx.kept_share
        inner, used = torch.bmm(outer, values.mT), attention
        if kept.numel():
            mask = kept[part].flatten(0, 1)
            inner, used = inner.mul_(mask), attention * mask
        value_grad[part] = _by_position(torch.bmm(used.mT, outer), heads)
        inner = torch._softmax_backward_data(inner, attention, -1, attention.dtype)
        query_grad[part] = _by_position(torch.bmm(inner, keys), heads)
        key_grad[part] = _by_position(torch.bmm(inner.mT, queries), heads)
    return query_grad, key_grad, value_grad


def _restrict(scores: Tensor, mask: Tensor) -> None:
    """Apply a mask of ``scaled_dot_product_attention`` in place."""
    if mask.dtype == torch.bool:
        scores.masked_fill_(~mask, -torch.inf)
    else:
        scores += mask


def _by_position(vectors: Tensor, heads: int) -> Tensor:
    """``(rows * heads, L, d')`` to ``(rows, L, heads, d')``."""
    return vectors.unflatten(0, (-1, heads)).transpose(1, 2)


def _draw(kept: Tensor, dropout: float) -> Tensor:
    """Fill a bool tensor with what dropout leaves; torch's own draw takes seven times as long."""
    numbers = torch.empty(-(-kept.numel() // 4), dtype=torch.int64)
    numbers.random_(-(2**63), None)
    quarters = numbers.view(torch.int16)[: kept.numel()].view_as(kept)
    return torch.ge(quarters, round(dropout * STEPS) - STEPS // 2, out=kept)
