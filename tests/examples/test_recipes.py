"""The paper's recipes: settings as its tables have them, files in their official layouts, one run from end to end."""

import functools
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fairseq.optim.lr_scheduler.inverse_square_root_schedule import (
    InverseSquareRootLRScheduleConfig,
    InverseSquareRootSchedule,
)
from fairseq.optim.sgd import SGD

from examples.workflow.settings import load
from tests.examples import official_files
from tests.tiny_chain import build_teacher_folder

EXAMPLES = Path(__file__).parents[2] / "examples"
LAPTOP = (
    "seeds=[1]", "store_topk=16", "teacher_training.updates=2", "teacher_training.validate=1", "student_training.updates=2",
    "student_training.validate=1", "own.plain_updates=3", "report=false", "jobs=2",
)  # fmt: skip


def run(name, data, teacher, out, *given):
    """Exit status and what the program printed."""
    command = [
        sys.executable,
        EXAMPLES / "run.py",
        name,
        f"data={data}",
        f"teacher={teacher}",
        f"out={out}",
        *given,
    ]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(EXAMPLES.parent),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=environment, check=False
    )


def settings_of(name, *given):
    return load(EXAMPLES / name / "task.yaml", given)


def prepare(name, data, teacher, out, *given):
    """The recipe's first step alone, or what it says when it fails."""
    settings, kind = settings_of(name, f"data={data}", f"teacher={teacher}", f"out={out}", *given)
    (text, *_) = kind.steps(settings)
    out.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", "-e", "-c", text.command]
    return subprocess.run(command, cwd=out, env=environment, capture_output=True, text=True, check=False)


def trainings(printed):
    """Options of every fairseq-train that was shown, by its folder; the last value of an option counts."""
    found = {}
    for line in printed.splitlines():
        if line.startswith("$ fairseq-train"):
            words = shlex.split(line[2:])
            values = {
                word: following
                for word, following in zip(words, [*words[1:], "--"], strict=True)
                if word.startswith("--")
            }
            found[values["--save-dir"]] = values
    return found


def batch(options):
    """Tokens of an update over all GPUs."""
    return (
        int(options["--max-tokens"])
        * int(options.get("--update-freq", 1))
        * int(options["--distributed-world-size"])
    )


def lr_of_step(eta, warmup, step):
    """The paper's learning rate (its App. A)."""
    return eta * 512**-0.5 * min(step**-0.5, step * warmup**-1.5)


# paper, App. A: teacher's batch; (updates, warm-up, batch, eta) plain and distilled; weight, temperature, dropout
PAPER = {
    "iwslt14_de-en": (16384, (50000, 4000, 6144, 1), (100000, 8000, 6144, 2), ("0.5", "10", "0.3")),
    "iwslt15_en-vi": (16384, (50000, 4000, 6144, 1), (100000, 8000, 6144, 2), ("0.1", "5", "0.1")),
    "wmt14_en-de": (524288, (30000, 4000, 393216, 4), (50000, 4000, 65536, 2), ("0.1", "5", "0.1")),
    "gigaword": (65536, (50000, 4000, 40960, 1), (70000, 4000, 36864, 2), ("0.1", "10", "0.1")),
}
FILES = {
    "iwslt14_de-en": official_files.iwslt14,
    "iwslt15_en-vi": official_files.iwslt15,
    "wmt14_en-de": official_files.wmt14,
    "gigaword": official_files.gigaword,
}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers")
    return {kind: build_teacher_folder(kind, folder / kind) for kind in ("bert", "roberta")}


@pytest.fixture(scope="module")
def dry_run():
    """The steps of a recipe at the paper's size, with rows `main` and `paper`."""

    @functools.cache
    def show(name):
        settings, kind = settings_of(
            name, "data=data", "teacher=bert", "out=out", "size=paper", "seeds=[1]", "main", "paper"
        )
        steps = {step.name: step for step in kind.steps(settings)}
        printed = "\n".join(f"$ {step.command}" for step in steps.values())
        return SimpleNamespace(settings=settings, steps=steps, printed=printed, trainings=trainings(printed))

    return show


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_settings(dry_run, name):
    teacher_batch, plain, distilled, (weight, temperature, dropout) = PAPER[name]
    commands = dry_run(name).trainings
    teacher = commands["teacher"]
    assert batch(teacher) == teacher_batch
    assert (teacher["--lr"], teacher["--max-update"], teacher["--warmup-updates"]) == (
        "5e-05",
        "100000",
        "5000",
    )
    for system, (updates, warmup, tokens, eta) in (("paper-plain", plain), ("distilled", distilled)):
        student = commands[f"students/{system}.1"]
        assert (int(student["--max-update"]), int(student["--warmup-updates"])) == (updates, warmup)
        assert batch(student) == tokens
        assert float(student["--lr"]) == pytest.approx(lr_of_step(eta, warmup, warmup), rel=1e-5)
        assert student["--arch"] == "distilled_transformer_base"
        assert (student["--dropout"], student["--label-smoothing"]) == (dropout, "0.1")
    assert commands["students/paper-plain.1"]["--kd-weight"] == "0"
    student = commands["students/distilled.1"]
    assert (student["--kd-weight"], student["--kd-temperature"], student["--kd-topk"]) == (
        weight,
        temperature,
        "8",
    )
    assert "--beam 4 --lenpen 0.6 " in dry_run(name).printed
    assert "--passes 7" in dry_run(name).printed


@pytest.mark.parametrize("name", PAPER)
def test_main_is_fair_and_paper_is_the_papers(dry_run, name):
    commands = dry_run(name).trainings
    plain, distilled = (dict(commands[f"students/{system}.1"]) for system in ("plain", "distilled"))
    for options in (plain, distilled):
        for option in [key for key in options if key.startswith("--kd-") or key == "--save-dir"]:
            del options[option]
    assert plain == distilled
    assert set(commands) == {
        "teacher",
        *(f"students/{system}.1" for system in ("paper-plain", "plain", "distilled")),
    }
    files = [step.files for step in dry_run(name).steps.values() if step.files]
    runs = {path.split("/")[1]: record for file in files for path, record in file.items()}
    assert {run: runs[run]["baseline"] for run in runs} == {
        "plain.1": "plain",
        "distilled.1": "plain",
        "paper-plain.1": "paper-plain",
        "paper-distilled.1": "paper-plain",
    }
    assert runs["paper-distilled.1"]["options"] == runs["distilled.1"]["options"]
    assert runs["paper-plain.1"]["updates"] == PAPER[name][1][0]
    assert runs["paper-distilled.1"]["updates"] == runs["plain.1"]["updates"] == PAPER[name][2][0]


def test_learning_rates_written_out(dry_run):
    commands = dry_run("iwslt14_de-en").trainings
    assert commands["students/distilled.1"]["--lr"] == "0.000988212"  # 2 / sqrt(512 * 8000)
    assert commands["students/paper-plain.1"]["--lr"] == "0.000698771"  # 1 / sqrt(512 * 4000)
    commands = dry_run("wmt14_en-de").trainings
    assert commands["students/paper-plain.1"]["--lr"] == "0.00279508"
    assert commands["students/distilled.1"]["--lr"] == "0.00139754"


@pytest.mark.parametrize("step", [1, 3999, 4000, 8000, 8001, 100000])
@pytest.mark.parametrize(
    ("eta", "warmup", "written"), [(1, 4000, 0.000698771), (2, 8000, 0.000988212), (4, 4000, 0.00279508)]
)
def test_fairseqs_schedule_is_the_papers(eta, warmup, written, step):
    optimizer = SGD(
        SimpleNamespace(lr=[1.0], momentum=0, weight_decay=0), [torch.nn.Parameter(torch.zeros(1))]
    )
    config = InverseSquareRootLRScheduleConfig(warmup_updates=warmup, lr=[written])
    schedule = InverseSquareRootSchedule(config, optimizer)
    assert schedule.step_update(step) == pytest.approx(lr_of_step(eta, warmup, step), rel=1e-5)


def test_wmt_students_continue_from_the_plain_one_of_their_seed(dry_run):
    commands = dry_run("wmt14_en-de").trainings
    for system in ("plain", "distilled"):
        start = commands[f"students/{system}.1"]["--finetune-from-model"]
        assert start == "students/paper-plain.1/checkpoint_best.pt"
    assert "--finetune-from-model" not in commands["students/paper-plain.1"]
    order = [folder for folder in commands if folder.startswith("students/")]
    assert order[0] == "students/paper-plain.1"
    assert "--finetune-from-model" not in dry_run("iwslt14_de-en").printed


def test_gpus_and_accumulated_steps_share_the_batch(dry_run):
    commands = dry_run("wmt14_en-de").trainings
    steps = {folder: options["--update-freq"] for folder, options in commands.items()}
    assert steps == {
        "teacher": "8",
        "students/paper-plain.1": "12",
        "students/plain.1": "2",
        "students/distilled.1": "2",
    }
    assert commands["teacher"]["--distributed-world-size"] == "4"


# ---- official files ------------------------------------------------------------------------------------------
SAMPLE = ("own.sample_pairs=10",)


def test_iwslt14_is_unpacked_and_prepared(tmp_path):
    data, out = official_files.iwslt14(tmp_path / "data"), tmp_path / "out"
    done = prepare("iwslt14_de-en", data, "bert", out, "size=paper")
    assert done.returncode == 0, done.stderr
    assert (out / "text/train.en").read_text().startswith("a title\nabout it .\n")
    assert (out / "reference/test.tok").read_text().startswith("it &apos;s set 0 , line 0 .\n")


def test_gigaword_decodes_test_dev_and_has_unknown_words_as_one_symbol(dry_run):
    shown = dry_run("gigaword")
    assert " --testpref pieces/test,pieces/testdev " in shown.printed
    assert "--gen-subset test1 " in shown.steps["outputs/distilled.1.testdev"].command
    names = list(shown.steps)
    assert names.index("after-tokenize") < names.index("preprocess")
    assert "unknown_words.py" in shown.steps["after-tokenize"].command
    assert shown.steps["scores-1"].command.endswith("--language title --subsets valid testdev test")


def test_gigaword_from_unilms_archive(tmp_path):
    official_files.zipped(official_files.gigaword(tmp_path / "data"), "ggw_data.zip")
    done = prepare(
        "gigaword", tmp_path / "data", "bert", tmp_path / "out", *SAMPLE, "pairs=7", "own.sample_seed=2"
    )
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "out/text/train.title").read_text().splitlines()) == 7
    title = settings_of("gigaword", "data=d", "teacher=t", "out=o", "pairs=7", "own.sample_seed=2")[0].title
    assert (
        title == "Gigaword headlines, 7 training pairs of up to 40 words, test of 500, dev drawn with seed 2"
    )


def test_dropout_of_english_vietnamese_is_a_setting():
    settings, kind = settings_of(
        "iwslt15_en-vi", "data=d", "teacher=t", "out=o", "size=paper", "own.dropout=0.3"
    )
    printed = "\n".join(f"$ {step.command}" for step in kind.steps(settings))
    assert trainings(printed)["students/distilled.1"]["--dropout"] == "0.3"
    assert settings.title.endswith(", dropout 0.3")


def test_a_teacher_that_cannot_write_vietnamese_is_not_accepted(tmp_path, teachers):
    data = official_files.iwslt15(tmp_path / "data")
    done = prepare("iwslt15_en-vi", data, teachers["bert"], tmp_path / "out")
    assert done.returncode == 2
    assert "must keep the text of `text/valid.vi`, which students learn to write, but" in done.stderr
    assert "changes 6 of 6 lines" in done.stderr


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("iwslt14_de-en", "de-en/train.tags.de-en.en or de-en.tgz"),
        ("iwslt15_en-vi", "train.en"),
        ("wmt14_en-de", "train.tok.clean.bpe.32000.de or wmt16_en_de.tar.gz"),
        ("gigaword", "org_data or ggw_data.zip"),
    ],
)
def test_missing_files_are_named_and_nothing_is_fetched_unrequested(tmp_path, name, missing):
    (tmp_path / "data").mkdir()
    done = prepare(name, tmp_path / "data", "bert", tmp_path / "out")
    assert done.returncode == 2
    assert (
        f"data must hold {missing}, but {tmp_path / 'data'} does not. Put it there from http" in done.stderr
    )
    assert "or give own.fetch=true where there is a network" in done.stderr
    assert list((tmp_path / "data").iterdir()) == []


def test_files_are_fetched_where_it_is_requested(tmp_path):
    archive = official_files.iwslt14(tmp_path / "there") / "de-en.tgz"
    (tmp_path / "data").mkdir()
    command = [sys.executable, EXAMPLES / "recipes/official_files.py", tmp_path / "data", "--fetch", "true"]
    command += ["--archive", "de-en.tgz", "--needs", "de-en/train.tags.de-en.en", "--url", archive.as_uri()]
    (tmp_path / "out").mkdir()
    subprocess.run(list(map(str, command)), cwd=tmp_path / "out", check=True)
    assert (tmp_path / "data/de-en.tgz").exists()
    assert (tmp_path / "out/official/de-en/train.tags.de-en.en").exists()


# ---- from end to end -----------------------------------------------------------------------------------------
def test_wmt14_from_end_to_end_as_the_paper_has_it(tmp_path, teachers):
    """Row `paper`: a plain student, the distilled one that continues from it, scores in three ways."""
    data = official_files.wmt14(tmp_path / "data")
    out = tmp_path / "out"
    done = run("wmt14_en-de", data, teachers["roberta"], out, "paper", *LAPTOP)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert done.stdout.count("$ fairseq-train") == 3  # the teacher, paper-plain, distilled; not plain
    log = (out / "logs/students/distilled.1.log").read_text()
    assert "loading pretrained model from students/paper-plain.1/checkpoint_best.pt" in log
    shared = out / "students/paper-distilled.1/checkpoint_best.pt"
    assert shared.resolve() == (out / "students/distilled.1/checkpoint_best.pt").resolve()
    results = json.loads((out / "scores-tokenised.json").read_text())
    assert {(row["system"], row["subset"]) for row in results["scores"]} == {
        (system, subset)
        for system in ("paper-plain", "distilled", "paper-distilled")
        for subset in ("valid", "test")
    }
    assert set(results["signatures"]["test"]) == {"tokenised", "compounds", "sacrebleu"}
    steps = [json.loads(line)["step"] for line in (out / "steps.jsonl").read_text().splitlines()]
    assert steps[-2:] in (["scores-1", "score"], ["score", "scores-1"])
    assert steps.index("outputs/paper-plain.1.test") < steps.index("students/distilled.1")
    assert not (out / "report.html").exists()
