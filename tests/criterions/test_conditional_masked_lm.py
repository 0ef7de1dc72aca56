import math

import pytest
import torch
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.data import Dictionary
from fairseq.logging import metrics
from torch import nn

from fairseq_bert_kd.criterions.conditional_masked_lm import ConditionalMaskedLMCriterion

PAD, EOS, VOCAB = 1, 2, 5
TARGET = torch.tensor([[3, 4, EOS], [4, EOS, PAD]])
PREDICTED = torch.tensor([[True, False, True], [True, False, False]])


class Task:
    target_dictionary = Dictionary()


class Stub(nn.Module):
    """Scores of every target position; answers at the predicted ones, as `HfMaskedLM` does."""

    def __init__(self, scores):
        super().__init__()
        self.scores = nn.Parameter(scores)

    def forward(self, texts, predicted):
        return self.scores[predicted]


def probabilities(*rows):
    return torch.tensor(rows).log()


def sample():
    return {
        "nsentences": 2,
        "ntokens": 9,
        "net_input": {"texts": (TARGET,), "predicted": PREDICTED},
        "target": TARGET,
    }


def student():
    """Predicted positions: 0.5 for gold 3, 0.25 for gold EOS, 0.125 for gold 4; bad everywhere else."""
    scores = torch.full((2, 3, VOCAB), 1e-6).log()
    scores[0, 0] = probabilities(0.125, 0.125, 0.125, 0.5, 0.125)
    scores[0, 2] = probabilities(0.125, 0.125, 0.25, 0.25 - 1e-3, 0.25 + 1e-3)  # best is 4: wrong
    scores[1, 0] = probabilities(0.125, 0.125, 0.125, 0.5, 0.125)  # best is 3: wrong
    return Stub(scores)


def criterion():
    return ConditionalMaskedLMCriterion(Task())


def test_loss_is_cross_entropy_over_masked_positions_by_hand():
    loss, sample_size, log = criterion()(student(), sample())
    # ln 2 + ln 4 + ln 8
    assert loss.item() == pytest.approx(6 * math.log(2), rel=1e-5)
    assert sample_size == log["sample_size"] == 3
    assert log["n_correct"].item() == 1
    assert (log["ntokens"], log["nsentences"]) == (9, 2)
    assert log["loss"].item() == loss.item()
    assert not log["loss"].requires_grad


def test_loss_equals_a_sum_position_by_position_in_half_precision_scores():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, VOCAB, generator=generator).half()
    loss, _, _ = criterion()(Stub(scores), sample())
    expected = sum(
        -scores[b, t].float().log_softmax(-1)[TARGET[b, t]].item() for b, t in ((0, 0), (0, 2), (1, 0))
    )
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_gradient_is_zero_where_nothing_is_masked():
    model = student()
    criterion()(model, sample())[0].backward()
    assert torch.equal(model.scores.grad.ne(0).any(-1), PREDICTED)
    gold = torch.nn.functional.one_hot(TARGET, VOCAB).float()
    expected = (model.scores.detach().softmax(-1) - gold)[PREDICTED]
    torch.testing.assert_close(model.scores.grad[PREDICTED], expected)


def test_losses_of_single_positions_without_reduction():
    loss, _, _ = criterion()(student(), sample(), reduce=False)
    expected = torch.tensor([1.0, 2.0, 3.0]) * math.log(2)
    torch.testing.assert_close(loss, expected)


def test_batch_of_another_task_is_an_error():
    other = sample()
    del other["net_input"]["predicted"]
    with pytest.raises(
        ValueError, match="--criterion conditional_masked_lm needs --task conditional_masked_lm"
    ):
        criterion()(student(), other)


def test_name_is_ours():
    assert CRITERION_REGISTRY["conditional_masked_lm"] is ConditionalMaskedLMCriterion


LN2 = math.log(2)
LOGS = [
    {"loss": 12 * LN2, "n_correct": 3, "ntokens": 30, "nsentences": 2, "sample_size": 4},
    {"loss": 12 * LN2, "n_correct": 0, "ntokens": 20, "nsentences": 1, "sample_size": 2},
]


def reduced(logs):
    with metrics.aggregate(new_root=True) as meters:
        ConditionalMaskedLMCriterion.reduce_metrics(logs)
    return meters.get_smoothed_values()


@pytest.mark.parametrize("form", [lambda value: value, torch.tensor], ids=["numbers", "tensors"])
def test_metrics_are_sums_over_workers(form):
    assert ConditionalMaskedLMCriterion.logging_outputs_can_be_summed()
    values = reduced([{key: form(value) for key, value in log.items()} for log in LOGS])
    # 24 bits / 6 masked; the mean of the workers' means would be 4.5; 3 right of 6
    expected = {"loss": 4.0, "ppl": 16.0, "masked_accuracy": 50.0}
    assert {key: float(value) for key, value in values.items()} == pytest.approx(expected)


def test_metrics_are_the_same_when_the_host_sums_first():
    assert reduced([{key: LOGS[0][key] + LOGS[1][key] for key in LOGS[0]}]) == pytest.approx(reduced(LOGS))


def test_metrics_over_two_updates_weigh_by_masked_positions():
    with metrics.aggregate(new_root=True) as meters:
        for log in LOGS:
            ConditionalMaskedLMCriterion.reduce_metrics([log])
    assert float(meters.get_smoothed_value("loss")) == pytest.approx(4.0)
    assert float(meters.get_smoothed_value("masked_accuracy")) == pytest.approx(50.0)


def test_no_logs_do_not_divide_by_zero():
    assert reduced([{}])["masked_accuracy"] == 0.0
