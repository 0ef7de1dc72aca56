"""Every benchmark runs; figures that do not depend on time are right."""

import importlib
import os
import re
import sys
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.__main__ import MODULES
from benchmarks.table import Row, markdown
from fairseq_bert_kd.storage.topk_store import TopKReader


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ("dump", "step")])
def test_runs_and_fills_a_table(name):
    rows = importlib.import_module(MODULES[name]).run(quick=True)
    assert rows
    assert all(isinstance(row, Row) and row.measured for row in rows)
    assert len(markdown(rows).splitlines()) == len(rows) + 2


def test_dump_is_compared_with_the_bare_teacher_and_the_authors():
    from benchmarks import dump_throughput

    rows = dump_throughput.measure("tiny", 1000, sentences=20, rounds=1, precision="fp32")
    assert len(rows) == 3
    assert all(float(row.measured.replace(",", "").split(" ")[0]) > 0 for row in rows)


def test_training_sides_take_the_same_steps():
    pytest.importorskip("accelerate", reason="transformers' Trainer needs it")
    from benchmarks import teacher_training

    assert teacher_training.step_difference() < teacher_training.STEP_TOLERANCE


@pytest.mark.parametrize(
    ("setting", "other"), [("MASK_PROB", 0.3), ("LEARNING_RATE", 5e-2), ("CLIP_NORM", 1e-9)]
)
def test_training_of_other_masks_or_steps_is_not_compared(monkeypatch, setting, other):
    pytest.importorskip("accelerate", reason="transformers' Trainer needs it")
    from benchmarks import teacher_training, trainer_side

    monkeypatch.setattr(trainer_side, setting, other)
    with pytest.raises(AssertionError):
        teacher_training.step_difference()


def test_teacher_training_is_compared_with_both_trainers():
    pytest.importorskip("accelerate", reason="transformers' Trainer needs it")
    from benchmarks import fairseq_side, teacher_training

    rows = teacher_training.measure(fairseq_side.Setup("tiny", 200, 60, 256), rounds=2, warm_up=1)
    assert [row.goal for row in rows] == ["-", "-", "-", "at least 1.1", "-", "-"]
    assert all(float(row.measured.replace(",", "").split(" ")[0]) > 0 for row in rows[:5])


def test_without_accelerate_teacher_training_says_what_is_missing(monkeypatch):
    from benchmarks import teacher_training

    monkeypatch.setattr(teacher_training.importlib.util, "find_spec", lambda name: None)
    (row,) = teacher_training.run(quick=True)
    assert "pip install accelerate" in row.measured


def test_flops_of_training_by_hand():
    from benchmarks import teacher_training

    config = SimpleNamespace(hidden_size=2, num_hidden_layers=3, intermediate_size=5)
    ours = SimpleNamespace(
        model=SimpleNamespace(
            encoder=SimpleNamespace(config=config), text_format=SimpleNamespace(pair_overhead=1)
        ),
        trainer=SimpleNamespace(
            task=SimpleNamespace(datasets={"train": SimpleNamespace(sizes=np.array([3, 1]))})
        ),
        setup=SimpleNamespace(vocabulary=7),
        masked=[2, 1],
    )
    # lengths 4 and 2; a layer has 4 * 4 + 2 * 10 = 36 weights, the head 4 + 14 = 18
    assert teacher_training.model_flops(ours) == 6 * 3 * 36 * 6 + 12 * 3 * 2 * (16 + 4) + 6 * 18 * 3


@pytest.mark.parametrize(
    ("gpu", "shown"),
    [
        ("NVIDIA H200", "20.0% (198 of 989 TFLOP/s)"),
        ("NVIDIA H100 PCIe", "26.2% (198 of 756 TFLOP/s)"),
        ("NVIDIA L40S", "54.6% (198 of 362 TFLOP/s)"),
        ("Another", "198 TFLOP/s; the peak of Another is not listed here"),
    ],
)
def test_utilisation_is_of_the_peak_of_the_device(monkeypatch, gpu, shown):
    from benchmarks import teacher_training

    monkeypatch.setattr(teacher_training.torch.cuda, "get_device_name", lambda device: gpu)
    assert teacher_training.utilisation("x", torch.device("cuda"), 197.8e12).measured == shown
    assert teacher_training.utilisation("x", torch.device("cpu"), 1.0).measured == "skipped: no GPU"


def test_a_record_has_36_bytes():
    from benchmarks import store_bytes

    rows = store_bytes.run(quick=True)
    assert [(row.measured, row.met) for row in rows if row.what == "k=8: a record"] == [("36", True)]


def test_reads_compare_every_state_with_fairseq_and_the_authors():
    from benchmarks import store_reads

    rows = store_reads.run(quick=True)
    ratios = [row for row in rows if " over " in row.what]
    assert {row.what.split(":")[0] for row in ratios} == {"warm", "cold", "cold, opening not counted"}
    assert all(float(row.measured.split(" ")[0]) > 0 for row in ratios)
    assert {row.goal for row in ratios if row.met is not None} == {"at least 1", "at least 30"}


def test_an_error_in_a_child_ends_the_benchmark(tmp_path):
    from benchmarks.child import in_new_process

    with pytest.raises(FileNotFoundError):
        in_new_process(os.stat, tmp_path / "absent", method="forkserver")
    with pytest.raises(BrokenProcessPool):
        in_new_process(os.abort, method="forkserver")


def test_a_sparse_store_opens_like_a_real_one_and_leaves_no_file(tmp_path):
    from benchmarks import sparse, synthetic

    synthetic.write_store(tmp_path / "real", synthetic.make_info(), 3000)
    sparse.write_sparse_store(tmp_path / "sparse", 3000)
    real, empty = TopKReader(tmp_path / "real"), TopKReader(tmp_path / "sparse")
    assert real.header.layout == empty.header.layout
    assert len(empty) == 3000
    (tmp_path / "real").unlink()
    (tmp_path / "sparse").unlink()
    assert sparse.sparse_opening_seconds(tmp_path, 10**6) > 0
    assert not list(tmp_path.iterdir())


def test_a_rate_gives_the_sizing_table_without_a_dump(monkeypatch, tmp_path, capsys):
    from benchmarks import __main__, store_growth

    monkeypatch.setattr(store_growth, "run", lambda quick: [Row("growth", "", "", "-", None)])
    monkeypatch.setattr(store_growth, "LAST_RATES", {"verify": 1e6, "merge": 2e6})
    monkeypatch.delitem(sys.modules, MODULES["dump"], raising=False)
    arguments = ["growth", "--quick", "--tokens-per-second", "5000", "--markdown", str(tmp_path / "table.md")]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    __main__.main()
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "5,000 tokens/s (the rate that was given)" in text
    assert text in capsys.readouterr().out


def test_sizing_follows_from_the_rates(monkeypatch):
    from benchmarks import store_growth

    monkeypatch.setattr(store_growth, "LAST_RATES", {"verify": 1e6, "merge": 2e6})
    table = store_growth.sizing(tokens_per_second=10_500.0, device="a device").splitlines()
    # 10^7 pairs: 7 * 54 tokens each at 10,500/s are 100 h; 36 * 27 + 25 = 997 bytes each; 27e7 positions
    assert re.fullmatch(r"\| 10\^7 \| 10\.0 GB \| 100\.0 \| 5 \| [\d.]+ ms \| 4 min \| 2 min \|", table[6])


TINY_STEP = ("tiny", 1000, 200, "cpu", "fp32", 2)  # a `Setting`


def test_a_step_is_compared_with_the_plain_one_for_every_loss():
    from benchmarks import training_step
    from benchmarks.training_losses import NAMES, PLAIN

    rows = training_step.run(quick=True)
    compared = [row for row in rows if " over plain: step; loss part" in row.what]
    assert len(compared) == len(NAMES) - 1
    assert all(float(row.measured.split(" ")[0]) > 0 for row in compared)
    assert {row.goal for row in rows if row.met is not None} == {"at most 1.02"}
    assert PLAIN in rows[0].what


def test_other_work_is_not_compared(monkeypatch):
    from benchmarks import training_losses
    from benchmarks.training_batches import Setting, make_batches, make_student, make_task

    setting = Setting(*TINY_STEP)
    task = make_task(setting.dictionary)
    student, [batch, _] = make_student(setting, task), make_batches(setting, task.target_dictionary)
    training_losses.refuse_different_work(setting, task, student, batch)
    monkeypatch.setattr(training_losses, "_soft", lambda log_probs, batch, temperature: 0 * log_probs.sum())
    with pytest.raises(AssertionError, match="ours, default differs from what it is compared with"):
        training_losses.refuse_different_work(setting, task, student, batch)


def test_a_new_process_has_the_same_batches_and_they_are_padded():
    from benchmarks.training_batches import PAD, Setting, make_batches, make_dictionary

    one, other = (make_batches(Setting(*TINY_STEP), make_dictionary(1000)) for _ in range(2))
    assert [batch["id"].tolist() for batch in one] == [batch["id"].tolist() for batch in other]
    for batch in one:
        assert batch["target"].eq(PAD).any()
        assert torch.equal(batch["teacher"][0]["present"], batch["target"].ne(PAD))


def test_memory_of_the_plain_loss_is_three_buffers_of_logits():
    from benchmarks.training_batches import Setting, make_batches, make_dictionary
    from benchmarks.training_losses import CHUNKED, PLAIN
    from benchmarks.training_memory import MIB, peaks

    setting = Setting("tiny", 4000, 200, "cpu", "fp32", 1)
    [batch] = make_batches(setting, make_dictionary(4000))
    found = peaks(setting, PLAIN)
    buffer = batch["target"].numel() * 4000 * 4 / MIB
    assert found.loss == pytest.approx(3 * buffer, rel=0.02)
    assert found.projection_gradient == 4000 * 16 * 4 / MIB
    assert peaks(setting, PLAIN).loss == found.loss
    assert peaks(setting, CHUNKED).loss < 0.7 * found.loss


def test_what_rows_add_to_loading_is_the_median_over_batches():
    from benchmarks.data_loading import compare

    bare = np.full((2, 3), 0.010)
    found = bare + np.array([[0.001, 0.001, 0.5], [0.003, 0.003, -0.1]])
    row = compare("x", bare, found, tokens=1000, step=0.1)
    assert row.measured.startswith(
        "2.00 ms (1.00 to 3.00); 2.000 µs; 0.02000 (within the goal for steps from 100 ms)"
    )
    assert compare("x", bare, found, tokens=1000, step=0.2).met
    assert not compare("x", bare, found, tokens=1000, step=0.05).met
