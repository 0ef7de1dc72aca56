"""A left-to-right teacher in the chain: its training, its stores, and as a live teacher."""

import json
import math
import re
import shutil

import numpy as np
import pytest
import torch
from fairseq.data import LanguagePairDataset, data_utils

from fairseq_bert_kd.batch import unpack
from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.functional.text_input import BIDIRECTIONAL, LEFT_TO_RIGHT
from fairseq_bert_kd.storage.merge import merge_shards
from fairseq_bert_kd.storage.shards import Shard, shard_path
from fairseq_bert_kd.storage.topk_store import TopKReader, store_path
from fairseq_bert_kd.teachers.live import LiveTeacher
from fairseq_bert_kd.teachers.load import load_teacher
from fairseq_bert_kd.teachers.pair_batches import PairBatcher
from fairseq_bert_kd.teachers.plan import number_of_passes, plan_chunk
from fairseq_bert_kd.tokenization.dictionary import excluded_ids
from tests.tiny_chain import dump, logged, train_student, train_teacher

LOG = ("--log-interval", 1, "--log-format", "simple")
SETTINGS = {"passes": None, "max_tokens": 256, "topk": 8, "temperatures": (1.0, 5.0, 10.0)}


@pytest.fixture(scope="module")
def teacher(chain, tmp_path_factory):
    return train_teacher(
        chain.data, chain.bert, tmp_path_factory.mktemp("teacher"), "--teacher-attention", LEFT_TO_RIGHT
    )


@pytest.fixture(scope="module")
def data(chain, teacher, tmp_path_factory):
    """The chain's data with the store of a left-to-right teacher beside that of a bidirectional one."""
    folder = tmp_path_factory.mktemp("l2r") / "data"
    shutil.copytree(chain.data, folder)
    assert dump(folder, teacher, "--name", "l2r") == 0
    return folder


@pytest.fixture
def loaded(chain, teacher):
    return load_teacher(str(teacher), str(chain.data))


def path(data, split="train", name="l2r"):
    return store_path(data, split, "de", "en", name)


def load_pairs(data, loaded, split="train"):
    dictionary, prefix = loaded.task.target_dictionary, str(data / f"{split}.de-en.")
    return tuple(data_utils.load_indexed_dataset(prefix + lang, dictionary) for lang in ("de", "en"))


def values(messages, key):
    return [float(value) for value in re.findall(rf"\b{key}[= ](-?[\d.]+)", "\n".join(messages))]


# ---------------------------------------------------------------- training


def test_every_target_position_is_learned_in_training_and_validation(chain, tmp_path):
    target_tokens = sum(len(line.split()) + 1 for line in (chain.raw / "train.en").read_text().splitlines())
    one_batch = ("--max-tokens", 100_000, "--max-epoch", 1, *LOG)
    with logged("train_inner") as messages:
        train_teacher(
            chain.data, chain.bert, tmp_path, "--teacher-attention", LEFT_TO_RIGHT, *one_batch, updates=1
        )
    assert values(messages, "wpb")[0] > target_tokens  # source too
    loaded = load_teacher(str(tmp_path / "checkpoint_last.pt"), str(chain.data))
    for split in ("train", "valid"):
        loaded.task.load_dataset(split)
        batch = loaded.task.datasets[split].collater([loaded.task.datasets[split][i] for i in range(20)])
        inputs = batch["net_input"]
        positions = torch.arange(inputs["texts"][1].size(1))
        assert torch.equal(inputs["predicted"], positions < inputs["lengths"][1][:, None])


def test_loss_counts_all_target_tokens(chain, tmp_path, monkeypatch):
    from fairseq_bert_kd.criterions.conditional_masked_lm import ConditionalMaskedLMCriterion

    sizes, forward = [], ConditionalMaskedLMCriterion.forward

    def noting(self, model, sample, reduce=True):
        result = forward(self, model, sample, reduce)
        sizes.append((result[1], int(sample["net_input"]["lengths"][1].sum())))
        return result

    monkeypatch.setattr(ConditionalMaskedLMCriterion, "forward", noting)
    train_teacher(chain.data, chain.bert, tmp_path, "--teacher-attention", LEFT_TO_RIGHT)
    assert len(sizes) > 2  # training and validation
    assert all(counted == there for counted, there in sizes)


def test_training_resumes_where_it_stopped(chain, tmp_path):
    options = (*LOG, "--seed", 3, "--teacher-attention", LEFT_TO_RIGHT)
    with logged("train_inner") as whole:
        train_teacher(chain.data, chain.bert, tmp_path / "whole", *options, updates=4)
    with logged("train_inner") as parts:
        train_teacher(chain.data, chain.bert, tmp_path / "parts", *options, updates=2)
        train_teacher(chain.data, chain.bert, tmp_path / "parts", *options, updates=4)
    assert values(parts, "num_updates") == [1, 2, 3, 4]
    assert values(parts, "loss") == values(whole, "loss")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--cmlm-mask-prob", 0.3],
            "--cmlm-mask-prob 0.3 has no effect with --teacher-attention left-to-right, which masks nothing",
        ),
        (["--teacher-attention", "causal"], "invalid choice: 'causal'"),
    ],
)
def test_contradicting_options_are_refused(chain, tmp_path, arguments, message, capsys):
    with pytest.raises((ValueError, SystemExit)) as error:
        train_teacher(chain.data, chain.bert, tmp_path, "--teacher-attention", LEFT_TO_RIGHT, *arguments)
    assert message in str(error.value) + capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- stores


def test_header_tells_what_the_teacher_saw(chain, data):
    info = TopKReader(path(data)).info
    assert (info.mask_plan, info.passes, info.mask_ratio) == ("left-to-right", 1, 0.0)
    assert TopKReader(path(chain.data, name="default")).info.mask_plan == "strided"


def test_rows_are_those_of_the_model_called_by_hand(data, loaded):
    reader, (sources, targets) = TopKReader(path(data)), load_pairs(data, loaded)
    excluded = excluded_ids(loaded.task.target_dictionary)
    assert len(reader) == len(targets) == 120
    for sentence in range(0, 120, 7):
        source, target = sources[sentence][:-1].long()[None], targets[sentence].long()[None]
        with torch.no_grad():
            logits = loaded.model(
                (source, target),
                (torch.tensor([source.size(1)]), torch.tensor([target.size(1)])),
                torch.ones_like(target, dtype=torch.bool),
            )
        logits[:, excluded] = -math.inf
        logits -= logits.max(dim=1, keepdim=True).values
        rows, expected = reader.rows(sentence), logits.topk(8).values
        assert len(rows) == target.size(1)  # end of sentence included
        np.testing.assert_allclose(rows["topk_logits"].astype(np.float32), expected, atol=5e-3)
        chosen = logits.gather(1, torch.from_numpy(rows["topk_ids"].astype(np.int64)))
        np.testing.assert_allclose(chosen, expected, atol=1e-4)  # ids up to ties within rounding
        normalisers = torch.stack([torch.logsumexp(logits / t, 1) for t in (1.0, 5.0, 10.0)], dim=1)
        np.testing.assert_allclose(rows["log_normalisers"], normalisers, atol=1e-3)


def test_every_position_is_predicted_once_in_one_pass(loaded):
    lengths = [(3, 1), (0, 4), (7, 9), (2, 2)]
    sources = [torch.full((n,), 5) for n, _ in lengths]
    targets = [torch.tensor([6] * (n - 1) + [2]) for _, n in lengths]
    src, tgt = (np.array([len(tokens) for tokens in side]) for side in (sources, targets))
    layout = loaded.model.text_layout()
    passes = number_of_passes(layout.attention, None, "--passes")
    batcher, seen = PairBatcher(layout, passes, pad=1), []
    for batch in plan_chunk(src, tgt, np.ones(4, bool), passes, max_tokens=16):
        laid_out = batcher.lay_out(batch, sources, targets, seeds=[[i] for i in range(len(targets))])
        assert not (laid_out.inputs["input_ids"] == layout.text_format.mask).any()
        seen += zip(laid_out.sentences.tolist(), laid_out.target_positions.tolist(), strict=True)
    assert sorted(seen) == [(i, t) for i, (_, n) in enumerate(lengths) for t in range(n)]


def test_several_passes_are_refused_and_nothing_is_written(data, teacher, capsys):
    before = path(data).read_bytes()
    assert dump(data, teacher, "--name", "l2r", "--passes", 7, "--overwrite") == 2
    message = (
        "--passes must be 1 for this teacher, got 7: it was trained with --teacher-attention left-to-right"
    )
    assert message in capsys.readouterr().err
    assert path(data).read_bytes() == before
    assert dump(data, teacher, "--name", "l2r", "--passes", 1) == 0  # the same store
    assert "complete already" in capsys.readouterr().out
    assert path(data).read_bytes() == before


def test_store_of_the_other_teacher_is_not_replaced(chain, data, teacher, capsys):
    before = path(data).read_bytes()
    assert dump(data, chain.teacher, "--name", "l2r", "--passes", 1) == 2
    assert "mask_ratio: 0.0 against 0.15); pass --overwrite to replace it" in capsys.readouterr().err
    assert path(data).read_bytes() == before


def test_shards_make_the_same_store(data, teacher, tmp_path):
    small = ("--chunk-sentences", 16)
    assert dump(data, teacher, "--name", "whole", *small) == 0
    for shard in ("1/2", "2/2"):
        assert dump(data, teacher, "--name", "parts", "--shard", shard, *small) == 0
    parts = [shard_path(path(data, name="parts"), Shard(i, 2)) for i in range(2)]
    merge_shards(parts, tmp_path / "merged")
    assert (tmp_path / "merged").read_bytes() == path(data, name="whole").read_bytes()


def test_a_seventh_of_the_work_is_planned(chain, data, teacher, capsys):
    counted = []
    for checkpoint in (teacher, chain.teacher):
        assert dump(data, checkpoint, "--plan", "--name", "new") == 0
        counted.append(
            int(re.search(r"tokens to score +([\d,]+)", capsys.readouterr().out)[1].replace(",", ""))
        )
    source_and_target = sum(
        len(line.split()) + (side == "en")
        for side in ("de", "en")
        for line in (chain.raw / f"train.{side}").read_text().splitlines()
    )
    assert counted[0] == source_and_target < counted[1]


def test_reports_name_the_plan(chain, data, capsys):
    for command in ("stat", "show"):
        assert cli_main(["store", command, str(path(data)), *["0"] * (command == "show")]) == 0
    text = capsys.readouterr().out
    assert "scored         in 1 pass, left to right, fp32 on cpu" in text
    assert "mask ratio     0 % of target tokens" in text
    assert "(from the left)" in text
    assert "checkpoint_last.pt (left to right), T=1" in text
    assert cli_main(["store", "stat", str(path(data)), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["info"]["mask_plan"] == "left-to-right"
    assert cli_main(["store", "verify", str(path(data)), "--data", str(data)]) == 0
    assert cli_main(["store", "show", str(path(chain.data, name="default")), "0"]) == 0
    assert "left to right" not in capsys.readouterr().out


# ---------------------------------------------------------------- students


def test_student_learns_from_the_store_and_from_the_live_teacher_alike(data, teacher, tmp_path):
    options = (*LOG, "--kd-temperature", 5)
    losses = []
    for name, where in (("store", ("--kd-stores", "l2r")), ("live", ("--kd-live-teacher", teacher))):
        with logged("train_inner") as messages, logged("fairseq_bert_kd.teachers.load_live") as live:
            train_student(data, tmp_path / name, *options, *where, updates=3)
        losses.append(values(messages, "kd_loss"))
        assert values(messages, "kd_coverage") == [100] * 3
    assert losses[0] == pytest.approx(losses[1], abs=0.02)
    assert live == [f"live teacher {teacher} (left-to-right): passes over every batch: 1"]


def test_live_rows_are_those_of_the_store(data, loaded):
    reader, (sources, targets) = TopKReader(path(data)), load_pairs(data, loaded)
    dictionary = loaded.task.target_dictionary
    dataset = LanguagePairDataset(sources, sources.sizes, dictionary, targets, targets.sizes, dictionary)
    sample = dataset.collater([dataset[i] for i in range(0, 120, 11)])
    entry, same = LiveTeacher(loaded, **SETTINGS).teacher_batch(sample), []
    for row, sentence in enumerate(sample["id"].tolist()):
        rows = reader.rows(sentence)
        assert int(entry["present"][row].sum()) == len(rows)
        found = unpack(entry)["log_normalisers"][row, : len(rows)]
        np.testing.assert_allclose(found, rows["log_normalisers"], atol=1e-4, rtol=0)
        same.append((entry["topk_ids"][row, : len(rows)].numpy() == rows["topk_ids"]).flatten())
    assert np.concatenate(same).mean() > 0.99


def test_several_live_passes_are_refused(data, teacher, tmp_path):
    with pytest.raises(ValueError, match=r"\(--kd-live-passes\) must be 1 for this teacher, got 3"):
        train_student(data, tmp_path, "--kd-live-teacher", teacher, "--kd-live-passes", 3)


def test_passes_of_a_bidirectional_teacher_are_as_requested():
    assert [number_of_passes(BIDIRECTIONAL, requested, "--passes") for requested in (None, 1, 3)] == [7, 1, 3]
