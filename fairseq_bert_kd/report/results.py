"""Scores of every run of an experiment, as far as they can be had."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fairseq_bert_kd.evaluation.fairseq_output import read_hypotheses, read_lines
from fairseq_bert_kd.evaluation.text_metrics import Metrics, MetricSettings, Output
from fairseq_bert_kd.report.experiment import Experiment, Run
from fairseq_bert_kd.report.notes import Notes


class Spread(NamedTuple):
    """Mean and sample standard deviation.

    Attributes:
        mean: of the values.
        sd: with n - 1; None for a single value.
        n: values.
    """

    mean: float
    sd: float | None
    n: int


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), sd, len(values))


@dataclass(frozen=True)
class Results:
    """An experiment's outputs of a subset.

    Attributes:
        experiment: whose they are.
        subset: "test" or "valid".
        metrics: they are scored by.
        main_metric: key of the score that is compared, see `Metrics.keys`.
        outputs: by name of the run; runs without a usable output are absent.
        sources: ``(sentences,)`` source text; None where it cannot be used.
        references: ``(sentences,)``.
    """

    experiment: Experiment
    subset: str
    metrics: Metrics
    main_metric: str
    outputs: dict[str, Output]
    sources: list[str] | None
    references: list[str]

    def runs_of(self, system: str) -> dict[int, Run]:
        """Runs of a system that have scores, by seed, ascending."""
        runs = {run.seed: run for run in self.experiment.runs if run.system == system}
        return {seed: runs[seed] for seed in sorted(runs) if runs[seed].name in self.outputs}

    def scores_of(self, system: str, key: str | None = None) -> dict[int, float]:
        """A system's scores by seed; of the main metric where no key is given."""
        key = key or self.main_metric
        return {seed: self.outputs[run.name].scores[key] for seed, run in self.runs_of(system).items()}

    def gains_of(self, system: str, baseline: str) -> dict[int, float]:
        """Score minus the baseline's of the same seed, by the seeds that both have."""
        scores, base = self.scores_of(system), self.scores_of(baseline)
        return {seed: scores[seed] - base[seed] for seed in scores if seed in base}


def choose_metrics(experiment: Experiment, notes: Notes) -> tuple[Metrics, str]:
    """The metrics that can be computed, and which of them is compared."""
    settings = MetricSettings(experiment.lowercase, experiment.bleu_tokenize, experiment.metric == "rouge")
    if experiment.metric not in ("bleu", "rouge"):
        notes.add(
            "metric", f"`{experiment.metric}` cannot be computed here (bleu and rouge can); chrF2 is compared"
        )
        main = "chrf2"
    else:
        main = "rougeL" if settings.rouge else "bleu"
    try:
        return Metrics(settings), main
    except ImportError as error:
        notes.add("metric", f"ROUGE cannot be computed, chrF2 is compared instead: {error}")
        return Metrics(settings._replace(rouge=False, tokenize="13a")), "chrf2"
    except ValueError as error:
        notes.add("metric", f"{error}; 13a is taken")
        return Metrics(settings._replace(tokenize="13a")), main


def read_results(experiment: Experiment, subset: str, notes: Notes) -> Results | None:
    """Score what is there; the notes say what is not. None where nothing can be scored.

    Args:
        experiment: whose outputs are read.
        subset: "test" or "valid".
        notes: told of what is missing.
    """
    metrics, main = choose_metrics(experiment, notes)
    path = experiment.text(subset, experiment.target_lang)
    try:
        references = read_lines(path)
    except (OSError, ValueError) as error:
        notes.add(f"text/{path.name}", f"the reference cannot be read, nothing is scored: {error}")
        return None
    if not references:
        notes.add(f"text/{path.name}", "the reference is empty, nothing is scored")
        return None
    outputs = {}
    for run in experiment.runs:
        path = experiment.output(run, subset)
        if not path.is_file():
            notes.add(f"outputs/{path.name}", "not there: the run is not scored")
            continue
        try:
            outputs[run.name] = Output(metrics, read_hypotheses(path, len(references)), references)
        except (ValueError, OSError) as error:
            notes.add(f"outputs/{path.name}", f"not scored: {error}")
    if not outputs:
        return None
    sources = _read_sources(experiment, subset, len(references), notes)
    return Results(experiment, subset, metrics, main, outputs, sources, references)


def seeds_of(runs: Iterable[Run]) -> list[int]:
    """Ascending, each once."""
    return sorted({run.seed for run in runs})


def _read_sources(experiment: Experiment, subset: str, expected: int, notes: Notes) -> list[str] | None:
    path = experiment.text(subset, experiment.source_lang)
    try:
        sources = read_lines(path)
    except (OSError, ValueError) as error:
        notes.add(f"text/{path.name}", f"the source cannot be read and is not shown: {error}")
        return None
    if len(sources) != expected:
        notes.add(
            f"text/{path.name}",
            f"has {len(sources)} lines, the reference {expected}; the source is not shown",
        )
        return None
    return sources
