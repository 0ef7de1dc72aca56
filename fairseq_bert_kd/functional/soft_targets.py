"""Losses against a teacher's top-k logits (Chen et al. 2020, Eq. 4 and 5; exact forms from their code)."""

from typing import NamedTuple

import torch
from torch import Tensor


class DistillationLoss(NamedTuple):
    """Sums over the positions that are no padding, each a scalar.

    Attributes:
        total: what is minimised.
        label: label-smoothed cross-entropy against the gold tokens.
        nll: cross-entropy against the gold tokens, no smoothing.
        teacher: soft cross-entropy against the teacher, over covered positions.
        covered: number of positions that have teacher rows, int64.
    """

    total: Tensor
    label: Tensor
    nll: Tensor
    teacher: Tensor
    covered: Tensor


def topk_soft_cross_entropy(
    lprobs: Tensor, topk_ids: Tensor, topk_logits: Tensor, temperature: float
) -> Tensor:
    """Cross-entropy of the student against the teacher's k best tokens, per position.

    ``-sum_k softmax(topk_logits / temperature)_k * lprobs[topk_ids_k]``: the teacher is renormalised over
    its k tokens and divided by the temperature; the student is neither; there is no T^2 factor
    (authors' onmt/utils/loss.py, ``kd_loss``).

    Args:
        lprobs: ``(positions, vocab)`` student log-probabilities at temperature 1.
        topk_ids: ``(positions, k)`` int64.
        topk_logits: ``(positions, k)`` teacher logits up to a constant per position, not probabilities.
        temperature: positive; 10 for De-En in the paper.

    Returns:
        ``(positions,)`` in nats.

    Raises:
        ValueError: k above the vocabulary, or a temperature that is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}; the paper uses 5 and 10")
    if topk_ids.size(-1) > lprobs.size(-1):
        raise ValueError(f"k={topk_ids.size(-1)} teacher tokens exceed the vocabulary of {lprobs.size(-1)}")
    teacher_probs = torch.softmax(topk_logits.to(lprobs.dtype) / temperature, dim=-1)
    return -(teacher_probs * lprobs.gather(-1, topk_ids)).sum(dim=-1)


def paper_label_smoothing(lprobs: Tensor, target: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Label-smoothed cross-entropy as in the authors' distillation loss, per position.

    ``(1 - eps) * nll + eps / (V - 2) * sum_w -lprobs[w]``, gold and padding ids included in the sum.
    fairseq's own form is ``(1 - eps - eps / (V - 1)) * nll + eps / (V - 1) * sum_w -lprobs[w]``; the two
    differ by about ``eps / V``.

    Args:
        lprobs: ``(positions, vocab)`` student log-probabilities.
        target: ``(positions,)`` gold ids.
        epsilon: label smoothing, 0.1 in the paper.

    Returns:
        Smoothed loss and plain negative log-likelihood, each ``(positions,)`` in nats.
    """
    nll = -lprobs.gather(-1, target[:, None]).squeeze(-1)
    if epsilon == 0.0:
        return nll, nll
    return (1.0 - epsilon) * nll - epsilon / (lprobs.size(-1) - 2) * lprobs.sum(dim=-1), nll


def distillation_loss(
    lprobs: Tensor,
    target: Tensor,
    topk_ids: Tensor,
    topk_logits: Tensor,
    present: Tensor,
    padding_idx: int,
    kd_weight: float,
    temperature: float,
    epsilon: float,
) -> DistillationLoss:
    """``(1 - kd_weight) * label loss + kd_weight * teacher loss`` (Chen et al. 2020, Eq. 5).

    A position without a teacher row counts its label loss in full, so that it weighs as much as it
    would in plain training; the authors drop such sentences instead.

    Args:
        lprobs: ``(positions, vocab)`` student log-probabilities.
        target: ``(positions,)`` gold ids.
        padding_idx: marks the positions that do not count.
        topk_ids: ``(positions, k)`` integer ids, any valid id where ``present`` is False.
        topk_logits: ``(positions, k)`` float, anything where ``present`` is False.
        present: ``(positions,)`` bool, True where the teacher has a row.
        kd_weight: weight of the teacher's side, in [0, 1].
        temperature: divides the teacher's logits.
        epsilon: label smoothing.
    """
    kept = target.ne(padding_idx)
    covered = kept & present
    label, nll = paper_label_smoothing(lprobs, target, epsilon)
    # masked_fill before and after: an absent row may hold anything, and 0 * inf is nan in the gradient too
    topk_logits = topk_logits.masked_fill(~covered[:, None], 0.0)
    teacher = topk_soft_cross_entropy(lprobs, topk_ids.long(), topk_logits, temperature)
    label, nll = label.masked_fill(~kept, 0.0), nll.masked_fill(~kept, 0.0)
    teacher = teacher.masked_fill(~covered, 0.0)
    total = torch.where(covered, (1.0 - kd_weight) * label + kd_weight * teacher, label)
    return DistillationLoss(total.sum(), label.sum(), nll.sum(), teacher.sum(), covered.sum())
