"""Experiments with classes: their steps, and one of them from text to report."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from examples.tinybert.prepare_text import general_lines
from examples.workflow import classification
from examples.workflow.settings import load
from tests.tiny_chain import build_teacher_folder
from tests.tiny_sentences import write_table

EXAMPLES = Path(__file__).parents[2] / "examples"
TINYBERT = EXAMPLES / "tinybert" / "task.yaml"
GIVEN = ["teacher=bert", "out=out", "data=data"]
STUDENT = "prediction-only"
SIZES = ("cpu-subset", "cpu", "seconds")


def steps(*given):
    settings, kind = load(TINYBERT, [*GIVEN, *given])
    assert kind is classification
    return {step.name: step for step in kind.steps(settings)}


@pytest.mark.parametrize("size", SIZES)
def test_every_row_has_the_same_number_of_updates(size):
    settings, _ = load(TINYBERT, [*GIVEN, f"size={size}"])
    updates = {
        name: sum(settings.trainings[training].updates for training in system.trainings)
        for name, system in settings.systems.items()
        if name != "teacher"
    }
    assert len(updates) >= 10
    assert len(set(updates.values())) == 1, updates


def test_a_row_brings_its_teacher_and_its_baseline_and_nothing_twice():
    names = list(steps("full", "seeds=[1]"))
    assert names == [
        "text", "data", "data-general",
        "students/scratch.1", "outputs/scratch.1.valid", "outputs/scratch.1.test",
        "students/teacher.1", "outputs/teacher.1.valid", "outputs/teacher.1.test",
        "stages/full.general.1", "stages/full.intermediate.1", "students/full.1", "outputs/full.1.valid", "outputs/full.1.test",
        "scores-1", "report",
    ]  # fmt: skip
    assert "data-general" not in steps("prediction-only", "seeds=[1]")
    everything = steps("all")
    assert [name for name in everything if name.startswith("students/teacher")] == ["students/teacher.1"]
    assert [name for name in everything if name.startswith("students/full")] == [
        f"students/full.{i}" for i in (1, 2, 3)
    ]


def test_every_step_comes_after_what_it_needs():
    seen = set()
    for step in steps("all").values():
        assert set(step.after) <= seen, step
        seen.add(step.name)
    full = steps("full", "seeds=[2]")
    assert "students/teacher.1" in full["stages/full.general.2"].after
    assert full["students/full.2"].after == ("stages/full.intermediate.2",)


def test_a_training_goes_on_from_the_one_before_and_learns_from_its_teacher():
    made = steps("full", "without-attention", "seeds=[2]")
    words = {name: step.command.split() for name, step in made.items()}

    def value(name, option):
        return words[name][words[name].index(option) + 1].strip('"')

    assert "--encoder-init" not in words["stages/full.general.2"]
    assert value("stages/full.intermediate.2", "--encoder-init") == "stages/full.general.2/checkpoint_last.pt"
    assert value("students/full.2", "--encoder-init") == "stages/full.intermediate.2/checkpoint_last.pt"
    assert value("stages/full.general.2", "--kd-teacher") == "bert"
    assert value("students/full.2", "--kd-teacher") == "students/teacher.1/checkpoint_best.pt"
    for name in ("stages/full.general.2", "stages/full.intermediate.2"):
        other = words[name.replace("full", "without-attention")]
        assert [word for word in other if word not in words[name] and "without" not in word] == [
            "--layer-attention-weight"
        ]
    assert value("students/full.2", "--layer-stage") == "prediction"
    assert "--kd-teacher" not in words["students/scratch.2"]


def test_a_row_without_training_is_recorded_without_folders_of_the_machine():
    settings, kind = load(
        EXAMPLES / "sentence_lstm" / "task.yaml", ["teacher=/models/bert", "out=out", "data=data"]
    )
    files = {name: record for step in kind.steps(settings) for name, record in step.files.items()}
    said = {name: files[f"students/{name}.1/run.json"]["options"] for name in ("teacher", "static")}
    assert '--path "TEACHER_DIR" --sts' in said["teacher"]
    assert said["static"].startswith('python "examples/sentence_lstm/static_vectors.py" "TEACHER_DIR" text/')
    assert not any(folder in str(files) for folder in ("/models", str(EXAMPLES)))


def test_text_that_is_missing_is_said_before_the_first_step(tmp_path):
    settings, kind = load(TINYBERT, ["teacher=bert", f"out={tmp_path}/out", f"data={tmp_path}"])
    (tmp_path / "train.tsv").touch()
    with pytest.raises(ValueError, match=r"must hold dev.tsv or dev.tsv.gz. Correct data"):
        kind.check(settings)


def test_a_metric_of_texts_is_refused(tmp_path):
    settings, kind = load(
        TINYBERT, ["teacher=bert", f"out={tmp_path}/out", f"data={tmp_path}", "metric=bleu"]
    )
    with pytest.raises(ValueError, match="metric=bleu does not compare labels; give one of: accuracy, f1"):
        kind.check(settings)


def test_general_text_is_drawn_evenly_without_what_is_evaluated(tmp_path):
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]
    files[0].write_text("".join(f"this is sentence number {i}\n" for i in range(50)) + "too short\n")
    files[1].write_text("".join(f"that was sentence number {i}\n" for i in range(4)) * 2)
    found = general_lines(files, 10, {"that was sentence number 0"})
    assert len(found) == len(set(found)) == 8
    assert sum(line.startswith("that") for line in found) == 3
    assert "that was sentence number 0" not in found
    assert general_lines(files, 10, set()) == general_lines(files, 10, set())


def table(path, rows, seed):
    """A table of SST-2: 0 or 1, a tab and a sentence, with a header."""
    lines = write_table(path, rows, seed=seed).read_text(encoding="utf-8").splitlines()[1:]
    pairs = [line.split("\t") for line in lines]
    text = "".join(f"{int(label == 'good')}\t{sentence}\n" for sentence, label in pairs)
    path.write_text(f"label\tsentence\n{text}", encoding="utf-8")


def test_an_experiment_from_text_to_report(tmp_path):
    build_teacher_folder("bert", tmp_path / "bert")
    for seed, (name, rows) in enumerate({"train": 60, "dev": 20, "test": 20}.items()):
        table(tmp_path / f"{name}.tsv", rows, seed)
    (tmp_path / "general.txt").write_text("".join(f"two men sit near the house {i}\n" for i in range(40)))
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(EXAMPLES.parent),
        "OMP_NUM_THREADS": "1",
    }
    command = [
        sys.executable, EXAMPLES / "run.py", "tinybert", STUDENT, "size=seconds", "seeds=[1]", f"data={tmp_path}",
        f"teacher={tmp_path}/bert", f"out={tmp_path}/out", f"own.general={tmp_path}/general.txt",
        f"main={STUDENT}", "baseline=teacher",
        "student=--arch tinybert_3x192 --encoder-layers 1 --encoder-hidden 16 --encoder-heads 2 --encoder-ffn 32",
    ]  # fmt: skip
    child = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stdout[-3000:] + child.stderr[-1000:]
    [record] = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))["experiments"]
    runs = {run["system"]: run for run in record["runs"]}
    assert runs.keys() == {"teacher", STUDENT}
    accuracies = {name: run["scores"]["test"]["accuracy"] for name, run in runs.items()}
    gain = record["compared"]["systems"][STUDENT]["gains"]["1"]
    assert gain == accuracies[STUDENT] - accuracies["teacher"]
    assert "McNemar" in record["compared"]["test"]
    sizes = {row["system"]: row for row in record["other_scores"]["size"]["scores"]}
    assert sizes[STUDENT]["retention, %"] == 100 * accuracies[STUDENT] / accuracies["teacher"]
    assert sizes[STUDENT]["parameters, million"] < sizes["teacher"]["parameters, million"]
    assert record["notes"] == []
