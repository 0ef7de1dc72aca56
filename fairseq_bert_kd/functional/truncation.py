"""Rows of one or two texts cut to a number of tokens."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def cut_text(tokens: NDArray[Any], length: int) -> NDArray[Any]:
    """The first tokens of a text, closed by its last one, which is end of sentence; ``length`` of at least 1 in all."""
    return tokens if length >= len(tokens) else np.append(tokens[: length - 1], tokens[-1])


def longest_first(lengths: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Lengths after tokens are taken from the longer text, one by one, until a row fits; of equal ones from the second.

    This is the rule of BERT's released code. The fast tokenizers of transformers (``longest_first``) differ where both texts
    are cut to an odd number of tokens: there the longer one has the odd token, of equal ones the second.

    Args:
        lengths: ``(rows, texts)`` tokens of each text, one or two texts.
        limit: most tokens of a row, at least one per text.

    Returns:
        ``(rows, texts)`` at most ``lengths``.

    Raises:
        ValueError: a limit below the number of texts.
    """
    texts = lengths.shape[1]
    if limit < texts:
        raise ValueError(f"a row of {texts} texts needs at least {texts} tokens, the limit is {limit}")
    if texts == 1:
        return np.minimum(lengths, limit)
    first, second = lengths[:, 0], lengths[:, 1]
    # the shorter text stays whole while the other one is longer; then both have half, the first one the odd token
    kept_first = np.minimum(first, np.maximum(limit - second, limit - limit // 2))
    kept_second = np.minimum(second, np.maximum(limit - first, limit // 2))
    fits = first + second <= limit
    return np.stack([np.where(fits, first, kept_first), np.where(fits, second, kept_second)], axis=1)
