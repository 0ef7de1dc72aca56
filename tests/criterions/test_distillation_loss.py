import argparse
import math

import numpy as np
import pytest
import torch
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.data import Dictionary
from fairseq.logging import metrics
from fairseq.models.transformer import TransformerModel
from fairseq.models.transformer.transformer_legacy import tiny_architecture

from fairseq_bert_kd.batch import TEACHER, decode_logits, encode_logits
from fairseq_bert_kd.criterions.distillation_loss import (
    DistillationConfig,
    LabelSmoothedCrossEntropyWithDistillationCriterion,
)

NAME = "label_smoothed_cross_entropy_with_distillation"
PAD, EOS, VOCAB, EPSILON = 1, 2, 12, 0.1


class Task:
    def __init__(self):
        self.source_dictionary = self.target_dictionary = Dictionary()
        for token in range(VOCAB - len(self.target_dictionary)):
            self.target_dictionary.add_symbol(str(token))
        assert len(self.target_dictionary) == VOCAB


@pytest.fixture
def model():
    """A transformer of one layer each without dropout, in training mode."""
    args = argparse.Namespace(
        encoder_embed_dim=8, encoder_ffn_embed_dim=8, encoder_attention_heads=2, encoder_layers=1,
        decoder_embed_dim=8, decoder_ffn_embed_dim=8, decoder_attention_heads=2, decoder_layers=1,
        dropout=0.0, max_source_positions=16, max_target_positions=16,
    )  # fmt: skip
    tiny_architecture(args)
    torch.manual_seed(0)
    return TransformerModel.build_model(args, Task()).train()


@pytest.fixture
def sample():
    """Two pairs; k = 3; the second sentence has one position of padding and no row at position 1."""
    target = torch.tensor([[5, 6, 7, EOS], [8, 9, EOS, PAD]])
    ids = torch.tensor(
        [
            [[5, 6, 7], [4, 6, 8], [11, 10, 9], [EOS, 4, 5]],
            [[4, 5, 8], [0, 0, 0], [EOS, 8, 9], [0, 0, 0]],
        ]
    )
    logits = torch.tensor([-0.25, -1.5, -4.0]).expand(2, 4, 3) * torch.tensor([1, 2, 0.5, 3])[None, :, None]
    present = torch.tensor([[True, True, True, True], [True, False, True, False]])
    return {
        "id": torch.tensor([0, 1]),
        "nsentences": 2,
        "ntokens": 7,
        "net_input": {
            "src_tokens": torch.tensor([[4, 5, 6, EOS], [PAD, 7, 8, EOS]]),
            "src_lengths": torch.tensor([4, 3]),
            "prev_output_tokens": torch.tensor([[EOS, 5, 6, 7], [EOS, 8, 9, PAD]]),
        },
        "target": target,
        TEACHER: {
            "ids": ids.int(),
            "logit_bits": encode_logits(logits.masked_fill(~present[:, :, None], 0.0).half()),
            "present": present,
        },
    }


def criterion(**options):
    settings = {"sentence_avg": False, "label_smoothing": EPSILON, "kd_topk": 3} | options
    return LabelSmoothedCrossEntropyWithDistillationCriterion(Task(), **settings).train()


def plain(**options):
    return LabelSmoothedCrossEntropyCriterion(
        Task(), **({"sentence_avg": False, "label_smoothing": EPSILON} | options)
    ).train()


def loss_and_gradients(criterion, model, sample):
    model.zero_grad()
    loss, sample_size, log = criterion(model, sample)
    loss.backward()
    return loss, sample_size, log, {name: p.grad.clone() for name, p in model.named_parameters()}


def reference(model, sample, kd_weight, temperature, prefix=0):
    """papers.md A.2 from the model's scores, position by position: total, label, nll, teacher, covered."""
    with torch.no_grad():
        scores = model(**sample["net_input"])[0].double()
    lprobs = scores.log_softmax(-1).numpy()
    teacher = sample[TEACHER]
    logits = decode_logits(teacher["logit_bits"]).double().numpy()
    sums = np.zeros(5)
    for b in range(2):
        for t in range(prefix, 4):
            gold = int(sample["target"][b, t])
            if gold == PAD:
                continue
            nll = -lprobs[b, t, gold]
            label = (1 - EPSILON) * nll - EPSILON / (VOCAB - 2) * lprobs[b, t].sum()
            if not teacher["present"][b, t]:
                sums += [label, label, nll, 0.0, 0]
                continue
            weights = np.exp(logits[b, t] / temperature)
            weights /= weights.sum()
            soft = -(weights * lprobs[b, t, teacher["ids"][b, t].numpy()]).sum()
            sums += [(1 - kd_weight) * label + kd_weight * soft, label, nll, soft, 1]
    return sums


def test_weight_zero_is_fairseqs_criterion_bit_for_bit(model, sample):
    expected = loss_and_gradients(plain(), model, sample)
    actual = loss_and_gradients(criterion(kd_weight=0.0), model, sample)
    assert torch.equal(actual[0], expected[0])
    assert actual[1] == expected[1]
    assert actual[2].keys() == expected[2].keys()
    assert len(expected[3]) > 20
    for name, gradient in expected[3].items():
        assert torch.equal(actual[3][name], gradient), name


def test_weight_zero_needs_no_teacher(model, sample):
    del sample[TEACHER]
    assert criterion(kd_weight=0.0).teacher_topk == 0
    criterion(kd_weight=0.0)(model, sample)


def test_validation_is_fairseqs_criterion_bit_for_bit(model, sample):
    model.eval()
    loss, sample_size, log = criterion(kd_weight=0.5).eval()(model, sample)
    expected_loss, expected_size, expected_log = plain().eval()(model, sample)
    assert torch.equal(loss, expected_loss)
    assert sample_size == expected_size
    assert log == expected_log


def test_validation_needs_no_teacher(model, sample):
    del sample[TEACHER]
    criterion(kd_weight=0.5).eval()(model.eval(), sample)


@pytest.mark.parametrize(("kd_weight", "temperature"), [(0.3, 1.0), (0.5, 10.0), (1.0, 2.0)])
def test_training_loss_is_that_of_the_papers_code(model, sample, kd_weight, temperature):
    loss, sample_size, log = criterion(kd_weight=kd_weight, kd_temperature=temperature)(model, sample)
    total, label, nll, teacher, covered = reference(model, sample, kd_weight, temperature)
    assert loss.item() == pytest.approx(total, rel=1e-5)
    assert log["loss"].item() == pytest.approx(total, rel=1e-5)
    assert log["label_loss"].item() == pytest.approx(label, rel=1e-5)
    assert log["nll_loss"].item() == pytest.approx(nll, rel=1e-5)
    assert log["kd_loss"].item() == pytest.approx(teacher, rel=1e-5)
    assert log["kd_positions"].item() == covered == 6
    assert sample_size == log["sample_size"] == log["ntokens"] == 7
    assert log["nsentences"] == 2
    assert not any(getattr(value, "requires_grad", False) for value in log.values())


def test_training_gradient_reaches_every_parameter(model, sample):
    _, _, _, gradients = loss_and_gradients(criterion(kd_weight=1.0), model, sample)
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    _, _, _, plain_gradients = loss_and_gradients(plain(), model, sample)
    name = "decoder.output_projection.weight"
    assert not torch.allclose(gradients[name], plain_gradients[name])


def test_gradient_at_the_scores_is_student_minus_targets(sample):
    # one position, no smoothing: softmax(z) - (1 - w) * onehot(gold) - w * teacher
    scores = torch.linspace(-1, 1, 2 * 4 * VOCAB).view(2, 4, VOCAB).requires_grad_()

    class Stub(torch.nn.Module):
        def forward(self, **_):
            return scores

        def get_normalized_probs(self, net_output, log_probs):
            return net_output.log_softmax(-1)

        def get_targets(self, sample, net_output):
            return sample["target"]

    loss, _, _ = criterion(kd_weight=0.3, kd_temperature=2.0, label_smoothing=0.0)(Stub().train(), sample)
    loss.backward()
    targets = torch.zeros(VOCAB)
    targets[[4, 6, 8]] = 0.3 * (torch.tensor([-0.5, -3.0, -8.0]) / 2.0).softmax(-1)
    targets[6] += 0.7
    torch.testing.assert_close(scores.grad[0, 1], scores[0, 1].softmax(-1).detach() - targets)
    no_row = torch.zeros(VOCAB)
    no_row[9] = 1.0
    torch.testing.assert_close(scores.grad[1, 1], scores[1, 1].softmax(-1).detach() - no_row)
    assert torch.equal(scores.grad[1, 3], torch.zeros(VOCAB))


@pytest.mark.parametrize("prefix", [1, 2])
def test_ignored_prefix_is_left_out_on_both_sides(model, sample, prefix):
    loss, sample_size, log = criterion(kd_weight=0.3, kd_temperature=2.0, ignore_prefix_size=prefix)(
        model, sample
    )
    total, _, nll, _, covered = reference(model, sample, 0.3, 2.0, prefix)
    assert loss.item() == pytest.approx(total, rel=1e-5)
    assert log["nll_loss"].item() == pytest.approx(nll, rel=1e-5)
    assert log["kd_positions"].item() == covered == {1: 4, 2: 3}[prefix]
    assert sample_size == 7  # as in the host


def test_accuracy_is_reported_when_asked(model, sample):
    with torch.no_grad():
        best = model(**sample["net_input"])[0].argmax(-1)
    sample["target"][0, :3] = best[0, :3]  # three tokens are right
    sample["target"][0, 3] = (best[0, 3] - 2) % (VOCAB - 4) + 4  # and the rest wrong
    sample["target"][1, :3] = (best[1, :3] - 2) % (VOCAB - 4) + 4
    _, _, log = criterion(report_accuracy=True)(model, sample)
    assert (log["n_correct"], log["total"]) == (3, 7)
    _, _, expected = plain(report_accuracy=True)(model, sample)
    assert (expected["n_correct"], expected["total"]) == (3, 7)
    assert "n_correct" not in criterion()(model, sample)[2]


def test_sentences_are_the_denominator_when_asked(model, sample):
    _, sample_size, log = criterion(sentence_avg=True)(model, sample)
    assert sample_size == log["sample_size"] == 2


def test_batch_without_teacher_rows_is_refused_in_training(model, sample):
    del sample[TEACHER]
    with pytest.raises(
        ValueError,
        match=r"--kd-weight is above 0 but the batch has no teacher rows.*--task translation_with_teacher",
    ):
        criterion(kd_weight=0.5)(model, sample)


@pytest.mark.parametrize("kd_weight", [-0.1, 1.5, math.nan])
def test_weight_outside_its_range_is_refused(kd_weight):
    with pytest.raises(ValueError, match=rf"--kd-weight must be in \[0, 1\], got {kd_weight}"):
        criterion(kd_weight=kd_weight)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match=f"--kd-temperature must be positive, got {temperature}"):
        criterion(kd_temperature=temperature)


@pytest.mark.parametrize("topk", [0, -1])
def test_topk_below_one_is_refused(topk):
    with pytest.raises(ValueError, match=f"--kd-topk must be at least 1, got {topk}"):
        criterion(kd_topk=topk)


def test_options_are_the_constructors_parameters():
    config = DistillationConfig(
        label_smoothing=0.2, sentence_avg=True, ignore_prefix_size=3, report_accuracy=True,
        kd_weight=0.25, kd_temperature=4.0, kd_topk=2,
    )  # fmt: skip
    built = CRITERION_REGISTRY[NAME].build_criterion(config, Task())
    assert type(built) is LabelSmoothedCrossEntropyWithDistillationCriterion
    assert (built.kd_weight, built.kd_temperature, built.kd_topk, built.teacher_topk) == (0.25, 4.0, 2, 2)
    assert (built.eps, built.sentence_avg) == (0.2, True)
    assert (built.ignore_prefix_size, built.report_accuracy) == (3, True)


def test_defaults_are_the_papers():
    config = DistillationConfig()
    assert (config.kd_weight, config.kd_temperature, config.kd_topk) == (0.5, 10.0, 8)


LN2 = math.log(2)
# of two workers, 6 and 2 target tokens, 3 and 1 of them with teacher rows; all losses in nats
LOGS = [
    {"loss": 20 * LN2, "nll_loss": 18 * LN2, "label_loss": 24 * LN2, "kd_loss": 9 * LN2, "kd_positions": 3,
     "ntokens": 6, "nsentences": 2, "sample_size": 6},
    {"loss": 12 * LN2, "nll_loss": 6 * LN2, "label_loss": 8 * LN2, "kd_loss": 11 * LN2, "kd_positions": 1,
     "ntokens": 2, "nsentences": 1, "sample_size": 2},
]  # fmt: skip


def reduced(logs):
    with metrics.aggregate(new_root=True) as meters:
        LabelSmoothedCrossEntropyWithDistillationCriterion.reduce_metrics(logs)
    return meters.get_smoothed_values()


def as_tensors(log):
    return {key: torch.tensor(value) for key, value in log.items()}


@pytest.mark.parametrize("form", [dict, as_tensors], ids=["numbers", "tensors"])
def test_metrics_are_sums_over_workers(form):
    assert LabelSmoothedCrossEntropyWithDistillationCriterion.logging_outputs_can_be_summed()
    values = reduced([form(log) for log in LOGS])
    expected = {
        "loss": 4.0,  # 32 / 8 bits a token; the mean of the workers' means would be 4.667
        "nll_loss": 3.0,  # 24 / 8
        "ppl": 8.0,  # 2 ** 3: gold tokens alone
        "label_loss": 4.0,  # 32 / 8
        "kd_loss": 5.0,  # 20 / 4 covered positions
        "kd_coverage": 50.0,  # 4 of 8, in percent
    }
    assert {key: float(value) for key, value in values.items()} == pytest.approx(expected)


def test_metrics_are_the_same_when_the_host_sums_first():
    summed = {key: LOGS[0][key] + LOGS[1][key] for key in LOGS[0]}
    assert reduced([summed]) == pytest.approx(reduced(LOGS))


def test_metrics_without_any_covered_position():
    logs = [LOGS[0] | {"kd_loss": 0.0, "kd_positions": 0}]
    values = reduced(logs)
    assert values["kd_coverage"] == 0.0
    assert values["kd_loss"] == 0.0


def test_validation_metrics_are_the_hosts():
    keys = ("loss", "nll_loss", "ntokens", "nsentences", "sample_size")
    assert set(reduced([{key: log[key] for key in keys} for log in LOGS])) == {"loss", "nll_loss", "ppl"}
