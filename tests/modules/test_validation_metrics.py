"""Which metrics of validation labels have, and by which of them a checkpoint is chosen."""

from types import SimpleNamespace

import pytest

from fairseq_bert_kd.modules.validation_metrics import REPORTS, check_best_metric, check_reports


def criterion(*reports):
    return SimpleNamespace(**{name: name in reports for name in REPORTS})


@pytest.mark.parametrize(
    ("report", "outputs", "message"),
    [
        ("report_mcc", 1, "--report-mcc is for labels that are classes, those of `data` are numbers"),
        (
            "report_acc_and_f1",
            3,
            "--report-acc-and-f1 is for labels that are two classes.*`data` are 3 classes",
        ),
        ("report_acc_and_f1", 0, "those of `data` are none"),
        ("report_pearson_and_spearman", 2, "is for labels that are numbers, those of `data` are 2 classes"),
    ],
)
def test_metrics_of_other_labels_are_refused(report, outputs, message):
    with pytest.raises(ValueError, match=message):
        check_reports(criterion(report), "data", outputs)


@pytest.mark.parametrize(
    ("report", "outputs"),
    [("report_mcc", 3), ("report_acc_and_f1", 2), ("report_pearson_and_spearman", 1), ("", 0)],
)
def test_metrics_of_these_labels_pass(report, outputs):
    check_reports(criterion(report), "data", outputs)


@pytest.mark.parametrize(
    ("metric", "maximised", "outputs", "message"),
    [
        ("mcc", True, 2, "--best-checkpoint-metric mcc is not logged without --report-mcc; give it"),
        ("f1", True, 2, "not logged without --report-acc-and-f1"),
        ("spearman", True, 1, "not logged without --report-pearson-and-spearman"),
        (
            "accuracy",
            True,
            1,
            "is of classes, and the data have none; for numbers choose pearson or spearman",
        ),
        ("accuracy", False, 2, "the least would be kept; add --maximize-best-checkpoint-metric"),
        ("loss", True, 2, "the greatest would be kept; leave --maximize-best-checkpoint-metric out"),
    ],
)
def test_a_metric_that_is_not_logged_or_kept_from_its_worse_end(metric, maximised, outputs, message):
    cfg = SimpleNamespace(best_checkpoint_metric=metric, maximize_best_checkpoint_metric=maximised)
    with pytest.raises(ValueError, match=message):
        check_best_metric(cfg, criterion(), outputs)


def test_good_choices_pass_and_so_do_older_checkpoints():
    for metric, maximised, outputs in (("loss", False, 2), ("accuracy", True, 3), ("ppl", False, 2)):
        cfg = SimpleNamespace(best_checkpoint_metric=metric, maximize_best_checkpoint_metric=maximised)
        check_best_metric(cfg, criterion(), outputs)
    cfg = SimpleNamespace(best_checkpoint_metric="mcc", maximize_best_checkpoint_metric=True)
    check_best_metric(cfg, criterion("report_mcc"), 2)
    check_best_metric(SimpleNamespace(), criterion(), 2)
