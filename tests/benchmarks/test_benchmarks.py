"""Every benchmark runs; figures that do not depend on time are right."""

import importlib

import numpy as np
import pytest
import torch

from benchmarks.__main__ import MODULES
from benchmarks.table import Length, Row, markdown

TINY_STEP = ("tiny", 1000, 200, "cpu", "fp32", 2)  # a `Setting`


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_runs_and_fills_a_table(name):
    rows = importlib.import_module(MODULES[name]).run(Length.QUICK)
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

    synthetic.write_store(tmp_path / "ours", synthetic.make_info(), np.full(5, synthetic.TOKENS))
    ours = TopKReader(tmp_path / "ours")
    theirs = store.write_fairseq(tmp_path / "fairseq", ours)
    for sentence in range(5):
        rows = ours.rows(sentence)
        assert theirs[sentence].numpy().astype(np.uint16).tobytes() == rows.tobytes()


def test_teacher_trains_on_every_batch_in_both_ways(tmp_path):
    """An epoch changes the weights; the batches that lie ready are those of training."""
    from benchmarks.teacher_training import Setup, TeacherTraining, quiet

    with quiet():
        training = TeacherTraining(tmp_path, Setup("tiny", 1000, 60, 256))
        assert sorted(index for batch in training.indices for index in batch) == list(range(60))
        for epoch in (training.train_epoch, training.bare_epoch):
            before = [parameter.detach().clone() for parameter in training.model.parameters()]
            epoch()
            assert any(
                (old != new).any() for old, new in zip(before, training.model.parameters(), strict=True)
            )


def test_layer_losses_that_are_compared_are_of_the_same_states():
    """Hidden losses agree, and so do the attention's probabilities with what our scores give."""
    from benchmarks.layer_distillation import LayerStep, Setting
    from fairseq_bert_kd.functional.encoder_states import record
    from fairseq_bert_kd.modules.encoder_layers import inside

    step = LayerStep(Setting("tiny", 1000, 6, 2, "cpu"))
    step.student.eval()
    student, teacher = step.outputs()
    _, sentences, log = step.criterion(step.student, step.batch)
    ours = (log["hidden_loss"] + log["embedding_loss"]) / sentences
    torch.testing.assert_close(step.losses_by_outputs(student, teacher)["hidden"].data, ours)
    with record(inside(step.student.encoder), scores=[1]) as states:
        step.student(**step.batch["net_input"])
    torch.testing.assert_close(states.scores(1).softmax(dim=-1), student.attentions[0])
    for way in step.ways().values():
        way()
        assert step.student.encoder.encoder.layer[0].attention.self.query.weight.grad is not None


def test_losses_that_are_compared_do_the_same_work(monkeypatch):
    """Value and gradients of ours, in every form, are those of the authors' loss; another weight is seen."""
    from benchmarks import training_losses
    from benchmarks.training_batches import Setting, make_batches, make_student, make_task

    setting = Setting(*TINY_STEP)
    task = make_task(setting.dictionary)
    student, [batch, _] = make_student(setting, task), make_batches(setting, task.target_dictionary)
    training_losses.check_same_work(setting, task, student, batch)
    monkeypatch.setitem(training_losses.OURS, training_losses.DEFAULT, {"kd_weight": 0.4})
    with pytest.raises(AssertionError, match="differs from what it is compared with"):
        training_losses.check_same_work(setting, task, student, batch)


def test_batches_are_the_same_each_time_and_padded():
    from benchmarks.synthetic import make_dictionary
    from benchmarks.training_batches import PAD, Setting, make_batches

    one, other = (make_batches(Setting(*TINY_STEP), make_dictionary(1000)) for _ in range(2))
    assert [batch["id"].tolist() for batch in one] == [batch["id"].tolist() for batch in other]
    for batch in one:
        assert batch["target"].eq(PAD).any()
        assert torch.equal(batch["teacher"][0]["present"], batch["target"].ne(PAD))


def test_memory_of_the_plain_loss_is_three_buffers_of_logits():
    from benchmarks.synthetic import make_dictionary
    from benchmarks.training_batches import Setting, make_batches
    from benchmarks.training_losses import CHUNKED, PLAIN
    from benchmarks.training_memory import MIB, peaks

    setting = Setting("tiny", 4000, 200, "cpu", "fp32", 1)
    [batch] = make_batches(setting, make_dictionary(4000))
    found = peaks(setting, PLAIN)
    buffer = batch["target"].numel() * 4000 * 4 / MIB
    assert found.loss == pytest.approx(3 * buffer, rel=0.02)
    assert peaks(setting, PLAIN).loss == found.loss
    assert peaks(setting, CHUNKED).loss < 0.7 * found.loss


def test_what_rows_add_to_loading_is_the_median_over_batches():
    from benchmarks.loading import compare

    bare = np.full((2, 3), 0.010)
    found = bare + np.array([[0.001, 0.001, 0.5], [0.003, 0.003, -0.1]])
    assert compare("x", bare, found, step=0.1).measured == "2.00 ms (1.00 to 3.00); 0.02000"
    assert compare("x", bare, found, step=0.2).met
    assert not compare("x", bare, found, step=0.05).met
