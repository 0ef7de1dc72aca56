"""Statistics of stored sentence vectors."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.vector_store import VectorReader

PAIRS = 1000
_BLOCK = 4096  # vectors in memory


class VectorStat(NamedTuple):
    """Statistics of some vectors.

    Attributes:
        rows: number of vectors that were sampled.
        mean_length: their mean Euclidean length; None without any.
        random_cosine: mean cosine of up to `PAIRS` random pairs of different sentences; None with fewer than two vectors.
    """

    rows: int
    mean_length: float | None
    random_cosine: float | None


def vector_stat(reader: VectorReader, sample_rows: int) -> VectorStat:
    """Statistics of the vectors of ``sample_rows`` sentences drawn with a fixed seed; 0 for all.

    Raises:
        ValueError: ``sample_rows`` is negative.
    """
    if sample_rows < 0:
        raise ValueError(f"at least 0 rows are sampled (0: all), got {sample_rows}")
    rng, sentences = np.random.default_rng(0), np.arange(len(reader))
    if 0 < sample_rows < len(sentences):
        sentences = np.sort(rng.choice(len(sentences), sample_rows, replace=False))
    lengths, there = [np.zeros(0)], [sentences[:0]]
    for start in range(0, len(sentences), _BLOCK):
        block = sentences[start : start + _BLOCK]
        found, present = reader.vectors(block)
        lengths.append(np.linalg.norm(found[present].astype(np.float64), axis=1))
        there.append(block[present])
    sampled = np.concatenate(there)
    return VectorStat(
        rows=len(sampled),
        mean_length=float(np.concatenate(lengths).mean()) if len(sampled) else None,
        random_cosine=_random_cosine(reader, sampled, rng) if len(sampled) > 1 else None,
    )


def _random_cosine(reader: VectorReader, sentences: NDArray[np.int64], rng: np.random.Generator) -> float:
    """Mean cosine of random pairs of different sentences; a zero vector has the cosine 0."""
    first = rng.integers(len(sentences), size=PAIRS)
    second = (first + rng.integers(1, len(sentences), size=PAIRS)) % len(sentences)
    one, other = (reader.vectors(sentences[drawn])[0].astype(np.float64) for drawn in (first, second))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(axis=1) / np.maximum(lengths, 1e-12)).mean())
