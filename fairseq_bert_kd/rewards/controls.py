"""Rewards that say nothing about the text: what is gained with them is not gained by the reward.

Choshen et al. (2020) lay gains of reinforcement learning in translation to peakier distributions, which a constant reward
brings too.
"""

import numpy as np

from fairseq_bert_kd.rewards.interface import Scores

CONTROLS = ("none", "constant", "shuffled")


def controlled(rewards: Scores, control: str, key: list[int]) -> Scores:
    """The rewards that training gets.

    Args:
        rewards: ``(texts,)`` true rewards.
        control: ``none`` leaves them; ``constant`` makes all of them 1, of which ``rank-centred``, ``mean`` and ``greedy``
            make 0, and ``rank`` a value below 0; ``shuffled`` deals them out anew within the batch.
        key: whole numbers of which the new order is a function.
    """
    if control == "constant":
        return np.ones_like(rewards)
    return np.random.default_rng(key).permutation(rewards) if control == "shuffled" else rewards
