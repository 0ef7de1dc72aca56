"""Reads and scores what the runs put out."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fairseq_bert_kd.evaluation.comet_metric import Comet
from fairseq_bert_kd.evaluation.comparability import remarks
from fairseq_bert_kd.evaluation.fairseq_output import READERS, read_predictions
from fairseq_bert_kd.evaluation.metric import Metric, MetricSettings
from fairseq_bert_kd.evaluation.registry import find_metric, table_metrics
from fairseq_bert_kd.evaluation.system_output import SystemOutput
from fairseq_bert_kd.report.read_experiment import Experiment, Notes
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

FALLBACK = "chrf2"  # needs no tokenizer and no further package


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
