"""Text smoothing from a masked language model to students: classifiers, translation, two workers, refusals."""

import json
import shutil

import pytest
import torch

from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.storage.smoothing_store import (
    SentenceSmoothingReader,
    SourceSmoothingReader,
    original_probs,
)
from fairseq_bert_kd.storage.topk_store import TopKReader
from tests.one_sided_chain import BERT_REPLACEMENT
from tests.test_distributed_training import assert_same_weights, in_one, training
from tests.tiny_chain import dump, run_fairseq, train_student, train_teacher
from tests.tiny_sentences import PLUGIN, prepare, write_table
from tests.two_workers import TwoWorkers

SENTENCES = ("--side", "sentences", "--topk", 4)
SOURCES = ("--side", "source", "--source-lang", "de", "--target-lang", "en", "--topk", 4)
STRONG = ("--smoothing-weight", 0.5, "--smoothing-topk", 4)
CLASSIFIER = (
    "--task", "sentence_prediction_with_teacher", "--arch", "hf_encoder", "--classification-pooling", "mean",
    "--classification-dropout", 0, "--batch-size", 7,
)  # fmt: skip
SMOOTHED = ("--criterion", "smoothed_sentence_prediction")
PLAIN = ("--criterion", "sentence_prediction")


@pytest.fixture(scope="module")
def sentences(chain, tmp_path_factory):
    """Prepared sentences, a smoother of theirs, and stores of both views."""
    folder = tmp_path_factory.mktemp("sentences")
    table = write_table(folder / "table.tsv", 21)
    columns = ("--columns", "text", "--label-column", "label", "--full-dictionary")
    assert prepare(chain.bert, folder / "data", "--train", table, "--valid", table, *columns) == 0
    smoother = train_teacher(
        folder / "data" / "input0", chain.bert, folder / "mlm", "--cmlm-one-sided", *BERT_REPLACEMENT
    )
    for view in ("unmasked", "masked"):
        assert dump(folder / "data", smoother, *SENTENCES, "--view", view) == 0
    return folder, smoother


@pytest.fixture(scope="module")
def sources(chain, tmp_path_factory):
    """A copy of the translation data with a store of its sources."""
    folder = tmp_path_factory.mktemp("sources")
    shutil.copytree(chain.data, folder / "data")
    (folder / "text").mkdir()
    for split in ("train", "valid"):
        for end in ("bin", "idx"):
            shutil.copy(chain.data / f"{split}.de-en.de.{end}", folder / "text" / f"{split}.{end}")
    shutil.copy(chain.data / "dict.de.txt", folder / "text" / "dict.txt")
    smoother = train_teacher(
        folder / "text", chain.bert, folder / "mlm", "--cmlm-one-sided", *BERT_REPLACEMENT
    )
    assert dump(folder / "data", smoother, *SOURCES) == 0
    return folder, smoother


def classify(sentences, save_dir, *arguments, encoder):
    folder, _ = sentences
    return in_one(folder / "data", save_dir, *CLASSIFIER, "--encoder-model", encoder, *arguments)


def weights(folder):
    return torch.load(folder / "checkpoint_last.pt", weights_only=True)["model"]


def same(one, other):
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_store_of_sentences(sentences, capsys):
    folder, smoother = sentences
    stores = [
        SentenceSmoothingReader(folder / f"data/train.sentences.{view}.smooth")
        for view in ("unmasked", "masked")
    ]
    seen, hidden = (original_probs(store.rows(0), store.info).mean() for store in stores)
    assert seen != hidden
    assert [store.info.passes for store in stores] == [1, 7]
    assert stores[0].header.summary["original_probability"] > 0
    with pytest.raises(ValueError, match="holds smoothed sentences"):
        TopKReader(stores[0].path)
    with pytest.raises(ValueError, match="holds smoothed sentences"):
        SourceSmoothingReader(stores[0].path)
    assert dump(folder / "data", smoother, *SENTENCES) == 0  # complete already
    assert cli_main(["store", "show", str(stores[0].path), "3", "--data", str(folder / "data")]) == 0
    shown = capsys.readouterr().out
    assert "unmasked view" in shown
    assert "text  " in shown
    assert cli_main(["store", "verify", str(stores[0].path), "--data", str(folder / "data")]) == 0
    assert cli_main(["store", "stat", str(stores[0].path)]) == 0


def test_a_dump_in_shards_is_the_whole(sentences, tmp_path):
    folder, smoother = sentences
    settings = (*SENTENCES, "--chunk-sentences", 8, "--store-dir")
    assert dump(folder / "data", smoother, *settings, tmp_path / "whole") == 0
    for shard in ("1/2", "2/2"):
        assert dump(folder / "data", smoother, *settings, tmp_path / "parts", "--shard", shard) == 0
    parts = sorted((tmp_path / "parts").iterdir())
    merged = tmp_path / "merged.smooth"
    assert cli_main(["store", "merge", *map(str, parts), "--output", str(merged)]) == 0
    assert merged.read_bytes() == next((tmp_path / "whole").iterdir()).read_bytes()


def test_weight_zero_is_fairseq_s_own_training(sentences, chain, tmp_path):
    classify(sentences, tmp_path / "plain", *PLAIN, encoder=chain.bert)
    classify(sentences, tmp_path / "zero", *SMOOTHED, "--smoothing-weight", 0, encoder=chain.bert)
    classify(sentences, tmp_path / "half", *SMOOTHED, *STRONG, encoder=chain.bert)
    assert same(tmp_path / "plain", tmp_path / "zero")
    assert not same(tmp_path / "plain", tmp_path / "half")


@pytest.mark.parametrize(
    "options",
    [
        ("--smoothing-schedule", "only", "--smoothing-view", "masked"),
        ("--smoothing-schedule", "mixed"),
        ("--smoothing-source", "unigram"),
        ("--smoothing-source", "uniform", "--smoothing-schedule", "only"),
    ],
)
def test_what_a_classifier_reads(sentences, chain, tmp_path, options):
    curves = classify(sentences, tmp_path, *SMOOTHED, *STRONG, *options, encoder=chain.bert)
    assert 0 <= float(curves["train_inner"][0]["smoothing_original"]) <= 1


def test_two_workers_learn_as_one_does(sentences, chain, tmp_path):
    folder, _ = sentences
    calm = shutil.copytree(chain.bert, tmp_path / "calm")
    config = json.loads((calm / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (calm / "config.json").write_text(json.dumps(config))
    arguments = (*CLASSIFIER, "--encoder-model", calm, *SMOOTHED, *STRONG)
    in_one(folder / "data", tmp_path / "one", *arguments)
    with TwoWorkers(tmp_path) as workers:
        workers.run("train", *training(folder / "data", tmp_path / "two", *arguments), pytorch_ddp=True)
    assert_same_weights(tmp_path / "one", tmp_path / "two")


def test_smoothed_sources_with_and_without_soft_labels(sources, tmp_path):
    folder, _ = sources
    hard = ("--criterion", "label_smoothed_cross_entropy")
    train_student(folder / "data", tmp_path / "plain", *hard)
    train_student(folder / "data", tmp_path / "hard", *hard, *STRONG)
    train_student(folder / "data", tmp_path / "soft")
    train_student(folder / "data", tmp_path / "both", *STRONG, "--smoothing-schedule", "mixed")
    assert not same(tmp_path / "plain", tmp_path / "hard")
    assert not same(tmp_path / "soft", tmp_path / "both")


def refusal(call):
    """What a command says when it refuses."""
    with pytest.raises(ValueError, match="--") as error:
        call()
    return str(error.value)


def test_refused_smoothers(sentences, chain, tmp_path, capsys):
    folder, _ = sentences
    masked = train_teacher(folder / "data" / "input0", chain.bert, tmp_path, "--cmlm-one-sided", updates=1)
    store = ("--store-dir", tmp_path)
    assert dump(folder / "data", masked, *SENTENCES, *store) == 2
    assert "--cmlm-keep 0.1" in capsys.readouterr().err
    assert dump(folder / "data", masked, *SENTENCES, *store, "--view", "masked") == 0
    assert dump(folder / "data", chain.teacher, *SENTENCES, *store) == 2
    assert "not a masked language model of single sentences" in capsys.readouterr().err
    assert dump(folder / "data", masked, *SENTENCES, "--passes", 3) == 2
    assert "needs one pass" in capsys.readouterr().err
    assert dump(chain.data, masked, "--side", "source") == 2
    assert "--source-lang" in capsys.readouterr().err


def test_refused_trainings(sentences, sources, chain, tmp_path):
    def smoothed(*options):
        return refusal(
            lambda: classify(sentences, tmp_path, *SMOOTHED, *STRONG, *options, encoder=chain.bert)
        )

    assert "temperature 3" in smoothed("--smoothing-temperature", 3)
    assert "holds 4 tokens" in smoothed("--smoothing-topk", 5)
    assert "from 0 to 1" in smoothed("--smoothing-weight", 2)
    assert "were cut before theirs" in smoothed("--smoothing-special", "--max-positions", 4)
    folder, _ = sources
    lstm = ("--arch", "distilled_lstm_small", *STRONG)
    hard = ("--criterion", "label_smoothed_cross_entropy")
    with pytest.raises(ValueError, match="needs a student with fairseq's Transformer encoder"):
        run_fairseq(
            "train", folder / "data", "--user-dir", PLUGIN, "--task", "translation_with_teacher", *lstm, *hard,
            "--max-tokens", 100, "--optimizer", "adam", "--max-update", 1, "--save-dir", tmp_path, "--cpu",
        )  # fmt: skip
