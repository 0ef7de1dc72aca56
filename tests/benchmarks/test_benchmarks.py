"""Every benchmark runs; figures that do not depend on time are right."""

import importlib
import os
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.__main__ import MODULES
from benchmarks.table import Row, markdown

TINY_STEP = ("tiny", 1000, 200, "cpu", "fp32", 2)  # a `Setting`


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_runs_and_fills_a_table(name):
    rows = importlib.import_module(MODULES[name]).run(quick=True)
    assert all(isinstance(row, Row) and row.measured for row in rows)
    assert len(markdown(rows).splitlines()) == len(rows) + 2
    for row in rows:
        if "/s" in row.what:  # a rate, or a ratio of rates
            assert float(row.measured.split(" ")[0].replace(",", "")) > 0, row


def test_a_record_has_36_bytes(tmp_path):
    from benchmarks import store

    rows = store.bytes_per_position(tmp_path, sentences=300)
    assert [(row.measured, row.met) for row in rows if row.what == "k=8: bytes per record"] == [("36", True)]


def test_both_ways_to_read_give_the_same_rows(tmp_path):
    from benchmarks import store, synthetic
    from fairseq_bert_kd.storage.topk_store import TopKReader

    synthetic.write_store(tmp_path / "ours", synthetic.make_info(), 5)
    ours = TopKReader(tmp_path / "ours")
    theirs = store.write_fairseq(tmp_path / "fairseq", ours)
    for sentence in range(5):
        rows = ours.rows(sentence)
        assert theirs[sentence].numpy().astype(np.uint16).tobytes() == rows.tobytes()


def test_teacher_trains_on_every_batch_in_both_ways(tmp_path):
    """An epoch changes the weights; the batches that lie ready are those of training."""
    from benchmarks.teacher_side import Setup
    from benchmarks.teacher_training import make_side, quiet

    with quiet():
        side = make_side(tmp_path, Setup("tiny", 1000, 60, 256))
        assert sorted(index for batch in side.indices for index in batch) == list(range(60))
        for epoch in (side.train_epoch, side.bare_epoch):
            before = [parameter.detach().clone() for parameter in side.model.parameters()]
            epoch()
            assert any((old != new).any() for old, new in zip(before, side.model.parameters(), strict=True))


def test_flops_of_training_by_hand():
    from benchmarks import teacher_training

    config = SimpleNamespace(hidden_size=2, num_hidden_layers=3, intermediate_size=5)
    side = SimpleNamespace(
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
    assert teacher_training.model_flops(side) == 6 * 3 * 36 * 6 + 12 * 3 * 2 * (16 + 4) + 6 * 18 * 3


@pytest.mark.parametrize(
    ("gpu", "shown"),
    [
        ("NVIDIA H200", "20.0% (198 of 989 TFLOP/s)"),
        ("NVIDIA H100 PCIe", "26.2% (198 of 756 TFLOP/s)"),
        ("NVIDIA L40S", "54.6% (198 of 362 TFLOP/s)"),
        ("Another", "198 TFLOP/s; the peak of Another is not listed here"),
    ],
)
def test_utilisation_is_a_share_of_the_peak_of_the_device(monkeypatch, gpu, shown):
    from benchmarks import teacher_training

    monkeypatch.setattr(teacher_training.torch.cuda, "get_device_name", lambda device: gpu)
    assert teacher_training.utilisation("x", torch.device("cuda"), 197.8e12).measured == shown
    assert teacher_training.utilisation("x", torch.device("cpu"), 1.0).measured == "skipped: no GPU"


def test_an_error_in_a_child_ends_the_benchmark(tmp_path):
    from benchmarks.child import in_new_process

    with pytest.raises(FileNotFoundError):
        in_new_process(os.stat, tmp_path / "absent", method="forkserver")
    with pytest.raises(BrokenProcessPool):
        in_new_process(os.abort, method="forkserver")


def test_other_work_is_not_compared(monkeypatch):
    from benchmarks import training_losses
    from benchmarks.training_batches import Setting, make_batches, make_student, make_task

    setting = Setting(*TINY_STEP)
    task = make_task(setting.dictionary)
    student, [batch, _] = make_student(setting, task), make_batches(setting, task.target_dictionary)
    training_losses.check_same_work(setting, task, student, batch)
    monkeypatch.setattr(training_losses, "_soft", lambda log_probs, batch, temperature: 0 * log_probs.sum())
    with pytest.raises(AssertionError, match="ours, default differs from what it is compared with"):
        training_losses.check_same_work(setting, task, student, batch)


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
    from benchmarks.loading import compare

    bare = np.full((2, 3), 0.010)
    found = bare + np.array([[0.001, 0.001, 0.5], [0.003, 0.003, -0.1]])
    row = compare("x", bare, found, tokens=1000, step=0.1)
    assert row.measured.startswith(
        "2.00 ms (1.00 to 3.00); 2.000 µs; 0.02000 (within the goal for steps from 100 ms)"
    )
    assert compare("x", bare, found, tokens=1000, step=0.2).met
    assert not compare("x", bare, found, tokens=1000, step=0.05).met
