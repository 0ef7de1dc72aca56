"""The interface of all rewards: texts in, numbers from 0 to 1 out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

Texts = Sequence[str]
Scores = NDArray[np.float64]


class Reward(ABC):
    """Scores generated texts, 0 to 1.

    Attributes:
        name: name in options and logs.
    """

    name: str

    def __call__(self, sources: Texts, hypotheses: Texts, references: Texts) -> Scores:
        """``(texts,)`` rewards. An empty hypothesis gets 0 and is not scored.

        Args:
            sources: ``(texts,)`` what the generator read.
            hypotheses: ``(texts,)`` what it wrote.
            references: ``(texts,)`` what people wrote.

        Raises:
            ValueError: a reward that is not a number from 0 to 1; the message shows the pair.
        """
        assert len(sources) == len(hypotheses) == len(references)
        rewards = np.zeros(len(hypotheses))
        written = [i for i, text in enumerate(hypotheses) if text.strip()]
        if written:
            sides = ([side[i] for i in written] for side in (sources, hypotheses, references))
            rewards[written] = self._scores(*sides)
        self._check(rewards, sources, hypotheses)
        return rewards

    @abstractmethod
    def _scores(self, sources: list[str], hypotheses: list[str], references: list[str]) -> Scores:
        """``(texts,)`` rewards of hypotheses that are not empty."""

    def to(self, device: torch.device) -> None:  # noqa: B027  not all have a model
        """Move what the reward computes with; most have nothing to move."""

    def check_case(self, sources: Texts, hypotheses: Texts) -> None:  # noqa: B027  not all read case
        """Check that the texts have the case that the reward reads; most rewards take any.

        Args:
            sources: ``(texts,)`` what the generator read, as it is in the user's file.
            hypotheses: ``(texts,)`` what it wrote.

        Raises:
            ValueError: the texts have lost their case; the message shows a pair.
        """

    def _check(self, rewards: Scores, sources: Texts, hypotheses: Texts) -> None:
        wrong = ~((rewards >= 0) & (rewards <= 1))  # NaN compares as False
        if wrong.any():
            i = int(wrong.argmax())
            raise ValueError(
                f"reward `{self.name}` must be a number from 0 to 1, got {rewards[i]} for source {sources[i]!r} and "
                f"hypothesis {hypotheses[i]!r}; correct the reward"
            )


def best_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class CachedReward:
    """A reward that remembers what it has scored.

    A policy draws its likely sequences again and again, within a batch and from epoch to epoch.

    Args:
        reward: scores what is new.
        limit: texts that are remembered; the oldest are forgotten first.

    Attributes:
        asked, scored: texts that were asked for and that the reward scored, so far.
    """

    def __init__(self, reward: Reward, limit: int = 1 << 20):
        self.reward, self._limit = reward, limit
        self._known: dict[tuple[str, str, str], float] = {}
        self.asked = self.scored = 0

    def check_case(self, sources: Texts, hypotheses: Texts) -> None:
        """As `Reward.check_case`."""
        self.reward.check_case(sources, hypotheses)

    def __call__(self, sources: Texts, hypotheses: Texts, references: Texts) -> Scores:
        """``(texts,)`` rewards, see `Reward`."""
        keys = list(zip(sources, hypotheses, references, strict=True))
        known = {key: self._known[key] for key in keys if key in self._known}
        if new := [key for key in dict.fromkeys(keys) if key not in known]:
            found = dict(zip(new, self.reward(*map(list, zip(*new, strict=True))).tolist(), strict=True))
            known |= found
            self._known |= found
            while len(self._known) > self._limit:
                del self._known[next(iter(self._known))]
        self.asked, self.scored = self.asked + len(keys), self.scored + len(new)
        return np.array([known[key] for key in keys])
