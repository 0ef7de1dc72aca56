"""Counts over a side of a corpus: how much of it is unknown, and how well frequencies alone would predict it."""

import math

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.fairseq_data import IndexedTokens

MOST_TOKENS = 1 << 24  # counted per side, a fraction of a second
_BLOCKS = 16  # consecutive stretches, spread evenly, in which a longer side is read


def sampled_tokens(side: IndexedTokens, most: int = MOST_TOKENS) -> list[NDArray[np.generic]]:
    """Stretches of a side's ids: all of them, or about ``most`` that are spread evenly."""
    tokens = side.tokens
    if len(tokens) <= most:
        return [tokens]
    size = most // _BLOCKS
    starts = np.linspace(0, len(tokens) - size, _BLOCKS).astype(np.int64)
    return [tokens[start : start + size] for start in starts]


def unknown_share(side: IndexedTokens, unknown: int, most: int = MOST_TOKENS) -> float:
    """Share of a side's tokens that are the unknown symbol, ends of sentences not counted; 0 to 1.

    Args:
        side: tokens of the side.
        unknown: id of the unknown symbol.
        most: number of tokens that are read at most, see `sampled_tokens`.
    """
    blocks = sampled_tokens(side, most)
    ends = len(side) / max(len(side.tokens), 1)  # share of ends of sentences
    words = sum(map(len, blocks)) * (1 - ends)
    return sum(int(np.count_nonzero(block == unknown)) for block in blocks) / words if words else 0.0


def frequency_nll(side: IndexedTokens, symbols: int, most: int = MOST_TOKENS) -> float | None:
    """Mean negative log-likelihood of a side's tokens under their own frequencies, in nats; None for an empty side.

    Every model of the tokens that learned anything else is below it.

    Args:
        side: tokens of the side, ends of sentences included.
        symbols: size of the dictionary.
        most: number of tokens that are read at most, see `sampled_tokens`.
    """
    counts = sum(
        (np.bincount(block, minlength=symbols) for block in sampled_tokens(side, most)), np.zeros(symbols)
    )
    total = counts.sum()
    if not total:
        return None
    found = counts[counts > 0]
    return float(math.log(total) - (found * np.log(found)).sum() / total)
