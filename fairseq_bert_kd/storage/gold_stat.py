"""How well teachers know the gold tokens of a store, over all rows and fold by fold."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.folds import fold_numbers
from fairseq_bert_kd.storage.schema import ChunkData
from fairseq_bert_kd.storage.topk import TopKInfo


class GoldStat:
    """Rank and probability of the gold token, over rows.

    Args:
        k: stored tokens.

    Attributes:
        rows: rows that were counted.
        ranks: ``(k + 1,)`` rows by the gold token's rank among the stored ones, from 1; last those where it is not among
            them.
        nll: negative log-likelihood at temperature 1, summed, in nats; NaN where it is not known.
    """

    def __init__(self, k: int):
        self.rows = 0
        self.ranks = np.zeros(k + 1, dtype=np.int64)
        self.nll = 0.0

    def add(self, ranks: NDArray[np.int64], nll: NDArray[np.float64]) -> None:
        """Count further rows, by the ``(rows,)`` ranks from 0 and nats."""
        self.rows += len(ranks)
        self.ranks += np.bincount(ranks, minlength=len(self.ranks))
        self.nll += float(nll.sum())

    @property
    def accuracy(self) -> float:
        """Share of the rows whose best token is the gold token, 0 to 1."""
        return int(self.ranks[0]) / self.rows

    @property
    def perplexity(self) -> float | None:
        """Perplexity at temperature 1; None where it is not known or too large for a float."""
        mean = self.nll / self.rows
        return math.exp(mean) if mean < 700 else None

    def within(self, tokens: int) -> float:
        """Share of the rows whose gold token is among the best ``tokens``, 0 to 1."""
        return int(self.ranks[:tokens].sum()) / self.rows


class GoldStats:
    """`GoldStat` of all rows, and of each fold of an out-of-fold store.

    Args:
        info: info of the store, whose rows hold the gold token.

    Attributes:
        all: over all rows.
        by_fold: statistics of each fold, in order; empty for a store without folds.
    """

    def __init__(self, info: TopKInfo):
        self._info = info
        self.all = GoldStat(info.k)
        self.by_fold: Mapping[str, GoldStat] = {teacher.fold: GoldStat(info.k) for teacher in info.folds}

    def add(self, data: ChunkData) -> None:
        """Count the scored rows of a chunk."""
        ranks, nll = gold_ranks(data.records, self._info), _gold_nll(data.records, self._info)
        self.all.add(ranks[data.scored], nll[data.scored])
        if not self.by_fold:
            return
        count = int(next(iter(self.by_fold)).split("/")[1])
        folds = np.repeat(fold_numbers(data.hashes, count), data.lengths)
        for fold, stat in self.by_fold.items():
            mine = data.scored & (folds == int(fold.split("/")[0]))
            stat.add(ranks[mine], nll[mine])


def gold_ranks(records: NDArray[Any], info: TopKInfo) -> NDArray[np.int64]:
    """``(rows,)`` rank of the gold token among the stored ones, from 0; k where it is not among them."""
    hits = records["topk_ids"] == records["gold_id"][:, None]  # (rows, k)
    return np.where(hits.any(axis=1), hits.argmax(axis=1), info.k)


def _gold_nll(records: NDArray[Any], info: TopKInfo) -> NDArray[np.float64]:
    """``(rows,)`` nats at temperature 1; NaN where the log-normaliser is not stored."""
    if 1.0 not in info.temperatures:
        return np.full(len(records), np.nan)
    column = info.temperatures.index(1.0)
    return records["log_normalisers"][:, column].astype(np.float64) - records["gold_logit"]
