"""One vector of a sequence's hidden states."""

import torch
from torch import Tensor


def first_token(hidden: Tensor) -> Tensor:
    """``(batch, length, d)`` hidden states to ``(batch, d)``: those of the first token, BERT's ``[CLS]``."""
    return hidden[:, 0]


def mean_over_tokens(hidden: Tensor, tokens: Tensor) -> Tensor:
    """Mean over a sequence's tokens, special ones included, padding not.

    Args:
        hidden: ``(batch, length, d)``.
        tokens: ``(batch, length)``, 1 on tokens, at least one per row.

    Returns:
        ``(batch, d)`` in the type of ``hidden``; sums are float32.
    """
    weights = tokens[:, :, None].float()
    return (hidden.float().mul(weights).sum(dim=1) / weights.sum(dim=1)).to(hidden.dtype)


def max_over_tokens(hidden: Tensor, tokens: Tensor) -> Tensor:
    """Greatest value over a sequence's tokens, ``(batch, d)``; arguments as in `mean_over_tokens`."""
    absent = tokens[:, :, None] == 0
    return hidden.masked_fill(absent, torch.finfo(hidden.dtype).min).amax(dim=1)


def final_states(hidden: Tensor, tokens: Tensor) -> Tensor:
    """Where both directions of a recurrent network end: the forward half at the last token, the other at the first.

    Args:
        hidden: ``(batch, length, 2 * c)``, forward and backward states.
        tokens: positions of tokens, as in `mean_over_tokens`, padding on the right.

    Returns:
        ``(batch, 2 * c)``.
    """
    forward, backward = hidden.chunk(2, dim=2)
    last = tokens.long().sum(dim=1) - 1
    places = last[:, None, None].expand(-1, 1, forward.size(2))
    return torch.cat([forward.gather(1, places)[:, 0], backward[:, 0]], dim=1)


def weighted_over_tokens(hidden: Tensor, scores: Tensor, tokens: Tensor) -> Tensor:
    """Mean over a sequence's tokens, weighted by the softmax of their scores.

    Args:
        hidden: ``(batch, length, d)``.
        scores: ``(batch, length)``.
        tokens: positions of tokens, as in `mean_over_tokens`.

    Returns:
        ``(batch, d)`` in the type of ``hidden``; the softmax is float32.
    """
    weights = scores.float().masked_fill(tokens == 0, -torch.inf).softmax(dim=1)
    return (hidden.float() * weights[:, :, None]).sum(dim=1).to(hidden.dtype)
