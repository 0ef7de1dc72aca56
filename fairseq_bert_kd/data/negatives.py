"""Pairs that are no paraphrases, mined from clusters of paraphrases: sentences of another cluster, near or anywhere."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROWS = 1024  # whose similarities with all others are computed at once
CANDIDATES = 64  # nearest sentences that are looked at first


def random_negatives(clusters: NDArray[np.int64], rows: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """For each of some sentences another one at random that lies in another cluster.

    Args:
        clusters: ``(sentences,)`` cluster of each sentence, at least two clusters.
        rows: ``(n,)`` sentences.
        seed: seed of the draws.

    Returns:
        ``(n,)`` sentences.
    """
    rng = np.random.default_rng(seed)
    found = rng.integers(len(clusters), size=len(rows))
    while (wrong := clusters[found] == clusters[rows]).any():
        found[wrong] = rng.integers(len(clusters), size=int(wrong.sum()))
    return found


def nearest_negatives(
    vectors: Tensor, clusters: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For each of some sentences the one with the most similar vector that lies in another cluster.

    A sentence that is given again gets the next one: its k-th occurrence the k-th nearest, and after the last the first again.

    Args:
        vectors: ``(sentences, d)``.
        clusters: ``(sentences,)`` cluster of each sentence, at least two clusters.
        rows: ``(n,)`` sentences.

    Returns:
        ``(n,)`` sentences.
    """
    unit = torch.nn.functional.normalize(vectors.float(), dim=1)
    of_sentence = torch.from_numpy(clusters)
    places = torch.from_numpy(occurrences(rows))
    found = np.empty(len(rows), dtype=np.int64)
    for start in range(0, len(rows), ROWS):
        part = torch.from_numpy(rows[start : start + ROWS])
        similarities = unit[part] @ unit.T  # (part, sentences)
        near = similarities.topk(min(CANDIDATES, len(unit)), dim=1).indices
        other = of_sentence[near] != of_sentence[part][:, None]
        wanted = other & (other.cumsum(dim=1) == places[start : start + ROWS, None] + 1)
        best = near.gather(1, wanted.int().argmax(dim=1, keepdim=True)).squeeze(1)
        for i in (~wanted.any(dim=1)).nonzero().flatten().tolist():  # a large cluster lies around it
            others = (of_sentence != of_sentence[part[i]]).nonzero().flatten()
            ordered = others[similarities[i, others].argsort(descending=True, stable=True)]
            best[i] = ordered[places[start + i] % len(ordered)]
        found[start : start + len(part)] = best.numpy()
    return found


def occurrences(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """``(n,)`` how often each value stands before its place."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    found = np.empty(len(rows), dtype=np.int64)
    found[order] = np.arange(len(rows)) - np.searchsorted(ordered, ordered)
    return found


def check_negatives(
    clusters: NDArray[np.int64], rows: NDArray[np.int64], negatives: NDArray[np.int64]
) -> None:
    """Check that no negative lies in the cluster of its sentence.

    Raises:
        ValueError: one does.
    """
    wrong = clusters[rows] == clusters[negatives]
    if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(
            f"{int(wrong.sum())} negatives lie in the cluster of their sentence, the first is sentence {negatives[i]} for "
            f"{rows[i]}, both in cluster {clusters[rows[i]]}: they are paraphrases. Take sentences of other clusters"
        )


def plain(text: str) -> str:
    """A sentence without case, and with single spaces: what two sentences share that differ in nothing else."""
    return " ".join(text.lower().split())


def shared_sentences(one: Sequence[str], other: Sequence[str]) -> list[str]:
    """Sentences of both sides, case and white space aside."""
    there = set(map(plain, other))
    return [text for text in dict.fromkeys(map(plain, one)) if text in there]
