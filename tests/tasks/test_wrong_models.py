"""Models and checkpoints in the place of others: the rule, the value and the next step, whatever fairseq would say."""

import importlib
import io
import sys

import pytest
import torch
from fairseq.models import ARCH_MODEL_REGISTRY

from fairseq_bert_kd.tasks.translation_with_teacher import check_autoregressive
from tests.tiny_chain import PLUGIN, run_fairseq, train_student, train_teacher

SMALL = (
    "--encoder-layers", 1, "--decoder-layers", 1, "--encoder-embed-dim", 32, "--decoder-embed-dim", 32,
    "--encoder-ffn-embed-dim", 32, "--decoder-ffn-embed-dim", 32, "--encoder-attention-heads", 2,
    "--decoder-attention-heads", 2,
)  # fmt: skip


def train(data, save_dir, *arguments):
    """`train_student` of an architecture that has other options."""
    run_fairseq(
        "train", data, "--user-dir", PLUGIN, "--task", "translation_with_teacher", "--criterion",
        "label_smoothed_cross_entropy_with_distillation", "--optimizer", "adam", "--max-tokens", 512, "--max-update", 1,
        "--save-dir", save_dir, "--num-workers", 0, "--cpu", *arguments,
    )  # fmt: skip


@pytest.mark.parametrize("task", ["conditional_masked_lm", "translation_with_teacher"])
@pytest.mark.parametrize("tool", ["generate", "interactive"])
def test_a_teacher_does_not_translate(chain, task, tool, monkeypatch):
    arguments = (
        chain.data, "--user-dir", PLUGIN, "--task", task, "--path", chain.teacher, "--cpu",
        "--source-lang", "de", "--target-lang", "en",
    )  # fmt: skip
    monkeypatch.setattr(sys, "argv", [f"fairseq-{tool}", *map(str, arguments)])
    monkeypatch.setattr(sys, "stdin", io.StringIO("ein\n"))
    with pytest.raises(ValueError, match=r"teachers?.* fills? in hidden tokens .*--path"):
        importlib.import_module(f"fairseq_cli.{tool}").cli_main()


NOT_AUTOREGRESSIVE = (
    "nonautoregressive_transformer", "cmlm_transformer", "levenshtein_transformer", "insertion_transformer",
    "iterative_nonautoregressive_transformer", "nacrf_transformer",
)  # fmt: skip


@pytest.mark.parametrize(
    ("arch", "weight"), [("cmlm_transformer", 0.5), *((arch, 0) for arch in NOT_AUTOREGRESSIVE)]
)
def test_students_that_take_the_whole_target_are_refused(chain, tmp_path, arch, weight):
    with pytest.raises(ValueError, match=rf"autoregressive encoder-decoder.* --arch {arch} needs tgt_tokens"):
        train_student(chain.data, tmp_path, "--arch", arch, *SMALL, "--kd-weight", weight)


def test_a_teacher_is_refused_as_student(chain, tmp_path):
    with pytest.raises(ValueError, match="`hf_masked_lm` is a teacher"):
        train(chain.data, tmp_path, "--arch", "hf_masked_lm", "--teacher-model", chain.bert)


AUTOREGRESSIVE = ("transformer", "lstm", "fconv", "lightconv", "transformer_align", "bart_base")


@pytest.mark.parametrize("arch", [*AUTOREGRESSIVE, "transformer_lm", "lstm_lm", "roberta", "masked_lm"])
def test_only_what_reads_source_and_target_is_a_student(arch):
    model_class = ARCH_MODEL_REGISTRY[arch]
    model = model_class.__new__(model_class)  # its parameters are those of a built one
    if arch in AUTOREGRESSIVE:
        check_autoregressive(model, arch)
    else:
        with pytest.raises(ValueError, match=f"--arch {arch} reads no target"):
            check_autoregressive(model, arch)


@pytest.mark.parametrize(
    "options",
    [("--kd-weight", 0), ("--kd-weight", 0.5), ("--kd-weight", 0.5, "--kd-warmup-updates", 1)],
    ids=["plain", "distilled", "warm-up"],
)
def test_an_adaptive_softmax_trains_with_and_without_the_teacher(chain, tmp_path, options):
    """fairseq's own log-probabilities write into what their gradient needs."""
    last = train_student(
        chain.data,
        tmp_path,
        "--arch",
        "transformer",
        *SMALL,
        "--adaptive-softmax-cutoff",
        "10,20",
        *options,
        updates=2,
    )
    state = torch.load(last, weights_only=False)
    assert state["optimizer_history"][-1]["num_updates"] == 2
    assert all(torch.isfinite(weights).all() for weights in state["model"].values())


def test_a_student_is_no_model_to_start_a_teacher_from(chain, tmp_path):
    with pytest.raises(ValueError, match=r"cannot load .*checkpoint_last\.pt. as a masked language model"):
        train_teacher(chain.data, chain.teacher, tmp_path, "--teacher-tokenizer", chain.bert)
