"""Losses of a student against a teacher: each objective is a pure function of a few numbers per position.

Notation: ``t`` teacher logits, ``z`` student logits, ``V`` the dictionary, ``K`` the teacher's k best tokens, ``T`` the
temperature, ``p`` and ``q`` the distributions of teacher and student at temperature T over V, ``P`` and ``Q`` their masses
on K. A log-normaliser is ``log Z = logsumexp(z / T)`` over V, so ``log q = z / T - log Z``. Logits may be shifted by any
constant per position, if the log-normalisers are shifted with them. Teacher's tensors carry no gradient. Every function
returns ``(positions,)`` in nats.

Each objective, compared with the full divergence ``KL(p || q)``:

==============  ======================================================================================================
paper           biased: the teacher is renormalised over K, the student is not tempered
renormalised    biased: the same with a tempered student; its optimum has no mass outside K
conditional     exact within K, blind to the rest: the student's mass on V - K does not matter
tail_bucket     a lower bound, monotone in k, equal at k = V; asks for the right mass outside K, not where it lies
sampled         unbiased, in value and gradient, over the drawn tokens; has variance instead
full            the divergence itself
==============  ======================================================================================================
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LEAST_TAIL = 1e-7  # float32 cannot tell a smaller remaining mass from rounding


def paper(
    student_logits: Tensor, student_log_normaliser: Tensor, logits: Tensor, temperature: float
) -> Tensor:
    """``-sum_K softmax_K(t / T) log softmax_V(z)`` (authors' onmt/utils/loss.py, ``kd_loss``).

    Only the teacher is divided by T and there is no T^2 factor. At T = 1 and k = V it is the full cross-entropy.

    Args:
        student_logits: ``(positions, k)`` at the teacher's tokens.
        student_log_normaliser: ``(positions,)`` at temperature 1.
        logits: ``(positions, k)`` of the teacher.
        temperature: positive; 10 and 5 in the paper.
    """
    probs = torch.softmax(logits / temperature, dim=-1)
    return _expectation(probs, student_log_normaliser[:, None] - student_logits)


def renormalised(
    student_logits: Tensor, student_log_normaliser: Tensor, logits: Tensor, temperature: float
) -> Tensor:
    """``-sum_K softmax_K(t / T) log softmax_V(z / T)``, as in multilingual-kd and FBK.

    A teacher cut to K and rescaled is another teacher: it tells the student that V - K has no mass at all. At k = V this
    is the full cross-entropy, which is the full KL plus the teacher's entropy.

    Args:
        student_logits: ``(positions, k)`` at the teacher's tokens.
        student_log_normaliser: ``(positions,)`` at temperature T.
        logits: ``(positions, k)`` of the teacher.
        temperature: positive.
    """
    probs = torch.softmax(logits / temperature, dim=-1)
    return _expectation(probs, student_log_normaliser[:, None] - student_logits / temperature)


def conditional(student_logits: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """``KL(softmax_K(t / T) || softmax_K(z / T))``: both sides over K only, as in MaxText and ModelOpt.

    Never negative; the full KL at k = V. Needs no normaliser, and leaves the student's mass outside K free.

    Args:
        student_logits: ``(positions, k)`` at the teacher's tokens.
        logits: ``(positions, k)`` of the teacher.
        temperature: positive.
    """
    log_probs = torch.log_softmax(logits / temperature, dim=-1)
    return _expectation(log_probs.exp(), log_probs - torch.log_softmax(student_logits / temperature, dim=-1))


def tail_bucket(
    student_logits: Tensor,
    student_log_normaliser: Tensor,
    logits: Tensor,
    log_normaliser: Tensor,
    temperature: float,
) -> Tensor:
    """``sum_K p (log p - log q) + (1 - P) (log(1 - P) - log(1 - Q))``: the KL of k + 1 buckets.

    By the log-sum inequality it is never above the full KL, grows with k, and is equal at k = V; it is never negative. The
    true tail needs the teacher's log-normaliser at T itself: the tail's mass at another temperature says little about it.
    ``log(1 - Q)`` is computed as ``log(-expm1(log Q))``; masses below 1e-7 count as 1e-7.

    Args:
        student_logits: ``(positions, k)`` at the teacher's tokens.
        student_log_normaliser: ``(positions,)`` at temperature T.
        logits: ``(positions, k)`` of the teacher.
        log_normaliser: ``(positions,)`` of the teacher at temperature T.
        temperature: positive.
    """
    log_probs = logits / temperature - log_normaliser[:, None]
    student_log_probs = student_logits / temperature - student_log_normaliser[:, None]
    head = _expectation(log_probs.exp(), log_probs - student_log_probs)
    tail = tail_mass(log_probs)
    log_tail, student_log_tail = log_tail_mass(log_probs), log_tail_mass(student_log_probs)
    return head + torch.where(tail > 0, tail * (log_tail - student_log_tail), torch.zeros_like(tail))


def sampled(
    student_logits: Tensor,
    student_log_normaliser: Tensor,
    logits: Tensor,
    log_normaliser: Tensor,
    student_sample_logits: Tensor,
    sample_logits: Tensor,
    unit_log_normaliser: Tensor,
    temperature: float,
) -> Tensor:
    """An unbiased estimate of the full KL from the stored tokens and r tokens drawn from the rest.

    ``sum_K p (log p - log q) + R / r * sum_v p(v) / p1(v) (log p(v) - log q(v))``. The draws v come from the teacher at
    temperature 1 outside K, where its mass is R, and ``p1`` are its probabilities there (docs/store_format.md). Anshumann
    et al. 2025 ("Sparse logit sampling") draw all tokens in this way. Here K is exact and only the rest is drawn, which
    leaves less variance. Single values may be negative.

    Value and gradient are right in the mean over draws, except in rows with R below 1e-6: float32 does not know such an R
    well enough to carry it to another T. There the draws share the mass of the rest at T.

    Args:
        student_logits: ``(positions, stored)`` at every stored token, k and possibly gold.
        student_log_normaliser: ``(positions,)`` at temperature T.
        logits: ``(positions, stored)`` of the teacher; minus infinity for a token that is stored twice.
        log_normaliser: ``(positions,)`` of the teacher at temperature T.
        student_sample_logits: ``(positions, r)`` at the drawn tokens.
        sample_logits: ``(positions, r)`` of the teacher.
        unit_log_normaliser: ``(positions,)`` of the teacher at temperature 1.
        temperature: positive.
    """
    log_probs = logits / temperature - log_normaliser[:, None]
    stored = _expectation(
        log_probs.exp(), log_probs - student_logits / temperature + student_log_normaliser[:, None]
    )
    rest = tail_mass(logits - unit_log_normaliser[:, None])[:, None]  # (positions, 1) at temperature 1
    sample_log_probs = sample_logits / temperature - log_normaliser[:, None]  # (positions, r)
    log_ratios = sample_log_probs - sample_logits + unit_log_normaliser[:, None]  # log(p / p1)
    # a rest within rounding times a ratio without bound may be anything, nan too: let the draws share its mass at T
    shared = tail_mass(log_probs)[:, None] * torch.softmax(log_ratios, dim=-1)
    weights = torch.where(
        rest > 10 * LEAST_TAIL, rest * torch.exp(log_ratios) / sample_logits.size(-1), shared
    )
    differences = sample_log_probs - student_sample_logits / temperature + student_log_normaliser[:, None]
    return stored + _expectation(weights, differences)


def full(student_logits: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """``KL(softmax(t / T) || softmax(z / T))`` over the whole dictionary (Hinton et al. 2015, without their T^2).

    Args:
        student_logits: ``(positions, V)``.
        logits: ``(positions, V)`` of the teacher; minus infinity for symbols without mass.
        temperature: positive.
    """
    return conditional(student_logits, logits, temperature)


def column_of(temperatures: Sequence[float], temperature: float) -> int | None:
    """Column of a temperature among those of log-normalisers; None if there is none."""
    return next(
        (i for i, stored in enumerate(temperatures) if math.isclose(stored, temperature, rel_tol=1e-6)), None
    )


def tail_mass(log_probs: Tensor) -> Tensor:
    """``1 - sum exp``, not below 0: ``(positions, k)`` log-probabilities to ``(positions,)``."""
    return (1.0 - log_probs.exp().sum(dim=-1)).clamp(min=0.0)


def log_tail_mass(log_probs: Tensor) -> Tensor:
    """``log(1 - sum exp)``, at least ``log(LEAST_TAIL)``: ``(positions, k)`` log-probabilities to ``(positions,)``."""
    log_mass = torch.logsumexp(log_probs, dim=-1).clamp(max=math.log1p(-LEAST_TAIL))
    return torch.log(-torch.expm1(log_mass))


def bucket_entropy(log_probs: Tensor) -> Tensor:
    """Entropy of the k tokens and one bucket for the rest, in nats: ``(positions, k)`` to ``(positions,)``."""
    tail = tail_mass(log_probs)
    return -_expectation(log_probs.exp(), log_probs) - torch.xlogy(tail, tail)


def _expectation(probs: Tensor, values: Tensor) -> Tensor:
    """``sum probs * values`` over the last dimension, where 0 times infinity is 0, in the gradient too."""
    return (probs * values.masked_fill(probs <= 0, 0)).sum(dim=-1)
