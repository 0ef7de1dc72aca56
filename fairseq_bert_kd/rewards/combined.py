"""Weighted sums of rewards, and their names in options."""

import math
import re
from collections.abc import Sequence

from fairseq_bert_kd.rewards.interface import Reward, Scores, Texts

TERM = re.compile(r"\s*(?:(?P<weight>[0-9.]+)\s*\*\s*)?(?P<name>[a-z][a-z0-9-]*)\s*")


class WeightedSum(Reward):
    """Sum of rewards with weights that sum to 1.

    Args:
        rewards: its terms.
        weights: their weights.
    """

    def __init__(self, rewards: Sequence[Reward], weights: Sequence[float]):
        self.rewards, self.weights = list(rewards), list(weights)
        self.name = format_terms(
            [(weight, reward.name) for weight, reward in zip(self.weights, self.rewards, strict=True)]
        )

    def _scores(self, sources: list[str], hypotheses: list[str], references: list[str]) -> Scores:
        scores = [reward(sources, hypotheses, references) for reward in self.rewards]
        total = sum(weight * score for weight, score in zip(self.weights, scores, strict=True))
        return total.clip(0, 1)  # type: ignore[union-attr]  # rounding

    def check_case(self, sources: Texts, hypotheses: Texts) -> None:
        for reward in self.rewards:
            reward.check_case(sources, hypotheses)


def parse_terms(text: str) -> list[tuple[float, str]]:
    """Weights and names of ``0.7*evaluator+0.3*rouge-2``; a name alone has weight 1.

    Raises:
        ValueError: another form, a name twice, a weight of 0, or weights that do not sum to 1.
    """
    terms = []
    for part in text.split("+"):
        match = TERM.fullmatch(part)
        try:
            terms.append((float(match["weight"] or 1), match["name"]))  # type: ignore[index]
        except (TypeError, ValueError):
            raise ValueError(
                f"a reward is a name or a weighted sum such as 0.7*evaluator+0.3*rouge-2, got `{text}`"
            ) from None
    names = [name for _, name in terms]
    for weight, name in terms:
        if weight == 0 or names.count(name) > 1:
            fault = "has weight 0" if weight == 0 else "stands there more than once"
            raise ValueError(
                f"each term of a reward must count once, in `{text}` `{name}` {fault}; leave it out"
            )
    total = sum(weight for weight, _ in terms)
    if not math.isclose(total, 1, abs_tol=1e-6):
        raise ValueError(f"the weights of reward `{text}` must sum to 1, got {total:g}")
    return terms


def format_terms(terms: Sequence[tuple[float, str]]) -> str:
    """What `parse_terms` reads."""
    return "+".join(name if weight == 1 else f"{weight:g}*{name}" for weight, name in terms)
