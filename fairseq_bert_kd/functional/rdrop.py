"""R-Drop: two passes of a student with different dropout must agree (Liang et al., NeurIPS 2021).

The divergence has a closed-form gradient, which is computed from the logits again in the backward pass, block by block: of the
size of the dictionary, nothing but the logits and their gradient is kept.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PASSES = 2  # rows of a batch in both: `fairseq_bert_kd.batch.twice`
BLOCK = {"cpu": 1 << 20}  # logits that are processed together: a CPU's cache
LARGE_BLOCK = 1 << 27  # on other devices, where every operation is a launch


def symmetric_divergence(passes: Tensor) -> Tensor:
    """``(KL(p || q) + KL(q || p)) / 2`` in nats, ``(batch, positions)``: the paper's Eq. 2; in float32 for half precision.

    Differentiable once. With ``a = log p - log q`` the gradient with respect to the logits of p is
    ``(p (a - KL(p || q) + 1) - q) / 2``, and that of q the same with p and q exchanged.

    Args:
        passes: ``(batch, 2, positions, vocab)`` logits or log-probabilities of each sentence's passes; p and q are their softmax.
    """
    return _SymmetricDivergence.apply(passes)


def regularised(label_losses: Tensor, divergence: Tensor, weight: float) -> Tensor:
    """``label_losses / 2 + weight * divergence / 2``: half of the paper's Eq. 4, so that losses compare with one pass.

    Args:
        label_losses: loss of both passes together, a scalar.
        divergence: `symmetric_divergence`, summed over the same positions.
        weight: the paper's alpha (5 for translation).
    """
    return label_losses / PASSES + divergence * (weight / PASSES)


class _SymmetricDivergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, passes: Tensor) -> Tensor:
        dtype = _sum_dtype(passes)
        normalisers = passes.new_empty(passes.shape[:-1], dtype=dtype)  # (batch, 2, positions)
        divergences = torch.empty_like(normalisers)  # KL(p || q), KL(q || p)
        for rows in _blocks(passes):
            normalisers[rows] = passes[rows].to(dtype).logsumexp(dim=-1)
            probs, difference = _compared(passes[rows], normalisers[rows])
            divergences[rows, 0] = (probs[:, 0] * difference).sum(dim=-1)
            divergences[rows, 1] = -(probs[:, 1] * difference).sum(dim=-1)
        ctx.save_for_backward(passes, normalisers, divergences)
        return divergences.mean(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Tensor:
        passes, normalisers, divergences = ctx.saved_tensors
        factor = grads[0][:, None, :, None] / PASSES  # (batch, 1, positions, 1)
        gradient = torch.empty_like(passes)
        for rows in _blocks(passes):
            probs, difference = _compared(passes[rows], normalisers[rows])
            signed = torch.stack([difference, -difference], dim=1)  # (block, 2, positions, vocab)
            signed.sub_(divergences[rows][..., None] - 1).mul_(probs).sub_(probs.flip(1))
            gradient[rows] = signed.mul_(factor[rows])
        return gradient


def _compared(passes: Tensor, normalisers: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities of a block, and ``(block, positions, vocab)`` log p - log q."""
    log_probs = passes.to(normalisers.dtype) - normalisers[..., None]
    log_probs.clamp_(min=torch.finfo(log_probs.dtype).min)  # minus infinity in both is no difference
    difference = log_probs[:, 0] - log_probs[:, 1]
    return log_probs.exp_(), difference


def _blocks(passes: Tensor) -> Iterator[slice]:
    """Sentences that are processed together."""
    size = BLOCK.get(passes.device.type, LARGE_BLOCK)
    step = max(size // max(passes[:1].numel(), 1), 1)
    return (slice(start, start + step) for start in range(0, len(passes), step))


def _sum_dtype(passes: Tensor) -> torch.dtype:
    """Half precision would lose most of a small divergence."""
    return torch.promote_types(passes.dtype, torch.float32)
