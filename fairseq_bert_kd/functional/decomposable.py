"""Decomposable attention: attend, compare, aggregate (Parikh et al., EMNLP 2016, Equations 1 to 5).

Two texts meet word by word: each word is compared with the words of the other text that it attends to. Without positions
in the vectors the order of the words makes no difference.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Network = Callable[[Tensor], Tensor]


def attention_scores(first: Tensor, second: Tensor) -> Tensor:
    """``e_ij = F(a_i) . F(b_j)``, ``(batch, first_len, second_len)``.

    Args:
        first: ``(batch, first_len, d)`` transformed words of the first text.
        second: ``(batch, second_len, d)``.
    """
    return first @ second.transpose(1, 2)


def attend(scores: Tensor, words: Tensor, valid: Tensor) -> Tensor:
    """What each word attends to in the other text: ``sum_j softmax_j(e_ij) b_j`` over valid words.

    Args:
        scores: ``(batch, length, other_len)``.
        words: ``(batch, other_len, d)`` words of the other text.
        valid: ``(batch, other_len)`` bool, at least one True in a row.

    Returns:
        ``(batch, length, d)``.
    """
    weights = scores.float().masked_fill(~valid[:, None], -math.inf).softmax(dim=-1)
    return weights.to(words.dtype) @ words


def compare(words: Tensor, attended: Tensor, network: Network) -> Tensor:
    """``G([word; what it attends to])`` at each position, ``(batch, length, hidden)``."""
    return network(torch.cat([words, attended], dim=-1))


def aggregate(compared: Tensor, valid: Tensor) -> Tensor:
    """Sum over valid positions, ``(batch, hidden)``."""
    return compared.masked_fill(~valid[..., None], 0.0).sum(dim=1)


def pair_vector(
    first: Tensor,
    second: Tensor,
    valid: tuple[Tensor, Tensor],
    attend_network: Network,
    compare_network: Network,
) -> Tensor:
    """Both aggregated sides of a pair, ``(batch, 2 * hidden)``: the input of the classifier H.

    Args:
        first: ``(batch, first_len, d)`` words of the first text.
        second: ``(batch, second_len, d)``.
        valid: ``(batch, length)`` bool of each text.
        attend_network: F, position by position.
        compare_network: G, position by position.
    """
    scores = attention_scores(attend_network(first), attend_network(second))
    to_second = attend(scores, second, valid[1])  # beta, (batch, first_len, d)
    to_first = attend(scores.transpose(1, 2), first, valid[0])  # alpha, (batch, second_len, d)
    sides = (
        aggregate(compare(words, attended, compare_network), mask)
        for words, attended, mask in ((first, to_second, valid[0]), (second, to_first, valid[1]))
    )
    return torch.cat(list(sides), dim=-1)


def sinusoidal_positions(length: int, dim: int) -> Tensor:
    """``(length, dim)`` sines and cosines of the positions (Vaswani et al. 2017, Section 3.5); ``dim`` is even."""
    rates = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
