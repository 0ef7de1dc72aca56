"""The paraphrase experiment: its text, its steps and their order."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from examples.paraphrase.judge_evaluator import measures, word_overlap
from examples.workflow import paraphrase
from examples.workflow.settings import load

EXAMPLES = Path(__file__).parents[2] / "examples"
PAIRS = [
    ("1", "train", "a man", "the man"), ("1", "train", "a man", "he is a man"), ("2", "train", "who", "what"),
    ("3", "train", "eat", "people eat"), ("4", "train", "sit", "they sit"), ("5", "valid", "in", "inside"),
    ("6", "test", "on", "upon"), ("6", "test", "upon", "on top"),
]  # fmt: skip
LABELLED = [("train", "1", "7", "a", "b"), ("valid", "0", "8", "c", "d"), ("test", "1", "9", "e", "f")]


def write(path, header, rows):
    lines = ["\t".join(row) for row in (header, *rows)]
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "quora_pairs.tsv.gz", ("cluster", "split", "source", "target"), PAIRS)
    header = ("split", "label", "quora_id", "question1", "question2")
    write(folder / "quora_labelled.tsv.gz", header, LABELLED)
    return folder


def prepare(data, *arguments):
    command = [
        sys.executable,
        EXAMPLES / "paraphrase" / "prepare_text.py",
        "--data",
        data,
        *map(str, arguments),
    ]
    return subprocess.run(command, cwd=data.parent, capture_output=True, text=True, check=False)


def lines(data, name):
    return (data.parent / "text" / name).read_text(encoding="utf-8").splitlines()


def test_text_by_cluster(data):
    found = prepare(data, "--pairs", 3, "--other-clusters", 1)
    assert found.returncode == 0, found.stderr
    assert lines(data, "train.source") == ["a man", "a man", "who"]
    assert lines(data, "test.references") == ["upon\ton top", "on\ton top"]
    assert lines(data, "other_pairs.tsv") == ["cluster\tsource\ttarget", "3\teat\tpeople eat"]
    assert lines(data, "labelled.test.tsv") == ["question1\tquestion2\tis_duplicate", "e\tf\t1"]


def test_a_shared_sentence_ends_it(data):
    write(
        data / "quora_pairs.tsv.gz",
        ("cluster", "split", "source", "target"),
        [*PAIRS, ("7", "test", "On", "A man")],
    )
    found = prepare(data)
    assert found.returncode == 1
    assert "1 sentences of the test set are in training, the first is 'a man'" in found.stderr


def steps_of(tmp_path, *given):
    settings, kind = load("paraphrase", [f"out={tmp_path}", "teacher=encoder", "data=data", *given])
    assert kind is paraphrase
    return {step.name: step for step in kind.steps(settings)}


def test_every_row_has_its_steps_after_what_they_need(tmp_path):
    steps = steps_of(tmp_path, "all", "seeds=[1]")
    rows = {name.split("/")[1] for name in steps if name.startswith("students/")}
    assert {"likelihood.1", "continued.1", "reranked.1", "evaluator.1", "constant.1", "irl.1", "kl.1"} <= rows
    done = set()
    for step in steps.values():
        assert set(step.after) <= done, step.name
        done.add(step.name)
    for row in rows:
        assert {f"outputs/{row}.valid", f"outputs/{row}.test"} <= done


def test_rows_of_one_budget_differ_in_their_options_alone(tmp_path):
    steps = steps_of(tmp_path, "all", "seeds=[1]")
    commands = {
        name: steps[f"students/{name}.1"].command
        for name in ("continued", "evaluator", "rouge-2", "shuffled")
    }
    common = commands["evaluator"].replace("students/evaluator.1", "students/X")
    for name, command in commands.items():
        assert command.replace(f"students/{name}.1", "students/X").startswith(common.rstrip())
    assert commands["continued"].endswith("--rl-weight 0")


def test_inverse_reinforcement_goes_in_rounds(tmp_path):
    steps = steps_of(tmp_path, "irl", "seeds=[1]", "systems.irl.rounds=2")
    order = [name for name in steps if name.startswith("irl.1/") or name == "students/irl.1"]
    assert order == [
        "irl.1/samples1",
        "irl.1/evaluator1",
        "irl.1/round1",
        "irl.1/samples2",
        "irl.1/evaluator2",
        "students/irl.1",
    ]
    assert "--rl-evaluator students/irl.1/evaluator1/checkpoint_last.pt" in steps["irl.1/round1"].command
    assert "--path students/irl.1/round1/checkpoint_best.pt" in steps["irl.1/samples2"].command
    last = steps["students/irl.1"].command
    assert last.endswith("--rl-evaluator students/irl.1/evaluator2/checkpoint_last.pt")
    assert "--finetune-from-model students/irl.1/round1/checkpoint_best.pt" in last


def test_missing_data_are_named(tmp_path):
    settings, kind = load("paraphrase", [f"out={tmp_path}", "teacher=encoder", f"data={tmp_path}"])
    with pytest.raises(ValueError, match=r"must hold quora_pairs.tsv.gz, which it does not"):
        kind.check(settings)


def test_measures_of_an_evaluator():
    """Three of the four orders of positive and negative are right; overlap by hand."""
    labels, scores = np.array([1, 1, 0, 0]), np.array([0.9, 0.3, 0.4, 0.1])
    assert measures(labels, scores, 0.5) == {"accuracy": 75, "auc": 75}
    assert measures(labels, np.array([0.4, 0.3, 0.2, 0.1]), None) == {"accuracy": 100, "auc": 100}
    assert word_overlap(["A b c", ""], ["a b d", ""]).tolist() == [0.5, 0]
