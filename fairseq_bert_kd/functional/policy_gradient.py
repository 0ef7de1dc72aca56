"""Advantages of sampled sequences and the policy-gradient loss (Williams 1992; Li et al., EMNLP 2018, "RbM").

Of each source D sequences are sampled. Their rewards become advantages, and the loss is minus the sum of advantage times
log-probability over the sampled tokens. Rank 1 is the best reward of a source; ranks of equal rewards are averaged.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

ADVANTAGES = ("rank", "rank-centred", "mean", "greedy", "none")
RELATIVE = ("rank", "rank-centred", "mean")  # compare the samples of a source with each other


def check_advantage(kind: str, samples: int, rollouts: int = 0) -> None:
    """Check that an advantage can be computed.

    Args:
        kind: one of `ADVANTAGES`.
        samples: sequences sampled of each source.
        rollouts: completions of each prefix; 0 for rewards of whole sequences only.

    Raises:
        ValueError: an unknown advantage, too few samples, or a form that roll-outs do not have.
    """
    if kind not in ADVANTAGES:
        raise ValueError(f"`{kind}` is not an advantage; the advantages are {', '.join(ADVANTAGES)}")
    if samples < 1:
        raise ValueError(f"at least 1 sequence is sampled of each source, got {samples}")
    if kind in RELATIVE and samples < 2:
        raise ValueError(
            f"advantage `{kind}` compares the samples of a source with each other and needs at least 2, got {samples}; "
            "sample more, or take the advantage `none` or `greedy`"
        )
    if rollouts and kind == "greedy":
        raise ValueError(
            f"advantage `greedy` compares whole sequences and has no form for the {rollouts} roll-outs of a prefix; "
            "leave the roll-outs out, or take another advantage"
        )


def ranks(values: Tensor) -> Tensor:
    """Ranks along the last dimension: 1 for the largest value, equal values share the mean of their ranks.

    Args:
        values: ``(..., n)``.

    Returns:
        ``(..., n)`` float32.
    """
    larger = values.unsqueeze(-2).gt(values.unsqueeze(-1)).sum(dim=-1)
    equal = values.unsqueeze(-2).eq(values.unsqueeze(-1)).sum(dim=-1)
    return larger.float() + (equal.float() + 1) / 2


def rescaled_ranks(values: Tensor, delta: float, centred: bool = False) -> Tensor:
    """``sigmoid(delta (0.5 - rank / n)) - 0.5`` along the last dimension (the paper's rescaling of rewards).

    Not centred, its mean is below 0: with n = 2 the best gets 0 and the other is pushed down. Centred, with rank - 1/2 in
    place of the rank (ours), the values of n different rewards sum to 0.

    Args:
        values: ``(..., n)``.
        delta: steepness; 12 is our default, the paper's is not known to us.
        centred: whether ranks are taken at their middle.
    """
    places = ranks(values) - (0.5 if centred else 0.0)
    return torch.sigmoid(delta * (0.5 - places / values.size(-1))) - 0.5


def advantages(rewards: Tensor, kind: str, delta: float = 12.0, greedy: Tensor | None = None) -> Tensor:
    """Advantage of each sampled sequence.

    ==============  =============================================  ==============================================
    kind            advantage                                      source
    ==============  =============================================  ==============================================
    rank            sigmoid(delta (0.5 - rank / D)) - 0.5          Li et al. 2018
    rank-centred    the same at rank - 1/2                         ours
    mean            r - mean of the other D - 1 rewards            leave-one-out baseline (Kool et al. 2019)
    greedy          r - reward of the greedy sequence              self-critical (Rennie et al. 2017)
    none            r                                              REINFORCE (Williams 1992)
    ==============  =============================================  ==============================================

    Args:
        rewards: ``(sources, D)``.
        kind: one of `ADVANTAGES`.
        delta: steepness of the ranks.
        greedy: ``(sources,)`` rewards of greedy sequences, for that advantage.

    Returns:
        ``(sources, D)``.

    Raises:
        ValueError: see `check_advantage`.
    """
    samples = rewards.size(1)
    check_advantage(kind, samples)
    if kind in ("rank", "rank-centred"):
        return rescaled_ranks(rewards, delta, centred=kind == "rank-centred")
    if kind == "mean":
        return (rewards - rewards.mean(dim=1, keepdim=True)) * (samples / (samples - 1))
    if kind == "greedy":
        assert greedy is not None, "the greedy sequences must be rewarded too"
        return rewards - greedy[:, None]
    return rewards


def rollout_places(length: int, stride: int) -> list[int]:
    """Prefix lengths of a sequence that are completed by roll-outs: every ``stride``-th, without the whole sequence."""
    return list(range(1, length, stride))


def token_advantages(
    prefix_rewards: Sequence[Tensor], sequence_advantages: Tensor, delta: float = 12.0, centred: bool = False
) -> Tensor:
    """Advantage of each token from the rewards of prefixes (Li et al. 2018, reward shaping).

    ``sigmoid(delta (0.5 - rank(t) / T)) - 0.5 + A``, where rank(t) orders the positions of a sequence by Q_t, the mean
    reward of completions of its first t tokens, and A is the sequence's own advantage.

    Args:
        prefix_rewards: ``(T,)`` values Q_1 to Q_T of each sequence; the last is the reward of the sequence itself.
        sequence_advantages: ``(sequences,)``.
        delta: steepness.
        centred: whether ranks are taken at their middle (ours), see `rescaled_ranks`; a single token then gets A alone.

    Returns:
        ``(sequences, longest)``, 0 beyond a sequence's end.
    """
    longest = max((len(rewards) for rewards in prefix_rewards), default=0)
    result = sequence_advantages.new_zeros(len(prefix_rewards), longest)
    for row, rewards in enumerate(prefix_rewards):
        result[row, : len(rewards)] = rescaled_ranks(rewards, delta, centred) + sequence_advantages[row]
    return result


def interpolated(places: Sequence[int], values: Sequence[float], length: int) -> list[float]:
    """Values at positions 1 to ``length`` from those at some of them, linear between neighbours (ours).

    Args:
        places: positions in rising order, the last is ``length``.
        values: their values. Positions before the first place have its value.
        length: number of positions.
    """
    return np.interp(np.arange(1, length + 1), places, values).tolist()


def policy_gradient_loss(log_probs: Tensor, advantage: Tensor, sampled: Tensor) -> Tensor:
    """``- sum A log P`` over sampled tokens, the paper's sum form; the caller divides.

    Args:
        log_probs: ``(sequences, length)`` log-probabilities of the sampled tokens under the policy.
        advantage: ``(sequences, length)``, or ``(sequences, 1)`` for one value per sequence.
        sampled: ``(sequences, length)`` bool, True where a token was drawn: False on padding, and after a sequence that was
            cut before its end of sentence.

    Returns:
        Scalar.
    """
    return -(advantage * log_probs).masked_fill(~sampled, 0.0).sum()


def kl_to_reference(log_probs: Tensor, reference: Tensor, sampled: Tensor) -> Tensor:
    """``KL(P || P_ref)`` of whole distributions, summed over sampled positions.

    Args:
        log_probs: ``(sequences, length, vocab)`` of the policy.
        reference: same shape, log-probabilities of the policy at its start; where both are minus infinity nothing is added.
        sampled: ``(sequences, length)`` bool.
    """
    possible = log_probs.isfinite()
    difference = (log_probs - reference).masked_fill(~possible, 0.0)
    divergence = (log_probs.exp() * difference).sum(dim=-1)
    return divergence.masked_fill(~sampled, 0.0).sum()


def ranking_margin(rouge: Tensor, sampled_score: Tensor, reference_score: Tensor) -> Tensor:
    """``max(0, 1 - ROUGE-L(Yhat, Y) + M(X, Yhat) - M(X, Y))`` of each pair: the evaluator's loss by inverse reinforcement.

    The margin shrinks as the sampled paraphrase comes close to the reference (Li et al. 2018, J_IRL).

    Args:
        rouge: ``(pairs,)`` ROUGE-L of the sampled paraphrase against the reference, 0 to 1.
        sampled_score: ``(pairs,)`` evaluator's score of the sampled paraphrase.
        reference_score: ``(pairs,)`` its score of the reference.
    """
    return torch.relu(1.0 - rouge + sampled_score - reference_score)


def curriculum_probabilities(places: Tensor, delta: float) -> Tensor:
    """Probability with which each pair is learned: ``sigmoid(delta (0.5 - rank / K))``, rank 1 the closest of K pairs.

    From large ``delta`` (close pairs only) to 0 (every pair with 1/2) over training (Li et al. 2018).

    Args:
        places: ``(pairs,)`` ranks over K by the edit distance of source and reference.
        delta: steepness.
    """
    return torch.sigmoid(delta * (0.5 - places))
