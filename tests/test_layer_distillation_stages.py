"""TinyBERT's stages by fairseq's commands: what each checkpoint holds, how the next goes on, and two workers."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.compat import load_checkpoint
from tests.test_distributed_training import assert_same_curves, assert_same_weights, from_log
from tests.tiny_chain import PLUGIN, build_teacher_folder, logged, run_fairseq
from tests.tiny_sentences import prepare, write_table
from tests.two_workers import TwoWorkers

TAGS = ("train_inner", "train", "valid")
STAGES = ("general", "intermediate", "prediction")
LAYERS = {"loss", "embedding_loss", "hidden_loss", "attention_loss"}


@dataclass(frozen=True)
class Folders:
    """What the stages start from.

    Attributes:
        bert: pre-trained teacher of two layers of 32, without dropout.
        small: encoder of one layer of 16 without dropout, from which students start.
        general: data without labels.
        task: data with labels.
        teacher: checkpoint of the fine-tuned teacher.
    """

    bert: Path
    small: Path
    general: Path
    task: Path
    teacher: Path


def calm(folder, **settings):
    """Rewrite the config of a transformers folder without dropout."""
    path = folder / "config.json"
    stated = json.loads(path.read_text(encoding="utf-8"))
    dropouts = {name: 0.0 for name, value in stated.items() if "dropout" in name and value}
    path.write_text(json.dumps(stated | dropouts | settings), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("stages")
    bert = calm(build_teacher_folder("bert", root / "bert"))
    small = calm(build_teacher_folder("bert", root / "small", dim=16))
    write_table(root / "train.tsv", 60)
    write_table(root / "valid.tsv", 20, seed=1)
    for split in ("train", "valid"):
        lines = (root / f"{split}.tsv").read_text(encoding="utf-8").splitlines()[1:]
        (root / f"{split}.txt").write_text(
            "".join(line.split("\t")[0] + "\n" for line in lines), encoding="utf-8"
        )
    table = ("--columns", "text", "--label-column", "label", "--full-dictionary")
    files = [(f"--{split}", root / f"{split}.tsv") for split in ("train", "valid")]
    assert prepare(bert, root / "task", *table, *sum(files, ())) == 0
    plain = [(f"--{split}", root / f"{split}.txt") for split in ("train", "valid")]
    assert prepare(bert, root / "general", "--task", "plain", "--full-dictionary", *sum(plain, ())) == 0
    fine_tuned = (
        "--arch", "hf_encoder", "--encoder-model", bert, "--criterion", "sentence_prediction", "--classification-dropout", 0,
    )  # fmt: skip
    run_fairseq("train", *training(root / "task", root / "teacher", *fine_tuned))
    return Folders(bert, small, root / "general", root / "task", root / "teacher" / "checkpoint_last.pt")


def training(data, save_dir, *arguments, updates=3, lr=1e-3):
    return (
        data, "--user-dir", PLUGIN, "--task", "sentence_prediction_with_teacher", "--optimizer", "adam", "--lr", lr,
        "--clip-norm", 1, "--batch-size", 8, "--max-update", updates, "--save-dir", save_dir, "--no-epoch-checkpoints",
        "--num-workers", 0, "--cpu", "--log-interval", 1, "--log-format", "json", *arguments,
    )  # fmt: skip


def stage(folders, name, *arguments):
    """Data and options of a stage."""
    data = folders.general if name == "general" else folders.task
    teacher = folders.bert if name == "general" else folders.teacher
    options = ("--criterion", "layer_distillation", "--layer-stage", name, "--kd-teacher", teacher)
    return data, (*options, "--layer-map", "0,2", *arguments)


def student(folders, *arguments):
    return ("--arch", "hf_encoder", "--encoder-model", folders.small, "--encoder-init-layers", 0,
            "--classification-dropout", 0, *arguments)  # fmt: skip


def run_stage(folders, name, save_dir, *arguments, **options):
    """Train a stage in this process; what was logged by tag."""
    data, options_of_stage = stage(folders, name)
    with logged("train_inner") as inner, logged("train") as epochs, logged("valid") as valid:
        run_fairseq("train", *training(data, save_dir, *options_of_stage, *arguments, **options))
    return {
        tag: list(map(json.loads, lines)) for tag, lines in zip(TAGS, (inner, epochs, valid), strict=True)
    }


@pytest.fixture(scope="module")
def general(folders, tmp_path_factory):
    """Folder and log of a general stage."""
    folder = tmp_path_factory.mktemp("general")
    return folder, run_stage(folders, "general", folder, *student(folders))


def weights_of(folder):
    return load_checkpoint(str(folder / "checkpoint_last.pt"))["model"]


def test_a_checkpoint_holds_the_student_alone(folders, general):
    folder, log = general
    state = load_checkpoint(str(folder / "checkpoint_last.pt"))
    names = {name.split(".")[0] for name in state["model"]}
    assert names == {"encoder", "pooler", "projections", "token_to_encoder"}
    assert not [name for name in state["model"] if name.startswith("encoder.encoder.layer.1")]
    assert state["model"]["projections.hidden.weight"].shape == (32, 16)
    assert state["criterion"] is None
    trained = sum(
        weight.numel()
        for name, weight in state["model"].items()
        if not name.startswith(("pooler", "token_to"))
    )
    kept = sum(entry["exp_avg"].numel() for entry in state["last_optimizer_state"]["state"].values())
    assert kept == trained
    assert log["train_inner"][0].keys() >= LAYERS
    assert not any("accuracy" in name for name in log["valid"][0])
    assert {f"valid_{name}" for name in LAYERS} <= log["valid"][0].keys()


def test_the_next_stage_goes_on_with_encoder_and_projections(folders, general, tmp_path):
    before = weights_of(general[0])
    path = general[0] / "checkpoint_last.pt"
    ways = {
        "init": ("--arch", "hf_encoder", "--encoder-init", path),
        "finetune": student(folders, "--finetune-from-model", path),
    }
    for way, arguments in ways.items():
        log = run_stage(folders, "intermediate", tmp_path / way, *arguments, updates=1, lr=0)
        after = weights_of(tmp_path / way)
        assert after.keys() - before.keys() == {
            f"classification_heads.sentence_classification_head.output.{part}" for part in ("weight", "bias")
        }
        for name, weight in before.items():
            if name.startswith(("encoder", "projections", "token_to")):
                assert torch.equal(weight, after[name]), (way, name)
        assert "valid_accuracy" in log["valid"][0]


def test_all_stages_to_an_exported_student(folders, general, tmp_path, capsys):
    origin = general[0]
    for name in STAGES[1:]:
        arguments = ("--arch", "hf_encoder", "--encoder-init", origin / "checkpoint_last.pt")
        log = run_stage(folders, name, tmp_path / name, *arguments)
        origin = tmp_path / name
    assert {"valid_accuracy", "valid_agreement", "valid_prediction_loss"} <= log["valid"][0].keys()
    assert "hidden_loss" not in log["train_inner"][0]
    before, after = weights_of(tmp_path / "intermediate"), weights_of(tmp_path / "prediction")
    head = "classification_heads.sentence_classification_head.output.weight"
    assert not torch.equal(before[head], after[head])
    assert not any(name.startswith("projections") for name in after)  # the last stage has no use for them
    path = tmp_path / "intermediate" / "checkpoint_last.pt"
    words = [
        "export-student",
        path,
        "--format",
        "transformers",
        "--tokenizer",
        folders.bert,
        "--output",
        tmp_path / "out",
    ]
    assert cli_main(list(map(str, words))) == 0
    untrained = f"warning: --layer-stage intermediate has not trained the classification head of `{path}`"
    assert untrained in capsys.readouterr().out
    evaluated = ["evaluate-sentences", str(folders.task), "--cpu", "--path"]
    assert cli_main([*evaluated, str(path)]) == 0
    assert untrained in capsys.readouterr().out
    from safetensors.torch import load_file

    assert not any("projection" in name for name in load_file(tmp_path / "out" / "model.safetensors"))
    assert cli_main([*evaluated, str(tmp_path / "prediction" / "checkpoint_last.pt")]) == 0
    assert "warning" not in capsys.readouterr().out


def test_a_stage_resumes_and_validates(folders, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    log = run_stage(folders, "intermediate", whole, *student(folders), updates=4)
    for updates in (2, 4):
        run_stage(folders, "intermediate", parts, *student(folders), updates=updates)
    assert_same_weights(whole, parts)
    with logged("fairseq_cli.validate"), logged("valid") as lines:
        run_fairseq(
            "validate", folders.task, "--user-dir", PLUGIN, "--task", "sentence_prediction_with_teacher", "--path",
            whole / "checkpoint_last.pt", "--batch-size", 8, "--cpu", "--log-format", "json", "--no-progress-bar",
        )  # fmt: skip
    [found] = map(json.loads, lines)
    for name in LAYERS | {"accuracy"}:
        assert float(found[f"valid_{name}"]) == pytest.approx(
            float(log["valid"][-1][f"valid_{name}"]), abs=2e-4
        )


def test_another_stage_does_not_go_on_in_the_folder_of_one(folders, tmp_path):
    run_stage(folders, "intermediate", tmp_path, *student(folders), updates=1)
    path = tmp_path / "checkpoint_last.pt"
    before = path.read_bytes()
    said = f"is of --layer-stage intermediate, .* another --save-dir, and --encoder-init {path}"
    with pytest.raises(ValueError, match=said):
        run_stage(folders, "prediction", tmp_path, *student(folders), updates=2)
    assert path.read_bytes() == before
    anew = ("--reset-optimizer", "--reset-dataloader", "--reset-meters", "--reset-lr-scheduler")
    run_stage(folders, "prediction", tmp_path, *student(folders), *anew, updates=2)


def test_a_student_s_checkpoint_is_chosen_by_the_metric_of_its_task(folders, tmp_path):
    best = ("--report-mcc", "--best-checkpoint-metric", "mcc", "--maximize-best-checkpoint-metric")
    log = run_stage(folders, "prediction", tmp_path, *student(folders), *best)
    assert not any("mcc" in name for name in log["train_inner"][0])
    extra = load_checkpoint(str(tmp_path / "checkpoint_last.pt"))["extra_state"]
    assert extra["val_loss"] == pytest.approx(float(log["valid"][-1]["valid_mcc"]), abs=1e-2)


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    with TwoWorkers(tmp_path_factory.mktemp("logs")) as both:
        yield both


@pytest.mark.parametrize("backend", ["legacy_ddp", "pytorch_ddp"])
@pytest.mark.parametrize("name", STAGES)
def test_two_workers_train_every_stage_as_one_does(folders, workers, tmp_path, name, backend):
    one = run_stage(folders, name, tmp_path / "one", *student(folders), "--update-freq", 2)
    data, options = stage(folders, name)
    output = workers.run(
        "train", *training(data, tmp_path / "two", *options, *student(folders), "--ddp-backend", backend),
        pytorch_ddp=backend == "pytorch_ddp",
    )  # fmt: skip
    metrics = {"loss", "prediction_loss", "agreement"} if name == "prediction" else LAYERS
    assert_same_curves(one, from_log(output[0]), 3, metrics)
    assert_same_weights(tmp_path / "one", tmp_path / "two")


def test_rows_are_cut_to_what_the_teacher_reads(folders, tmp_path):
    short = calm(build_teacher_folder("bert", tmp_path / "short", max_positions=6))
    with logged("fairseq_bert_kd.tasks.sentence_prediction_with_teacher") as lines:
        run_stage(folders, "general", tmp_path / "run", *student(folders), "--kd-teacher", short, updates=1)
    assert any("rows" in line and "were cut to 5 tokens" in line for line in lines)


# ---- what is refused ---------------------------------------------------------------------------------------
def refused(folders, name, tmp_path, *arguments):
    """Message of the ValueError that a stage ends in; nothing was trained."""
    with pytest.raises(ValueError, match=".") as error:
        run_stage(folders, name, tmp_path / "refused", *student(folders), *arguments)
    assert not list((tmp_path / "refused").glob("*.pt"))
    return str(error.value)


def test_teachers_that_do_not_fit_are_refused(folders, tmp_path):
    said = refused(folders, "prediction", tmp_path, "--kd-teacher", folders.bert)
    assert "needs a teacher that was fine-tuned on the task" in said
    assert f"`{folders.bert}` has no classification head" in said
    other = build_teacher_folder("roberta", tmp_path / "roberta")
    said = refused(folders, "general", tmp_path, "--kd-teacher", other)
    assert "has another tokenizer than the student's data" in said
    said = refused(folders, "general", tmp_path, "--kd-teacher", "no/such-model")
    assert "cannot load a tokenizer from `no/such-model`" in said
    (tmp_path / "text.pt").write_text("no checkpoint")
    said = refused(folders, "general", tmp_path, "--kd-teacher", tmp_path / "text.pt")
    assert "is not a readable torch checkpoint" in said


def relabelled(folders, folder, names):
    """The teacher's checkpoint with other names for its classes."""
    state = torch.load(folders.teacher, weights_only=False)
    spec = json.loads(state["cfg"]["model"]["encoder_spec"])
    assert spec["heads"]["sentence_classification_head"] == [2, ["bad", "good"]]
    spec["heads"]["sentence_classification_head"][1] = list(names)
    state["cfg"]["model"]["encoder_spec"] = json.dumps(spec)
    torch.save(state, folder / "relabelled.pt")
    return folder / "relabelled.pt"


def test_classes_are_compared_by_name(folders, tmp_path):
    path = relabelled(folders, tmp_path, ("negative", "positive"))
    said = refused(folders, "prediction", tmp_path, "--kd-teacher", path)
    assert "predicts negative, positive, and the data's labels are bad, good" in said
    path = relabelled(folders, tmp_path, ("good", "bad"))  # as if it had numbered them so
    with logged("fairseq_bert_kd.teachers.load_layer_teacher") as lines:
        other = run_stage(
            folders, "prediction", tmp_path / "other", *student(folders), "--kd-teacher", path, updates=1
        )
    assert any("numbers its classes in another order: good, bad; ordered by name" in line for line in lines)
    same = run_stage(folders, "prediction", tmp_path / "same", *student(folders), updates=1)
    assert other["train_inner"][0]["prediction_loss"] != same["train_inner"][0]["prediction_loss"]
    run_stage(
        folders, "intermediate", tmp_path / "layers", *student(folders), "--kd-teacher", path, updates=1
    )


def test_a_teacher_that_is_missing_or_not_asked_is_refused(folders, tmp_path):
    data, _ = stage(folders, "general")
    options = ("--criterion", "layer_distillation", "--layer-stage", "general", *student(folders))
    with pytest.raises(ValueError, match="learns from a teacher; give --kd-teacher"):
        run_fairseq("train", *training(data, tmp_path, *options))
    options = ("--criterion", "sentence_prediction", *student(folders), "--kd-teacher", folders.bert)
    with pytest.raises(ValueError, match="`sentence_prediction` does not ask a teacher; leave it out"):
        run_fairseq("train", *training(folders.task, tmp_path, *options))
    _, options = stage(folders, "general", "--kd-teacher", tmp_path / "none.pt", *student(folders))
    with pytest.raises(FileNotFoundError, match=r"checkpoint `.*none.pt` does not exist"):
        run_fairseq("train", *training(data, tmp_path, *options))


def test_a_checkpoint_of_another_model_is_no_teacher(folders, tmp_path):
    from tests.tiny_sentences import train

    other = train(folders.task, tmp_path / "tiny")
    said = refused(folders, "general", tmp_path, "--kd-teacher", other)
    assert "is not a teacher of layers: it holds a `tiny_sentences` model" in said
