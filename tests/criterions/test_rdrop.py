"""R-Drop in the criterion: two passes beside their own sums, and nothing of it when the weight is 0."""

import math

import pytest
import torch
from fairseq.logging import metrics

from fairseq_bert_kd.batch import TEACHER, twice
from tests.criterions.test_distillation_loss import (
    PAD,
    criterion,
    loss_and_gradients,
    model,
    plain,
    rich_sample,
    sample,
)
from tests.tiny_chain import logged

__all__ = ["model", "rich_sample", "sample"]  # fixtures
ALPHA = 5.0


def with_dropout(model):
    for module in model.modules():
        if hasattr(module, "p"):
            module.p = 0.3
    return model


def passes_of(model, sample):
    """``(batch, tgt_len, vocab)`` log-probabilities of each pass, drawn as the criterion draws them."""
    torch.manual_seed(4)
    log_probs = model(**twice(sample)["net_input"])[0].double().log_softmax(-1)
    return log_probs[0::2], log_probs[1::2]


def divergence_of(one, other, target):
    each = ((one.exp() * (one - other)).sum(-1) + (other.exp() * (other - one)).sum(-1)) / 2
    return each[target != PAD].sum().item()


@pytest.mark.parametrize("kd_weight", [0.0, 0.5])
def test_loss_is_the_mean_of_two_passes_and_half_the_weighted_divergence(model, sample, kd_weight):
    with_dropout(model)
    one, other = passes_of(model, sample)
    divergence = divergence_of(one, other, sample["target"])
    assert divergence > 0.01
    losses = []
    for log_probs in (one, other):  # a model that gives this pass's scores, for the criterion without R-Drop

        class Given(torch.nn.Module):
            def forward(self, log_probs=log_probs, **_):
                return log_probs.float(), None

            def get_normalized_probs(self, net_output, log_probs, sample=None):
                return net_output[0]

            def get_targets(self, sample, net_output):
                return sample["target"]

        losses.append(criterion(kd_weight=kd_weight)(Given().train(), sample)[0].item())
    torch.manual_seed(4)
    loss, sample_size, log = criterion(kd_weight=kd_weight, rdrop_weight=ALPHA)(model, sample)
    assert loss.item() == pytest.approx(sum(losses) / 2 + ALPHA / 2 * divergence, rel=1e-4)
    assert log["rdrop_kl"].item() == pytest.approx(divergence, rel=1e-4)
    assert sample_size == 7  # gradients are as large as of one pass


@pytest.mark.parametrize("kd_weight", [0.0, 0.5])
def test_without_dropout_it_is_training_without_it(model, sample, kd_weight):
    expected = loss_and_gradients(criterion(kd_weight=kd_weight, report_accuracy=True), model, sample)
    found = loss_and_gradients(
        criterion(kd_weight=kd_weight, report_accuracy=True, rdrop_weight=ALPHA), model, sample
    )
    torch.testing.assert_close(found[0], expected[0])
    for name, gradient in expected[3].items():
        torch.testing.assert_close(found[3][name], gradient, msg=name, rtol=1e-4, atol=1e-5)
    assert found[2].keys() - expected[2].keys() == {"rdrop_kl"}
    for name, value in expected[2].items():
        assert float(found[2][name]) == pytest.approx(float(value), rel=1e-4), name


def operations(criterion, model, sample):
    """Names of the operations of a step, the first of which set things up."""
    for _ in range(2):
        model.zero_grad(set_to_none=True)
        with torch.autograd.profiler.profile() as profile:
            criterion(model, sample)[0].backward()
    return [event.name for event in profile.function_events]


def test_weight_zero_is_fairseqs_own_step(model, sample):
    assert operations(criterion(kd_weight=0.0), model, sample) == operations(plain(), model, sample)


@pytest.mark.parametrize("kd_weight", [0.0, 0.5])
def test_weight_zero_calls_nothing_of_it(model, sample, kd_weight, monkeypatch):
    rows = []
    model.register_forward_hook(lambda *call: rows.append(len(call[2][0])))
    criterion(kd_weight=kd_weight, rdrop_weight=ALPHA)(model, sample)
    module = "fairseq_bert_kd.criterions.distillation_loss"
    for name in ("twice", "symmetric_divergence", "regularised"):
        monkeypatch.delattr(f"{module}.{name}")
    criterion(kd_weight=kd_weight)(model, sample)
    assert rows == [4, 2]  # both passes are one batch of twice as many rows


def test_plain_training_needs_no_teacher(model, sample):
    with_dropout(model)
    del sample[TEACHER]
    loss, _, _ = criterion(kd_weight=0.0, rdrop_weight=ALPHA)(model, sample)
    loss.backward()
    assert criterion(kd_weight=0.0, rdrop_weight=ALPHA).teacher_requirements is None
    # validation is one pass without R-Drop, as in fairseq
    model.eval()
    torch.testing.assert_close(
        criterion(kd_weight=0.0, rdrop_weight=ALPHA).eval()(model, sample)[0],
        plain().eval()(model, sample)[0],
    )


@pytest.mark.parametrize("objective", ["sampled", "full", "tail-bucket"])
def test_every_objective(model, rich_sample, objective):
    options = {"kd_objective": objective, "kd_temperature": 5.0}
    expected = criterion(**options)(model, rich_sample)[0]
    torch.testing.assert_close(criterion(**options, rdrop_weight=ALPHA)(model, rich_sample)[0], expected)


def test_the_log_says_once_that_all_logits_are_held(model, sample):
    regularised = criterion(rdrop_weight=ALPHA)
    with_dropout(model)
    with logged("fairseq_bert_kd.criterions.distillation_loss") as messages:
        regularised(model, sample)
        regularised(model, sample)
    assert [message for message in messages if "--rdrop-weight compares whole distributions" in message] == [
        message for message in messages if "itself, all logits at once" in message
    ]
    assert len(messages) == 1


def test_a_student_without_dropout_is_warned_of_once(model, sample):
    found = {}
    for dropout in (0.0, 0.3):
        for module in model.modules():
            if hasattr(module, "p"):
                module.p = dropout
        regularised = criterion(kd_weight=0.0, rdrop_weight=ALPHA)
        with logged("fairseq_bert_kd.criterions.distillation_loss") as messages:
            for _ in range(2):
                _, _, log = regularised(model, sample)
        found[dropout] = sum("the student has no dropout" in message for message in messages)
        assert (log["rdrop_kl"].item() > 1e-3) == (dropout > 0)
    assert found == {0.0: 1, 0.3: 0}


def test_logged_in_bits_per_token():
    logs = [{"loss": 0.0, "nll_loss": 0.0, "ntokens": n, "sample_size": n, "rdrop_kl": kl * math.log(2)}
            for n, kl in ((3, 6.0), (1, 2.0))]  # fmt: skip
    with metrics.aggregate() as found:
        type(criterion()).reduce_metrics(logs)
    assert found.get_smoothed_values()["rdrop_kl"] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"rdrop_weight": -1.0}, "--rdrop-weight must not be negative"),
        ({"rdrop_weight": math.nan}, "--rdrop-weight must not be negative"),
        ({"rdrop_weight": 1.0, "kd_projection": "chunked"}, "cannot be chunked"),
    ],
)
def test_wrong_options(options, why):
    with pytest.raises(ValueError, match=why):
        criterion(**options)


def test_half_precision(model, sample):
    """bfloat16, which a CPU computes in: the loss and its gradients are finite and near those of float32."""
    regularised = criterion(rdrop_weight=ALPHA)
    expected = regularised(model, sample)[0]
    loss, _, log, gradients = loss_and_gradients(regularised, model.bfloat16(), sample)
    assert loss.dtype == log["rdrop_kl"].dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.05)
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
