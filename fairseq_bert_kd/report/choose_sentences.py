"""Which training sentences' soft labels are worth showing; our own rules."""

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.report.soft_labels import temperature_of
from fairseq_bert_kd.report.stores import ROWS, StoreStat
from fairseq_bert_kd.storage.probabilities import token_probs
from fairseq_bert_kd.storage.schema import SCORED, ChunkData
from fairseq_bert_kd.storage.topk import PREFIX_PLAN, STRIDED_PLAN
from fairseq_bert_kd.storage.topk_stat import sampled_chunks

SHORTEST = 6  # target pieces, end of sentence included
LONGEST = 16


def comparable(stat: StoreStat, stores: dict[str, StoreStat]) -> StoreStat | None:
    """A left-to-right teacher's store of the same sentences and dictionary, the first by name; None without one."""
    mine = stat.reader.info
    for other in stores.values():
        info = other.reader.info
        same = other.data == stat.data and len(other.reader) == len(stat.reader)
        same = same and info.dictionary_digest == mine.dictionary_digest
        if same and (mine.mask_plan, info.mask_plan) == (STRIDED_PLAN, PREFIX_PLAN):
            return other
    return None


def choose_sentences(stat: StoreStat, other: StoreStat | None, count: int) -> list[int]:
    """Sentences of `SHORTEST` to `LONGEST` pieces among a sample of whole chunks, by corpus index.

    With another store whose rows hold gold tokens: those whose targets this teacher finds more likely by the most
    nats a token, on average. Else those whose entropy differs most between positions (largest standard deviation).

    Args:
        stat: store that is shown.
        other: store that it is compared with, or None.
        count: at most.
    """
    readers = [store.reader for store in (stat, other) if store is not None]
    compare = len(readers) == 2 and all(reader.info.gold and reader.info.temperatures for reader in readers)
    compare = compare and readers[0].info.chunk_sentences == readers[1].info.chunk_sentences
    layout, size = stat.reader.header.layout, stat.reader.info.chunk_sentences
    scored: list[tuple[float, int]] = []
    for local in sampled_chunks(layout.chunks, layout.rows, ROWS):
        data = stat.reader.checked_chunk(local)
        fit = (data.status == SCORED) & (data.lengths >= SHORTEST) & (data.lengths <= LONGEST)
        if compare and other is not None:
            theirs = other.reader.checked_chunk(local)
            fit &= theirs.status == SCORED
            values = _mean(_gold_nats(stat, data) - _gold_nats(other, theirs), data.lengths)
        else:
            values = _deviation(_entropy(stat, data), data.lengths)
        scored += [(float(values[i]), local * size + int(i)) for i in np.flatnonzero(fit)]
    scored.sort(key=lambda item: (-item[0], item[1]))
    return [number for _, number in scored[:count]]


def _entropy(stat: StoreStat, data: ChunkData) -> NDArray[np.float64]:
    """``(rows,)`` bits of the stored tokens and the rest as one; 0 where not scored."""
    probs = token_probs(data.records, stat.reader.info.temperatures, temperature_of(stat))
    rest = np.maximum(1 - probs.sum(axis=1, keepdims=True), 0)
    shares = np.concatenate([probs, rest], axis=1)
    bits = -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=1)
    return np.where(data.scored, bits, 0)


def _gold_nats(stat: StoreStat, data: ChunkData) -> NDArray[np.float64]:
    """``(rows,)`` log-probability of the gold token; 0 where not scored."""
    temperature = temperature_of(stat)
    column = stat.reader.info.temperatures.index(temperature)
    logprob = data.records["gold_logit"].astype(np.float64) / temperature
    return np.where(data.scored, logprob - data.records["log_normalisers"][:, column], 0)


def _mean(values: NDArray[np.float64], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """``(sentences,)`` means of ``(rows,)`` values; 0 for a sentence without rows."""
    ends = np.cumsum(lengths)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return (sums[ends] - sums[ends - lengths]) / np.maximum(lengths, 1)


def _deviation(values: NDArray[np.float64], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """``(sentences,)`` standard deviations of ``(rows,)`` values."""
    mean = _mean(values, lengths)
    return np.sqrt(np.maximum(_mean((values - np.repeat(mean, lengths)) ** 2, lengths), 0))
