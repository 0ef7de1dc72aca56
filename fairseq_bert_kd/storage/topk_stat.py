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

from fairseq_bert_kd.storage.gold_stat import GoldStats
from fairseq_bert_kd.storage.probabilities import bucket_entropy, percent, token_probs
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.storage.topk_store import TopKReader

BINS = 10  # bins of a histogram
HALF = 0.5  # a row below holds less than half of the teacher's mass
LITTLE_MASS = 0.1  # mean mass below which a temperature gets a warning; our own choice
ENOUGH_MASS = 0.9  # of the mass of all k, and
ENOUGH_ROWS = 0.05  # more rows below a half than with all k, for the suggested k; our own choice
_BLOCK = 1 << 14  # rows whose probabilities are in memory together


class TemperatureStat:
    """Statistics of rows at one temperature.

    Args:
        temperature: divides the teacher's logits.
        info: info of the store.

    Attributes:
        tokens: the k' of the lists below, ascending; the last is the stored k.
        mass_histogram: ``(BINS,)`` rows by the mass of all k, from 0 to 1.
        entropy_histogram: ``(BINS,)`` rows by entropy, from 0 to ``most_entropy``.
        most_entropy: bits, of equal buckets.
        rows: rows that were evaluated.
    """

    def __init__(self, temperature: float, info: TopKInfo):
        self.temperature, self.tokens = temperature, token_counts(info.k)
        self.most_entropy = math.log2(info.k + (info.k < info.dictionary_size))
        self.mass_histogram = np.zeros(BINS, dtype=np.int64)
        self.entropy_histogram = np.zeros(BINS, dtype=np.int64)
        self.rows = 0
        self._mass_sums = np.zeros(len(self.tokens))
        self._below_half = np.zeros(len(self.tokens), dtype=np.int64)
        self._entropy_sum = 0.0  # bits

    def add(self, probs: NDArray[np.float64]) -> None:
        """Count further rows, by the ``(rows, k)`` probabilities of their tokens."""
        masses = np.minimum(np.cumsum(probs, axis=1)[:, np.array(self.tokens) - 1], 1)  # (rows, len(tokens))
        bits = bucket_entropy(probs)
        self.mass_histogram += _histogram(masses[:, -1])
        self.entropy_histogram += _histogram(bits / (self.most_entropy or 1))
        self.rows += len(probs)
        self._mass_sums += masses.sum(axis=0)
        self._below_half += (masses < HALF).sum(axis=0)
        self._entropy_sum += float(bits.sum())

    @property
    def mean_mass(self) -> list[float]:
        """Mean captured mass of the best k' tokens, for each of ``tokens``, 0 to 1."""
        return (self._mass_sums / self.rows).tolist()

    @property
    def share_below_half(self) -> list[float]:
        """Share of the rows whose best k' tokens hold less than a half, for each of ``tokens``, 0 to 1."""
        return (self._below_half / self.rows).tolist()

    @property
    def mean_entropy(self) -> float:
        """Mean entropy in bits."""
        return self._entropy_sum / self.rows


@dataclass(frozen=True)
class RowStat:
    """Statistics of rows at each temperature.

    Attributes:
        chunks: chunks that were evaluated.
        chunks_in_all: chunks of the file.
        rows: scored rows that were evaluated.
        temperatures: one entry per stored temperature, ascending; empty without a scored row.
        gold: how well the gold tokens are known; None where the rows do not hold them.
    """

    chunks: int
    chunks_in_all: int
    rows: int
    temperatures: list[TemperatureStat]
    gold: GoldStats | None = None

    @property
    def at_one(self) -> TemperatureStat:
        """Statistics at temperature 1, or at the lowest one where 1 is not stored."""
        return next((t for t in self.temperatures if t.temperature == 1), self.temperatures[0])


def token_counts(k: int) -> tuple[int, ...]:
    """1, 2, 4, 8 ... and k itself."""
    return (*(2**i for i in range(k.bit_length()) if 2**i < k), k)


def sampled_chunks(chunks: int, rows: int, sample_rows: int) -> list[int]:
    """Whole chunks, spread evenly, of about ``sample_rows`` rows together; all for 0.

    Raises:
        ValueError: ``sample_rows`` is negative.
    """
    if sample_rows < 0:
        raise ValueError(f"at least 0 rows are sampled (0: all), got {sample_rows}")
    count = chunks if sample_rows == 0 or rows <= sample_rows else max(1, round(sample_rows * chunks / rows))
    return [(2 * i + 1) * chunks // (2 * count) for i in range(count)]  # the middle of each stretch


def row_stat(
    reader: TopKReader, sample_rows: int = 1_000_000, progress: Callable[[int], Any] = lambda size: None
) -> RowStat:
    """Statistics of a sample of the rows.

    Args:
        reader: reader of a store or a shard.
        sample_rows: about how many, see `sampled_chunks`.
        progress: function that is called with the bytes of each chunk's rows.

    Raises:
        ValueError: a damaged chunk, or ``sample_rows`` is negative.
    """
    info, layout = reader.info, reader.header.layout
    stats, rows = [TemperatureStat(t, info) for t in info.temperatures], 0
    gold = GoldStats(info) if info.gold else None
    chosen = sampled_chunks(layout.chunks, layout.rows, sample_rows)
    for local in chosen:
        data = reader.checked_chunk(local)
        records = data.records[data.scored]
        rows += len(records)
        if gold is not None:
            gold.add(data)
        for start in range(0, len(records), _BLOCK):
            block = records[start : start + _BLOCK]
            for stat in stats:
                stat.add(token_probs(block, info.temperatures, stat.temperature))
        progress(data.records.nbytes)
    return RowStat(len(chosen), layout.chunks, rows, stats if rows else [], gold if rows else None)


def suggested_k(stat: RowStat) -> int:
    """The least k' of the table that is nearly as good as all k; our own rule.

    At temperature 1, or the lowest one where 1 is not stored: its mean mass is at least 0.9 of that of all k, and
    at most 0.05 of the rows more than with all k hold less than a half.
    """
    at_one = stat.at_one
    masses, below = at_one.mean_mass, at_one.share_below_half
    # all k meet the rule themselves
    return next(
        tokens
        for tokens, mass, share in zip(at_one.tokens, masses, below, strict=True)
        if mass >= ENOUGH_MASS * masses[-1] and share <= below[-1] + ENOUGH_ROWS
    )


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


def _histogram(shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Counts of values from 0 to 1 in equal bins; a bin holds its lower edge, the last one also 1."""
    return np.bincount(np.clip(shares * BINS, 0, BINS - 1).astype(np.int64), minlength=BINS)
