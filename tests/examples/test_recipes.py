"""The paper's recipes: settings as its tables have them, files in their official layouts, one run from end to end."""

import json
import os
import re
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

from tests.examples import official_files
from tests.tiny_chain import build_teacher_folder

EXAMPLES = Path(__file__).parents[2] / "examples"
LAPTOP = {
    "SEEDS": "1",
    "STORE_TOPK": "16",
    "TEACHER_UPDATES": "2",
    "TEACHER_VALIDATE": "1",
    "STUDENT_UPDATES": "2",
    "STUDENT_VALIDATE": "1",
    "PLAIN_UPDATES": "3",
    "REPORT": "0",
}


def bash(*command, **settings):
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        **settings,
    }
    return subprocess.run(
        ["bash", *map(str, command)], capture_output=True, text=True, env=environment, check=False
    )


def recipe(name, *arguments, **settings):
    result = bash(EXAMPLES / name / "run.sh", *arguments, **settings)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]
    return result.stdout


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
        * int(options["--update-freq"])
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
def dry_run(tmp_path_factory, teachers):
    """What a recipe shows at the paper's size, once for each recipe, and its folder."""
    shown = {}

    def show(name):
        if name not in shown:
            folder = tmp_path_factory.mktemp(name)
            data = FILES[name](folder / "data")
            settings = {"DRY_RUN": "1", "SIZE": "paper", "SEEDS": "1", "SAMPLE_PAIRS": "10"}
            printed = recipe(name, data, teachers["roberta"], folder / "out", "main", "paper", **settings)
            shown[name] = SimpleNamespace(printed=printed, out=folder / "out", trainings=trainings(printed))
        return shown[name]

    return show


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_settings(dry_run, name):
    teacher_batch, plain, distilled, (weight, temperature, dropout) = PAPER[name]
    commands = dry_run(name).trainings
    teacher = commands["teacher"]
    assert batch(teacher) == teacher_batch
    assert (teacher["--lr"], teacher["--max-update"], teacher["--warmup-updates"]) == (
        "5e-5",
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
    commands, students = dry_run(name).trainings, dry_run(name).out / "students"
    plain, distilled = (dict(commands[f"students/{system}.1"]) for system in ("plain", "distilled"))
    for options in (plain, distilled):
        for option in [key for key in options if key.startswith("--kd-") or key == "--save-dir"]:
            del options[option]
    assert plain == distilled
    assert set(commands) == {
        "teacher",
        *(f"students/{system}.1" for system in ("paper-plain", "plain", "distilled")),
    }
    runs = {path.parent.name: json.loads(path.read_text()) for path in students.glob("*/run.json")}
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
@pytest.mark.parametrize(("eta", "warmup"), [(1, 4000), (2, 8000), (4, 4000)])
def test_fairseqs_schedule_is_the_papers(eta, warmup, step):
    printed = bash("-c", f". {EXAMPLES}/recipes/recipe.sh; paper_lr {eta} {warmup}").stdout
    optimizer = SGD(
        SimpleNamespace(lr=[1.0], momentum=0, weight_decay=0), [torch.nn.Parameter(torch.zeros(1))]
    )
    config = InverseSquareRootLRScheduleConfig(warmup_updates=warmup, lr=[float(printed)])
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


@pytest.mark.parametrize(
    ("gpus", "tokens", "limit", "expected"),
    [
        (1, 6144, 8192, "6144 1"),
        (1, 40960, 8192, "8192 5"),
        (1, 36864, 8192, "6144 6"),
        (4, 524288, 16384, "16384 8"),
    ],
)
def test_accumulation(gpus, tokens, limit, expected):
    script = f". {EXAMPLES}/recipes/recipe.sh; accumulate {tokens} {limit}; echo $TOKENS $STEPS"
    assert bash("-c", script, GPUS=str(gpus)).stdout == f"{expected}\n"


def test_gpus_that_cannot_share_the_batch_are_refused():
    result = bash("-c", f". {EXAMPLES}/recipes/recipe.sh; accumulate 6144 8192", GPUS="5")
    assert result.returncode == 2
    assert (
        "a batch of 6144 tokens must be shared evenly, but GPUS=5 does not divide it. Give a GPUS"
        in result.stderr
    )


# ---- official files ------------------------------------------------------------------------------------------
def test_iwslt14_is_unpacked_and_prepared(dry_run):
    out = dry_run("iwslt14_de-en").out
    assert (out / "text/train.en").read_text().startswith("a title\nabout it .\n")
    assert (out / "reference/test.tok").read_text().startswith("it &apos;s set 0 , line 0 .\n")
    experiment = json.loads((out / "experiment.json").read_text(encoding="utf-8"))
    assert experiment["title"] == "IWSLT14 German–English, all training pairs"
    assert (experiment["bleu_tokenize"], experiment["lowercase"]) == ("none", True)
    assert not (out / "data-bin").exists()  # a dry run


def test_gigaword_decodes_test_dev_and_has_unknown_words_as_one_symbol(dry_run):
    printed = dry_run("gigaword").printed
    assert re.search(r"--testpref pieces/test\\?,pieces/testdev ", printed)
    assert "--gen-subset test1 " in printed
    assert "outputs/distilled.1.testdev.out" in printed
    assert printed.index("unknown_words.py") < printed.index("$ fairseq-preprocess")
    assert printed.rstrip().endswith("--language title --subsets valid testdev test")


def test_gigaword_from_unilms_archive(tmp_path, teachers):
    official_files.zipped(official_files.gigaword(tmp_path / "data"), "ggw_data.zip")
    settings = {"DRY_RUN": "1", "SEEDS": "1", "SAMPLE_PAIRS": "10", "PAIRS": "7", "SAMPLE_SEED": "2"}
    recipe("gigaword", tmp_path / "data", teachers["bert"], tmp_path / "out", **settings)
    assert len((tmp_path / "out/text/train.title").read_text().splitlines()) == 7
    title = json.loads((tmp_path / "out/experiment.json").read_text())["title"]
    assert (
        title == "Gigaword headlines, 7 training pairs of up to 40 words, test of 500, dev drawn with seed 2"
    )


def test_dropout_of_english_vietnamese_is_a_setting(tmp_path, teachers):
    data = official_files.iwslt15(tmp_path / "data")
    settings = {"DRY_RUN": "1", "SIZE": "paper", "SEEDS": "1", "DROPOUT": "0.3"}
    printed = recipe("iwslt15_en-vi", data, teachers["roberta"], tmp_path / "out", **settings)
    assert trainings(printed)["students/distilled.1"]["--dropout"] == "0.3"
    assert json.loads((tmp_path / "out/experiment.json").read_text())["title"].endswith(", dropout 0.3")


def test_a_teacher_that_cannot_write_vietnamese_is_refused(tmp_path, teachers):
    data = official_files.iwslt15(tmp_path / "data")
    result = bash(EXAMPLES / "iwslt15_en-vi/run.sh", data, teachers["bert"], tmp_path / "out", DRY_RUN="1")
    assert result.returncode == 2
    assert "must keep the text of `text/valid.vi`, which students learn to write, but" in result.stderr
    assert "changes 6 of 6 lines" in result.stderr
    assert not (tmp_path / "out/text/ready").exists()


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("iwslt14_de-en", "de-en/train.tags.de-en.en or de-en.tgz"),
        ("iwslt15_en-vi", "train.en"),
        ("wmt14_en-de", "train.tok.clean.bpe.32000.de or wmt16_en_de.tar.gz"),
        ("gigaword", "org_data or ggw_data.zip"),
    ],
)
def test_missing_files_are_named_and_nothing_is_fetched_unasked(tmp_path, name, missing):
    (tmp_path / "data").mkdir()
    fake_curl(tmp_path / "bin", tmp_path)
    path = f"{tmp_path / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = bash(EXAMPLES / name / "run.sh", tmp_path / "data", "bert", tmp_path / "out", PATH=path)
    assert result.returncode == 2
    assert (
        f"DATA_DIR must hold {missing}, but {tmp_path / 'data'} does not. Put it there from http"
        in result.stdout
    )
    assert "or set FETCH=1 where there is a network" in result.stdout
    assert not (tmp_path / "fetched").exists()


def fake_curl(folder, answers):
    """A curl that copies ``answers/NAME``, where NAME is the file asked for, and notes the address."""
    folder.mkdir()
    (folder / "curl").write_text(
        "#!/usr/bin/env bash\n"
        f'echo "${{@: -1}}" >> {answers}/fetched\n'
        'while [ "$1" != --output ]; do shift; done\n'
        f'cp "{answers}/$(basename "$2" .part)" "$2"\n'
    )
    (folder / "curl").chmod(0o755)


def test_files_are_fetched_where_it_is_asked_for(tmp_path, teachers):
    official_files.iwslt14(tmp_path / "there")
    fake_curl(tmp_path / "bin", tmp_path / "there")
    (tmp_path / "data").mkdir()
    path = f"{tmp_path / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {"PATH": path, "FETCH": "1", "DRY_RUN": "1", "SEEDS": "1"}
    recipe("iwslt14_de-en", tmp_path / "data", teachers["bert"], tmp_path / "out", **settings)
    assert (tmp_path / "there/fetched").read_text().endswith("/iwslt14/de-en.tgz\n")
    assert (tmp_path / "data/de-en.tgz").exists()
    assert (tmp_path / "out/text/test.en").exists()


# ---- from end to end -----------------------------------------------------------------------------------------
def test_wmt14_from_end_to_end_as_the_paper_has_it(tmp_path, teachers):
    """Row `paper`: a plain student, the distilled one that continues from it, scores in three ways."""
    data = official_files.wmt14(tmp_path / "data")
    out = tmp_path / "out"
    printed = recipe("wmt14_en-de", data, teachers["roberta"], out, "paper", JOBS="2", **LAPTOP)
    assert printed.count("$ fairseq-train") == 3  # the teacher, paper-plain, distilled; not plain
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
    assert steps[-1] == "scores-tokenised"
    assert steps.index("outputs/paper-plain.1.test") < steps.index("students/distilled.1")
    assert not (out / "report.html").exists()
