"""Statistics of the rows of a top-k store: captured mass and entropy, and the k and temperature that follow.

With the mass of a row's rest known, the k stored tokens and the rest are a distribution over k + 1 buckets. Its entropy
is a lower bound of the teacher's over the whole dictionary, which is not stored. Of a store without log-normalisers
nothing of this is known.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.probabilities import bucket_entropy, percent, token_probs
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.storage.topk_store import TopKReader

BINS = 10  # bins of a histogram
HALF = 0.5  # a row below holds less than half of the teacher's mass
LITTLE_MASS = 0.1  # mean mass below which a temperature gets a warning; our own choice
ENOUGH_MASS = 0.9  # of the mass of all k, and
ENOUGH_ROWS = 0.05  # more rows below a half than with all k, for the suggested k; our own choice
_BLOCK = 1 << 14  # rows whose probabilities are in memory together


@dataclass
class TemperatureStat:
    """Sums over rows at one temperature; divided by ``rows`` by the properties.

    Attributes:
        temperature: divides the teacher's logits.
        tokens: the k' of the next two, ascending; the last is the stored k.
        mass_sums: ``(len(tokens),)`` captured mass of the best k' tokens.
        below_half: ``(len(tokens),)`` rows whose best k' tokens hold less than a half.
        mass_histogram: ``(BINS,)`` rows by the mass of all k, from 0 to 1.
        entropy_histogram: ``(BINS,)`` rows by entropy, from 0 to ``most_entropy``.
        entropy_sum: bits.
        most_entropy: bits, of equal buckets.
        rows: rows that were evaluated.
    """

    temperature: float
    tokens: tuple[int, ...]
    mass_sums: NDArray[np.float64]
    below_half: NDArray[np.int64]
    mass_histogram: NDArray[np.int64]
    entropy_histogram: NDArray[np.int64]
    entropy_sum: float
    most_entropy: float
    rows: int

    @property
    def mean_mass(self) -> list[float]:
        """Mean captured mass of the best k' tokens, for each of ``tokens``, 0 to 1."""
        return [float(total) / self.rows for total in self.mass_sums]

    @property
    def share_below_half(self) -> list[float]:
        """Share of the rows below a half, for each of ``tokens``, 0 to 1."""
        return [int(count) / self.rows for count in self.below_half]

    @property
    def mean_entropy(self) -> float:
        """Mean entropy in bits."""
        return self.entropy_sum / self.rows


@dataclass(frozen=True)
class RowStat:
    """Statistics of rows at each temperature.

    Attributes:
        chunks: chunks that were evaluated.
        chunks_in_all: chunks of the file.
        rows: scored rows that were evaluated.
        temperatures: one entry per stored temperature, ascending; empty without a scored row.
    """

    chunks: int
    chunks_in_all: int
    rows: int
    temperatures: list[TemperatureStat]


def token_counts(k: int) -> tuple[int, ...]:
    """1, 2, 4, 8 ... and k itself."""
    return (*(2**i for i in range(k.bit_length()) if 2**i < k), k)


def sampled_chunks(chunks: int, rows: int, sample_rows: int) -> list[int]:
    """Whole chunks, spread evenly, of about ``sample_rows`` rows together; all for 0.

    Raises:
        ValueError: ``sample_rows`` is negative.
    """
    if sample_rows < 0:
        raise ValueError(f"--rows must be at least 0 (all), got {sample_rows}")
    count = chunks if sample_rows == 0 or rows <= sample_rows else max(1, round(sample_rows * chunks / rows))
    return [(2 * i + 1) * chunks // (2 * count) for i in range(count)]  # the middle of each stretch


def row_stat(
    reader: TopKReader, sample_rows: int = 1_000_000, progress: Callable[[int], Any] = lambda size: None
) -> RowStat:
    """Statistics of a sample of the rows.

    Args:
        reader: reader of a store or a shard.
        sample_rows: about how many, see `sampled_chunks`.
        progress: called with the bytes of each chunk's rows.

    Raises:
        ValueError: a damaged chunk, or ``sample_rows`` is negative.
    """
    info, layout = reader.info, reader.header.layout
    stats, rows = [_empty(t, info) for t in info.temperatures], 0
    chosen = sampled_chunks(layout.chunks, layout.rows, sample_rows)
    for local in chosen:
        data = reader.checked_chunk(local)
        records = data.records[data.scored]
        rows += len(records)
        for start in range(0, len(records), _BLOCK):
            block = records[start : start + _BLOCK]
            for stat in stats:
                _add(stat, token_probs(block, info.temperatures, stat.temperature))
        progress(data.records.nbytes)
    return RowStat(len(chosen), layout.chunks, rows, stats if rows else [])


def suggested_k(stat: RowStat) -> int:
    """The least k' of the table that is nearly as good as all k; our own rule.

    At temperature 1, or the lowest one where 1 is not stored: its mean mass is at least 0.9 of that of all k, and
    at most 0.05 of the rows more than with all k hold less than a half.
    """
    at_one = next((t for t in stat.temperatures if t.temperature == 1), stat.temperatures[0])
    masses, below = at_one.mean_mass, at_one.share_below_half
    for tokens, mass, share in zip(at_one.tokens, masses, below, strict=True):
        if mass >= ENOUGH_MASS * masses[-1] and share <= below[-1] + ENOUGH_ROWS:
            return tokens
    return at_one.tokens[-1]


def suggested_temperature(stat: RowStat) -> float:
    """The highest stored temperature at which all k hold half of the mass on average, else the lowest."""
    enough = [t.temperature for t in stat.temperatures if t.mean_mass[-1] >= HALF]
    return max(enough) if enough else stat.temperatures[0].temperature


def warnings(stat: RowStat) -> list[str]:
    """A line for each temperature at which the stored tokens hold little of the teacher's mass."""
    return [
        f"at T={t.temperature:g} the top {t.tokens[-1]} hold {percent(t.mean_mass[-1])} of the mass: the student sees "
        "only their order; choose a lower --kd-temperature or a larger --topk"
        for t in stat.temperatures
        if t.mean_mass[-1] < LITTLE_MASS
    ]


def _empty(temperature: float, info: TopKInfo) -> TemperatureStat:
    tokens = token_counts(info.k)
    buckets = info.k + (info.k < info.dictionary_size)
    return TemperatureStat(
        temperature,
        tokens,
        mass_sums=np.zeros(len(tokens)),
        below_half=np.zeros(len(tokens), dtype=np.int64),
        mass_histogram=np.zeros(BINS, dtype=np.int64),
        entropy_histogram=np.zeros(BINS, dtype=np.int64),
        entropy_sum=0.0,
        most_entropy=math.log2(buckets),
        rows=0,
    )


def _add(stat: TemperatureStat, probs: NDArray[np.float64]) -> None:
    """Add rows to the sums; ``probs`` is ``(rows, k)``."""
    masses = np.minimum(np.cumsum(probs, axis=1)[:, np.array(stat.tokens) - 1], 1)  # (rows, len(tokens))
    bits = bucket_entropy(probs)
    stat.mass_sums += masses.sum(axis=0)
    stat.below_half += (masses < HALF).sum(axis=0)
    stat.mass_histogram += _histogram(masses[:, -1])
    stat.entropy_histogram += _histogram(bits / (stat.most_entropy or 1))
    stat.entropy_sum += float(bits.sum())
    stat.rows += len(probs)


def _histogram(shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Counts of values from 0 to 1 in equal bins; a bin holds its lower edge, the last one also 1."""
    return np.bincount(np.clip(shares * BINS, 0, BINS - 1).astype(np.int64), minlength=BINS)
