"""A student for programs that do not know this plugin: what is kept, what is left out, and errors."""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch

from fairseq_bert_kd.cli.export_fairseq import FAIRSEQ_CRITERIONS, FAIRSEQ_TASKS, exported
from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.cli.options import configs, our_fields
from fairseq_bert_kd.compat import load_checkpoint
from tests.tiny_chain import train_student
from tests.tokenization.tiny_tokenizers import build_tokenizer


@pytest.fixture(scope="module")
def student(chain, tmp_path_factory):
    return train_student(chain.data, tmp_path_factory.mktemp("student"))


def export(checkpoint, output, *arguments):
    return cli_main(["export-student", str(checkpoint), "--output", str(output), *map(str, arguments)])


def our_names():
    """Options of ours that a student's training has."""
    import fairseq_bert_kd.tasks  # noqa: F401  registers them

    theirs = {f"--task {name}" for name in FAIRSEQ_TASKS} | {
        f"--criterion {name}" for name in FAIRSEQ_CRITERIONS
    }
    return {field.name for choice, config in configs() if choice in theirs for field in our_fields(config)}


def test_weights_stay_and_everything_of_ours_goes(student, tmp_path, capsys):
    assert export(student, tmp_path / "out.pt") == 0
    before, after = load_checkpoint(str(student)), load_checkpoint(str(tmp_path / "out.pt"))
    assert list(before["model"]) == list(after["model"])
    assert all(torch.equal(before["model"][name], after["model"][name]) for name in before["model"])
    settings = vars(after["args"])
    assert settings["task"] == "translation"
    assert settings["criterion"] == "label_smoothed_cross_entropy"
    assert not our_names() & set(settings)
    assert {"smoothing_weight", "rdrop_weight", "kd_weight"} < our_names()
    assert not {"user_dir", "save_dir"} & set(settings)
    assert settings["encoder_normalize_before"] is True
    assert after["last_optimizer_state"] is None
    # Adam keeps two numbers for each weight
    assert (tmp_path / "out.pt").stat().st_size < 0.5 * student.stat().st_size
    parameters = sum(
        {w.data_ptr(): w.numel() for name, w in after["model"].items() if "version" not in name}.values()
    )
    assert f"out.pt: transformer, {parameters:,} parameters" in capsys.readouterr().out


def test_what_goes_with_it_is_compared(chain, student, tmp_path, capsys):
    build_tokenizer("roberta", tmp_path / "roberta")
    build_tokenizer("bert_uncased", tmp_path / "rules")
    config = json.loads((tmp_path / "rules" / "tokenizer_config.json").read_text())
    (tmp_path / "rules" / "tokenizer_config.json").write_text(json.dumps(config | {"do_lower_case": False}))
    data = tmp_path / "data"
    shutil.copytree(chain.data, data)
    out = tmp_path / "out.pt"
    assert export(student, out, "--data", data, "--tokenizer", chain.bert) == 0
    assert load_checkpoint(str(out))["task_state"] == load_checkpoint(str(student))["task_state"]
    out.unlink()
    for options, message in (
        (
            ["--data", data, "--tokenizer", tmp_path / "roberta"],
            "every symbol of `.*dict.de.txt` must be a piece",
        ),
        (["--tokenizer", tmp_path / "rules"], "was trained on pieces of another tokenizer than `.*rules`"),
        (["--data", tmp_path], "` holds no dict.*.txt"),
    ):
        assert export(student, out, *options) == 2
        assert re.search(message, capsys.readouterr().err)
    lines = (data / "dict.en.txt").read_text().splitlines()
    for language in ("de", "en"):
        (data / f"dict.{language}.txt").write_text("\n".join([*lines[5:], *lines[:5]]) + "\n")
    assert export(student, out, "--data", data) == 2
    assert "the source dictionary that `" in capsys.readouterr().err
    assert not out.exists()


def test_an_older_checkpoint_is_compared_by_size(chain, student, tmp_path, capsys):
    state = load_checkpoint(str(student))
    state["task_state"] = {}
    torch.save(state, tmp_path / "old.pt")
    shutil.copytree(chain.data, tmp_path / "data")
    assert export(tmp_path / "old.pt", tmp_path / "out.pt", "--data", tmp_path / "data") == 0
    for language in ("de", "en"):
        with open(tmp_path / "data" / f"dict.{language}.txt", "a") as more:
            more.write("another 1\n")
    assert export(tmp_path / "old.pt", tmp_path / "out2.pt", "--data", tmp_path / "data") == 2
    assert re.search(r"\(\d+ symbols\) is not `.*dict.de.txt` \(\d+ symbols\)", capsys.readouterr().err)


def test_stock_fairseq_loads_what_was_validated_with_a_detokenizer_of_ours(chain, tmp_path):
    detok = ["--eval-bleu", "--eval-bleu-detok", "hf_tokenizer", "--eval-bleu-remove-bpe"]
    detok += ["--eval-bleu-detok-args", json.dumps({"hf_tokenizer": str(chain.bert)})]
    student = train_student(chain.data, tmp_path / "student", *detok, "--eval-bleu-args", '{"beam": 1}')
    assert export(student, tmp_path / "out.pt") == 0
    script = (
        "import sys; from fairseq import checkpoint_utils as c; "
        "print(len(c.load_model_ensemble_and_task([sys.argv[1]], arg_overrides={'data': sys.argv[2]})[0]))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "out.pt"), str(chain.data)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env=os.environ | {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
    )  # fmt: skip
    assert loaded.stdout.strip() == "1", loaded.stderr[-2000:]


def test_settings_of_hydra_are_made_flat():
    state = {
        "args": None,
        "cfg": {
            "model": {"_name": "transformer", "encoder_embed_dim": 32},
            "task": {"_name": "translation_with_teacher", "source_lang": "de", "kd_check": "all"},
            "criterion": {"_name": "label_smoothed_cross_entropy_with_distillation"},
        },
        "model": {},
        "optimizer_history": [{"num_updates": 7, "optimizer_name": "FairseqAdam"}],
    }
    result = exported(state, "student.pt")
    assert vars(result["args"]) == {
        "_name": "transformer",
        "arch": "transformer",
        "encoder_embed_dim": 32,
        "task": "translation",
        "source_lang": "de",
        "target_lang": None,
        "criterion": "label_smoothed_cross_entropy",
    }
    assert result["optimizer_history"][0]["num_updates"] == 7


def test_languages_known_to_the_task_alone_are_kept():
    """As hydra and later fairseqs leave them; fairseq-train without -s and -t writes none."""
    cfg = {
        "model": argparse.Namespace(arch="a", task="translation", source_lang=None),
        "task": {"source_lang": "de"},
    }
    result = exported({"args": None, "cfg": cfg, "model": {}, "optimizer_history": [{}]}, "x")["args"]
    assert (result.source_lang, result.target_lang) == ("de", None)


def test_student_of_another_task_keeps_it():
    args = argparse.Namespace(
        arch="transformer", task="translation_lev", criterion="nat_loss", user_dir="there"
    )
    state = {"args": args, "model": {}, "optimizer_history": [{}]}
    assert vars(exported(state, "x")["args"]) == {
        "arch": "transformer", "task": "translation_lev", "criterion": "nat_loss",
        "source_lang": None, "target_lang": None,
    }  # fmt: skip


def test_exported_student_can_be_exported_again(student, tmp_path):
    assert export(student, tmp_path / "once.pt") == 0
    assert export(tmp_path / "once.pt", tmp_path / "twice.pt") == 0
    once, twice = (load_checkpoint(str(tmp_path / name)) for name in ("once.pt", "twice.pt"))
    assert once["args"] == twice["args"]


def test_teacher_is_an_error(chain, tmp_path, capsys):
    assert export(chain.teacher, tmp_path / "out.pt") == 2
    assert "is a teacher (task conditional_masked_lm)" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_checkpoint_without_architecture_is_an_error():
    state = {"args": argparse.Namespace(task="translation"), "model": {}, "optimizer_history": [{}]}
    with pytest.raises(ValueError, match="`x.pt` does not name its architecture"):
        exported(state, "x.pt")


def test_nothing_is_overwritten_unless_asked(student, tmp_path, capsys):
    (tmp_path / "out.pt").write_text("mine")
    assert export(student, tmp_path / "out.pt") == 2
    assert "exists; pass --overwrite to replace it" in capsys.readouterr().err
    assert (tmp_path / "out.pt").read_text() == "mine"
    assert export(student, tmp_path / "out.pt", "--overwrite") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out.pt"]


def test_a_full_disk_is_said(student, tmp_path, capsys, monkeypatch):
    """torch writes what it can, and then has an error of its own; nothing is left."""

    def cut_short(checkpoint, path):
        path.write_bytes(b"PK")
        raise RuntimeError("unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", cut_short)
    assert export(student, tmp_path / "out.pt") == 2
    assert "could not be written whole; is the disk full? (unexpected pos 64 vs 0)" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_checkpoint_is_not_its_own_output(student, tmp_path, capsys):
    before = student.read_bytes()
    (tmp_path / "link.pt").symlink_to(student)
    assert export(student, tmp_path / "link.pt", "--overwrite") == 2
    assert "must be neither the checkpoint itself nor a folder that it is in" in capsys.readouterr().err
    assert export(student, student.parent, "--overwrite") == 2
    assert "nor a folder that it is in" in capsys.readouterr().err
    assert student.read_bytes() == before
    (tmp_path / "folder").mkdir()
    assert export(student, tmp_path / "folder", "--overwrite") == 2
    assert "is a folder with no file to replace" in capsys.readouterr().err
    assert (tmp_path / "folder").is_dir()


@pytest.mark.parametrize(
    ("checkpoint", "output", "message"),
    [
        ("missing.pt", "out.pt", "checkpoint `.*missing.pt` does not exist"),
        ("text.pt", "out.pt", "is not a readable torch checkpoint"),
        ("text.pt", "no/such/out.pt", "the folder of --output `.*no/such/out.pt` does not exist"),
    ],
)
def test_what_cannot_work_is_said(tmp_path, capsys, checkpoint, output, message):
    (tmp_path / "text.pt").write_text("words")
    assert export(tmp_path / checkpoint, tmp_path / output) == 2
    assert re.search(message, capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["text.pt"]
