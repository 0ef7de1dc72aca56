"""GLUE's metrics of validation: values by hand, over batches."""

import pytest
import torch
from fairseq.logging import metrics

from fairseq_bert_kd.criterions.layer_distillation_reports import METRICS, kept, log_reports


def logged(batches, names):
    with metrics.aggregate(new_root=True) as found:
        log_reports([kept(logits, targets, names) for logits, targets in batches])
    return found.get_smoothed_values()


def test_classes_over_two_batches():
    """Predicted 1, 1, 0, 0 for 1, 0, 0, 0: one hit, one false alarm, two right refusals."""
    logits = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    targets = torch.tensor([1, 0, 0, 0])
    batches = [(logits[:3], targets[:3]), (logits[3:], targets[3:])]
    found = logged(batches, ("mcc", "f1", "acc_and_f1"))
    assert found["mcc"] == pytest.approx(57.74)  # 2 / sqrt(12)
    assert found["f1"] == pytest.approx(66.67)  # 2 / 3
    assert found["acc_and_f1"] == pytest.approx(70.83)  # with 3 / 4


def test_numbers():
    """Ranks 1, 2, 3, 4 and 1, 3, 2, 4: 1 - 6 * 2 / 60."""
    logits, targets = torch.tensor([[1.0], [2.0], [3.0], [4.0]]), torch.tensor([1.0, 3.0, 2.0, 4.0])
    found = logged([(logits, targets)], ("pearson", "spearman", "pearson_and_spearman"))
    assert [found[name] for name in ("pearson", "spearman", "pearson_and_spearman")] == [80.0] * 3


def test_nothing_is_logged_of_batches_without_lists():
    with metrics.aggregate(new_root=True) as found:
        log_reports([{"loss": 1.0}])
    assert not found.get_smoothed_values()


def test_the_names_are_those_of_fairseq_s_options():
    from fairseq_bert_kd.modules.validation_metrics import REPORTS

    assert set(METRICS) == {name for names in REPORTS.values() for name in names}
