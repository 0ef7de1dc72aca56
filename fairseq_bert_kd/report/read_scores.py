"""Reads and scores what the runs put out, and scores that an experiment's own scripts wrote (``scores-NAME.json``)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairseq_bert_kd.evaluation.fairseq_output import read_lines
from fairseq_bert_kd.evaluation.metric import Metric, MetricSettings
from fairseq_bert_kd.evaluation.registry import find_metric, table_metrics
from fairseq_bert_kd.evaluation.significance import Spread, spread
from fairseq_bert_kd.evaluation.system_output import SystemOutput
from fairseq_bert_kd.report.read_experiment import Experiment, Notes, Run

SCORES_FORMAT = 1
PREFIX = "scores-"
FALLBACK = "chrf2"  # needs no tokenizer and no further package
_KEYS = ("system", "seed", "subset")


@dataclass(frozen=True)
class ScoredOutputs:
    """Outputs of an experiment's runs for a subset.

    Attributes:
        experiment: experiment of the runs.
        subset: "test" or "valid".
        metrics: metrics of the tables, by name.
        main_metric: name of the metric by which systems are compared.
        outputs: outputs by name of the run; runs without a valid output are absent.
        sources: ``(sentences,)`` source text; None if it is missing or of another length.
        references: ``(sentences,)``.
    """

    experiment: Experiment
    subset: str
    metrics: dict[str, Metric]
    main_metric: str
    outputs: dict[str, SystemOutput]
    sources: list[str] | None
    references: list[Any]

    @property
    def unit(self) -> str:
        """Title of the main metric."""
        return self.metrics[self.main_metric].title

    def runs_of(self, system: str) -> dict[int, Run]:
        """Runs of a system that have scores, by seed, ascending."""
        runs = {run.seed: run for run in self.experiment.runs if run.system == system}
        return {seed: runs[seed] for seed in sorted(runs) if runs[seed].name in self.outputs}

    def scores_of(self, system: str, name: str | None = None) -> dict[int, float]:
        """A system's scores by seed, by a metric or else the main metric."""
        name = name or self.main_metric
        return {seed: self.outputs[run.name].scores[name] for seed, run in self.runs_of(system).items()}

    def gains_of(self, system: str, baseline: str) -> dict[int, float]:
        """Score minus the baseline's score with the same seed, for the seeds that both have."""
        scores, base = self.scores_of(system), self.scores_of(baseline)
        return {seed: scores[seed] - base[seed] for seed in scores if seed in base}


def choose_metrics(experiment: Experiment, notes: Notes) -> tuple[dict[str, Metric], str]:
    """Metrics of the tables that can be computed, by name, and the name of the main one."""
    settings = MetricSettings(experiment.lowercase, experiment.bleu_tokenize)
    plain = settings._replace(tokenize=MetricSettings().tokenize)
    try:
        main = find_metric(experiment.metric).name
    except ValueError as error:
        notes.add("metric", f"{error}; chrF2 is compared")
        main = FALLBACK
    try:
        return table_metrics(main, settings), main
    except ImportError as error:
        notes.add("metric", f"{experiment.metric} cannot be computed, chrF2 is compared instead: {error}")
        return table_metrics(FALLBACK, plain), FALLBACK
    except ValueError as error:
        notes.add("metric", f"{error}; 13a is used")
        return table_metrics(main, plain), main


def read_outputs(experiment: Experiment, subset: str, notes: Notes) -> ScoredOutputs | None:
    """Score the outputs that exist; None if nothing can be scored.

    Args:
        experiment: experiment of the runs.
        subset: "test" or "valid".
        notes: get what is missing.
    """
    metrics, main = choose_metrics(experiment, notes)
    path = experiment.text(subset, experiment.target_lang)
    try:
        references = experiment.kind.read_references(path)
    except (OSError, ValueError) as error:
        notes.add(f"text/{path.name}", f"the reference is not readable, nothing is scored: {error}")
        return None
    if not references:
        notes.add(f"text/{path.name}", "the reference is empty, nothing is scored")
        return None
    outputs = {}
    for run in experiment.runs:
        path = experiment.output(run, subset)
        if not path.is_file():
            notes.add(f"outputs/{path.name}", "missing: the run is not scored")
            continue
        try:
            predictions = experiment.kind.read_predictions(path, len(references))
            output = SystemOutput(metrics, predictions, references)
            output.scores  # noqa: B018 - computed here, so that an undefined score becomes a note
            outputs[run.name] = output
        except (ValueError, OSError) as error:
            notes.add(f"outputs/{path.name}", f"not scored: {error}")
    if not outputs:
        return None
    return ScoredOutputs(
        experiment=experiment, subset=subset, metrics=metrics, main_metric=main, outputs=outputs,
        sources=_read_sources(experiment, subset, len(references), notes), references=references,
    )  # fmt: skip


def _read_sources(experiment: Experiment, subset: str, expected: int, notes: Notes) -> list[str] | None:
    path = experiment.text(subset, experiment.source_lang)
    try:
        sources = read_lines(path)
    except (OSError, ValueError) as error:
        notes.add(f"text/{path.name}", f"the source is not readable and is not shown: {error}")
        return None
    if len(sources) != expected:
        notes.add(
            f"text/{path.name}",
            f"has {len(sources)} lines, the reference {expected}; the source is not shown",
        )
        return None
    return sources


@dataclass(frozen=True)
class FurtherRow:
    """A system on a set.

    Attributes:
        label: name of the system in tables.
        subset: "test" and so on.
        seeds: seeds with scores.
        values: values by score, then by seed.
        gains: gains over the baseline's run of the same seed, by score, then by seed; empty for a baseline.
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


_Scores = dict[tuple[str | None, int], dict[str, float]]  # by system and seed, then by name


def read_further_scores(experiment: Experiment, notes: Notes) -> list[FurtherScores]:
    """Every ``scores-*.json`` in the experiment's folder; the notes name those that are not valid."""
    files = []
    leaders = (experiment.baseline, experiment.main)
    for path in sorted(experiment.folder.glob(f"{PREFIX}*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"), parse_constant=_reject_constant)
            scores = further_scores(path.stem.removeprefix(PREFIX), record, experiment.runs, leaders)
            sets = _by_set(record)
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            notes.add(path.name, f"left out, not a file of scores: {type(error).__name__}: {error}")
            continue
        files.append(scores)
        runs = {(run.system, run.seed) for run in experiment.runs}
        for subset, by_run in sets.items():
            for system, seed in sorted(by_run.keys() - runs):
                notes.add(path.name, f"{system}.{seed} on {subset} is left out: there is no such run")
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
        ValueError: another format, no score, or a score that is not a number; also TypeError, KeyError and
            AttributeError if the record has another structure.
    """
    if record["format"] != SCORES_FORMAT:
        raise ValueError(f"format {record['format']!r}, this code reads format {SCORES_FORMAT}")
    sets = _by_set(record)
    keys = dict.fromkeys(key for scores in sets.values() for values in scores.values() for key in values)
    if not keys:
        raise ValueError("it holds no score")
    signatures = {
        str(subset): {str(key): str(text) for key, text in named.items()}
        for subset, named in record["signatures"].items()
    }
    rows = [row for subset, scores in sets.items() for row in _rows(subset, scores, runs, leaders)]
    return FurtherScores(name=name, keys=list(keys), signatures=signatures, record=record, rows=rows)


def _by_set(record: Mapping[str, Any]) -> dict[str, _Scores]:
    sets: dict[str, _Scores] = {}
    for row in record["scores"]:
        values = {str(key): float(value) for key, value in row.items() if key not in _KEYS}
        sets.setdefault(str(row["subset"]), {})[str(row["system"]), int(row["seed"])] = values
    return sets


def _rows(
    subset: str, scores: _Scores, runs: Sequence[Run], leaders: tuple[str, str]
) -> Iterator[FurtherRow]:
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
        seeds = sorted(run.seed for run in systems[system])
        yield FurtherRow(
            label=systems[system][0].label, subset=subset, seeds=seeds, values=values, gains=gains
        )


def _reject_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a score")
