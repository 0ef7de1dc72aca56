"""Statistics of stored sentence vectors."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.vector_store import VectorReader

PAIRS = 1000


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
    found, present = reader.vectors(sentences)
    vectors = found[present].astype(np.float64)
    lengths = np.sqrt((vectors**2).sum(axis=1))
    return VectorStat(
        rows=len(vectors),
        mean_length=float(lengths.mean()) if len(vectors) else None,
        random_cosine=_random_cosine(vectors, lengths, rng) if len(vectors) > 1 else None,
    )


def _random_cosine(
    vectors: NDArray[np.float64], lengths: NDArray[np.float64], rng: np.random.Generator
) -> float:
    """Mean cosine of random pairs; a zero vector has the cosine 0."""
    one = rng.integers(len(vectors), size=PAIRS)
    other = (one + rng.integers(1, len(vectors), size=PAIRS)) % len(vectors)
    products = (vectors[one] * vectors[other]).sum(axis=1)
    return float((products / np.maximum(lengths[one] * lengths[other], 1e-12)).mean())
