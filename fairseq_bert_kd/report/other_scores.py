"""Scores that an experiment's own script computed: ``scores-NAME.json``, such as the recipes' tokenised BLEU."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq_bert_kd.report.experiment import Experiment
from fairseq_bert_kd.report.notes import Notes
from fairseq_bert_kd.report.results import Spread, spread

FORMAT = 1
_KEYS = ("system", "seed", "subset")
_Scores = dict[tuple[str | None, int], dict[str, float]]  # by system and seed, then by name


@dataclass(frozen=True)
class OtherRow:
    """A system on a set.

    Attributes:
        label: of the system.
        subset: "test" and so on.
        seeds: that are scored.
        spreads: by score.
        gains: by score, over the baseline's runs of the same seeds; empty for a baseline.
    """

    label: str
    subset: str
    seeds: list[int]
    spreads: dict[str, Spread]
    gains: dict[str, Spread]


@dataclass(frozen=True)
class OtherScores:
    """A file of scores.

    Attributes:
        name: of the file, without ``scores-`` and ``.json``.
        keys: of the scores, in the order of columns.
        signatures: by set, then by score or metric.
        record: as it stands in the file.
        rows: sets in the order of the file, systems in that of the experiment.
    """

    name: str
    keys: list[str]
    signatures: dict[str, dict[str, str]]
    record: dict[str, Any]
    rows: list[OtherRow]


def read_other_scores(experiment: Experiment, notes: Notes) -> list[OtherScores]:
    """Every ``scores-*.json`` in the experiment's folder; the notes name those that cannot be read."""
    found = []
    for path in sorted(experiment.folder.glob("scores-*.json")):
        try:
            found.append(_read(path, experiment, notes))
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            notes.add(path.name, f"left out, it is no file of scores: {type(error).__name__}: {error}")
    return found


def _read(path: Path, experiment: Experiment, notes: Notes) -> OtherScores:
    record = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    if record["format"] != FORMAT:
        raise ValueError(f"format {record['format']!r}, this code reads format {FORMAT}")
    sets: dict[str, _Scores] = {}
    for row in record["scores"]:
        values = {str(key): float(value) for key, value in row.items() if key not in _KEYS}
        sets.setdefault(str(row["subset"]), {})[str(row["system"]), int(row["seed"])] = values
    signatures = {
        str(subset): {str(name): str(text) for name, text in named.items()}
        for subset, named in record["signatures"].items()
    }
    runs = {(run.system, run.seed) for run in experiment.runs}
    for subset, scores in sets.items():
        for system, seed in sorted(scores.keys() - runs):
            notes.add(path.name, f"{system}.{seed} on {subset} is left out: no such run is here")
        for system, seed in sorted(runs - scores.keys()):
            notes.add(path.name, f"has no score of {system}.{seed} on {subset}")
    keys = dict.fromkeys(key for scores in sets.values() for values in scores.values() for key in values)
    rows = [row for subset, scores in sets.items() for row in _rows(experiment, subset, scores)]
    return OtherScores(path.stem.removeprefix("scores-"), list(keys), signatures, record, rows)


def _rows(experiment: Experiment, subset: str, scores: _Scores) -> Iterator[OtherRow]:
    leaders = (experiment.baseline, experiment.main)
    names = {run.system: run for run in reversed(experiment.runs)}
    for system in sorted(names, key=lambda name: (leaders.index(name) if name in leaders else 2, name)):
        run = names[system]
        seeds = [
            other.seed
            for other in experiment.runs
            if other.system == system and (system, other.seed) in scores
        ]
        values: dict[str, list[float]] = {}
        gains: dict[str, list[float]] = {}
        for seed in seeds:
            base = scores.get((run.baseline, seed), {}) if run.baseline not in (None, system) else {}
            for key, value in scores[system, seed].items():
                values.setdefault(key, []).append(value)
                if key in base:
                    gains.setdefault(key, []).append(value - base[key])
        if seeds:
            yield OtherRow(run.label, subset, seeds, _spreads(values), _spreads(gains))


def _spreads(values: Mapping[str, Sequence[float]]) -> dict[str, Spread]:
    return {key: spread(found) for key, found in values.items()}


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no score")
