"""Reads scores that an experiment's own scripts wrote (``scores-NAME.json``)."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairseq_bert_kd.evaluation.significance import Spread, spread
from fairseq_bert_kd.report.read_experiment import Experiment, Notes, Run

FORMAT = 1
PREFIX = "scores-"
_KEYS = ("system", "seed", "subset")


@dataclass
class FurtherRow:
    """A system on a set.

    Attributes:
        label: name of the system in tables.
        subset: "test" and so on.
        seeds: seeds with scores, ascending.
        values: values by score, then by seed.
        gains: gains over the baseline's run of the same seed, by score, then by seed; empty for a baseline.
    """

    label: str
    subset: str
    seeds: list[int] = field(default_factory=list)
    values: dict[str, dict[int, float]] = field(default_factory=dict)
    gains: dict[str, dict[int, float]] = field(default_factory=dict)

    def score(self, key: str) -> Spread | None:
        return spread(list(self.values[key].values())) if key in self.values else None

    def gain(self, key: str) -> Spread | None:
        return spread(list(self.gains[key].values())) if key in self.gains else None


@dataclass(frozen=True)
class FurtherScores:
    """A file of scores that a script of the experiment wrote.

    Attributes:
        name: name of the file, without ``scores-`` and ``.json``.
        keys: names of the scores, in the order of columns; gains are of the first.
        signatures: signatures by set, then by score or metric.
        record: content of the file.
        rows: sets in the order of the file; in each the baseline, the main system and the others by name.
    """

    name: str
    keys: list[str]
    signatures: dict[str, dict[str, str]]
    record: Mapping[str, Any]
    rows: list[FurtherRow]


def read_further_scores(experiment: Experiment, notes: Notes) -> list[FurtherScores]:
    """Every ``scores-*.json`` in the experiment's folder; the notes name those that are not valid."""
    files = []
    leaders = (experiment.baseline, experiment.main)
    for path in sorted(experiment.folder.glob(f"{PREFIX}*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            files.append(further_scores(path.stem.removeprefix(PREFIX), record, experiment.runs, leaders))
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            notes.add(path.name, f"left out, not a file of scores: {type(error).__name__}: {error}")
    return files


def further_scores(
    name: str, record: Mapping[str, Any], runs: Sequence[Run], leaders: tuple[str, str]
) -> FurtherScores:
    """Scores of runs in the content of a file.

    Args:
        name: name of the scores.
        record: content of the file.
        runs: runs of the experiment; scores of others are left out.
        leaders: baseline and main system, which come first.

    Raises:
        ValueError: another format, no score, a score that is not a number, or signatures that are not by set and score; also
            TypeError, KeyError and AttributeError if the record has another structure.
    """
    scores, signatures = _checked(record)

    def order(run: Run) -> tuple[int, str, int]:
        return (leaders.index(run.system) if run.system in leaders else 2, run.system, run.seed)

    rows: dict[tuple[str, str], FurtherRow] = {}
    for subset in dict.fromkeys(subset for subset, _, _ in scores):
        for run in sorted(runs, key=order):
            if (subset, run.system, run.seed) not in scores:
                continue
            row = rows.setdefault((subset, run.system), FurtherRow(run.label, subset))
            row.seeds.append(run.seed)
            base = scores.get((subset, run.baseline, run.seed), {}) if run.baseline != run.system else {}
            for key, value in scores[subset, run.system, run.seed].items():
                row.values.setdefault(key, {})[run.seed] = value
                if key in base:
                    row.gains.setdefault(key, {})[run.seed] = value - base[key]
    keys = list(dict.fromkeys(key for values in scores.values() for key in values))
    return FurtherScores(name, keys, signatures, record, list(rows.values()))


def _checked(
    record: Mapping[str, Any],
) -> tuple[dict[tuple[Any, ...], dict[str, float]], dict[str, dict[str, str]]]:
    """Scores by set, system and seed, and signatures, of the content of a file; raises as `further_scores`."""
    if record["format"] != FORMAT:
        raise ValueError(f"format {record['format']!r}, this code reads format {FORMAT}")
    scores = {
        (row["subset"], row["system"], row["seed"]): {
            key: float(value) for key, value in row.items() if key not in _KEYS
        }
        for row in record["scores"]
    }
    if not any(scores.values()):
        raise ValueError("it holds no score")
    if not all(math.isfinite(value) for values in scores.values() for value in values.values()):
        raise ValueError("a score is not finite")
    signatures = record["signatures"]
    if not all(isinstance(named, Mapping) for named in signatures.values()):
        raise ValueError("its signatures must be by set, then by score")
    return scores, signatures
