"""The teacher's soft labels of chosen sentences, position by position."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.evaluation.fairseq_output import read_lines
from fairseq_bert_kd.report.experiment import Experiment
from fairseq_bert_kd.report.notes import Notes
from fairseq_bert_kd.report.stores import StoreStat
from fairseq_bert_kd.storage.fairseq_data import (
    IndexedTokens,
    read_dictionary,
    sentence_hash,
    translation_files,
)
from fairseq_bert_kd.storage.probabilities import token_probs

SHOWN = 6  # tokens of a position, at most
LEAST = 0.01  # probability of a token that is shown; the best one and the target's own always are


class TokenBar(NamedTuple):
    """A token that the teacher holds likely.

    Attributes:
        piece: of the dictionary.
        prob: 0 to 1.
        other: of the store that is compared, 0 to 1; None where it is not among its stored tokens.
        is_gold: whether it stands in the target.
    """

    piece: str
    prob: float
    other: float | None
    is_gold: bool


class Position(NamedTuple):
    """A target position.

    Attributes:
        gold: piece of the target; None where the data is not at hand.
        gold_prob: 0 to 1; None where it is not stored.
        gold_other: of the store that is compared.
        tokens: the best ones, descending.
        rest: mass of all others, 0 to 1.
    """

    gold: str | None
    gold_prob: float | None
    gold_other: float | None
    tokens: list[TokenBar]
    rest: float


class SoftLabels(NamedTuple):
    """A sentence of a store.

    Attributes:
        number: in the corpus, from 0.
        source: text; None where it is not at hand.
        target: text; None where it is not at hand.
        missing: the teacher has not scored it.
        positions: one each target token.
    """

    number: int
    source: str | None
    target: str | None
    missing: bool
    positions: list[Position]


def temperature_of(stat: StoreStat) -> float:
    """1, or the lowest stored where 1 is not."""
    stored = stat.reader.info.temperatures
    return 1.0 if not stored or 1.0 in stored else stored[0]


def soft_labels(
    experiment: Experiment, stat: StoreStat, other: StoreStat | None, sentences: Sequence[int], notes: Notes
) -> list[SoftLabels]:
    """The sentences' rows with pieces and texts; what cannot be shown goes to the notes.

    Args:
        experiment: whose texts are shown.
        stat: store that is shown.
        other: store of the same sentences and dictionary that it is compared with, or None.
        sentences: corpus indices; those outside the corpus are left out.
        notes: told of what is missing.
    """
    texts = [
        _raw_lines(experiment, stat, language)
        for language in (experiment.source_lang, experiment.target_lang)
    ]
    symbols = stat.reader.symbols()
    found = []
    for number in sentences:
        if not 0 <= number < len(stat.reader):
            notes.add(
                "--sentences", f"{number} is left out: the store has sentences 0 to {len(stat.reader) - 1}"
            )
            continue
        gold, pieces = _data(stat, number, notes)
        source = texts[0][number] if texts[0] else (" ".join(pieces) if pieces else None)
        target = texts[1][number] if texts[1] else (_joined(symbols, gold) if gold is not None else None)
        missing = stat.reader.is_missing(number)
        positions = [] if missing else _positions(stat, other, number, gold, symbols)
        found.append(SoftLabels(number, source, target, missing, positions))
    return found


def _data(stat: StoreStat, number: int, notes: Notes) -> tuple[NDArray[np.int64] | None, list[str] | None]:
    """Target ids and source pieces."""
    info = stat.reader.info
    try:
        sides = [
            IndexedTokens(prefix)
            for prefix, _ in translation_files(
                stat.data, info.split, info.source_lang, info.target_lang
            ).values()
        ]
        ids = [side[number] for side in sides if number < len(side)]
        if list(map(sentence_hash, ids)) == list(stat.reader.hashes(number).values()):
            dictionary = read_dictionary(stat.data / f"dict.{info.source_lang}.txt")
            return ids[1].astype(np.int64), [_piece(dictionary, token) for token in ids[0].tolist()[:-1]]
        notes.add(
            f"{stat.data.name}",
            f"is not the data of the store `{stat.name}`: their sentences differ (`store verify --data`)",
        )
    except (OSError, ValueError) as error:
        notes.add(f"{stat.data.name}", f"cannot be read beside the store `{stat.name}`: {error}")
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
    records, probs, gold_probs = _rows(stat, number, gold)
    compared = _rows(other, number, gold) if other and not other.reader.is_missing(number) else None
    positions = []
    for t, (ids, row) in enumerate(zip(records["topk_ids"].tolist(), probs.tolist(), strict=True)):
        known = (
            dict(zip(compared[0]["topk_ids"][t].tolist(), compared[1][t].tolist(), strict=True))
            if compared
            else {}
        )
        wanted = None if gold is None else int(gold[t])
        bars = [
            TokenBar(_piece(symbols, token), prob, known.get(token), token == wanted)
            for token, prob in list(zip(ids, row, strict=True))[:SHOWN]
        ]
        bars = [
            bar
            for i, bar in enumerate(bars)
            if i == 0 or bar.is_gold or max(bar.prob, bar.other or 0) >= LEAST
        ]
        positions.append(
            Position(
                None if wanted is None else _piece(symbols, wanted),
                _finite(gold_probs[t]),
                _finite(compared[2][t]) if compared else None,
                bars,
                max(0.0, 1 - sum(bar.prob for bar in bars)),
            )
        )
    return positions


def _rows(stat: StoreStat, number: int, gold: NDArray[np.int64] | None) -> tuple:
    """Records, ``(rows, k)`` probabilities, and ``(rows,)`` those of the gold tokens, NaN where not stored."""
    info, temperature = stat.reader.info, temperature_of(stat)
    records = stat.reader.rows(number)
    probs = token_probs(records, info.temperatures, temperature)
    if info.gold and info.temperatures:
        normalisers = records["log_normalisers"][:, info.temperatures.index(temperature)].astype(np.float64)
        return records, probs, np.exp(records["gold_logit"].astype(np.float64) / temperature - normalisers)
    if gold is None:
        return records, probs, np.full(len(records), np.nan)
    hits = records["topk_ids"] == gold[:, None]
    return records, probs, np.where(hits.any(axis=1), (probs * hits).sum(axis=1), np.nan)


def _raw_lines(experiment: Experiment, stat: StoreStat, language: str) -> list[str] | None:
    """Raw training text, where it has the store's number of sentences."""
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
