"""Which target positions the conditional masked language model (C-MLM) hides from the teacher."""

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000  # enough for any useful probability: 0.85 ** 1000 = 3e-71, 0.99 ** 1000 = 4e-5


def draw_mask(length: int, mask_prob: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Mask each of ``length`` target positions with probability ``mask_prob``, at least one of them.

    The end of sentence counts as a position. Masks are redrawn until at least one position is masked, as in the
    authors' code, but always from the untouched sentence. Theirs re-enters with a list that it has already changed;
    Chen et al. 2020, Section 3.1 does not say. Where `DRAWS` draws mask nothing, the mask is drawn from the distribution
    that such drawing leads to.

    Args:
        length: target length with end of sentence, at least 1.
        mask_prob: probability of each position, in (0, 1]; 0.15 in the paper.
        rng: only source of randomness, so that a mask can be replayed.

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


def replayable_mask(length: int, mask_prob: float, seed: int, epoch: int, index: int) -> NDArray[np.bool_]:
    """Mask of sentence ``index`` in ``epoch``: a function of its arguments and of nothing else."""
    return draw_mask(length, mask_prob, np.random.default_rng([seed, epoch, index]))


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
