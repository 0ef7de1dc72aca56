"""The teacher's soft labels of some training sentences, position by position, and which sentences are shown."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.evaluation.fairseq_output import read_lines
from fairseq_bert_kd.report.read_experiment import Experiment, Notes
from fairseq_bert_kd.report.read_stores import ROWS, StoreStat
from fairseq_bert_kd.storage.fairseq_data import (
    IndexedTokens,
    read_dictionary,
    sentence_hash,
    translation_files,
)
from fairseq_bert_kd.storage.probabilities import bucket_entropy, gold_log_probs, gold_probs, token_probs
from fairseq_bert_kd.storage.schema import SCORED, ChunkData
from fairseq_bert_kd.storage.topk_stat import sampled_chunks

SHORTEST = 6  # target pieces of a shown sentence, end of sentence included
LONGEST = 16
SHOWN = 6  # largest number of tokens of a position
LEAST = 0.01  # least probability of a shown token, except the best one and the target's own


class TokenBar(NamedTuple):
    """A likely token by the teacher.

    Attributes:
        piece: piece of the dictionary.
        prob: probability, 0 to 1.
        other: probability in the compared store, 0 to 1; None if the token is not stored there.
        is_gold: whether it is the target's own token.
    """

    piece: str
    prob: float
    other: float | None
    is_gold: bool


class Position(NamedTuple):
    """A target position.

    Attributes:
        gold: piece of the target; None without the data.
        gold_prob: its probability, 0 to 1; None if not stored.
        gold_other: its probability in the compared store; None if not stored.
        tokens: the best tokens, descending.
        rest: probability of all other tokens together, 0 to 1.
    """

    gold: str | None
    gold_prob: float | None
    gold_other: float | None
    tokens: list[TokenBar]
    rest: float


class SoftLabels(NamedTuple):
    """A sentence of a store.

    Attributes:
        number: number in the corpus, from 0.
        source: source text; None without the data.
        target: target text; None without the data.
        missing: whether the teacher has not scored it.
        positions: one per target token.
    """

    number: int
    source: str | None
    target: str | None
    missing: bool
    positions: list[Position]


class _Rows(NamedTuple):
    """Stored rows of a sentence.

    Attributes:
        ids: ``(rows, k)``.
        probs: ``(rows, k)``.
        gold_probs: ``(rows,)``, NaN if not stored.
    """

    ids: NDArray[np.int64]
    probs: NDArray[np.float64]
    gold_probs: NDArray[np.float64]


def choose_sentences(stat: StoreStat, other: StoreStat | None, count: int) -> list[int]:
    """Corpus indices of sentences of `SHORTEST` to `LONGEST` pieces among a sample of whole chunks; our own rule.

    With another store whose rows hold gold tokens: sentences whose targets this teacher finds more likely by the most
    nats per token, on average. Else: sentences whose entropy differs most between positions (standard deviation).

    Args:
        stat: store that is shown.
        other: store with which it is compared, or None.
        count: largest number.
    """
    readers = [store.reader for store in (stat, other) if store is not None]
    compare = len(readers) == 2 and all(reader.info.gold and reader.info.temperatures for reader in readers)
    compare = compare and readers[0].info.chunk_sentences == readers[1].info.chunk_sentences
    layout, size = stat.reader.header.layout, stat.reader.info.chunk_sentences
    scored: list[tuple[float, int]] = []
    for local in sampled_chunks(layout.chunks, layout.rows, ROWS):
        data = stat.reader.checked_chunk(local)
        fit = (data.status == SCORED) & (data.lengths >= SHORTEST) & (data.lengths <= LONGEST)  # (sentences,)
        if compare and other is not None:
            theirs = other.reader.checked_chunk(local)
            fit &= theirs.status == SCORED
            values = _mean(_gold_log_probs(stat, data) - _gold_log_probs(other, theirs), data.lengths)
        else:
            values = _deviation(_entropy(stat, data), data.lengths)
        scored += [(float(values[i]), local * size + int(i)) for i in np.flatnonzero(fit)]
    scored.sort(key=lambda item: (-item[0], item[1]))
    return [number for _, number in scored[:count]]


def soft_labels(
    experiment: Experiment, stat: StoreStat, other: StoreStat | None, sentences: Sequence[int], notes: Notes
) -> list[SoftLabels]:
    """The sentences' rows with pieces and texts; what cannot be shown goes to the notes.

    Args:
        experiment: experiment whose texts are shown.
        stat: store that is shown.
        other: store of the same sentences and dictionary with which it is compared, or None.
        sentences: corpus indices; those outside the corpus are left out.
        notes: get what is missing.
    """
    languages = (experiment.source_lang, experiment.target_lang)
    sources, targets = (_raw_lines(experiment, stat, language) for language in languages)
    symbols = stat.reader.symbols()
    shown = []
    for number in sentences:
        if not 0 <= number < len(stat.reader):
            notes.add(
                "--sentences", f"{number} is left out: the store has sentences 0 to {len(stat.reader) - 1}"
            )
            continue
        gold, pieces = _data(stat, number, notes)
        source = sources[number] if sources else (" ".join(pieces) if pieces else None)
        target = targets[number] if targets else (_joined(symbols, gold) if gold is not None else None)
        missing = stat.reader.is_missing(number)
        positions = [] if missing else _positions(stat, other, number, gold, symbols)
        shown.append(
            SoftLabels(number=number, source=source, target=target, missing=missing, positions=positions)
        )
    return shown


def _data(stat: StoreStat, number: int, notes: Notes) -> tuple[NDArray[np.int64] | None, list[str] | None]:
    """Target ids ``(rows,)`` and source pieces of a sentence."""
    info = stat.reader.info
    try:
        files = translation_files(stat.data, info.split, info.source_lang, info.target_lang)
        sides = [IndexedTokens(prefix) for prefix, _ in files.values()]
        ids = [side[number] for side in sides if number < len(side)]
        if list(map(sentence_hash, ids)) == list(stat.reader.hashes(number).values()):
            dictionary = read_dictionary(stat.data / f"dict.{info.source_lang}.txt")
            return ids[1].astype(np.int64), [_piece(dictionary, token) for token in ids[0].tolist()[:-1]]
        notes.add(
            stat.data.name,
            f"does not hold the data of the store `{stat.name}`: their sentences differ (`store verify --data`)",
        )
    except (OSError, ValueError) as error:
        notes.add(stat.data.name, f"not readable beside the store `{stat.name}`: {error}")
    if info.gold and not stat.reader.is_missing(number):
        return stat.reader.rows(number)["gold_id"].astype(np.int64), None
    return None, None


def _positions(
    stat: StoreStat,
    other: StoreStat | None,
    number: int,
    gold: NDArray[np.int64] | None,
    symbols: Sequence[str],
) -> list[Position]:
    rows = _rows(stat, number, gold)
    compared = _rows(other, number, gold) if other and not other.reader.is_missing(number) else None
    positions = []
    for t in range(len(rows.ids)):
        other_probs = (
            dict(zip(compared.ids[t].tolist(), compared.probs[t].tolist(), strict=True)) if compared else {}
        )
        gold_id = None if gold is None else int(gold[t])
        bars = [
            TokenBar(
                piece=_piece(symbols, token), prob=prob, other=other_probs.get(token), is_gold=token == gold_id
            )
            for token, prob in zip(rows.ids[t, :SHOWN].tolist(), rows.probs[t, :SHOWN].tolist(), strict=True)
        ]  # fmt: skip
        bars = [
            bar
            for i, bar in enumerate(bars)
            if i == 0 or bar.is_gold or max(bar.prob, bar.other or 0) >= LEAST
        ]
        positions.append(
            Position(
                gold=None if gold_id is None else _piece(symbols, gold_id),
                gold_prob=_finite(rows.gold_probs[t]),
                gold_other=_finite(compared.gold_probs[t]) if compared else None,
                tokens=bars,
                rest=max(0.0, 1 - sum(bar.prob for bar in bars)),
            )
        )
    return positions


def _rows(stat: StoreStat, number: int, gold: NDArray[np.int64] | None) -> _Rows:
    """Rows of a sentence, with the probabilities of its gold tokens ``(rows,)``."""
    records, at = stat.reader.rows(number), (stat.reader.info.temperatures, stat.temperature)
    ids = records["topk_ids"].astype(np.int64)
    return _Rows(ids=ids, probs=token_probs(records, *at), gold_probs=gold_probs(records, *at, gold))


def _gold_log_probs(stat: StoreStat, data: ChunkData) -> NDArray[np.float64]:
    """``(rows,)`` log-probability of the gold token; 0 for rows that are not scored."""
    log_probs = gold_log_probs(data.records, stat.reader.info.temperatures, stat.temperature)
    return np.where(data.scored, log_probs, 0)


def _entropy(stat: StoreStat, data: ChunkData) -> NDArray[np.float64]:
    """``(rows,)`` bits of the stored tokens and the rest as one; 0 for rows that are not scored."""
    probs = token_probs(data.records, stat.reader.info.temperatures, stat.temperature)
    return np.where(data.scored, bucket_entropy(probs), 0)


def _mean(values: NDArray[np.float64], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """``(sentences,)`` means of ``(rows,)`` values; 0 for a sentence without rows."""
    ends = np.cumsum(lengths)
    sums = np.concatenate([[0.0], np.cumsum(values)])  # (rows + 1,)
    return (sums[ends] - sums[ends - lengths]) / np.maximum(lengths, 1)


def _deviation(values: NDArray[np.float64], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """``(sentences,)`` standard deviations of ``(rows,)`` values."""
    mean = _mean(values, lengths)
    return np.sqrt(np.maximum(_mean((values - np.repeat(mean, lengths)) ** 2, lengths), 0))


def _raw_lines(experiment: Experiment, stat: StoreStat, language: str) -> list[str] | None:
    """Raw training text, if it has the store's number of sentences."""
    try:
        lines = read_lines(experiment.text(stat.reader.info.split, language))
    except (OSError, ValueError):
        return None
    return lines if len(lines) == len(stat.reader) else None


def _piece(symbols: Sequence[str], token: int) -> str:
    return symbols[token] if 0 <= token < len(symbols) else f"[id {token}]"


def _joined(symbols: Sequence[str], ids: NDArray[np.int64]) -> str:
    return " ".join(_piece(symbols, token) for token in ids.tolist()[:-1])


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
