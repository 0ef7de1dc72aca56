"""An encoder from a table of labels to a folder for transformers, by the commands of a user."""

import shutil

import pytest
import torch
import transformers
from fairseq import checkpoint_utils

from fairseq_bert_kd.cli.main import cli_main
from tests.models.small_encoders import HEAD
from tests.tiny_chain import PLUGIN, build_teacher_folder, logged, run_fairseq
from tests.tiny_sentences import prepare, train, write_table

NEW = ("--encoder-layers", 2, "--encoder-hidden", 24, "--encoder-heads", 3)
LOADED = "fairseq_bert_kd.models.hf_encoder"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """``data`` prepared with the tokenizer of ``bert``, and a checkpoint of a fine-tuned ``teacher``."""
    folder = tmp_path_factory.mktemp("encoder")
    build_teacher_folder("bert", folder / "bert")
    train_rows, valid_rows = (
        write_table(folder / "train.tsv", 60),
        write_table(folder / "valid.tsv", 20, seed=1),
    )
    options = ("--columns", "text", "--label-column", "label", "--full-dictionary")
    assert (
        prepare(folder / "bert", folder / "data", "--train", train_rows, "--valid", valid_rows, *options) == 0
    )
    fit(folder, "teacher", "--encoder-model", folder / "bert")
    return folder


def fit(folder, name, *arguments, updates=2):
    """Train for a few updates; the last checkpoint."""
    return train(
        folder / "data", folder / name, "--arch", "hf_encoder", "--lr", 1e-3, *arguments, updates=updates
    )


def test_loss_falls_and_labels_are_learned(folder, tmp_path):
    with logged("valid") as messages:
        train(
            folder / "data",
            tmp_path,
            "--arch",
            "hf_encoder",
            *NEW,
            "--lr",
            3e-3,
            "--max-epoch",
            15,
            updates=120,
        )
    accuracies = [float(line.split("accuracy ")[1].split(" ")[0]) for line in messages]
    assert accuracies[-1] > 90  # the label is the kind of the last word; 50 by chance


def test_checkpoint_is_validated_where_nothing_else_is(folder, tmp_path):
    shutil.copytree(folder / "data", tmp_path / "data")
    shutil.copy(folder / "teacher/checkpoint_last.pt", tmp_path)
    (folder / "bert").rename(folder / "away")
    try:
        with logged("valid") as messages:
            run_fairseq(
                "validate", tmp_path / "data", "--path", tmp_path / "checkpoint_last.pt", "--user-dir", PLUGIN,
                "--task", "sentence_prediction_with_teacher", "--batch-size", 8, "--cpu", "--num-workers", 0,
            )  # fmt: skip
    finally:
        (folder / "away").rename(folder / "bert")
    assert "accuracy" in messages[-1]


def test_training_goes_on(folder, tmp_path):
    shutil.copytree(folder / "teacher", tmp_path / "teacher")
    path = train(
        folder / "data",
        tmp_path / "teacher",
        "--arch",
        "hf_encoder",
        "--encoder-model",
        folder / "bert",
        updates=4,
    )
    assert torch.load(path, weights_only=False)["optimizer_history"][-1]["num_updates"] == 4


def test_student_starts_from_layers_of_the_teacher(folder, tmp_path):
    teacher = folder / "teacher/checkpoint_last.pt"
    with logged(LOADED) as messages:
        path = train(
            folder / "data", tmp_path / "student", "--arch", "hf_encoder", "--encoder-init", teacher,
            "--encoder-init-layers", 1, "--lr", 0,
        )  # fmt: skip
    assert "the head starts from the classifier that came with the encoder (bad, good)" in messages
    kept, whole = (torch.load(file, weights_only=False)["model"] for file in (path, teacher))
    for name, weight in kept.items():
        assert torch.equal(weight, whole[name.replace("layer.0.", "layer.1.")]), name


def test_exported_folder_gives_the_logits_of_the_checkpoint(folder, tmp_path):
    path = folder / "teacher/checkpoint_last.pt"
    words = ["export-student", path, "--format", "transformers", "--output", tmp_path / "out"]
    assert cli_main(list(map(str, words))) == 0  # with the tokenizer that the training named
    [model], _, task = checkpoint_utils.load_model_ensemble_and_task([str(path)])
    task.load_dataset("valid")
    dataset = task.datasets["valid"]
    batch = dataset.collater([dataset[row] for row in range(len(dataset))])
    ours, _ = model.eval()(**batch["net_input"], features_only=True, classification_head_name=HEAD)
    lines = [line.split("\t")[0] for line in (folder / "valid.tsv").read_text().splitlines()[1:]]
    inputs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")(
        lines, padding=True, return_tensors="pt"
    )
    served = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    torch.testing.assert_close(served(**inputs).logits, ours, rtol=0, atol=1e-5)
    assert served.config.id2label == {0: "bad", 1: "good"}
    modes = {file.stat().st_mode for file in (tmp_path / "out").iterdir()}
    assert len(modes) == 1  # who may read the config may read the weights
