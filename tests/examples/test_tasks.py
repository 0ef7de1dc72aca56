"""The settings files of our own tasks: their text, their sizes, one of them from end to end; quickstart/README.md."""

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from examples.workflow.settings import load
from tests.tiny_chain import build_teacher_folder, write_corpus

EXAMPLES = Path(__file__).parents[2] / "examples"
ROOT = EXAMPLES.parent
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
}


def packed(folder):
    for path in list(folder.iterdir()):
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


def prepared(task, folder, *given):
    """What the first step of a task makes of ``folder/raw``, by name of the file."""
    out = folder / "out"
    out.mkdir()
    settings, kind = load(
        EXAMPLES / task / "task.yaml", [f"data={folder}/raw", "teacher=bert", f"out={out}", *given]
    )
    command = ["bash", "-e", "-c", kind.steps(settings)[0].command]
    subprocess.run(command, cwd=out, env=ENVIRONMENT, check=True)
    return {path.name: path.read_text(encoding="utf-8") for path in (out / "text").iterdir()}


def test_ted_takes_pairs_of_which_neither_side_is_too_long(tmp_path):
    (tmp_path / "raw").mkdir()
    for split in ("train", "valid", "test"):
        (tmp_path / "raw" / f"{split}.de").write_text("a b c\nd\ne f\ng h\n", encoding="utf-8")
        (tmp_path / "raw" / f"{split}.en").write_text("A\nD E F\nE F\nG\n", encoding="utf-8")
    packed(tmp_path / "raw")
    text = prepared("ted_de-en", tmp_path, "max_words=2", "pairs=1", "test_pairs=3")
    assert (text["train.de"], text["train.en"]) == ("e f\n", "E F\n")
    assert text["valid.de"] == "e f\ng h\n"
    assert text["test.de"] == "a b c\nd\ne f\n"


def test_acl_titles_splits_columns_and_cuts_abstracts(tmp_path):
    (tmp_path / "raw").mkdir()
    for split in ("train", "valid", "test"):
        (tmp_path / "raw" / f"{split}.tsv").write_text(
            "one two three\tTitle A\nfour\tTitle B\n", encoding="utf-8"
        )
    packed(tmp_path / "raw")
    text = prepared("acl_titles", tmp_path, "own.words=2", "pairs=1")
    assert (text["train.abstract"], text["train.title"]) == ("one two\n", "Title A\n")
    assert (text["test.abstract"], text["test.title"]) == ("one two\nfour\n", "Title A\nTitle B\n")


def test_tatoeba_takes_the_first_pairs(tmp_path):
    write_corpus(tmp_path / "raw", train=60)
    assert len(prepared("tatoeba_de-en", tmp_path, "pairs=7")["train.de"].splitlines()) == 7


SETTINGS = sorted(
    path for path in EXAMPLES.glob("*/*.yaml") if "\ntask: " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("path", SETTINGS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_no_two_steps_of_an_experiment_have_one_name(path):
    """doit refuses them, at the start of the run."""
    settings, kind = load(
        path, ["all", "data=d", "teacher=bert-base", "out=o", "seeds=[1,2]", "own.distilled=x"]
    )
    names = [step.name for step in kind.steps(settings)]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("task", ["acl_titles", "tatoeba_de-en", "ted_de-en", "multi30k"])
@pytest.mark.parametrize("size", ["laptop", "gpu", "paper"])
def test_plain_and_distilled_have_the_same_budget_at_every_size(task, size):
    settings, kind = load(
        EXAMPLES / task / "task.yaml", [f"size={size}", "data=d", "teacher=bert-base", "out=o", "seeds=[1]"]
    )
    commands = [step.command for step in kind.steps(settings)]
    teacher, plain, distilled = (command for command in commands if command.startswith("fairseq-train"))
    assert '--teacher-model "bert-base"' in teacher
    assert plain.endswith(" --kd-weight 0")
    budget = [
        re.findall(r"--(?:max-update|max-tokens|lr|warmup-updates|dropout|seed|arch) (\S+)", line)
        for line in (plain, distilled)
    ]
    assert budget[0] == budget[1]
    if size == "paper":
        assert "--max-update 100000 " in teacher
        weight = "0.1" if task == "acl_titles" else "0.5"
        assert f"--kd-weight {weight} --kd-temperature 10 --kd-topk 8" in distilled
        assert "--arch distilled_transformer_base " in distilled


def run(*arguments):
    command = [sys.executable, str(EXAMPLES / "run.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    return done.stdout


SMALL = ("store_topk=16", "teacher_training.updates=2", "teacher_training.validate=1", "student_training.updates=2",
         "student_training.validate=1", "student_training.warmup=1", "teacher_training.warmup=1")  # fmt: skip


def test_multi30k_runs_on_packed_text_row_by_row(tmp_path):
    write_corpus(tmp_path / "raw", train=60)
    packed(tmp_path / "raw")
    bert = build_teacher_folder("bert", tmp_path / "bert")
    given = (
        "multi30k",
        f"data={tmp_path / 'raw'}",
        f"teacher={bert}",
        f"out={tmp_path / 'out'}",
        "pairs=60",
        *SMALL,
    )
    printed = run(*given, "seeds=[1,2]", "jobs=2")
    assert "distilled against plain: " in printed
    (experiment,) = json.loads((tmp_path / "out" / "results.json").read_text())["experiments"]
    assert {(one["system"], one["seed"]) for one in experiment["runs"]} == {
        (system, seed) for system in ("plain", "distilled") for seed in (1, 2)
    }
    assert all("bleu" in one["scores"]["test"] for one in experiment["runs"])
    printed = run(*given, "topk-1", "seeds=[1]")
    assert printed.count("$ fairseq-train") == 1  # the baseline, the teacher and its store were there
    record = json.loads((tmp_path / "out" / "students" / "topk-1.1" / "run.json").read_text())
    assert (record["group"], record["store"]) == ("topk", "default")
    assert "--kd-topk 1 " in record["options"] + " "
    # the command of docs/report.md, with this folder in the place of OUT
    page = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"<!-- report: .*?```bash\n(.*?)```", page, flags=re.S)
    subprocess.run(
        ["bash", "-c", command.replace(" OUT ", " out ")], cwd=tmp_path, check=True, env=ENVIRONMENT
    )
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert list((tmp_path / "figures").glob("*.png"))


def test_quickstart_runs(tmp_path):
    small = ("pairs=200", "own.mono=300", "own.reads=3")
    printed = run("quickstart", f"out={tmp_path / 'out'}", *small, *SMALL)
    assert "distilled against plain: " in printed
    names = [json.loads(line)["step"] for line in (tmp_path / "out" / "steps.jsonl").read_text().splitlines()]
    assert names[:3] == ["text", "make-teacher", "tokenize"]
    assert (tmp_path / "out" / "report.html").exists()
