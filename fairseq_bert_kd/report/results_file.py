"""The results file: what an experiment gained, and everything needed to believe or repeat it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fairseq_bert_kd.report.notes import Notes
from fairseq_bert_kd.report.provenance import library_versions, store_record
from fairseq_bert_kd.report.results import Results, read_results
from fairseq_bert_kd.report.section import Section

FORMAT = 1
SUBSETS = ("valid", "test")
_COPIED = (
    "task", "size", "title", "source_lang", "target_lang", "metric", "lowercase", "bleu_tokenize", "baseline", "main",
    "teacher", "hardware", "code", "command",
)  # fmt: skip


def write_results(path: str | Path, sections: Sequence[Section]) -> None:
    """Write the file; the same folders give the same bytes. Scores are of both sets, gains of the page's."""
    record = {
        "format": FORMAT,
        "written_by": "fairseq-bert-kd report",
        "versions": library_versions(),
        "experiments": [experiment_record(section) for section in sections],
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    Path(path).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def experiment_record(section: Section) -> dict[str, Any]:
    """An experiment as plain values."""
    e = section.experiment
    by_subset = {subset: _results(section, subset) for subset in SUBSETS}
    signatures = next((found.metrics.signatures for found in by_subset.values() if found), {})
    return {
        **{name: getattr(e, name) for name in _COPIED},
        "signatures": signatures,
        "compared": _comparison(section),
        "other_scores": {other.name: other.record for other in section.other_scores},
        "runs": [_run(section, run, by_subset) for run in e.runs],
        "teachers": {
            teacher.name: {
                "updates": teacher.log.updates,
                "best_at": teacher.updates,
                "masked_accuracy": teacher.accuracy,
                "perplexity": teacher.perplexity,
            }
            for teacher in section.teachers
        },
        "seconds": {step.name: step.seconds for step in e.steps},
        "training_pairs": section.training_pairs,
        "text_sha256": section.digests,
        "stores": {name: store_record(stat) for name, stat in section.stores.items()},
        "notes": [note._asdict() for note in section.notes],
    }


def _comparison(section: Section) -> dict[str, Any]:
    """Gains of every system over its baseline, on the subset of the page."""
    if section.results is None:
        return {}
    systems = {}
    for row in (row for made in section.rows.values() for row in made):
        gain = row.gain
        systems[row.system] = {
            "baseline": row.baseline,
            "gains": {str(seed): value for seed, value in row.gains.items()},
            "mean_gain": gain.mean if gain else None,
            "sd_gain": gain.sd if gain else None,
            "p": {str(seed): value for seed, value in row.p.items()},
            "missing_seeds": row.missing,
        }
    test = next((row.test for made in section.rows.values() for row in made if row.test), "")
    return {
        "subset": section.results.subset,
        "metric": section.results.main_metric,
        "test": test,
        "systems": systems,
    }


def _run(section: Section, run: Any, by_subset: dict[str, Results | None]) -> dict[str, Any]:
    log = section.logs.get(run.name)
    scores = {
        subset: results.outputs[run.name].scores
        for subset, results in by_subset.items()
        if results and run.name in results.outputs
    }
    return {
        "system": run.system,
        "seed": run.seed,
        "label": run.label,
        "group": run.group,
        "value": run.value,
        "baseline": run.baseline,
        "options": run.options,
        "store": run.store,
        "teacher": run.teacher,
        "updates": run.updates,
        "updates_trained": log.updates if log else None,
        "finished": log.finished if log else None,
        "scores": scores,
    }


def _results(section: Section, subset: str) -> Results | None:
    """Those of the page, or of the other subset; its gaps show as absent scores."""
    if section.results is not None and section.results.subset == subset:
        return section.results
    return read_results(section.experiment, subset, Notes(section.experiment.folder))
