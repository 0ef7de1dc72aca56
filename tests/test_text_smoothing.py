"""Text smoothing from a masked language model to students: classifiers, translation, two workers, refusals."""

import json
import shutil
from unittest import mock

import numpy as np
import pytest
import torch
import transformers
from fairseq.data import Dictionary

from fairseq_bert_kd.batch import REPEATS, SMOOTHING, TeacherRequirements, single_rows, twice, unpack
from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.data.smoothed_dataset import SmoothedDataset, open_smoothing
from fairseq_bert_kd.storage.fairseq_data import open_sides
from fairseq_bert_kd.storage.smoothing_store import (
    SentenceSmoothingReader,
    SourceSmoothingReader,
    original_probs,
)
from fairseq_bert_kd.storage.topk_store import TopKReader
from fairseq_bert_kd.tokenization.dictionary import excluded_ids, map_dictionary
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from tests.one_sided_chain import BERT_REPLACEMENT
from tests.test_distributed_training import (
    assert_same_curves,
    assert_same_weights,
    from_log,
    in_one,
    training,
)
from tests.tiny_chain import dump, run_fairseq, train_student, train_teacher
from tests.tiny_sentences import PLUGIN, prepare, write_table
from tests.two_workers import TwoWorkers

SENTENCES = ("--side", "sentences", "--topk", 4)
SOURCES = ("--side", "source", "--source-lang", "de", "--target-lang", "en", "--topk", 4)
STRONG = ("--smoothing-weight", 0.5, "--smoothing-topk", 4)
CLASSIFIER = ("--task", "sentence_prediction_with_teacher", "--batch-size", 7)
HF_ENCODER = ("--arch", "hf_encoder", "--classification-pooling", "mean", "--classification-dropout", 0)
PAD = 1
SMOOTHED = ("--criterion", "smoothed_sentence_prediction")
PLAIN = ("--criterion", "sentence_prediction")


@pytest.fixture(scope="module")
def sentences(chain, tmp_path_factory):
    """Prepared sentences, a smoother of theirs, and stores of both views."""
    folder = tmp_path_factory.mktemp("sentences")
    table = write_table(folder / "table.tsv", 21)
    columns = ("--columns", "text", "--label-column", "label", "--full-dictionary")
    assert prepare(chain.bert, folder / "data", "--train", table, "--valid", table, *columns) == 0
    text = ("--train", chain.raw / "train.en", "--valid", chain.raw / "valid.en")
    assert prepare(chain.bert, folder / "text", "--task", "plain", "--full-dictionary", *text) == 0
    smoother = train_teacher(
        folder / "text", chain.bert, folder / "mlm", "--cmlm-one-sided", *BERT_REPLACEMENT
    )
    for view in ("unmasked", "masked"):
        assert dump(folder / "data", smoother, *SENTENCES, "--view", view) == 0
    return folder, smoother


@pytest.fixture(scope="module")
def sources(chain, tmp_path_factory):
    """A copy of the translation data with a store of its sources."""
    folder = tmp_path_factory.mktemp("sources")
    shutil.copytree(chain.data, folder / "data")
    pieces = chain.raw.parent / "pieces"
    run_fairseq(
        "preprocess", "--user-dir", PLUGIN, "--only-source", "--trainpref", pieces / "train.de", "--validpref",
        pieces / "valid.de", "--srcdict", folder / "data" / "dict.de.txt", "--destdir", folder / "text", "--workers", 1,
    )  # fmt: skip
    smoother = train_teacher(
        folder / "text", chain.bert, folder / "mlm", "--cmlm-one-sided", *BERT_REPLACEMENT
    )
    assert dump(folder / "data", smoother, *SOURCES) == 0
    return folder, smoother


def classify(sentences, save_dir, *arguments, encoder, **options):
    folder, _ = sentences
    model = () if "--arch" in arguments else (*HF_ENCODER, "--encoder-model", encoder)
    return in_one(folder / "data", save_dir, *CLASSIFIER, *model, *arguments, **options)


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


def test_a_store_of_other_data_and_one_that_smooths_little(sentences, caplog):
    folder, _ = sentences
    path = folder / "data/train.sentences.unmasked.smooth"
    symbols = Dictionary.load(str(folder / "data/input0/dict.txt")).symbols
    sides = open_sides(SentenceSmoothingReader(path).info.files(folder / "data"), "train")

    def opened(symbols=symbols, temperature=1.0, **other):
        stated = {"split": "train", "view": "unmasked", "tokenizer": "", **other}
        needed = TeacherRequirements(topk=4, temperatures=(("--smoothing-temperature", temperature),))
        return open_smoothing(path, True, stated, symbols, sides, lambda _: needed, False)

    rebuild = r"rebuild it with `.* --side sentences --view unmasked --overwrite`$"
    with pytest.raises(ValueError, match=f"another tokenizer: digest `.*`, not `ab`; {rebuild}"):
        opened(tokenizer="ab")
    changed = [*symbols[:4], "other", *symbols[5:]]
    line = rf"than input0/dict.txt: symbol 4 \(line 1 of input0/dict.txt\) was `.*`, it is `other` here .* or {rebuild}"
    with pytest.raises(ValueError, match=rf"another input0 dictionary {line}"):
        opened(changed)
    with mock.patch("fairseq_bert_kd.storage.smoothing_store.NOTHING_TO_SMOOTH", 0.0):
        opened(temperature=5.0)
        assert "changes almost nothing" not in caplog.text
        opened()
    assert (
        "at temperature 1, so smoothing at it changes almost nothing; dump --view masked, or" in caplog.text
    )


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
        ("--smoothing-topk", 16, "--smoothing-source", "unigram"),
        ("--smoothing-topk", 16, "--smoothing-source", "uniform", "--smoothing-schedule", "only"),
        ("--smoothing-source", "dropout"),
    ],
)
def test_what_a_classifier_reads(sentences, chain, tmp_path, options):
    logged = classify(sentences, tmp_path, *SMOOTHED, *STRONG, *options, encoder=chain.bert)["train_inner"]
    moved = [float(line["smoothing_moved"]) for line in logged]
    assert 0 < max(moved) < 0.5
    if "dropout" in options:
        assert "smoothing_original" not in logged[0]
    else:
        assert 0 <= float(logged[0]["smoothing_original"]) <= 1


@pytest.mark.parametrize("options", [("--smoothing-schedule", "mixed"), ("--smoothing-source", "dropout")])
def test_a_run_that_goes_on_draws_as_one_in_one_piece(sentences, chain, tmp_path, options):
    """With random draws, but without dropout, and with batches in the order of the epoch."""
    arguments = (
        "--arch",
        "sentence_lstm",
        "--dropout",
        0,
        "--classification-dropout",
        0,
        *SMOOTHED,
        *STRONG,
        "--smoothing-weight",
        1,
        *options,
    )
    for folder, epochs in (("whole", 2), ("parts", 1), ("parts", 2)):
        classify(sentences, tmp_path / folder, *arguments, encoder=chain.bert, epochs=epochs)
    assert same(tmp_path / "whole", tmp_path / "parts")


def test_soft_labels_and_smoothing(sentences, chain, tmp_path):
    """The student reads smoothed words, its teacher plain ones; with weight 0 it is TinyBERT's prediction stage."""
    classify(sentences, tmp_path / "teacher", *PLAIN, encoder=chain.bert, epochs=1)
    stage = ("--layer-stage", "prediction", "--kd-teacher", tmp_path / "teacher/checkpoint_last.pt")
    smoothed = ("--criterion", "smoothed_layer_distillation", *STRONG)
    for name, options in {
        "plain": ("--criterion", "layer_distillation"),
        "zero": (*smoothed, "--smoothing-weight", 0),
        "half": smoothed,
        "unigram": (*smoothed, "--smoothing-topk", 16, "--smoothing-source", "unigram"),
    }.items():
        classify(sentences, tmp_path / name, *options, *stage, encoder=chain.bert, epochs=1)
    assert same(tmp_path / "plain", tmp_path / "zero")
    assert not same(tmp_path / "plain", tmp_path / "half")
    assert not same(tmp_path / "unigram", tmp_path / "half")
    lstm = ("--arch", "sentence_lstm", "--hidden-size", 8)
    with pytest.raises(ValueError, match="compares layers, which a SentenceLstm does not have"):
        classify(
            sentences,
            tmp_path / "lstm",
            "--criterion",
            "layer_distillation",
            *stage[2:],
            *lstm,
            encoder=chain.bert,
        )


def test_a_transformers_folder_smooths_as_it_predicts(sentences, chain, tmp_path):
    """A masked language model as it was saved: the store has its own logits, for the unmasked view."""
    folder, _ = sentences
    assert dump(folder / "data", chain.bert, *SENTENCES, "--store-dir", tmp_path) == 0
    store = SentenceSmoothingReader(tmp_path / "train.sentences.unmasked.smooth")
    model = transformers.AutoModelForMaskedLM.from_pretrained(chain.bert).eval()
    tokenizer = HfTokenizer(str(chain.bert))
    dictionary = Dictionary.load(str(folder / "data/input0/dict.txt"))
    ids = torch.from_numpy(map_dictionary(tokenizer, dictionary, "input"))
    tokens = torch.from_numpy(open_sides(store.info.files(folder / "data"), "train")["input0"][0]).long()
    whole = torch.cat([torch.tensor(tokenizer.text_format().prefix), ids[tokens]])
    with torch.no_grad():
        logits = model(whole[None]).logits[0, -len(tokens) :, ids]
    logits[:, excluded_ids(dictionary)] = -torch.inf
    rows = store.rows(0)
    best = logits.max(dim=1).values
    expected = (logits.gather(1, tokens[:, None])[:, 0] - best).numpy()
    np.testing.assert_allclose(rows["gold_logit"].astype(np.float32), expected, atol=2e-3)
    np.testing.assert_allclose(
        rows["log_normalisers"][:, 0], (logits.logsumexp(dim=1) - best).numpy(), atol=2e-3
    )


def test_two_workers_learn_as_one_does(sentences, chain, tmp_path):
    folder, _ = sentences
    calm = shutil.copytree(chain.bert, tmp_path / "calm")
    config = json.loads((calm / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (calm / "config.json").write_text(json.dumps(config))
    arguments = (*CLASSIFIER, *HF_ENCODER, "--encoder-model", calm, *SMOOTHED, *STRONG)
    one = in_one(folder / "data", tmp_path / "one", *arguments)
    with TwoWorkers(tmp_path) as workers:
        two = workers.run("train", *training(folder / "data", tmp_path / "two", *arguments), pytorch_ddp=True)
    assert_same_weights(tmp_path / "one", tmp_path / "two")
    assert_same_curves(one, from_log(two[0]), 6, {"smoothing_moved", "smoothing_original"})


def test_two_workers_read_smoothed_sources_as_one_does(sources, tmp_path):
    """Batches are odd in number: a worker without one takes a stand-in, which has sources to smooth too."""
    folder, _ = sources
    arguments = (
        "--task", "translation_with_teacher", "--criterion", "label_smoothed_cross_entropy", "--arch", "distilled_transformer_small",
        "--encoder-layers", 1, "--decoder-layers", 1,
        "--dropout", 0, "--batch-size", 24, *STRONG,
    )  # fmt: skip
    in_one(folder / "data", tmp_path / "one", *arguments)
    with TwoWorkers(tmp_path) as workers:
        workers.run("train", *training(folder / "data", tmp_path / "two", *arguments), pytorch_ddp=True)
    assert_same_weights(tmp_path / "one", tmp_path / "two")


def test_a_teacher_reads_each_sentence_once():
    sample = {"id": torch.tensor([3, 5]), "net_input": {"texts": (torch.tensor([[4, 2], [6, 2]]),), "lengths": (torch.tensor([2, 2]),)}, "nsentences": 2}  # fmt: skip
    doubled = twice(sample)
    assert doubled["net_input"]["texts"][0][:, 0].tolist() == [4, 4, 6, 6]
    assert doubled[REPEATS] == 2
    single = single_rows(doubled["net_input"], doubled[REPEATS])
    assert single["texts"][0].tolist() == sample["net_input"]["texts"][0].tolist()
    assert single["lengths"][0].tolist() == [2, 2]


def test_smoothed_sources_with_and_without_soft_labels(sources, tmp_path):
    folder, _ = sources
    hard = ("--criterion", "label_smoothed_cross_entropy")
    train_student(folder / "data", tmp_path / "plain", *hard)
    train_student(folder / "data", tmp_path / "hard", *hard, *STRONG)
    train_student(folder / "data", tmp_path / "soft")
    train_student(folder / "data", tmp_path / "both", *STRONG, "--smoothing-schedule", "mixed")
    assert not same(tmp_path / "plain", tmp_path / "hard")
    assert not same(tmp_path / "soft", tmp_path / "both")


def in_two_parts(folder, copy):
    """A copy of a data folder whose training set has a second part, train1: the pairs of valid."""
    shutil.copytree(folder, copy)
    for path in list(copy.glob("valid.de-en.*")):
        if path.suffix in (".bin", ".idx"):
            shutil.copy(path, copy / path.name.replace("valid", "train1"))
    return copy


def test_parts_of_a_corpus_keep_their_rows(sources, tmp_path):
    """train and train1, the first one twice: each source has the rows of its own part."""
    folder, smoother = sources
    data = in_two_parts(folder / "data", tmp_path / "data")
    assert dump(data, smoother, *SOURCES, "--subset", "train1") == 0
    batches = []

    class Seen(SmoothedDataset):
        def collater(self, samples, **options):
            batches.append(super().collater(samples, **options))
            return batches[-1]

    hard = ("--criterion", "label_smoothed_cross_entropy", "--upsample-primary", 2, "--max-epoch", 1)
    with mock.patch("fairseq_bert_kd.teachers.smoothed_inputs.SmoothedDataset", Seen):
        train_student(data, tmp_path / "student", *hard, *STRONG, updates=100)
    first, second = (
        SourceSmoothingReader(data / f"{part}.de-en.unmasked.smooth") for part in ("train", "train1")
    )
    found = {}
    for batch in batches:
        rows = zip(batch["net_input"]["src_tokens"], unpack(batch[SMOOTHING])["topk_ids"], strict=True)
        found |= {
            pair: ids[tokens != PAD].numpy()
            for pair, (tokens, ids) in zip(batch["id"].tolist(), rows, strict=True)
        }
    sentences = len(first)
    assert sorted(found) == list(range(2 * sentences + len(second)))
    for pair, ids in found.items():
        store, number = (first, pair % sentences) if pair < 2 * sentences else (second, pair - 2 * sentences)
        assert np.array_equal(ids, store.rows(number)["topk_ids"]), pair
    shutil.move(data / "train1.de-en.unmasked.smooth", tmp_path)
    said = "train1.de-en.unmasked.smooth does not exist; .* --side source --view unmasked --subset train1`"
    with pytest.raises(FileNotFoundError, match=said):
        train_student(data, tmp_path / "again", *hard, *STRONG)


def test_parts_of_a_corpus_may_hold_different_numbers_of_words(sources, tmp_path):
    """All words that every part has."""
    folder, smoother = sources
    data = in_two_parts(folder / "data", tmp_path / "data")
    assert dump(data, smoother, *SOURCES, "--subset", "train1", "--topk", 6) == 0
    shapes = set()

    class Seen(SmoothedDataset):
        def collater(self, samples, **options):
            batch = super().collater(samples, **options)
            shapes.add(batch[SMOOTHING]["topk_ids"].size(2))
            return batch

    everything = ("--smoothing-weight", 0.5, "--smoothing-topk", 0, "--max-epoch", 1)
    with mock.patch("fairseq_bert_kd.teachers.smoothed_inputs.SmoothedDataset", Seen):
        train_student(
            data,
            tmp_path / "student",
            "--criterion",
            "label_smoothed_cross_entropy",
            *everything,
            updates=100,
        )
    assert shapes == {4}


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
    random = train_teacher(
        folder / "data" / "input0",
        chain.bert,
        tmp_path / "random",
        "--cmlm-one-sided",
        "--cmlm-random",
        0.1,
        updates=1,
    )
    assert dump(folder / "data", random, *SENTENCES, *store) == 2
    assert (
        "never saw the right token at a position that it predicted (--cmlm-keep 0)" in capsys.readouterr().err
    )
    assert dump(folder / "data", masked, *SENTENCES, *store, "--view", "masked") == 0
    assert dump(folder / "data", chain.teacher, *SENTENCES, *store) == 2
    assert "not a masked language model of single sentences" in capsys.readouterr().err
    assert dump(folder / "data", masked, *SENTENCES, "--passes", 3) == 2
    assert "needs one pass" in capsys.readouterr().err
    assert dump(chain.data, masked, "--side", "source") == 2
    assert "--source-lang" in capsys.readouterr().err
    assert dump(folder / "data", masked, *SENTENCES, "--teacher-fold", "1/2") == 2
    assert "--teacher-fold is for --side target, not --side sentences" in capsys.readouterr().err
    assert dump(chain.data, chain.teacher, "--view", "masked", *store) == 2
    assert "--view is for text smoothing, not --side target" in capsys.readouterr().err


def test_refused_trainings(sentences, sources, chain, tmp_path):
    def smoothed(*options):
        return refusal(
            lambda: classify(sentences, tmp_path, *SMOOTHED, *STRONG, *options, encoder=chain.bert)
        )

    assert "temperature 3" in smoothed("--smoothing-temperature", 3)
    too_many = smoothed("--smoothing-topk", 5)
    assert "holds 4 tokens" in too_many
    assert "--side sentences --view unmasked --topk 5 --overwrite`" in too_many
    assert "is for --smoothing-schedule mixed, not both" in smoothed("--smoothing-rate", 0.3)
    assert "0.5 is the default" in smoothed("--smoothing-rate", 2)
    assert "from 0 to 1" in smoothed("--smoothing-weight", 2)
    assert "reads smoothed words" in smoothed("--arch", "tiny_sentences")
    topk = smoothed("--smoothing-source", "unigram")
    assert (
        "--smoothing-topk is for --smoothing-source mlm or dropout, which reads a store, not unigram" in topk
    )
    unigram = smoothed("--smoothing-topk", 16, "--smoothing-source", "unigram", "--smoothing-view", "masked")
    assert (
        "--smoothing-view is for --smoothing-source mlm or dropout, which reads a store, not unigram"
        in unigram
    )
    other = shutil.copytree(sentences[0] / "data", tmp_path / "other")
    for store in other.glob("*.smooth"):
        store.unlink()
    with pytest.raises(FileNotFoundError, match="other.* --side sentences --view unmasked --subset train`"):
        run_fairseq("train", *training(f"{sentences[0] / 'data'}:{other}", tmp_path, *CLASSIFIER, *HF_ENCODER, "--encoder-model", chain.bert, *SMOOTHED, *STRONG))  # fmt: skip
    assert "were cut before theirs" in smoothed("--smoothing-special", "--max-positions", 4)
    folder, _ = sources
    lstm = ("--arch", "distilled_lstm_small", *STRONG)
    hard = ("--criterion", "label_smoothed_cross_entropy")
    with pytest.raises(ValueError, match="--smoothing-schedule is given, and --smoothing-weight is 0"):
        train_student(folder / "data", tmp_path, *hard, "--smoothing-schedule", "only")
    with pytest.raises(ValueError, match="needs a student with fairseq's Transformer encoder"):
        run_fairseq(
            "train", folder / "data", "--user-dir", PLUGIN, "--task", "translation_with_teacher", *lstm, *hard,
            "--max-tokens", 100, "--optimizer", "adam", "--max-update", 1, "--save-dir", tmp_path, "--cpu",
        )  # fmt: skip
