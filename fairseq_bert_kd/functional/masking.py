"""Which positions of a text a masked language model predicts, and what it sees there."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000  # enough for any useful probability: 0.85 ** 1000 = 3e-71, 0.99 ** 1000 = 4e-5


@dataclass(frozen=True)
class Replacement:
    """What a masked language model sees at a position that it predicts: its mask token, unless it draws something else.

    BERT's is ``Replacement(keep=0.1, random=0.1)`` (Devlin et al. 2019, Section 3.1), so that it also learns to predict at
    positions that are not masked. The C-MLM of Chen et al. 2020 always sees the mask token.

    Attributes:
        keep: probability of the token itself.
        random: probability of a piece drawn uniformly from the dictionary.

    Raises:
        ValueError: a probability outside [0, 1], or a sum beyond 1.
    """

    keep: float = 0.0
    random: float = 0.0

    def __post_init__(self) -> None:
        if not (self.keep >= 0.0 and self.random >= 0.0 and self.keep + self.random <= 1.0):
            raise ValueError(
                "the shares of kept and of random tokens must be at least 0 and together at most 1, got "
                f"{self.keep} and {self.random}; BERT's are 0.1 and 0.1"
            )

    @property
    def always_masked(self) -> bool:
        """Whether every predicted position shows the mask token: nothing was learned about any other position."""
        return self.keep == self.random == 0.0


ALWAYS_MASKED = Replacement()


class MaskedTokens(NamedTuple):
    """A text as a masked language model sees it.

    Attributes:
        tokens: ``(length,)`` int64 ids, random ones in their places; the mask token is not written.
        predicted: ``(length,)`` bool, positions to predict.
        hidden: ``(length,)`` bool, those of them at which the mask token is seen.
    """

    tokens: NDArray[np.int64]
    predicted: NDArray[np.bool_]
    hidden: NDArray[np.bool_]


def draw_mask(length: int, mask_prob: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Mask each of ``length`` target positions with probability ``mask_prob``, at least one of them.

    The end of sentence counts as a position. Masks are redrawn until at least one position is masked, as in the
    authors' code, but always from the untouched sentence. Theirs re-enters with a list that it has already changed;
    Chen et al. 2020, Section 3.1 does not say. Where `DRAWS` draws mask nothing, the mask is drawn from the distribution
    that such drawing leads to.

    Args:
        length: target length with end of sentence, at least 1.
        mask_prob: probability of each position, in (0, 1]; 0.15 in the paper.
        rng: generator of all draws, so that a mask can be replayed.

    Returns:
        ``(length,)`` bool, True where the teacher sees the mask token.
    """
    if not 0.0 < mask_prob <= 1.0:
        raise ValueError(f"mask probability must be in (0, 1], got {mask_prob}; the paper uses 0.15")
    if length < 1:
        raise ValueError(f"a target has at least its end of sentence, got length {length}")
    for _ in range(DRAWS):
        mask = rng.random(length) < mask_prob
        if mask.any():
            return mask
    return _draw_nonempty_mask(length, mask_prob, rng)


def _draw_nonempty_mask(length: int, mask_prob: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A mask given that it masks something: first the first masked position, then those after it, freely.

    The first one is at most j with probability (1 - (1 - p)^(j + 1)) / (1 - (1 - p)^length).
    """
    log_kept = np.log1p(-mask_prob)
    any_masked = -np.expm1(length * log_kept)
    first = min(int(np.log1p(-rng.random() * any_masked) / log_kept), length - 1)
    mask = rng.random(length) < mask_prob
    mask[:first] = False
    mask[first] = True
    return mask


def replayable_draws(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Random numbers of sentence ``index`` in ``epoch``: a function of the arguments and of nothing else."""
    return np.random.default_rng([seed, epoch, index])


def mask_tokens(
    tokens: NDArray[np.int64],
    mask_prob: float,
    replacement: Replacement,
    pieces: NDArray[np.int64],
    rng: np.random.Generator,
) -> MaskedTokens:
    """Draw the positions to predict (`draw_mask`), then what is seen at each of them.

    The positions are the first draw from ``rng``, so they do not depend on ``replacement``.

    Args:
        tokens: ``(length,)`` ids, end of sentence included.
        mask_prob: probability of a position to be masked, see `draw_mask`.
        replacement: shares of kept and of random tokens.
        pieces: ``(n,)`` ids from which random tokens are drawn; not needed where there are none.
        rng: generator of all draws.
    """
    predicted = draw_mask(len(tokens), mask_prob, rng)
    if replacement.always_masked:
        return MaskedTokens(tokens, predicted, predicted)
    shares = rng.random(len(tokens))
    drawn = pieces[rng.integers(len(pieces), size=len(tokens))]
    shown = replacement.keep + replacement.random
    random = predicted & (shares >= replacement.keep) & (shares < shown)
    return MaskedTokens(np.where(random, drawn, tokens), predicted, predicted & (shares >= shown))


def strided_masks(length: int, passes: int, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Masks that together hide every target position exactly once (Chen et al. 2020, Appendix A).

    Pass ``i`` hides positions ``i, i + passes, i + 2 * passes, ...``; a target of at most ``passes``
    positions needs only its first ``length`` passes, of one position each. With 7 passes, 1/7 of a target is
    hidden at a time, close to the 15 % of training.

    Args:
        length: number of positions.
        passes: number of passes, at least 1.
        numbers: ``(items,)`` passes to return, counted from 0.

    Returns:
        ``(items, length)`` bool.
    """
    return np.arange(length)[None, :] % passes == numbers[:, None]
