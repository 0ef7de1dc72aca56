"""Rewards that say nothing about the text: what is gained with them is not gained by the reward.

Choshen et al. (2020) lay gains of reinforcement learning in translation to peakier distributions, which a constant reward
brings too.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.rewards.interface import Reward, Scores

CONTROLS = ("none", "constant", "shuffled")
CONSTANT = 1.0


class ConstantReward(Reward):
    """The same reward for every text that is not empty."""

    name = "constant"

    def _scores(self, sources: list[str], hypotheses: list[str], references: list[str]) -> Scores:
        return np.full(len(hypotheses), CONSTANT)


def shuffled(rewards: NDArray[np.float64], seed: int, update: int, ids: list[int]) -> NDArray[np.float64]:
    """The rewards of a batch in an order that has nothing to do with the texts: a function of seed, update and batch.

    Args:
        rewards: ``(texts,)``.
        seed: seed of the run.
        update: update of training.
        ids: numbers of the sources, so that batches of one update differ.
    """
    return np.random.default_rng([seed, update, *ids[:1], len(rewards)]).permutation(rewards)


Scorer = Callable[[list[str], list[str], list[str]], Scores]
