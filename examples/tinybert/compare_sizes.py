"""Each student beside its teacher: retention, size, and sentences per second on one thread.

    OMP_NUM_THREADS=1 python examples/tinybert/compare_sizes.py OUT_DIR

OUT_DIR is a folder that examples/run.py wrote. Retention is a run's accuracy on the test set over its teacher's. Parameters are
those that run in predictions: encoder, pooler and head. Speed is measured on the first sentences of the test set, at batch sizes
1 and 32; systems take turns, and the best of several rounds counts, which was disturbed least. The figures go to
OUT_DIR/scores-size.json, which `fairseq-bert-kd report` shows in its page and results file.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils

import fairseq_bert_kd.tasks  # noqa: F401 - registers the model
from fairseq_bert_kd.report.read_experiment import Experiment, Notes, Run, read_experiment
from fairseq_bert_kd.report.read_scores import read_outputs

BATCHES, ROUNDS, SENTENCES = (1, 32), 5, 320
SUBSET = "test"
HEAD = "sentence_classification_head"


def loaded(experiment: Experiment, run: Run) -> tuple[Any, Any]:
    """Model of a run in evaluation mode, and its task."""
    path = str(experiment.folder / "students" / run.name / "checkpoint_best.pt")
    overrides = {"data": str(experiment.folder / "data")}
    [model], _, task = checkpoint_utils.load_model_ensemble_and_task([path], arg_overrides=overrides)
    return model.eval(), task


def parameters(model: Any) -> int:
    """Parameters of encoder, pooler and head."""
    parts = (model.encoder, model.pooler, model.classification_heads)
    return sum(parameter.numel() for part in parts if part is not None for parameter in part.parameters())


def batches(task: Any, size: int, sentences: int) -> list[dict[str, Any]]:
    """The first sentences of the test set in batches of a size, in the order of the file."""
    if SUBSET not in task.datasets:
        task.load_dataset(SUBSET)
    dataset = task.datasets[SUBSET]
    count = min(sentences, len(dataset))
    starts = range(0, count, size)
    return [
        dataset.collater([dataset[i] for i in range(start, min(start + size, count))]) for start in starts
    ]


def seconds(model: Any, ready: list[dict[str, Any]]) -> float:
    """Time of one pass over the batches."""
    started = time.perf_counter()
    with torch.inference_mode():
        for batch in ready:
            model(**batch["net_input"], classification_head_name=HEAD)
    return time.perf_counter() - started


def rates(models: dict[str, tuple[Any, Any]], sentences: int) -> dict[str, dict[int, float]]:
    """Sentences per second by model and batch size."""
    ready = {
        name: {size: batches(task, size, sentences) for size in BATCHES} for name, (_, task) in models.items()
    }
    found: dict[str, dict[int, float]] = {name: {} for name in models}
    for size in BATCHES:
        count = sum(batch["nsentences"] for batch in next(iter(ready.values()))[size])
        for _ in range(ROUNDS):
            for name, (model, _) in models.items():
                rate = count / seconds(model, ready[name][size])
                found[name][size] = max(rate, found[name].get(size, 0.0))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", metavar="OUT_DIR", type=Path)
    parser.add_argument("--teacher", default="teacher", help="system that the others learned from")
    parser.add_argument("--sentences", type=int, default=SENTENCES)
    args = parser.parse_args()
    torch.set_num_threads(1)
    experiment = read_experiment(args.out.absolute(), Notes(args.out))
    results = read_outputs(experiment, SUBSET, Notes(args.out))
    assert results is not None, "no output of the test set yet"
    runs = [run for run in experiment.runs if run.name in results.outputs]
    teacher = next((run for run in runs if run.system == args.teacher), None)  # not every row needs one
    first = {run.system: run for run in reversed(runs)}  # seeds do not differ in speed
    models = {name: loaded(experiment, run) for name, run in first.items()}
    speed = rates(models, args.sentences)
    accuracy = {run.name: results.outputs[run.name].scores[results.main_metric] for run in runs}
    rows = []
    for run in runs:
        row = {"system": run.system, "seed": run.seed, "subset": SUBSET}
        if teacher is not None:
            row["retention, %"] = 100 * accuracy[run.name] / accuracy[teacher.name]
        row["parameters, million"] = parameters(models[run.system][0]) / 1e6
        for size in BATCHES:
            row[f"sentences/s, batch {size}"] = speed[run.system][size]
            if teacher is not None:
                row[f"times the teacher's, batch {size}"] = (
                    speed[run.system][size] / speed[teacher.system][size]
                )
        rows.append(row)
        print(json.dumps(row))
    signature = {
        "speed": f"one thread, first {args.sentences} sentences, best of {ROUNDS} rounds, load {os.getloadavg()[0]:.1f}"
    }
    record = {"format": 1, "signatures": {SUBSET: signature}, "scores": rows}
    path = experiment.folder / "scores-size.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
