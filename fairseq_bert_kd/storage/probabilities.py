"""Probabilities of stored token rows at a temperature.

A record holds the k best logits ``z`` of a position, relative to the best, and the log-normaliser ``L(T)`` of the whole
dictionary at each stored temperature: ``p = exp(z / T - L(T))``. Older imports hold no log-normalisers; their
probabilities are renormalised over the stored tokens.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Probs = NDArray[np.float64]


def default_temperature(temperatures: Sequence[float]) -> float:
    """1, or the lowest stored temperature where 1 is not stored; 1 where none is."""
    return 1.0 if not temperatures or 1.0 in temperatures else min(temperatures)


def _log_normalisers(records: NDArray[Any], temperatures: Sequence[float], temperature: float) -> Probs:
    """``(rows,)`` log-normalisers; ValueError for a temperature that is not stored."""
    column = tuple(temperatures).index(temperature)
    return records["log_normalisers"][:, column].astype(np.float64)


def token_probs(records: NDArray[Any], temperatures: Sequence[float], temperature: float) -> Probs:
    """``(rows, k)`` probabilities of the stored tokens, best first.

    Args:
        records: ``(rows,)`` of scored sentences.
        temperatures: stored ones; empty for a store without log-normalisers.
        temperature: one of them; any positive one where none is stored.
    """
    scaled = records["topk_logits"].astype(np.float64) / temperature
    if not temperatures:
        weights = np.exp(scaled)  # the best is 0, so the sum is at least 1
        return weights / weights.sum(axis=1, keepdims=True)
    return np.exp(scaled - _log_normalisers(records, temperatures, temperature)[:, None])


def gold_log_probs(records: NDArray[Any], temperatures: Sequence[float], temperature: float) -> Probs:
    """``(rows,)`` log-probabilities, in nats, of the gold tokens of a store that holds their logits.

    Args:
        records: ``(rows,)`` with ``gold_logit``.
        temperatures: stored ones.
        temperature: one of them.
    """
    scaled = records["gold_logit"].astype(np.float64) / temperature
    return scaled - _log_normalisers(records, temperatures, temperature)


def gold_probs(
    records: NDArray[Any],
    temperatures: Sequence[float],
    temperature: float,
    gold_ids: NDArray[Any] | None = None,
) -> Probs:
    """``(rows,)`` probabilities of the gold tokens; NaN where they are not known.

    They are known where the store holds gold logits and log-normalisers, else where the gold token is stored.

    Args:
        records: ``(rows,)`` of scored sentences.
        temperatures: stored ones.
        temperature: one of them.
        gold_ids: ``(rows,)`` gold tokens, for a store that does not hold them.
    """
    names = records.dtype.names or ()
    if "gold_logit" in names and temperatures:
        return np.exp(gold_log_probs(records, temperatures, temperature))
    gold_ids = records["gold_id"] if "gold_id" in names else gold_ids
    if gold_ids is None:
        return np.full(len(records), np.nan)
    hits = records["topk_ids"] == gold_ids[:, None]  # (rows, k)
    probs = (token_probs(records, temperatures, temperature) * hits).sum(axis=1)
    return np.where(hits.any(axis=1), probs, np.nan)


def bucket_entropy(probs: Probs, rest: bool = True) -> Probs:
    """``(rows,)`` entropies, in bits, of the stored tokens and all others as one bucket.

    It is a lower bound of the entropy over the whole dictionary.

    Args:
        probs: ``(rows, k)``.
        rest: count the probability that is left as one more bucket.
    """
    if rest:
        left = np.maximum(1 - probs.sum(axis=1, keepdims=True), 0)
        probs = np.concatenate([probs, left], axis=1)  # (rows, k + 1)
    return -(probs * np.log2(np.where(probs > 0, probs, 1))).sum(axis=1)


def percent(share: float) -> str:
    """``91.2 %`` of a share from 0 to 1; what rounds to nothing as ``<0.1 %``."""
    return f"{100 * share:.1f} %" if share == 0 or share >= 0.0005 else "<0.1 %"
