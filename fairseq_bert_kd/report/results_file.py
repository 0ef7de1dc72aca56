"""The results file: scores and gains, with what is needed to check or repeat them."""

import contextlib
import importlib.metadata
import json
import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fairseq_bert_kd
from fairseq_bert_kd.evaluation.registry import signatures
from fairseq_bert_kd.output_files import write_text
from fairseq_bert_kd.report.experiment_report import ExperimentReport
from fairseq_bert_kd.report.read_experiment import EXPERIMENT_FIELDS, RUN_FIELDS, Notes, Run
from fairseq_bert_kd.report.read_scores import ScoredOutputs, read_outputs
from fairseq_bert_kd.report.read_stores import store_record

FORMAT = 1
SUBSETS = ("valid", "test")
_LIBRARIES = ("sacrebleu", "rouge-score", "numpy", "matplotlib")


def write_results(path: str | Path, reports: Sequence[ExperimentReport]) -> None:
    """Write the file. Scores are of both sets, gains of the page's. The same folders give the same bytes.

    JSON has no number that is not finite, such as the perplexity of a teacher that diverged: it is written as null.
    """
    record = {
        "format": FORMAT,
        "written_by": "fairseq-bert-kd report",
        "versions": _versions(),
        "experiments": [experiment_record(report) for report in reports],
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_finite(record), indent=1, ensure_ascii=False, allow_nan=False)
    written = f"{text}\n".encode(errors="backslashreplace").decode()  # of texts that are no valid Unicode
    write_text(path, written)


def _finite(value: Any) -> Any:
    """The value with None in place of every number in it that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _versions() -> dict[str, str]:
    """Versions of the libraries that made this report."""
    versions = {"python": platform.python_version(), "fairseq-bert-kd": fairseq_bert_kd.__version__}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def experiment_record(report: ExperimentReport) -> dict[str, Any]:
    """An experiment as plain values."""
    by_subset = {subset: _outputs(report, subset) for subset in SUBSETS}
    scored = [report.results, *by_subset.values()]  # COMET scores the page's subset alone
    metrics = next((outputs.metrics for outputs in scored if outputs), {})
    return {
        # a tokenizer's folder is of one machine; the signatures name it
        **{name: getattr(report.experiment, name) for name in EXPERIMENT_FIELDS if name != "normalise_like"},
        "signatures": signatures(metrics),
        "compared": _comparison(report),
        "other_scores": {scores.name: scores.record for scores in report.further_scores},
        "other_tables": {table.name: table.record for table in report.further_tables},
        "runs": [_run(report, run, by_subset) for run in report.experiment.runs],
        "teachers": {
            name: {
                "updates": log.updates,
                "best_at": log.best,
                "masked_accuracy": log.valid[log.best].get("masked_accuracy"),
                "perplexity": log.valid[log.best].get("ppl"),
            }
            for name, log in report.teachers.items()
            if log.best is not None
        },
        "seconds": report.experiment.steps,
        "training_pairs": report.training_pairs,
        "text_sha256": report.digests,
        "stores": {name: store_record(stat) for name, stat in report.stores.items()},
        "notes": [note._asdict() for note in report.notes],
    }


def _comparison(report: ExperimentReport) -> dict[str, Any]:
    """Gains of every system over its baseline, on the subset of the page."""
    if report.results is None:
        return {}
    rows = [row for made in report.rows.values() for row in made]
    systems = {
        row.system: {
            "baseline": row.baseline,
            "gains": {str(seed): value for seed, value in row.gains.items()},
            "mean_gain": row.gain.mean if row.gain else None,
            "sd_gain": row.gain.sd if row.gain else None,
            "p": {str(seed): p for seed, p in row.p.items()},
            "missing_seeds": row.missing,
        }
        for row in rows
    }
    return {
        "subset": report.results.subset,
        "metric": report.results.main_metric,
        "test": next((row.test.signature for row in rows if row.test), ""),
        "systems": systems,
    }


def _run(report: ExperimentReport, run: Run, by_subset: dict[str, ScoredOutputs | None]) -> dict[str, Any]:
    log = report.logs.get(run.name)
    return {
        **{name: getattr(run, name) for name in RUN_FIELDS},
        "updates_trained": log.updates if log else None,
        "finished": log.finished if log else None,
        "scores": {
            subset: outputs.outputs[run.name].scores
            for subset, outputs in by_subset.items()
            if outputs and run.name in outputs.outputs
        },
    }


def _outputs(report: ExperimentReport, subset: str) -> ScoredOutputs | None:
    """Outputs of the page, or of the other subset, whose gaps show as absent scores."""
    if report.results is not None and report.results.subset == subset:
        return report.results
    return read_outputs(report.experiment, subset, Notes(report.experiment.folder))
