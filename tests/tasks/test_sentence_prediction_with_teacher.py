"""The task under fairseq's own trainer and its own criterion ``sentence_prediction``."""

import argparse
import itertools
import json
import math
import re
import shutil
from unittest import mock

import numpy as np
import pytest
import torch
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.logging import metrics
from fairseq.tasks import TASK_REGISTRY
from fairseq.tasks.sentence_prediction import SentencePredictionTask

from fairseq_bert_kd.modules.sentence_checkpoints import trained_spec
from fairseq_bert_kd.storage.fairseq_data import sentence_hash
from fairseq_bert_kd.storage.sentence_data import hashes_path, read_spec
from fairseq_bert_kd.tasks.sentence_prediction_with_teacher import (
    SentencePredictionWithTeacherConfig,
    SentencePredictionWithTeacherTask,
)
from tests import tiny_sentences
from tests.tiny_chain import PLUGIN, logged, run_fairseq
from tests.tiny_sentences import prepare, train, write_table
from tests.tokenization.tiny_tokenizers import build_tokenizer

COLUMNS = ("--columns", "text", "--label-column", "label", "--full-dictionary")
PAIRS = ("--columns", "text,other", "--label-column", "label", "--full-dictionary")
OURS = "fairseq_bert_kd.tasks.sentence_prediction_with_teacher"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer, tables, and prepared folders: ``classes``, ``pairs``, ``numbers``, ``plain``."""
    root = tmp_path_factory.mktemp("sentences")
    build_tokenizer("bert_uncased", root / "bert")
    for name, pairs, labels in (
        ("classes", False, ("bad", "good")), ("pairs", True, ("no", "yes")), ("numbers", True, ("0.1", "4.9")),
    ):  # fmt: skip
        tables = [
            write_table(root / name / f"{split}.tsv", rows, seed, pairs, labels)
            for seed, (split, rows) in enumerate((("train", 75), ("valid", 21), ("test", 11)))
        ]
        splits = zip(("--train", "--valid", "--test"), tables, strict=True)
        kind = ("--label-kind", "numbers") if name == "numbers" else ()
        given = [*(PAIRS if pairs else COLUMNS), *kind, *(word for split in splits for word in split)]
        assert prepare(root / "bert", root / f"data-{name}", *given) == 0
    assert prepare(
        root / "bert", root / "data-plain", "--columns", "text", "--full-dictionary", "--train",
        root / "classes" / "train.tsv",
    ) == 0  # fmt: skip
    return root


@pytest.fixture(scope="module")
def trained(folder):
    """A checkpoint of 30 updates on ``classes``."""
    return train(folder / "data-classes", folder / "trained", updates=30)


def task_on(data, **options):
    """The task without a trainer."""
    cfg = SentencePredictionWithTeacherConfig(data=str(data))
    values = {
        "seed": 1,
        "train_subset": "train",
        "save_dir": "",
        "restore_file": "",
        "finetune_from_model": None,
    }
    for name, value in {**values, **options}.items():
        setattr(cfg, name, value)
    return SentencePredictionWithTeacherTask.setup_task(cfg)


def model_config():
    return argparse.Namespace(_name="tiny_sentences", arch="tiny_sentences")


def test_the_name_is_ours():
    assert TASK_REGISTRY["sentence_prediction_with_teacher"] is SentencePredictionWithTeacherTask


# ---------------------------------------------------------------- training


def validate(data, checkpoint, *arguments):
    with logged("valid") as messages, logged("fairseq_cli.validate") as others:
        run_fairseq(
            "validate", data, "--user-dir", PLUGIN, "--path", checkpoint, "--batch-size", 8, "--cpu", "--no-progress-bar",
            "--num-workers", 0, "--task", "sentence_prediction_with_teacher", *arguments,
        )  # fmt: skip
    return " ".join([*messages, *others])


def test_fairseq_s_own_criterion_learns_the_classes(folder, trained):
    assert "accuracy 100" in validate(folder / "data-classes", trained)


def test_pairs_and_numbers_are_learned(folder):
    with logged("valid") as messages:
        train(
            folder / "data-numbers", folder / "regression", "--regression-target", "--report-pearson-and-spearman",
            updates=60,
        )  # fmt: skip
    pearson = float(re.findall(r"pearson ([\d.]+)", messages[-1])[-1])
    assert pearson > 90


@pytest.mark.parametrize("name", ["sentence_prediction", "layer_distillation"])
def test_the_last_batch_of_a_split_may_have_one_row(name):
    """Ranks 1, 3, 2 and 4 for 1, 2, 3 and 4: 1 - 6 * 2 / 60; a row alone has no correlation."""
    reports = ("pearson", "spearman", "pearson_and_spearman")
    task = SentencePredictionWithTeacherTask.__new__(SentencePredictionWithTeacherTask)
    criterion = CRITERION_REGISTRY[name].__new__(CRITERION_REGISTRY[name])
    batches = [([1.0, 3.0, 2.0], [1.0, 2.0, 3.0]), ([4.0], [4.0])]
    alone = []
    with metrics.aggregate(new_root=True) as split:
        for found, true in batches:
            log = {"loss": 0.0, "ntokens": 1, "nsentences": len(true), "sample_size": len(true)}
            log |= {"pred": found, "targ": true, "reports": reports, "report_pearson_and_spearman": True}
            with metrics.aggregate() as batch:  # as fairseq's trainer
                task.reduce_metrics([log], criterion)
            alone.append(batch.get_smoothed_values())
    assert [split.get_smoothed_values()[report] for report in reports] == [pytest.approx(80)] * 3
    assert [alone[0][report] for report in reports] == [pytest.approx(50)] * 3
    assert all(math.isnan(alone[1][report]) for report in reports)


@pytest.mark.parametrize("report", ["mcc", "acc-and-f1"])
def test_classes_reach_the_metrics_of_the_criterion(folder, report):
    """They turn symbols of the label dictionary into integers, so these are numbers."""
    with logged("valid") as messages:
        train(folder / "data-pairs", folder / f"pairs-{report}", f"--report-{report}", updates=40)
    found = re.findall(rf"\| {report.split('-')[-1]} ([\d.]+)", messages[-1])
    assert float(found[-1]) > 90


@pytest.mark.parametrize(
    ("data", "arguments", "message"),
    [
        ("classes", ("--best-checkpoint-metric", "mcc"), "mcc is not logged without --report-mcc"),
        ("classes", ("--best-checkpoint-metric", "accuracy"), "add --maximize-best-checkpoint-metric"),
        ("classes", ("--report-pearson-and-spearman",), "those of `.*data-classes` are 2 classes"),
        ("numbers", ("--regression-target", "--report-mcc"), "those of `.*data-numbers` are numbers"),
    ],
)
def test_metrics_that_end_a_run_at_its_first_validation_are_refused_before(
    folder, tmp_path, data, arguments, message
):
    """Or would keep the worst checkpoint."""
    with pytest.raises(ValueError, match=message):
        train(folder / f"data-{data}", tmp_path / "refused", *arguments)
    assert not list((tmp_path / "refused").glob("*.pt"))


def test_lists_of_predictions_are_not_added_up():
    """fairseq asks the class, not the task."""
    task = SentencePredictionWithTeacherTask
    lists = argparse.Namespace(keep_pred_and_targ=True, logging_outputs_can_be_summed=lambda: True)
    sums = argparse.Namespace(keep_pred_and_targ=False, logging_outputs_can_be_summed=lambda: True)
    assert not task.logging_outputs_can_be_summed(lists)
    assert task.logging_outputs_can_be_summed(sums)


def test_half_precision_leaves_numbers_as_they_are(folder):
    from fairseq.trainer import Trainer

    task = task_on(folder / "data-numbers")
    task.load_dataset("train")
    dataset = task.datasets["train"]
    sample = dataset.collater([dataset[0]])
    common = argparse.Namespace(common=argparse.Namespace(fp16=True, bf16=False))
    half = Trainer._fp_convert_sample(argparse.Namespace(cfg=common), sample)
    assert half["target"].float().tolist() == sample["target"].float().tolist()
    assert half["target"].float().item() in (np.float32(0.1).item(), np.float32(4.9).item())


def all_batches(task, model=None):
    iterator = task.get_batch_iterator(
        task.datasets["train"], max_sentences=8, required_batch_size_multiple=8
    )
    return [batch["id"].tolist() for batch in iterator.next_epoch_itr(shuffle=False)]


def test_the_last_batch_is_kept(folder):
    task = task_on(folder / "data-classes")
    task.load_dataset("train")
    found = all_batches(task)
    assert sorted(itertools.chain(*found)) == list(range(75))
    assert sorted(map(len, found)) == [3] + [8] * 9


def weights(checkpoint):
    return torch.load(checkpoint, weights_only=False)["model"]["embeddings.weight"]


def test_a_resumed_run_ends_where_an_unbroken_one_does(folder):
    """75 rows are 10 batches: 13 updates are in the second epoch."""
    unbroken = train(folder / "data-classes", folder / "unbroken", updates=25)
    train(folder / "data-classes", folder / "broken", updates=13)
    assert torch.equal(
        weights(train(folder / "data-classes", folder / "broken", updates=25)), weights(unbroken)
    )
    other_seed = train(folder / "data-classes", folder / "other", "--seed", 2, updates=25)
    assert not torch.equal(weights(other_seed), weights(unbroken))


def test_loading_processes_give_the_same_batches(folder):
    task = task_on(folder / "data-pairs")
    task.load_dataset("train")
    found = [
        list(task.get_batch_iterator(task.datasets["train"], max_sentences=8, num_workers=n).next_epoch_itr())
        for n in (0, 1)
    ]
    for one, other in zip(*found, strict=True):
        assert one["id"].tolist() == other["id"].tolist()
        assert [text.tolist() for text in one["net_input"]["texts"]] == [
            text.tolist() for text in other["net_input"]["texts"]
        ]


# ---------------------------------------------------------------- what the folder holds


def test_fairseq_s_own_task_reads_the_folder(folder):
    """The same texts and the same class numbers, but for its own `<mask>`."""
    cfg = argparse.Namespace(
        data=str(folder / "data-pairs"), num_classes=2, regression_target=False, init_token=None, separator_token=None,
        shorten_method="none", shorten_data_split_list="", max_positions=512, seed=1, no_shuffle=True,
        add_prev_output_tokens=False, classification_head_name="h", d2v2_multi=False,
    )  # fmt: skip
    stock = SentencePredictionTask.setup_task(cfg)
    stock.load_dataset("valid")
    ours = task_on(folder / "data-pairs")
    ours.load_dataset("valid")
    dataset = ours.datasets["valid"]
    for row in range(len(dataset)):
        theirs = stock.datasets["valid"][row]
        own = dataset[row]
        assert theirs["net_input.src_tokens"].tolist() == np.concatenate(own["texts"]).tolist()
        assert theirs["target"].tolist() == [own["target"]]
    assert stock.label_dictionary.symbols[4:6] == ["no", "yes"]


def test_fairseq_s_own_task_reads_the_numbers(folder):
    lines = (folder / "data-numbers" / "label" / "valid.label").read_text().split()
    task = task_on(folder / "data-numbers")
    task.load_dataset("valid")
    assert [float(line) for line in lines] == task.datasets["valid"].targets.tolist()


def test_hashes_are_those_of_the_store(folder):
    task = task_on(folder / "data-pairs")
    task.load_dataset("train")
    hashes = np.load(hashes_path(folder / "data-pairs", "train"))
    texts = [task.datasets["train"][row]["texts"] for row in range(len(hashes))]
    assert hashes.tolist() == [[sentence_hash(text) for text in row] for row in texts]


def test_unlabelled_text_loads(folder):
    task = task_on(folder / "data-plain")
    task.load_dataset("train")
    assert task.num_classes == 0
    assert task.label_names == ()
    dataset = task.datasets["train"]
    assert "target" not in dataset.collater([dataset[0]])
    assert dict(task.build_model(model_config()).classification_heads) == {}


def test_folders_take_turns(folder):
    task = task_on(f"{folder / 'data-classes'}:{folder / 'data-plain'}")
    task.load_dataset("train", epoch=1)
    assert task.datasets["train"].targets is not None
    task.load_dataset("train", epoch=2)
    assert task.datasets["train"].targets is None


# ---------------------------------------------------------------- models


def test_the_vocabulary_is_made_when_asked_for(folder):
    task = task_on(folder / "data-classes")
    vocabulary = task.vocabulary
    assert len(vocabulary.token_to_encoder) == len(task.dictionary)
    assert vocabulary.text_format.prefix == (2,)


@pytest.mark.parametrize("arch", ["roberta", "roberta_base", "transformer", "bert_base"])
def test_a_model_of_fairseq_s_is_refused_before_it_is_built(folder, arch):
    with pytest.raises(ValueError, match=rf"--arch {arch} reads no sentences .* --arch hf_encoder"):
        task_on(folder / "data-classes").build_model(argparse.Namespace(_name=arch))


def test_another_tokenizer_is_refused(folder, tmp_path):
    build_tokenizer("bert_cased", tmp_path / "cased")
    task = task_on(folder / "data-classes", kd_tokenizer=str(tmp_path / "cased"))
    with pytest.raises(ValueError, match="data folder `.*` was made with another tokenizer than `.*cased`"):
        task.vocabulary  # noqa: B018


def test_the_model_s_own_tokenizer_comes_before_the_recorded_one(folder):
    task = task_on(folder / "data-classes")
    task.build_model(argparse.Namespace(**vars(model_config()), encoder_model="/nowhere"))
    with pytest.raises(ValueError, match="cannot load a tokenizer from `/nowhere`"):
        task.vocabulary  # noqa: B018


def test_a_model_with_a_description_leaves_it_in_its_settings(folder):
    task = task_on(folder / "data-classes")
    cfg = argparse.Namespace(**vars(model_config()), encoder_spec=None)
    with mock.patch.object(tiny_sentences.TinySentences, "spec", create=True, return_value="described"):
        task.build_model(cfg)
    assert cfg.encoder_spec == "described"


def test_longer_rows_are_cut_and_counted(folder):
    task = task_on(folder / "data-classes")
    with mock.patch.object(tiny_sentences.TinySentences, "positions", 4):
        task.build_model(model_config())
    with logged(OURS) as messages:
        task.load_dataset("train")
    sizes = task.datasets["train"].sizes
    assert sizes.max() == 4
    assert re.search(r"train: \d+ of 75 rows \([\d.]+ %\) were cut to 4 tokens", messages[-1])


def test_max_positions_cuts_too(folder):
    task = task_on(folder / "data-pairs", max_positions=5)
    task.load_dataset("train")
    assert task.datasets["train"].sizes.max() == 5
    with pytest.raises(
        ValueError, match="--max-positions must be at least 2, the ends of sentence of a row, got 1"
    ):
        task_on(folder / "data-pairs", max_positions=1)


def test_a_batch_too_small_for_a_row_is_refused(folder):
    """fairseq would leave the row out."""
    with pytest.raises(ValueError, match="more than a batch of --max-tokens 4 can hold"):
        train(folder / "data-classes", folder / "small", "--max-tokens", 4)


# ---------------------------------------------------------------- labels by name


def test_the_checkpoint_knows_the_names(trained, folder):
    spec = trained_spec(str(trained))
    assert spec == read_spec(folder / "data-classes")
    assert spec.names == ("bad", "good")


@pytest.fixture
def renamed(folder, tmp_path):
    """Function that prepares ``classes`` again, with other classes."""

    def prepared(*arguments, labels=("bad", "good")):
        tables = [
            write_table(tmp_path / f"{split}.tsv", rows, seed, labels=labels)
            for seed, (split, rows) in enumerate((("train", 75), ("valid", 21)))
        ]
        given = ("--train", tables[0], "--valid", tables[1], *COLUMNS, *arguments)
        assert prepare(folder / "bert", tmp_path / "data", *given) == 0
        return tmp_path / "data"

    return prepared


def test_the_order_of_classes_is_the_checkpoint_s(trained, renamed):
    """The mix-up that costs 40 points elsewhere: classes are translated by name."""
    data = renamed("--classes", "good,bad")
    assert read_spec(data).names == ("good", "bad")
    assert "accuracy 100" in validate(data, trained)


def test_an_unknown_class_is_refused(trained, renamed):
    data = renamed(labels=("bad", "fine"))
    with pytest.raises(
        ValueError,
        match="has the class `fine`, which the checkpoint does not know: it was trained on bad, good",
    ):
        validate(data, trained)


@pytest.mark.parametrize("option", ["--finetune-from-model", "--restore-file"])
def test_a_head_is_not_trained_on_with_other_numbers(trained, renamed, tmp_path, option):
    data = renamed("--classes", "good,bad")
    with pytest.raises(
        ValueError,
        match="trained for bad, good, .* has good, bad; the order differs: prepare the data with --like",
    ):
        train(data, tmp_path / "run", option, trained)
    assert not (tmp_path / "run" / "checkpoint_last.pt").exists()


def test_a_run_that_resumes_is_compared_too(renamed, tmp_path):
    data = renamed()
    train(data, tmp_path / "run", updates=1)
    shutil.rmtree(data)
    with pytest.raises(ValueError, match="the order differs"):
        train(renamed("--classes", "good,bad"), tmp_path / "run", updates=2)


def test_another_task_needs_a_head_of_its_own(trained, renamed, tmp_path):
    data = renamed(labels=("no", "yes"))
    with pytest.raises(
        ValueError, match="for another task give the new head a name of its own, --classification-head-name"
    ):
        train(data, tmp_path / "run", "--finetune-from-model", trained)


def test_another_dictionary_is_refused(folder, trained, tmp_path):
    table = write_table(tmp_path / "train.tsv", 20)
    data = tmp_path / "data"
    assert prepare(folder / "bert", data, "--train", table, "--valid", table, *COLUMNS[:-1]) == 0
    with pytest.raises(
        ValueError, match="have different dictionaries .* --full-dictionary, or the second with --like"
    ):
        validate(data, trained)
    with pytest.raises(ValueError, match="have different dictionaries"):
        train(data, tmp_path / "run", "--finetune-from-model", trained)


# ---------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("numbers", (), "the labels of .* are numbers; add --regression-target"),
        ("classes", ("--regression-target",), "are classes; leave out --regression-target"),
        ("plain", ("--disable-validation",), "learns from labels, .* has none"),
        (
            "classes",
            ("--criterion", "cross_entropy"),
            "scores sequences, .* give --criterion sentence_prediction",
        ),
    ],
)
def test_criterion_and_labels_must_agree(folder, data, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(folder / f"data-{data}", tmp_path, *options)


def test_a_folder_that_was_not_prepared(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no prepared sentences; prepare the data again with"):
        task_on(tmp_path)


def test_a_damaged_description(folder, tmp_path):
    shutil.copytree(folder / "data-classes", tmp_path / "data")
    path = tmp_path / "data" / "labels.json"
    stated = json.loads(path.read_text())
    path.write_text(json.dumps({**stated, "kind": "numbers"}))
    with pytest.raises(ValueError, match="labels.json is damaged or of another version"):
        task_on(tmp_path / "data")
    path.write_text(json.dumps({**stated, "format": 2}))
    with pytest.raises(ValueError, match="format 2, this code reads format 1"):
        task_on(tmp_path / "data")


def test_a_changed_dictionary(folder, tmp_path):
    shutil.copytree(folder / "data-classes", tmp_path / "data")
    path = tmp_path / "data" / "input0" / "dict.txt"
    first, second, *others = path.read_text(encoding="utf-8").splitlines()
    path.write_text("".join(f"{line}\n" for line in (second, first, *others)), encoding="utf-8")
    with pytest.raises(ValueError, match="is not the dictionary that .* was prepared with"):
        task_on(tmp_path / "data")


def test_unequal_sides(folder, tmp_path):
    shutil.copytree(folder / "data-pairs", tmp_path / "data")
    for ending in ("bin", "idx"):
        shutil.copy(
            tmp_path / "data" / "label" / f"test.{ending}", tmp_path / "data" / "label" / f"train.{ending}"
        )
    task = task_on(tmp_path / "data")
    with pytest.raises(
        ValueError,
        match=r"input0 and label of split `train` have different numbers of sentences \(75 and 11\)",
    ):
        task.load_dataset("train")


def test_a_split_that_is_not_there(folder):
    with pytest.raises(FileNotFoundError, match="side `input0` of split `more`, does not exist"):
        task_on(folder / "data-classes").load_dataset("more")


def test_a_split_without_labels_under_the_criterion(folder, trained, tmp_path):
    shutil.copytree(folder / "data-classes", tmp_path / "data")
    (tmp_path / "data" / "label" / "test.idx").unlink()
    with pytest.raises(ValueError, match="split `test` of .* has no labels; for predictions run"):
        validate(tmp_path / "data", trained, "--valid-subset", "test")
