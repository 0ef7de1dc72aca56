"""Two workers learn, validate, resume and decode exactly as one process does with twice ``--update-freq``.

With N workers fairseq deals the batches out in turn, and one process with ``--update-freq N`` takes them N at
a time: the same batches in every update. Nothing here is random beside the initial weights, so loss curves and
final weights agree within rounding (exactly, where two numbers are summed).
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers

from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.storage.fairseq_data import IndexedTokens
from tests.partial_stores import drop_rows
from tests.test_chain import hypotheses, store
from tests.tiny_chain import PLUGIN, logged, run_fairseq
from tests.tiny_sentences import prepare, write_table
from tests.two_workers import LIMIT, TwoWorkers, free_port

TAGS = ("train_inner", "train", "valid")
CLOCKS = ("wps", "ups", "wall", "train_wall")
EVEN, ODD = 16, 24  # sentences of a batch: 8 or 5 of them hold the corpus of 120


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    with TwoWorkers(tmp_path_factory.mktemp("logs")) as both:
        yield both


@pytest.fixture(scope="module")
def data(chain, tmp_path_factory):
    """The chain's data; the longest sentences have no teacher rows, so that batches are covered unevenly."""
    folder = tmp_path_factory.mktemp("uneven") / "data"
    shutil.copytree(chain.data, folder)
    assert 60 < drop_rows(store(folder), slice(0, 30)) < 90
    return folder


@pytest.fixture(scope="module")
def calm_bert(chain, tmp_path_factory):
    """The pre-trained model without dropout."""
    folder = shutil.copytree(chain.bert, tmp_path_factory.mktemp("bert") / "bert")
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    dropouts = {name: 0.0 for name, value in settings.items() if "dropout" in name and value}
    assert len(dropouts) == 2
    (folder / "config.json").write_text(json.dumps(settings | dropouts), encoding="utf-8")
    return folder


def training(data, save_dir, *arguments, epochs=3):
    return (
        data, "--user-dir", PLUGIN, "--optimizer", "adam", "--lr", 3e-3, "--clip-norm", 1, "--max-epoch", epochs,
        "--save-dir", save_dir, "--no-epoch-checkpoints", "--num-workers", 0, "--cpu", "--log-interval", 1,
        "--log-format", "json", *arguments,
    )  # fmt: skip


def teacher(bert, batch_size):
    return ("--task", "conditional_masked_lm", "--criterion", "conditional_masked_lm", "--arch", "hf_masked_lm",
            "--teacher-model", bert, "--batch-size", batch_size)  # fmt: skip


def student(batch_size, *arguments):
    return (
        "--task", "translation_with_teacher", "--criterion", "label_smoothed_cross_entropy_with_distillation",
        "--label-smoothing", 0.1, "--dropout", 0, "--batch-size", batch_size, *arguments,
    )  # fmt: skip


TIED = ("--arch", "distilled_transformer_small", "--encoder-layers", 1, "--decoder-layers", 1)
UNTIED = ("--arch", "transformer_iwslt_de_en", "--encoder-embed-dim", 32, "--decoder-embed-dim", 32,
          "--encoder-layers", 1, "--decoder-layers", 1)  # fmt: skip
BLEU = ("--eval-bleu", "--eval-bleu-args", '{"beam": 1, "max_len_b": 8}')


def in_one(data, save_dir, *arguments, **options):
    """Train in this process; what it logs by tag."""
    with logged("train_inner") as inner, logged("train") as epochs, logged("valid") as valid:
        run_fairseq("train", *training(data, save_dir, *arguments, "--update-freq", 2, **options))
    return {
        tag: list(map(json.loads, lines)) for tag, lines in zip(TAGS, (inner, epochs, valid), strict=True)
    }


def from_log(text):
    return {tag: list(map(json.loads, re.findall(rf" \| {tag} \| (.*)", text))) for tag in TAGS}


def assert_same_curves(one, two, updates, metrics):
    """All that is logged agrees, but for the clock and the size of a step of validation."""
    assert len(two["train_inner"]) == updates
    assert metrics <= two["train_inner"][0].keys()
    for tag in TAGS:
        assert len(one[tag]) == len(two[tag])
        for expected, found in zip(one[tag], two[tag], strict=True):
            ignored = {f"{prefix}{clock}" for clock in CLOCKS for prefix in ("", f"{tag}_")}
            # a step holds the batches of both workers; fairseq keeps the best in the process, for later runs too
            ignored |= {"valid_wpb", "valid_bsz", "valid_best_loss"}
            assert expected.keys() - ignored == found.keys() - ignored
            for name in expected.keys() - ignored:
                # three decimals are printed; a token that ties counts whole, and sums run in another order here
                rounding = 1 if name.endswith(("accuracy", "agreement", "bleu")) else 2e-3
                assert float(found[name]) == pytest.approx(float(expected[name]), rel=1e-4, abs=rounding), (
                    name
                )


def assert_same_weights(folder, other):
    first, second = (
        torch.load(path / "checkpoint_last.pt", weights_only=True)["model"] for path in (folder, other)
    )
    assert first.keys() == second.keys()
    for name, weights in first.items():
        torch.testing.assert_close(second[name], weights, rtol=1e-5, atol=1e-6, msg=name)


def last_updates_of_epochs(curves, per_epoch):
    return [entry["bsz"] for entry in curves["train_inner"][per_epoch - 1 :: per_epoch]]


@pytest.mark.parametrize(
    ("batch_size", "backend"), [(EVEN, "legacy_ddp"), (ODD, "legacy_ddp"), (ODD, "pytorch_ddp")]
)
def test_teacher(chain, calm_bert, workers, tmp_path, batch_size, backend):
    arguments = teacher(calm_bert, batch_size)
    one = in_one(chain.data, tmp_path / "one", *arguments)
    output = workers.run("train", *training(chain.data, tmp_path / "two", *arguments, "--ddp-backend", backend),
                         pytorch_ddp=backend == "pytorch_ddp")  # fmt: skip
    updates = 12 if batch_size == EVEN else 9
    assert_same_curves(one, from_log(output[0]), updates, {"loss", "ppl", "masked_accuracy", "gnorm"})
    assert_same_weights(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize(
    ("model", "batch_size", "backend", "projection"),
    [
        (TIED, EVEN, "legacy_ddp", "plain"),
        (TIED, ODD, "legacy_ddp", "chunked"),
        (TIED, ODD, "pytorch_ddp", "chunked"),
        (UNTIED, ODD, "legacy_ddp", "chunked"),
    ],
)
def test_student(data, chain, workers, tmp_path, model, batch_size, backend, projection):
    """An odd number of batches leaves one worker without in the last update; fairseq gives it a dummy batch."""
    bleu = (*BLEU, "--bpe", "hf_tokenizer", "--hf-tokenizer", chain.bert)
    arguments = student(batch_size, *model, *bleu, "--kd-projection", projection)
    one = in_one(data, tmp_path / "one", *arguments)
    output = workers.run("train", *training(data, tmp_path / "two", *arguments, "--ddp-backend", backend),
                         pytorch_ddp=backend == "pytorch_ddp")  # fmt: skip
    two = from_log(output[0])
    metrics = {"loss", "nll_loss", "label_loss", "kd_loss", "kd_coverage", "ppl", "gnorm", "clip"}
    assert_same_curves(one, two, 12 if batch_size == EVEN else 9, metrics)
    assert_same_weights(tmp_path / "one", tmp_path / "two")
    assert len({entry["kd_coverage"] for entry in two["train_inner"]}) > 3  # uneven, so sums matter
    assert "valid_bleu" in two["valid"][0]
    if batch_size == ODD:
        assert last_updates_of_epochs(two, per_epoch=3) == ["24"] * 3  # one batch, not two


def test_first_pair_may_be_too_long_for_the_student(data, workers, tmp_path):
    """The worker without a batch takes a pair of training, and the student has positions for every pair but some."""
    longest = len(IndexedTokens(data / "train.de-en.de")[0]) - 1
    limits = ("--max-source-positions", longest, "--max-target-positions", longest)
    model = (*TIED, "--encoder-learned-pos", "--decoder-learned-pos", *limits)
    arguments = (
        *student(EVEN, *model),
        "--skip-invalid-size-inputs-valid-test",
        "--ddp-backend",
        "legacy_ddp",
    )
    output = workers.run("train", *training(data, tmp_path, *arguments, epochs=1))
    updates = from_log(output[0])["train_inner"]
    # 80 of 120 pairs; the last batch is on one worker
    assert [entry["bsz"] for entry in updates] == ["32", "32", "16"]


def test_encoder_of_sentences(calm_bert, workers, tmp_path):
    """With a pooler that is not used: torch's wrapper would wait for its gradient in the second update."""
    pooled = shutil.copytree(calm_bert, tmp_path / "bert")
    transformers.AutoModel.from_pretrained(calm_bert).save_pretrained(pooled)
    table = write_table(tmp_path / "train.tsv", 120)
    columns = ("--columns", "text", "--label-column", "label")
    assert prepare(pooled, tmp_path / "data", "--train", table, "--valid", table, *columns) == 0
    arguments = (
        "--task", "sentence_prediction_with_teacher", "--criterion", "sentence_prediction", "--arch", "hf_encoder",
        "--encoder-model", pooled, "--classification-pooling", "mean", "--classification-dropout", 0, "--batch-size", ODD,
    )  # fmt: skip
    one = in_one(tmp_path / "data", tmp_path / "one", *arguments)
    output = workers.run(
        "train", *training(tmp_path / "data", tmp_path / "two", *arguments), pytorch_ddp=True
    )
    assert_same_curves(one, from_log(output[0]), 9, {"loss", "accuracy", "gnorm"})
    assert_same_weights(tmp_path / "one", tmp_path / "two")
    weights = torch.load(tmp_path / "two/checkpoint_last.pt", weights_only=True)["model"]
    assert "pooler.dense.weight" in weights


def test_sentence_vectors(calm_bert, workers, tmp_path):
    """A frozen embedding and learnt pooling weights; the relational loss sees each worker's own batch."""
    table = write_table(tmp_path / "train.tsv", 120)
    data = tmp_path / "data"
    assert prepare(calm_bert, data, "--columns", "text", "--train", table, "--valid", table) == 0
    words = ["vectors", data, "--encoder-model", calm_bert, "--subset", "train,valid", "--cpu"]
    assert cli_main(list(map(str, words))) == 0
    arguments = (
        "--task", "sentence_vectors", "--criterion", "sentence_representation", "--vector-loss", "both",
        "--relational-weight", 0.5, "--arch", "sentence_lstm", "--hidden-size", 8, "--pooling", "attention",
        "--dropout", 0, "--embedding-init", "teacher", "--encoder-model", calm_bert, "--freeze-embedding",
        "--batch-size", ODD,
    )  # fmt: skip
    one = in_one(data, tmp_path / "one", *arguments)
    output = workers.run("train", *training(data, tmp_path / "two", *arguments), pytorch_ddp=True)
    metrics = {"loss", "cosine_loss", "mse_loss", "relational_loss", "true_cosine", "student_length", "gnorm"}
    assert_same_curves(one, from_log(output[0]), 9, metrics)
    assert_same_weights(tmp_path / "one", tmp_path / "two")


def with_entities(bert, folder, *columns, text):
    """A data folder whose words name entities, and their vectors."""
    assert prepare(bert, folder / "data", "--train", text, "--valid", text, *columns) == 0
    words = ("man", "men", "people", "young", "two")
    np.save(folder / "array.npy", np.random.default_rng(1).normal(size=(len(words), 8)).astype(np.float32))
    (folder / "ids.txt").write_text("".join(f"{word}\n" for word in words))
    (folder / "names.tsv").write_text("".join(f"{word}\t{word}\n" for word in words))
    vectors = folder / "words.safetensors"
    made = (
        "entity-vectors",
        "--array",
        folder / "array.npy",
        "--array-ids",
        folder / "ids.txt",
        "--output",
        vectors,
    )
    linked = (
        "entities",
        folder / "data",
        "--vectors",
        vectors,
        "--linker",
        "dictionary",
        "--names",
        folder / "names.tsv",
    )
    for command in (made, (*linked, "--min-coverage", 0)):
        assert cli_main(list(map(str, command))) == 0
    return folder / "data", (
        "--entity-vectors",
        vectors,
        "--entity-init",
        "normal",
        "--entity-layers",
        "mix,full",
    )


def test_encoder_with_entities(calm_bert, workers, tmp_path):
    """And learning rates by part of the model."""
    table = write_table(tmp_path / "train.tsv", 120)
    data, entities = with_entities(
        calm_bert, tmp_path, "--columns", "text", "--label-column", "label", text=table
    )
    arguments = (
        "--task", "entity_sentence_prediction", "--criterion", "sentence_prediction", "--arch", "entity_encoder",
        "--encoder-model", calm_bert, *entities, "--classification-dropout", 0, "--batch-size", ODD,
        "--optimizer", "adam_by_part", "--lr-scales", "entities=3,classification_heads=0.5",
    )  # fmt: skip
    one = in_one(data, tmp_path / "one", *arguments)
    output = workers.run("train", *training(data, tmp_path / "two", *arguments), pytorch_ddp=True)
    assert_same_curves(one, from_log(output[0]), 9, {"loss", "accuracy", "gnorm"})
    assert_same_weights(tmp_path / "one", tmp_path / "two")


def test_pre_training_with_entities(calm_bert, workers, tmp_path):
    """Each batch has candidates of its own; sums over masked tokens and over entities differ between the workers."""
    text = tmp_path / "train.txt"
    lines = write_table(tmp_path / "train.tsv", 120).read_text(encoding="utf-8").splitlines()[1:]
    text.write_text("".join(f"{line.split(chr(9))[0]}\n" for line in lines), encoding="utf-8")
    data, entities = with_entities(calm_bert, tmp_path, "--task", "plain", text=text)
    arguments = (
        "--task", "conditional_masked_lm", "--cmlm-one-sided", "--cmlm-keep", 0.1, "--cmlm-random", 0.1,
        "--criterion", "entity_masked_lm", "--arch", "hf_masked_lm", "--teacher-model", calm_bert, *entities,
        "--batch-size", ODD,
    )  # fmt: skip
    one = in_one(data, tmp_path / "one", *arguments)
    output = workers.run("train", *training(data, tmp_path / "two", *arguments), pytorch_ddp=True)
    assert_same_curves(one, from_log(output[0]), 9, {"loss", "masked_accuracy", "gnorm"})
    assert_same_weights(tmp_path / "one", tmp_path / "two")


def test_workers_resume(data, workers, tmp_path):
    """Each epoch a new run; two workers go on where two stopped, and one process where they stopped."""
    arguments = student(ODD, *TIED)
    for epochs in (1, 2, 3):
        one = in_one(data, tmp_path / "one", *arguments, epochs=epochs)
    for epochs in (1, 2):
        options = (*arguments, "--ddp-backend", "legacy_ddp")
        output = workers.run("train", *training(data, tmp_path / "two", *options, epochs=epochs))
    assert f"Loaded checkpoint {tmp_path / 'two'}/checkpoint_last.pt (epoch 2 @ 3 updates)" in output[0]
    last = in_one(data, tmp_path / "two", *arguments, epochs=3)
    assert_same_curves(one, last, 3, {"loss", "kd_loss"})
    assert_same_weights(tmp_path / "one", tmp_path / "two")


def test_two_shares_of_a_test_set_make_the_whole(chain, data, workers, tmp_path):
    """fairseq-generate needs no process group: each process takes its batches."""
    run_fairseq("train", *training(data, tmp_path / "student", *student(ODD, *TIED), epochs=1))
    command = (
        data, "--user-dir", PLUGIN, "--task", "translation_with_teacher", "--cpu", "--beam", 2, "--max-len-b", 10,
        "--path", tmp_path / "student" / "checkpoint_last.pt", "--batch-size", 3,
        "--bpe", "hf_tokenizer", "--hf-tokenizer", chain.bert,
    )  # fmt: skip
    whole = hypotheses(run_fairseq("generate", *command))
    shares = [hypotheses(text) for text in workers.run("generate", *command, group=False)]
    assert min(map(len, shares)) > 0
    assert not shares[0].keys() & shares[1].keys()
    assert shares[0] | shares[1] == whole
    assert sorted(whole) == list(range(20))


# As a user types it on a machine without GPUs: torchrun gives each worker its number in $RANK.
TORCHRUN = """
torchrun --nproc-per-node 2 --master-port {port} --no-python bash -c 'exec fairseq-train "$@" \
    --distributed-world-size $WORLD_SIZE --distributed-rank $RANK --distributed-init-method env:// \
    --distributed-no-spawn --distributed-backend gloo --ddp-backend legacy_ddp' _ "$@"
"""


def test_torchrun_without_gpus(chain, calm_bert, tmp_path):
    arguments = teacher(calm_bert, ODD)
    one = in_one(chain.data, tmp_path / "one", *arguments, epochs=2)
    command = training(chain.data, tmp_path / "two", *arguments, epochs=2)
    environment = os.environ | {
        "PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(PLUGIN.parent),
        "CUDA_VISIBLE_DEVICES": "",
    }
    child = subprocess.Popen(
        ["bash", "-c", TORCHRUN.format(port=free_port()), "_", *map(str, command)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = child.communicate(timeout=LIMIT)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
    assert child.returncode == 0, output[-3000:]
    assert_same_curves(one, from_log(output), 6, {"loss", "masked_accuracy"})
    assert_same_weights(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("kd_weight", [0, 0.5])
def test_rdrop(data, workers, tmp_path, kd_weight):
    """Without dropout both passes agree, so the curves can be compared; with it the divergence is there."""
    arguments = student(ODD, *TIED, "--kd-weight", kd_weight, "--rdrop-weight", 5)
    one = in_one(data, tmp_path / "one", *arguments)
    output = workers.run("train", *training(data, tmp_path / "two", *arguments), pytorch_ddp=True)
    assert_same_curves(one, from_log(output[0]), 9, {"loss", "nll_loss", "rdrop_kl", "gnorm"})
    assert_same_weights(tmp_path / "one", tmp_path / "two")
    drop = training(data, tmp_path / "drop", *arguments, "--dropout", 0.3, epochs=1)
    output = workers.run("train", *drop, pytorch_ddp=True)
    assert all(float(entry["rdrop_kl"]) > 0 for entry in from_log(output[0])["train_inner"])
