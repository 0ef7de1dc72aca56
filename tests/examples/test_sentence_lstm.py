"""The sentence LSTM's experiments: their text, their budgets, and one of them from text to cosines."""

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from examples.sentence_lstm import linear_probe
from examples.sentence_lstm.compare_speed import parameters, rates
from examples.workflow.settings import load
from tests.models.small_encoders import build, sizes
from tests.models.small_lstms import build_lstm, lstm_task
from tests.tiny_chain import WORDS, build_teacher_folder

EXAMPLES = Path(__file__).parents[2] / "examples"
FOLDER = EXAMPLES / "sentence_lstm"
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "PYTHONPATH": str(EXAMPLES.parent),
    "OMP_NUM_THREADS": "1",
}
TUNED = ("sst2", "sst2_1000", "mrpc", "rte")
EVALUATED = "The men sit, near the man!"  # a pair of every test set


def packed(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data folder of small files of the same form."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)

    def sentence():
        return " ".join(rng.choice(WORDS, rng.integers(3, 8)))

    def pairs(rows):
        return [f"0\t{sentence()}\t{sentence()}" for _ in range(rows)]

    spelled = "the MEN sit near the man"
    packed(root / "paraphrase/quora_pairs.tsv.gz", [
        "cluster\tsplit\toriginal_split\tsource\ttarget",
        *(f"{i}\t{'train' if i % 2 else 'test'}\ttrain\t{sentence()} q{i}\t{sentence()}" for i in range(40)),
    ])  # fmt: skip
    packed(root / "tatoeba_de-en/train.en.gz", [spelled, *(sentence() for _ in range(30))])
    packed(root / "multi30k/train.en.gz", [f"{sentence()} captioned" for _ in range(30)])
    packed(root / "entities/webnlg/train.jsonl.gz", [json.dumps({"text": sentence()}) for _ in range(20)])
    packed(root / "acl_titles/train.tsv.gz", [f"We eat. We {sentence()} near.\tTitle" for _ in range(20)])
    for split, rows in (("train", 60), ("dev", 20), ("test", 20)):
        first = [] if split == "train" else [f"1\t{EVALUATED}"]
        rows_of = [f"{i % 2}\t{sentence()}" for i in range(rows)]
        packed(root / f"glue/SST-2/{split}.tsv.gz", ["label\tsentence", *first, *rows_of])
        stsb = [f"g\tf\ty\t{i}\t{rng.uniform(0, 5):.3f}\t{sentence()}\t{sentence()}" for i in range(rows)]
        packed(
            root / f"glue/STS-B/sts-{split}.csv.gz", [*stsb, f"g\tf\ty\t0\t5.0\t{EVALUATED}\t{sentence()}"]
        )
        packed(root / f"glue/RTE/{split}.tsv.gz", [
            "index\tsentence1\tsentence2\tlabel", *(f"{row}\tentailment" for row in pairs(rows)),
        ])  # fmt: skip
    for split in ("train", "test"):
        rows = [f"{i % 2}\t1\t2\t{sentence()}\t{sentence()}" for i in range(50)]
        packed(
            root / f"glue/MRPC/msr_paraphrase_{split}.txt.gz",
            ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", *rows],
        )
    return root


def script(name, *arguments):
    command = [sys.executable, FOLDER / name, *arguments]
    child = subprocess.run(
        list(map(str, command)), env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    return child.stdout


def test_the_corpus_has_equal_shares_and_no_evaluation_sentence(data, tmp_path):
    said = script(
        "make_corpus.py", "--data", data, "--destdir", tmp_path / "a", "--sentences", 60, "--valid", 6
    )
    assert re.search(
        r"train: 60 sentences \(quora 10, tatoeba 10, multi30k 10, sst2 10, webnlg 10, acl 10\)", said
    )
    train, valid = (
        (tmp_path / "a" / f"{split}.txt").read_text().splitlines() for split in ("train", "valid")
    )
    assert len({*train, *valid}) == len(train) + len(valid) == 66
    everything = script(
        "make_corpus.py", "--data", data, "--destdir", tmp_path / "b", "--sentences", 10_000, "--valid", 0
    )
    lines = (tmp_path / "b" / "train.txt").read_text().splitlines()
    assert not any("men sit near the man" in line.lower() for line in lines)
    assert lines.count("We eat.") == 1  # it is in every abstract
    assert sum(line.startswith("q") or " q" in line for line in lines) == 20  # the training clusters' sources
    assert "train: " in everything
    script(
        "make_corpus.py",
        "--data",
        data,
        "--destdir",
        tmp_path / "c",
        "--without",
        "multi30k",
        "--sentences",
        50,
    )
    assert "captioned" not in (tmp_path / "c" / "train.txt").read_text()


def test_text_of_the_tasks(data, tmp_path):
    said = script(
        "prepare_text.py",
        "--data",
        data,
        "--task",
        "sst2",
        "--destdir",
        tmp_path,
        "--train-rows",
        20,
        "--draws",
        1,
        2,
        "--unlabelled",
    )
    assert said == "train: 20 rows\nvalid: 21 rows\ntest: 21 rows\n"
    draws = [(tmp_path / f"train.{seed}.tsv").read_text().splitlines() for seed in (1, 2)]
    for lines in draws:
        assert lines[0] == "label\tsentence"
        assert sorted(line.split("\t")[0] for line in lines[1:]) == ["negative"] * 10 + ["positive"] * 10
    assert set(draws[0]) != set(draws[1])
    header, *rest = (tmp_path / "unlabelled.tsv").read_text().splitlines()
    assert header == "label\tsentence"
    assert {line.split("\t")[0] for line in rest} == {"negative"}
    sentences = [line.split("\t")[1] for line in rest]
    drawn = {line.split("\t")[1] for lines in draws for line in lines[1:]}
    assert len({*sentences}) == len(sentences) > 0
    assert not drawn & {*sentences}
    assert (tmp_path / "test.label").read_text().splitlines()[0] == "positive"
    assert script(
        "prepare_text.py", "--data", data, "--task", "mrpc", "--destdir", tmp_path / "mrpc"
    ).startswith("train: 45 rows")


def commands(*given):
    settings, kind = load(*given)
    return {step.name: step.command for step in kind.steps(settings)}


@pytest.mark.parametrize("size", ["laptop", "full", "seconds"])
def test_students_of_vectors_have_the_same_budget(size):
    made = commands(
        FOLDER / "task.yaml", [f"size={size}", "data=d", "teacher=bert", "out=o", "seeds=[1]", "all"]
    )
    budgets = {
        tuple(re.findall(r"--(?:max-update|batch-size|lr|warmup-updates|seed) (\S+)", command))
        for name, command in made.items()
        if command.startswith("fairseq-train") and "untrained" not in name and "vectors-" not in name
    }
    if size == "seconds":  # the main rows alone have been made small
        made = {
            name: command
            for name, command in made.items()
            if name.split("/")[-1].split(".")[0] in ("distilled", "random")
        }
        budgets = {
            tuple(re.findall(r"--max-update (\S+)", c))
            for c in made.values()
            if c.startswith("fairseq-train")
        }
    assert len(budgets) == 1


@pytest.mark.parametrize("task", TUNED)
@pytest.mark.parametrize("size", ["laptop", "seconds"])
def test_a_fine_tuned_student_differs_from_its_baseline_in_its_start_alone(task, size):
    given = [f"size={size}", "data=d", "teacher=bert", "out=o", "seeds=[2]", "all", "own.distilled=/there"]
    made = commands(FOLDER / f"{task}.yaml", given)
    base, distilled = (made[f"students/{name}.2"].split() for name in ("undistilled", "distilled"))
    seed = 1 if task == "sst2_1000" else 2
    assert f'"/there/students/distilled.{seed}/checkpoint_best.pt"' in distilled
    assert {word for word in {*base} ^ {*distilled} if word.startswith("--")} == {
        "--hidden-size", "--vector-dim", "--encoder-model", "--embedding-init", "--encoder-init",
    }  # fmt: skip
    assert base[1] == distilled[1] == ("data-2" if task == "sst2_1000" else "data")
    both = made["students/distilled-predictions.2"]
    assert '--layer-stage prediction --kd-teacher "students/teacher.1/checkpoint_best.pt"' in both
    if task == "sst2_1000":  # the same but for the text
        other = made["students/distilled-unlabelled.2"].split()
        assert [(a, b) for a, b in zip(both.split(), other, strict=True) if a != b] == [
            ("data-2", "data-unlabelled"),
            ("students/distilled-predictions.2", "students/distilled-unlabelled.2"),
        ]


def test_speed_and_size_of_models(tmp_path):
    task = lstm_task(build_teacher_folder("bert", tmp_path / "bert"))
    teacher, student = build(task, head=False, **sizes()), build_lstm(task, vector_dim=24)
    texts = [np.array([*range(4, 4 + length), 2]) for length in (1, 3, 2)]
    found = rates({"teacher": teacher, "student": student}, texts, task.dictionary.pad(), rounds=1)
    assert all(rate > 0 for by_size in found.values() for rate in by_size.values())
    assert found["student"].keys() == {"batch 1", "batch 32", "batch 32, sorted"}
    assert parameters(student, True) - parameters(student, False) == student.embedding.weight.numel()
    words = teacher.encoder.get_input_embeddings().weight.numel()
    assert parameters(teacher, True) - parameters(teacher, False) == words


def test_an_experiment_from_text_to_cosines(data, tmp_path):
    build_teacher_folder("bert", tmp_path / "bert")
    command = [
        sys.executable, EXAMPLES / "run.py", "sentence_lstm", "distilled", "size=seconds", f"data={data}",
        f"teacher={tmp_path}/bert", f"out={tmp_path}/out", "own.sentences=60", "own.valid=12",
        "student=--arch sentence_lstm --hidden-size 8", "test_sets=[]", "after_students=[]", "report=false",
        "systems.distilled.baseline=distilled",
    ]  # fmt: skip
    child = subprocess.run(
        list(map(str, command)), env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stdout[-3000:] + child.stderr[-1000:]
    steps = [json.loads(line)["step"] for line in (tmp_path / "out/steps.jsonl").read_text().splitlines()]
    expected = "text data data-corpus data-corpus-vectors students/distilled.1 outputs/distilled.1.valid"
    assert steps == expected.split()
    cosines = [float(line) for line in (tmp_path / "out/outputs/distilled.1.valid.out").read_text().split()]
    assert len(cosines) == len((tmp_path / "out/text/valid.label").read_text().split()) == 21
    assert all(-1 <= cosine <= 1 for cosine in cosines)


def test_a_linear_classifier_reads_labels_off_vectors(tmp_path):
    table = tmp_path / "train.tsv"
    table.write_text("label\tsentence\ngood\ta fine film\nbad\ta dull one\n", encoding="utf-8")
    assert linear_probe.labels_and_sentences(table) == (["good", "bad"], ["a fine film", "a dull one"])
    draws = np.random.default_rng(1)
    labels = ["good", "bad"] * 20
    vectors = draws.normal(size=(60, 4)) + np.array([[3.0, 0, 0, 0], [-3.0, 0, 0, 0]] * 30)
    assert linear_probe.predictions(vectors[:40], labels, vectors[40:]) == ["good", "bad"] * 10
