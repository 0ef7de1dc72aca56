"""Scores that an experiment's own scripts computed: ``scores-NAME.json``, such as the recipes' tokenised BLEU."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairseq_bert_kd.report.experiment import Experiment, Run
from fairseq_bert_kd.report.notes import Notes
from fairseq_bert_kd.report.results import Spread, spread

FORMAT = 1
PREFIX = "scores-"
_KEYS = ("system", "seed", "subset")


@dataclass(frozen=True)
class OtherRow:
    """A system on a set.

    Attributes:
        label: of the system.
        subset: "test" and so on.
        seeds: that are scored.
        values: by score, then by seed.
        gains: over the baseline's run of the same seed, by score, then by seed; empty for a baseline.
    """

    label: str
    subset: str
    seeds: list[int]
    values: dict[str, dict[int, float]]
    gains: dict[str, dict[int, float]]

    def score(self, key: str) -> Spread | None:
        return spread(list(self.values[key].values())) if key in self.values else None

    def gain(self, key: str) -> Spread | None:
        return spread(list(self.gains[key].values())) if key in self.gains else None


@dataclass(frozen=True)
class OtherScores:
    """A file of scores.

    Attributes:
        name: of the file, without ``scores-`` and ``.json``.
        keys: of the scores, in the order of columns; the first is the one that is compared first.
        signatures: by set, then by score or metric.
        record: as it stands in the file.
        rows: sets in the order of the file; in each the baseline, the main system and the others by name.
    """

    name: str
    keys: list[str]
    signatures: dict[str, dict[str, str]]
    record: Mapping[str, Any]
    rows: list[OtherRow]


_Scores = dict[tuple[str | None, int], dict[str, float]]  # by system and seed, then by name


def read_other_scores(experiment: Experiment, notes: Notes) -> list[OtherScores]:
    """Every ``scores-*.json`` in the experiment's folder; the notes name those that cannot be read."""
    found = []
    for path in sorted(experiment.folder.glob(f"{PREFIX}*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
            other = other_scores(
                path.stem.removeprefix(PREFIX),
                record,
                experiment.runs,
                (experiment.baseline, experiment.main),
            )
            sets = _by_set(record)
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            notes.add(path.name, f"left out, it is no file of scores: {type(error).__name__}: {error}")
            continue
        found.append(other)
        runs = {(run.system, run.seed) for run in experiment.runs}
        for subset, scores in sets.items():
            for system, seed in sorted(scores.keys() - runs):
                notes.add(path.name, f"{system}.{seed} on {subset} is left out: no such run is here")
    return found


def other_scores(
    name: str, record: Mapping[str, Any], runs: Sequence[Run], leaders: tuple[str, str]
) -> OtherScores:
    """What a file says about runs.

    Args:
        name: of the scores.
        record: the file's.
        runs: of the experiment; scores of others are left out.
        leaders: baseline and main system, which come first.

    Raises:
        ValueError: another format, no score, or one that is no number; also TypeError, KeyError and AttributeError
            where the record is no such file at all.
    """
    if record["format"] != FORMAT:
        raise ValueError(f"format {record['format']!r}, this code reads format {FORMAT}")
    sets = _by_set(record)
    keys = dict.fromkeys(key for scores in sets.values() for values in scores.values() for key in values)
    if not keys:
        raise ValueError("it holds no score")
    signatures = {
        str(subset): {str(key): str(text) for key, text in named.items()}
        for subset, named in record["signatures"].items()
    }
    rows = [row for subset, scores in sets.items() for row in _rows(subset, scores, runs, leaders)]
    return OtherScores(name, list(keys), signatures, record, rows)


def _by_set(record: Mapping[str, Any]) -> dict[str, _Scores]:
    sets: dict[str, _Scores] = {}
    for row in record["scores"]:
        values = {str(key): float(value) for key, value in row.items() if key not in _KEYS}
        sets.setdefault(str(row["subset"]), {})[str(row["system"]), int(row["seed"])] = values
    return sets


def _rows(subset: str, scores: _Scores, runs: Sequence[Run], leaders: tuple[str, str]) -> Iterator[OtherRow]:
    systems: dict[str, list[Run]] = {}
    for run in runs:
        if (run.system, run.seed) in scores:
            systems.setdefault(run.system, []).append(run)
    for system in sorted(systems, key=lambda name: (leaders.index(name) if name in leaders else 2, name)):
        values: dict[str, dict[int, float]] = {}
        gains: dict[str, dict[int, float]] = {}
        for run in sorted(systems[system], key=lambda run: run.seed):
            base = scores.get((run.baseline, run.seed), {}) if run.baseline != system else {}
            for key, value in scores[system, run.seed].items():
                values.setdefault(key, {})[run.seed] = value
                if key in base:
                    gains.setdefault(key, {})[run.seed] = value - base[key]
        yield OtherRow(
            systems[system][0].label, subset, sorted(run.seed for run in systems[system]), values, gains
        )


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no score")
