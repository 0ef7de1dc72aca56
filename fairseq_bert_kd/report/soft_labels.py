"""The teacher's soft labels of some training sentences, position by position, and which sentences are shown."""

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.evaluation.fairseq_output import read_lines
from fairseq_bert_kd.report.read_experiment import Experiment, Notes
from fairseq_bert_kd.report.read_stores import StoreStat
from fairseq_bert_kd.storage.fairseq_data import open_pairs, symbol_name
from fairseq_bert_kd.storage.probabilities import gold_probs, token_probs

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
        source: raw source text; None if its lines are not the sentences of the store.
        target: raw target text; None if its lines are not the sentences of the store.
        positions: one per target token; empty for a sentence that the teacher has not scored.
    """

    number: int
    source: str | None
    target: str | None
    positions: list[Position]


def choose_sentences(stat: StoreStat, count: int) -> list[int]:
    """The first ``count`` sentences of `SHORTEST` to `LONGEST` pieces that the teacher has scored."""
    lengths = stat.reader.lengths
    numbers = np.flatnonzero((lengths >= SHORTEST) & (lengths <= LONGEST)).tolist()
    return list(islice((number for number in numbers if not stat.reader.is_missing(number)), count))


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
        positions = [] if stat.reader.is_missing(number) else _positions(stat, other, number, symbols, notes)
        source, target = (lines[number] if lines else None for lines in (sources, targets))
        shown.append(SoftLabels(number, source, target, positions))
    return shown


def _positions(
    stat: StoreStat, other: StoreStat | None, number: int, symbols: Sequence[str], notes: Notes
) -> list[Position]:
    gold = _gold_ids(stat, number, notes)
    ids, probs, golds = _rows(stat, number, gold)
    compared = _rows(other, number, gold) if other and not other.reader.is_missing(number) else None
    positions = []
    for t in range(len(ids)):
        gold_id = None if gold is None else int(gold[t])
        others = dict(zip(compared[0][t].tolist(), compared[1][t].tolist(), strict=True)) if compared else {}
        bars = [
            TokenBar(symbol_name(symbols, token), prob, others.get(token), token == gold_id)
            for token, prob in zip(ids[t, :SHOWN].tolist(), probs[t, :SHOWN].tolist(), strict=True)
        ]
        bars = bars[:1] + [bar for bar in bars[1:] if bar.is_gold or max(bar.prob, bar.other or 0) >= LEAST]
        positions.append(
            Position(
                gold=None if gold_id is None else symbol_name(symbols, gold_id),
                gold_prob=_finite(golds[t]),
                gold_other=_finite(compared[2][t]) if compared else None,
                tokens=bars,
                rest=max(0.0, 1 - sum(bar.prob for bar in bars)),
            )
        )
    return positions


def _gold_ids(stat: StoreStat, number: int, notes: Notes) -> NDArray[np.int64] | None:
    """``(rows,)`` target ids of a scored sentence: those of the store, else those of its data; notes data of another text."""
    info = stat.reader.info
    own = stat.reader.rows(number)["gold_id"].astype(np.int64) if info.gold else None
    try:
        data = open_pairs(stat.data, info.split, info.source_lang, info.target_lang)
        if data.hashes(number) == stat.reader.hashes(number):
            return np.asarray(data["target"][number], dtype=np.int64)
        reason = "their sentences differ (`store verify --data`)"
    except IndexError:
        reason = "it has fewer sentences"
    except (OSError, ValueError) as error:
        if own is not None:
            return own  # nothing is missing
        reason = str(error)
    notes.add(stat.data.name, f"does not hold the data of the store `{stat.name}`: {reason}")
    return own


def _rows(
    stat: StoreStat, number: int, gold: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Stored ids and probabilities of a sentence, ``(rows, k)``, and those of its gold tokens, ``(rows,)``."""
    records, at = stat.reader.rows(number), (stat.reader.info.temperatures, stat.temperature)
    return records["topk_ids"].astype(np.int64), token_probs(records, *at), gold_probs(records, *at, gold)


def _raw_lines(experiment: Experiment, stat: StoreStat, language: str) -> list[str] | None:
    """Raw training text, if it has the store's number of sentences."""
    try:
        lines = read_lines(experiment.text(stat.reader.info.split, language))
    except (OSError, ValueError):
        return None
    return lines if len(lines) == len(stat.reader) else None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
