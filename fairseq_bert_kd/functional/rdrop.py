"""R-Drop: two passes of a student with different dropout must agree (Liang et al., NeurIPS 2021)."""

import torch
from torch import Tensor

PASSES = 2  # rows of a batch in both: `fairseq_bert_kd.batch.twice`


def symmetric_divergence(one: Tensor, other: Tensor) -> Tensor:
    """``(KL(p || q) + KL(q || p)) / 2`` in nats, ``(positions,)``: the paper's Eq. 2, as ``sum (p - q)(log p - log q) / 2``.

    Args:
        one: ``(positions, vocab)`` logits or log-probabilities of the first pass; p is their softmax.
        other: the same of the second pass, q.
    """
    dtype = torch.promote_types(
        one.dtype, torch.float32
    )  # half precision would lose most of a small divergence
    least = torch.finfo(dtype).min  # minus infinity in both is no difference, and its gradient is no number
    log_p, log_q = (logits.log_softmax(dim=-1, dtype=dtype).clamp(min=least) for logits in (one, other))
    return (log_p.exp() - log_q.exp()).mul(log_p - log_q).sum(dim=-1) / 2


def regularised(label_losses: Tensor, divergence: Tensor, weight: float) -> Tensor:
    """``label_losses / 2 + weight * divergence / 2``: half of the paper's Eq. 4, so that losses compare with one pass.

    Args:
        label_losses: loss of both passes together, a scalar.
        divergence: `symmetric_divergence`, summed over the same positions.
        weight: the paper's alpha (5 for translation).
    """
    return label_losses / PASSES + divergence * (weight / PASSES)
