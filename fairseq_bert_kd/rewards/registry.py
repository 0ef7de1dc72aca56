"""Rewards by name."""

from collections.abc import Mapping

from fairseq_bert_kd.evaluation.text_metrics import DEFAULT_TOKENIZER
from fairseq_bert_kd.rewards.combined import WeightedSum, parse_terms
from fairseq_bert_kd.rewards.evaluator import load_evaluator
from fairseq_bert_kd.rewards.interface import Reward
from fairseq_bert_kd.rewards.overlap import ROUGE, BleuReward, RougeReward
from fairseq_bert_kd.rewards.similarity import CosineReward

# what they are loaded from
LOADED = {"evaluator": "a checkpoint of a classifier of pairs", "cosine": "an encoder of sentences"}
NAMES = (*LOADED, *ROUGE, "bleu")


def build_reward(
    text: str,
    files: Mapping[str, tuple[str, str | None]],
    positive: str | None = None,
    positive_option: str = "--rl-positive",
    tokenize: str = DEFAULT_TOKENIZER,
    option: str = "--rl-reward",
) -> Reward:
    """The reward of an option such as ``evaluator`` or ``0.7*evaluator+0.3*rouge-2``.

    Args:
        text: a name of `NAMES`, or a weighted sum of them.
        files: option that gives a file and what it gives, by name of `LOADED`.
        positive: name of the evaluator's class of paraphrases; None for that of its data.
        positive_option: option that names it, for messages.
        tokenize: sacreBLEU's tokenizer for ``bleu``.
        option: option that names the reward, for messages.

    Raises:
        ValueError: an unknown name, weights that do not sum to 1, or no file where one is needed.
    """
    rewards: list[Reward] = []
    weights = []
    for weight, name in parse_terms(text):
        if name not in NAMES:
            raise ValueError(f"`{name}` is not a reward; the rewards are {', '.join(NAMES)}")
        if name in ROUGE:
            rewards.append(RougeReward(name))
        elif name == "bleu":
            rewards.append(BleuReward(tokenize))
        else:
            rewards.append(_load(name, *files[name], positive, positive_option, option))
        weights.append(weight)
    return rewards[0] if len(rewards) == 1 else WeightedSum(rewards, weights)


def _load(
    name: str, option: str, path: str | None, positive: str | None, positive_option: str, reward_option: str
) -> Reward:
    """A reward of `LOADED`, from the file that its option gives."""
    if not path:
        raise ValueError(
            f"reward `{name}` needs {option}, {LOADED[name]}; give it, or choose another reward with {reward_option}"
        )
    if name == "cosine":
        return CosineReward(path, option)
    return load_evaluator(path, positive, option, positive_option=positive_option)


def parts_of(reward: Reward) -> list[Reward]:
    """The terms of a sum; a reward that is none is its only term."""
    return reward.rewards if isinstance(reward, WeightedSum) else [reward]
