"""Copies of a sentence with words replaced: the draws, and the search for words of similar vectors.

Data augmentation of TinyBERT (Jiao et al., Findings of EMNLP 2020, Algorithm 1).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def draw_copies(
    words: Sequence[str],
    candidates: Mapping[int, Sequence[str]],
    probability: float,
    copies: int,
    rng: np.random.Generator,
) -> list[list[str]]:
    """The sentence itself and copies of it, each word of which is replaced with some probability.

    Two draws decide: ``rng.random((copies, n))``, below ``probability`` where one of the n words with candidates is
    replaced, and ``rng.integers(numbers of candidates, size=(copies, n))``, by which one.

    Args:
        words: words of the sentence.
        candidates: what may stand in the place of a word, at least one each, by the word's place.
        probability: probability of replacing a word that has candidates.
        copies: number of draws; a copy that is there already is left out.
        rng: generator of all draws.

    Returns:
        At most ``copies + 1`` sentences, the original first, all different and with as many words.
    """
    found = {tuple(words): None}  # a dict keeps the order
    places = sorted(candidates)
    if places:
        replaced = rng.random((copies, len(places))) < probability
        choices = rng.integers([len(candidates[place]) for place in places], size=(copies, len(places)))
        for row in range(copies):
            copy = list(words)
            for column in np.flatnonzero(replaced[row]):
                place = places[column]
                copy[place] = candidates[place][choices[row, column]]
            found[tuple(copy)] = None
    return [list(copy) for copy in found]


def draw_rows(
    sides: Sequence[tuple[Sequence[str], Mapping[int, Sequence[str]]]],
    probability: float,
    copies: int,
    rng: np.random.Generator,
) -> list[tuple[list[str], ...]]:
    """A row of one sentence or two and its copies, in which one sentence is replaced and the other is the original.

    The authors' code keeps the other sentence of the copy before, which no source states and which is not done here.

    Args:
        sides: words and candidates of each sentence, see `draw_copies`, which draws them in turn.
        probability: probability of replacing a word, see `draw_copies`.
        copies: draws per sentence.
        rng: generator of all draws.

    Returns:
        The original first; words by side.
    """
    originals = tuple(list(words) for words, _ in sides)
    rows = [originals]
    for side, (words, candidates) in enumerate(sides):
        for copy in draw_copies(words, candidates, probability, copies, rng)[1:]:
            rows.append((*originals[:side], copy, *originals[side + 1 :]))
    return rows


def nearest_rows(queries: Tensor, vectors: Tensor, count: int) -> Tensor:
    """Rows of a matrix by cosine, best first.

    Args:
        queries: ``(n, dim)``.
        vectors: ``(rows, dim)`` of length 1.
        count: rows per query.

    Returns:
        ``(n, min(count, rows))`` int64.
    """
    cosines = F.normalize(queries, dim=1) @ vectors.T
    return torch.topk(cosines, min(count, len(vectors)), dim=1).indices
