"""Sentences per second on one thread, and parameters, of each student beside the teacher.

    OMP_NUM_THREADS=1 python compare_speed.py OUT_DIR --teacher TEACHER

OUT_DIR is a folder that examples/run.py wrote. Batches are the first sentences of the validation corpus, from token ids to
vectors: one at a time; in the order of the corpus, where the teacher reads the padding of longer sentences; and sorted by
length, where there is little. Models take turns, and the best of several rounds counts, which was disturbed least. The figures go
to OUT_DIR/scores-speed.json, which `fairseq-bert-kd report` shows in its page and results file.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch

from fairseq_bert_kd.cli.sentence_predictions import load
from fairseq_bert_kd.data.sentence_dataset import padded
from fairseq_bert_kd.report.read_experiment import Notes, Run, read_experiment
from fairseq_bert_kd.storage.fairseq_data import open_sides, sentence_files

# size; sorted by length
BATCHES = {"batch 1": (1, False), "batch 32": (32, False), "batch 32, sorted": (32, True)}
ROUNDS, SENTENCES = 5, 320
CORPUS, SUBSET, TEACHER = "data-corpus", "valid", "teacher"
EMBEDDINGS = ("embedding.", "encoder.embeddings.word_embeddings.")


def batches(texts: list[Any], size: int, pad: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    parts = [texts[start : start + size] for start in range(0, len(texts), size)]
    return [(padded(part, pad), torch.tensor([len(text) for text in part])) for part in parts]


def seconds(model: Any, ready: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Time of one pass over the batches."""
    started = time.perf_counter()
    with torch.inference_mode():
        for tokens, lengths in ready:
            model.sentence_vectors(tokens, lengths)
    return time.perf_counter() - started


def rates(models: dict[str, Any], texts: list[Any], pad: int, rounds: int) -> dict[str, dict[str, float]]:
    """Sentences per second by model and kind of batches."""
    found: dict[str, dict[str, float]] = {name: {} for name in models}
    for kind, (size, ordered) in BATCHES.items():
        ready = batches(sorted(texts, key=len) if ordered else texts, size, pad)
        for _ in range(rounds):
            for name, model in models.items():
                rate = len(texts) / seconds(model, ready)
                found[name][kind] = max(rate, found[name].get(kind, 0.0))
    return found


def parameters(model: Any, embeddings: bool) -> int:
    """Parameters, with or without those of the word embedding."""
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if embeddings or not name.startswith(EMBEDDINGS)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", metavar="OUT_DIR", type=Path)
    parser.add_argument("--teacher", required=True, help="folder or hub name")
    parser.add_argument("--sentences", type=int, default=SENTENCES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    experiment = read_experiment(args.out.absolute(), Notes(args.out))
    folder = str(experiment.folder / CORPUS)
    first: dict[str, Run] = {}  # seeds do not differ in speed
    for run in experiment.runs:
        first.setdefault(run.system, run)
    checkpoints = {
        name: experiment.folder / "students" / run.name / "checkpoint_best.pt" for name, run in first.items()
    }
    students = {
        name: load(str(path), folder, cpu=True) for name, path in checkpoints.items() if path.exists()
    }
    teacher = load(args.teacher, folder, cpu=True)
    models = {TEACHER: teacher.model, **{name: student.model for name, student in students.items()}}
    sides = open_sides(sentence_files(folder, SUBSET), SUBSET)
    texts = [sides["input0"][row] for row in range(min(args.sentences, len(sides["input0"])))]
    speed = rates(models, texts, teacher.task.dictionary.pad(), args.rounds)
    rows = []
    for name, model in models.items():
        run = first.get(name)
        if run is None:
            continue  # the teacher has no row in the table of systems
        row: dict[str, Any] = {"system": run.system, "seed": run.seed, "subset": "test"}
        row["parameters, million"] = parameters(model, True) / 1e6
        row["without embeddings"] = parameters(model, False) / 1e6
        for kind in BATCHES:
            row[f"sentences/s, {kind}"] = speed[name][kind]
            row[f"times the teacher's, {kind}"] = speed[name][kind] / speed[TEACHER][kind]
        rows.append(row)
        print(json.dumps(row))
    said = f"one thread, {len(texts)} sentences of the corpus, best of {args.rounds} rounds, load {os.getloadavg()[0]:.1f}"
    record = {"format": 1, "signatures": {"test": {"speed": said}}, "scores": rows}
    path = experiment.folder / "scores-speed.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
