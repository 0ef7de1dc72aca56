"""Reads and scores what the runs put out, and scores that an experiment's own scripts wrote (``scores-NAME.json``)."""

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairseq_bert_kd.evaluation.comet_metric import Comet
from fairseq_bert_kd.evaluation.comparability import remarks
from fairseq_bert_kd.evaluation.fairseq_output import READERS, read_predictions
from fairseq_bert_kd.evaluation.metric import Metric, MetricSettings
from fairseq_bert_kd.evaluation.registry import find_metric, table_metrics
from fairseq_bert_kd.evaluation.significance import Spread, spread
from fairseq_bert_kd.evaluation.system_output import SystemOutput
from fairseq_bert_kd.report.read_experiment import Experiment, Notes, Run
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

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

    def of(self, system: str) -> dict[int, SystemOutput]:
        """A system's outputs by seed, ascending."""
        runs = (run for run in self.experiment.runs if run.system == system)
        return {run.seed: self.outputs[run.name] for run in runs if run.name in self.outputs}

    def pairs(self, baseline: str, system: str) -> dict[int, tuple[SystemOutput, SystemOutput]]:
        """Outputs of baseline and system by seed, for the seeds that both have."""
        base, main = self.of(baseline), self.of(system)
        return {seed: (base[seed], main[seed]) for seed in main if seed in base}


def choose_metrics(experiment: Experiment, notes: Notes) -> tuple[dict[str, Metric], str]:
    """Metrics of the tables that can be computed, by name, and the name of the main one."""
    tokenizer = _normaliser(experiment, notes)
    settings = MetricSettings(
        experiment.lowercase, experiment.bleu_tokenize, normalised=tokenizer.label() if tokenizer else ""
    )
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


def normalise(experiment: Experiment, notes: Notes) -> Callable[[list[Any]], list[Any]]:
    """Function that both sides of a comparison go through first; for classes and numbers it changes nothing."""
    tokenizer = _normaliser(experiment, notes)
    return list if tokenizer is None else lambda texts: [tokenizer.normalise(text) for text in texts]


def _normaliser(experiment: Experiment, notes: Notes) -> HfTokenizer | None:
    if not experiment.normalise_like or experiment.kind != "text":
        return None
    try:
        return _load_tokenizer(experiment.normalise_like)
    except (ValueError, ImportError) as error:
        notes.add("normalise_like", f"texts are compared as they are: {error}")
        return None


_load_tokenizer = functools.cache(HfTokenizer)  # for every subset


def read_outputs(experiment: Experiment, subset: str, notes: Notes, comet: str = "") -> ScoredOutputs | None:
    """Score the outputs that exist; None if nothing can be scored.

    Args:
        experiment: experiment of the runs.
        subset: "test" or "valid".
        notes: get what is missing.
        comet: weights of COMET, see `Comet`; empty for none.

    Raises:
        ImportError, ValueError: COMET is asked for and cannot be computed.
    """
    metrics, main = choose_metrics(experiment, notes)
    normalised = normalise(experiment, notes)
    sources, references = (
        _read_text(experiment, subset, language, kind, notes)
        for language, kind in ((experiment.source_lang, "text"), (experiment.target_lang, experiment.kind))
    )
    if not references:
        return None
    if comet and experiment.kind == "text":
        metrics["comet"] = Comet(metrics[main].settings, comet, sources or [])
    references, outputs = normalised(references), {}
    for run in experiment.runs:
        path = experiment.output(run, subset)
        if not path.is_file():
            notes.add(f"outputs/{path.name}", "missing: the run is not scored")
            continue
        try:
            predictions = normalised(read_predictions(experiment.kind, path, len(references)))
            output = SystemOutput(metrics, predictions, references)
            output.scores  # noqa: B018 - computed here, so that an undefined score becomes a note
            outputs[run.name] = output
        except (ValueError, OSError) as error:
            notes.add(f"outputs/{path.name}", f"not scored: {error}")
    if not outputs:
        return None
    if experiment.kind == "text":
        texts = [text for output in outputs.values() for text in output.predictions]
        rouge = any(name.startswith("rouge") for name in metrics)
        for remark in remarks(texts, references, metrics[main].settings, rouge):
            notes.add("outputs", remark)
    if sources is not None and len(sources) != len(references):
        notes.add(f"text/{subset}.{experiment.source_lang}", "not as long as the reference: it is not shown")
        sources = None
    return ScoredOutputs(
        experiment=experiment, subset=subset, metrics=metrics, main_metric=main, outputs=outputs,
        sources=sources, references=references,
    )  # fmt: skip


def _read_text(
    experiment: Experiment, subset: str, language: str, kind: str, notes: Notes
) -> list[Any] | None:
    path = experiment.text(subset, language)
    try:
        lines = READERS[kind](path)
    except (OSError, ValueError) as error:
        notes.add(f"text/{path.name}", f"not readable: {error}")
        return None
    if not lines:
        notes.add(f"text/{path.name}", "empty")
    return lines


def note_same_outputs(results: ScoredOutputs, notes: Notes) -> None:
    """Note seeds of a system that put out the same, as copies of one training do."""
    first: dict[tuple[Any, ...], int] = {}
    for run in results.experiment.runs:
        if run.name not in results.outputs:
            continue
        seed = first.setdefault((run.system, *results.outputs[run.name].predictions), run.seed)
        if seed != run.seed:
            notes.add(
                f"outputs/{run.name}",
                f"the same as with seed {seed}: they count as two runs, and their spread says nothing about training; see that each was "
                "trained with its own seed",
            )


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
    if record["format"] != SCORES_FORMAT:
        raise ValueError(f"format {record['format']!r}, this code reads format {SCORES_FORMAT}")
    scores = {
        (row["subset"], row["system"], row["seed"]): {
            key: float(value) for key, value in row.items() if key not in _KEYS
        }
        for row in record["scores"]
    }
    keys = list(dict.fromkeys(key for values in scores.values() for key in values))
    if not keys:
        raise ValueError("it holds no score")
    if not all(math.isfinite(value) for values in scores.values() for value in values.values()):
        raise ValueError("a score is not finite")

    signatures = record["signatures"]
    if not all(isinstance(named, Mapping) for named in signatures.values()):
        raise ValueError("its signatures must be by set, then by score")

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
    return FurtherScores(name, keys, signatures, record, list(rows.values()))
