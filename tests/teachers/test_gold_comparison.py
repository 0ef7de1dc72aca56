"""When a teacher is called no better than its student."""

import logging
import math
import re

import pytest

from fairseq_bert_kd.data.absent_rows import AbsentRows
from fairseq_bert_kd.storage.topk_store import TopKReader, store_path
from fairseq_bert_kd.teachers.gold_comparison import GoldComparison
from tests.tiny_chain import dump, logged, train_student

LOGGER = "fairseq_bert_kd.teachers.gold_comparison"


@pytest.fixture
def reader(chain):
    return TopKReader(store_path(chain.data, "train", "de", "en"))


@pytest.mark.parametrize(
    ("stats", "teacher", "warns"),
    [
        ({"kd_teacher_nll": 3.0, "kd_gold_nll": 2.0, "nll_loss": 9.0}, 3.0, True),
        ({"kd_teacher_nll": 3.0, "kd_gold_nll": 3.0}, 3.0, True),
        ({"kd_teacher_nll": 2.0, "kd_gold_nll": 3.0, "nll_loss": 1.0}, 2.0, False),  # the same rows count
        ({"nll_loss": 3.0}, None, False),
        ({}, None, False),
    ],
)
def test_bits_on_the_same_rows(stats, teacher, warns, caplog):
    comparison = GoldComparison()
    assert comparison.compare("valid", stats) == teacher
    assert ("no better than its student" in caplog.text) == warns


def test_each_split_is_warned_about_once_with_both_perplexities(caplog):
    comparison = GoldComparison()
    for split in ("valid", "train", "valid"):
        comparison.compare(split, {"kd_teacher_nll": 5.0, "kd_gold_nll": 3.0}, training=split == "train")
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert all("(perplexity 32 against 8)" in message for message in messages)
    assert "by heart" not in messages[0]
    assert "by heart" in messages[1]
    assert "--subset valid --gold" in messages[1]


def test_headers_tell_the_teacher_where_rows_do_not(reader, caplog):
    caplog.set_level(logging.INFO, LOGGER)
    comparison = GoldComparison()
    absent = AbsentRows("x", reader.info, [3, 4])
    comparison.note_stores("train", [reader, absent, reader])
    nats = reader.header.summary["gold_nll"]
    assert f"train: the teacher's perplexity on the gold tokens is {math.exp(nats):.4g}" in caplog.text
    bits = nats / math.log(2)
    assert comparison.compare("train", {"nll_loss": bits + 1}) == pytest.approx(bits)
    assert "no better" not in caplog.text
    comparison.compare("train", {"nll_loss": bits - 0.1})
    assert "train: the teacher predicts the gold tokens no better than its student" in caplog.text
    assert comparison.compare("valid", {"nll_loss": 0.1}) is None  # not known there
    comparison.note_stores("other", [absent])
    assert comparison.compare("other", {"nll_loss": 0.1}) is None


def student(chain, folder, *options, updates=16):
    with logged(LOGGER) as said, logged("valid") as lines:
        train_student(chain.data, folder, "--kd-weight", 0.3, "--lr", 0.02, *options, updates=updates)
    return said, lines


def test_training_says_that_a_teacher_of_two_updates_is_behind(chain, tmp_path):
    said, lines = student(chain, tmp_path / "train")
    assert "kd_teacher_ppl" not in lines[-1]  # no store of the validation set
    [warning] = [message for message in said if "no better" in message]
    assert warning.startswith("train: ")
    behind, ahead = re.search(r"perplexity ([\d.]+) against ([\d.]+)", warning).groups()
    summary = TopKReader(store_path(chain.data, "train", "de", "en")).header.summary
    assert float(behind) == pytest.approx(math.exp(summary["gold_nll"]), rel=1e-3)
    assert float(ahead) <= float(behind)


@pytest.mark.parametrize("gold", [(), ("--gold",)], ids=["header", "rows"])
def test_validation_compares_where_its_store_is(chain, tmp_path, gold):
    for subset in ("train", "valid"):
        assert dump(chain.data, chain.teacher, "--store-dir", tmp_path, "--subset", subset, *gold) == 0
    said, lines = student(chain, tmp_path / "student", "--kd-store-dir", tmp_path)
    found = re.search(r"kd_teacher_ppl ([\d.]+)", lines[-1])
    assert found
    summary = TopKReader(store_path(tmp_path, "valid", "de", "en")).header.summary
    assert float(found[1]) == pytest.approx(math.exp(summary["gold_nll"]), rel=0.02)
    warnings = [message for message in said if "no better" in message]
    least = min(
        float(re.search(r"\| ppl ([\d.]+)", line)[1]) for line in lines
    )  # it is said once, after any validation
    assert [message[:7] for message in warnings] == (["valid: "] if least <= float(found[1]) else [])


def test_a_good_teacher_gets_no_warning(chain, tmp_path):
    said, _ = student(chain, tmp_path, updates=2)  # the student has learned nothing yet
    assert said
    assert not [message for message in said if "no better" in message]


def test_dump_says_when_a_teacher_has_learned_nothing(chain, tmp_path, capsys, caplog):
    assert dump(chain.data, chain.teacher, "--store-dir", tmp_path) == 0
    line = re.search(r"perplexity ([\d.]+); their frequencies alone: ([\d.]+)", capsys.readouterr().out)
    teacher, frequencies = map(float, line.groups())
    warned = "no better than how often each token occurs" in caplog.text
    assert warned == (teacher >= frequencies)
    assert warned  # two updates from random weights
