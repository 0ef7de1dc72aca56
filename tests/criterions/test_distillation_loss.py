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

from fairseq_bert_kd.batch import TEACHER, TeacherRequirements, pack, unpack
from fairseq_bert_kd.criterions.distillation_loss import (
    LabelSmoothedCrossEntropyWithDistillationCriterion,
)
from fairseq_bert_kd.criterions.distillation_options import DistillationConfig
from fairseq_bert_kd.functional import projection_plan
from tests.tiny_chain import logged

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
        TEACHER: [
            pack(
                {
                    "topk_ids": ids,
                    "topk_logits": logits.masked_fill(~present[:, :, None], 0.0).half(),
                    "present": present,
                }
            )
        ],
    }


@pytest.fixture
def rich_sample(sample):
    """The same with everything that a teacher may give; logits of the whole dictionary stand behind it."""
    generator = torch.Generator().manual_seed(3)
    whole = 3 * torch.randn(2, 4, VOCAB, generator=generator)
    whole -= whole.amax(-1, keepdim=True)
    teacher = sample[TEACHER][0]
    best, ids = whole.topk(3)
    temperatures = (1.0, 5.0)
    normalisers = torch.stack([(whole / t).logsumexp(-1) for t in temperatures], dim=-1)
    drawn = whole.scatter(-1, ids, -torch.inf).softmax(-1).flatten(0, 1)
    sample_ids = torch.multinomial(drawn, 2, replacement=True, generator=generator).view(2, 4, 2)
    fields = {
        "topk_ids": ids,
        "topk_logits": best.half(),
        "present": teacher["present"],
        "log_normalisers": normalisers,
        "gold_logit": whole.gather(-1, sample["target"][..., None])[..., 0].half(),
        "sample_ids": sample_ids,
        "sample_logits": whole.gather(-1, sample_ids).half(),
        "full_logits": whole,
    }
    sample[TEACHER] = [pack(fields) | {"temperatures": temperatures}]
    return sample


def criterion(**options):
    """Three teacher tokens and the paper's temperature, unless a test sets them."""
    settings = {"sentence_avg": False, "label_smoothing": EPSILON, "kd_topk": 3, "kd_temperature": 10.0}
    config = DistillationConfig(**(settings | options))
    return LabelSmoothedCrossEntropyWithDistillationCriterion(config, Task()).train()


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
    [teacher] = sample[TEACHER]
    logits = unpack(teacher)["topk_logits"].double().numpy()
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
            soft = -(weights * lprobs[b, t, teacher["topk_ids"][b, t].numpy()]).sum()
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
    assert criterion(kd_weight=0.0).teacher_requirements is None
    criterion(kd_weight=0.0)(model, sample)


@pytest.mark.parametrize("projection", ["chunked", "plain"])
def test_validation_is_fairseqs_criterion_bit_for_bit(model, sample, projection):
    model.eval()
    loss, sample_size, log = criterion(kd_weight=0.5, kd_projection=projection).eval()(model, sample)
    expected_loss, expected_size, expected_log = plain().eval()(model, sample)
    assert torch.equal(loss, expected_loss)
    assert sample_size == expected_size
    compared = {key: log.pop(key) for key in list(log) if key.startswith("kd_")}
    assert log == expected_log
    _, _, _, teacher, covered = reference(model, sample, 0.5, 10.0)
    assert compared["kd_loss"].item() == pytest.approx(teacher, rel=1e-5)
    assert compared["kd_positions"].item() == covered


def test_validation_runs_the_model_once(model, sample):
    calls = []
    model.eval().register_forward_hook(lambda *_: calls.append(1))
    criterion().eval()(model, sample)
    assert len(calls) == 1


def test_validation_needs_no_teacher(model, sample):
    del sample[TEACHER]
    criterion(kd_weight=0.5).eval()(model.eval(), sample)


@pytest.mark.parametrize("projection", ["chunked", "plain", "auto"])
@pytest.mark.parametrize(("kd_weight", "temperature"), [(0.3, 1.0), (0.5, 10.0), (1.0, 2.0)])
def test_training_loss_is_that_of_the_papers_code(model, sample, kd_weight, temperature, projection):
    options = {"kd_weight": kd_weight, "kd_temperature": temperature, "kd_projection": projection}
    loss, sample_size, log = criterion(**options)(model, sample)
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

    class Stub(torch.nn.Module):  # an unknown kind of model: it returns log-probabilities
        def forward(self, **_):
            return scores

        def get_normalized_probs(self, net_output, log_probs):
            return net_output.log_softmax(-1)

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


@pytest.mark.parametrize("projection", ["chunked", "plain"])
@pytest.mark.parametrize("prefix", [1, 2])
def test_ignored_prefix_is_left_out_on_both_sides(model, sample, prefix, projection):
    options = {"kd_weight": 0.3, "kd_temperature": 2.0, "kd_projection": projection}
    loss, sample_size, log = criterion(**options, ignore_prefix_size=prefix)(model, sample)
    total, _, nll, _, covered = reference(model, sample, 0.3, 2.0, prefix)
    assert loss.item() == pytest.approx(total, rel=1e-5)
    assert log["nll_loss"].item() == pytest.approx(nll, rel=1e-5)
    assert log["kd_positions"].item() == covered == {1: 4, 2: 3}[prefix]
    assert sample_size == 7  # as in fairseq


@pytest.mark.parametrize("projection", ["chunked", "plain"])
def test_accuracy_is_reported_on_request(model, sample, projection):
    with torch.no_grad():
        best = model(**sample["net_input"])[0].argmax(-1)
    sample["target"][0, :3] = best[0, :3]  # three tokens are right
    sample["target"][0, 3] = (best[0, 3] - 2) % (VOCAB - 4) + 4  # and the rest wrong
    sample["target"][1, :3] = (best[1, :3] - 2) % (VOCAB - 4) + 4
    _, _, log = criterion(report_accuracy=True, kd_projection=projection)(model, sample)
    assert (log["n_correct"], log["total"]) == (3, 7)
    _, _, expected = plain(report_accuracy=True)(model, sample)
    assert (expected["n_correct"], expected["total"]) == (3, 7)
    assert "n_correct" not in criterion()(model, sample)[2]


def test_sentences_are_the_denominator_on_request(model, sample):
    _, sample_size, log = criterion(sentence_avg=True)(model, sample)
    assert sample_size == log["sample_size"] == 2


def test_batch_without_teacher_rows_is_an_error_in_training(model, sample):
    del sample[TEACHER]
    with pytest.raises(
        ValueError,
        match=r"--kd-weight is above 0 but the batch has no teacher rows.*--task translation_with_teacher",
    ):
        criterion(kd_weight=0.5)(model, sample)


@pytest.mark.parametrize("kd_weight", [-0.1, 1.5, math.nan])
def test_weight_outside_its_range_is_an_error(kd_weight):
    with pytest.raises(ValueError, match=rf"--kd-weight must be in \[0, 1\], got {kd_weight}"):
        criterion(kd_weight=kd_weight)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperature_that_is_not_positive_is_an_error(temperature):
    with pytest.raises(ValueError, match=f"--kd-temperature must be positive, got {temperature}"):
        criterion(kd_temperature=temperature)


@pytest.mark.parametrize("topk", [0, -1])
def test_topk_below_one_is_an_error(topk):
    with pytest.raises(ValueError, match=f"--kd-topk must be at least 1, got {topk}"):
        criterion(kd_topk=topk)


def test_options_reach_the_criterion():
    config = DistillationConfig(
        label_smoothing=0.2, sentence_avg=True, ignore_prefix_size=3, report_accuracy=True,
        kd_weight=0.25, kd_temperature=4.0, kd_topk=2,
    )  # fmt: skip
    built = CRITERION_REGISTRY[NAME].build_criterion(config, Task())
    assert type(built) is LabelSmoothedCrossEntropyWithDistillationCriterion
    assert (built.objective.weight, built.objective.temperature) == (0.25, 4.0)
    assert built.teacher_requirements == TeacherRequirements(2, temperature=4.0)
    assert (built.eps, built.sentence_avg) == (0.2, True)
    assert (built.ignore_prefix_size, built.report_accuracy) == (3, True)


def test_defaults_are_the_papers_but_for_the_temperature():
    config = DistillationConfig()
    assert (config.kd_weight, config.kd_topk, config.kd_objective) == (0.5, 8, "paper")
    assert config.kd_temperature == 1.0  # at the paper's 10 the k tokens are nearly equal


def gradients_of(criterion, model, sample):
    return loss_and_gradients(criterion, model, sample)[3]


@pytest.mark.parametrize("objective", ["paper", "renormalised", "conditional", "tail-bucket", "sampled"])
def test_chunked_gradients_are_the_plain_ones(model, rich_sample, objective, monkeypatch):
    monkeypatch.setattr(projection_plan, "CPU_CHUNK", 2 * VOCAB)  # two positions per chunk
    options = {"kd_objective": objective, "kd_temperature": 5.0, "kd_weight": 0.7}
    with logged("fairseq_bert_kd.criterions.distillation_loss") as messages:
        chunked = gradients_of(criterion(**options, kd_projection="auto"), model, rich_sample)
    assert messages == [
        "output projection and loss in one: loss chunk by chunk on the CPU, at most 24 logits or 1/16 of the batch per chunk"
    ]
    whole = gradients_of(criterion(**options, kd_projection="plain"), model, rich_sample)
    assert chunked.keys() == whole.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(chunked[name], gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weight_end", [0.2, None])
def test_warm_up_is_plain_training_bit_for_bit(model, sample, weight_end):
    schedule = {} if weight_end is None else {"kd_schedule": "linear", "kd_schedule_updates": 4}
    ours = criterion(kd_warmup_updates=3, kd_weight_end=weight_end, **schedule)
    ours.set_num_updates(2)
    expected = loss_and_gradients(plain(), model, sample)
    actual = loss_and_gradients(ours, model, sample)
    assert torch.equal(actual[0], expected[0])
    assert all(torch.equal(actual[3][name], gradient) for name, gradient in expected[3].items())
    ours.set_num_updates(3)
    assert loss_and_gradients(ours, model, sample)[0] == loss_and_gradients(criterion(), model, sample)[0]


def test_weight_and_temperature_follow_their_schedule(model, sample):
    ours = criterion(
        kd_weight=0.8, kd_weight_end=0.2, kd_temperature=10.0, kd_temperature_end=2.0, kd_schedule="linear",
        kd_schedule_updates=4, kd_warmup_updates=2,
    )  # fmt: skip
    for update, weight, temperature in [
        (2, 0.8, 10.0),
        (3, 0.65, 8.0),
        (4, 0.5, 6.0),
        (6, 0.2, 2.0),
        (99, 0.2, 2.0),
    ]:
        ours.set_num_updates(update)
        expected = reference(model, sample, weight, temperature)[0]
        assert ours(model, sample)[0].item() == pytest.approx(expected, rel=1e-5)


def test_schedule_that_begins_without_the_teacher_needs_it_later():
    options = {"kd_schedule": "cosine", "kd_schedule_updates": 10, "kd_weight": 0.0, "kd_weight_end": 0.5}
    assert criterion(**options).teacher_requirements == TeacherRequirements(3, temperature=10.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kd_weight_end": 1.5}, r"--kd-weight-end must be in \[0, 1\], got 1.5"),
        ({"kd_temperature_end": 0.0}, "--kd-temperature-end must be positive, got 0.0"),
        ({"kd_warmup_updates": -1}, "--kd-warmup-updates must not be negative, got -1"),
        ({"kd_weight_end": 0.1}, "have no effect with --kd-schedule constant"),
        ({"kd_schedule_updates": 5}, "have no effect with --kd-schedule constant"),
        ({"kd_schedule": "linear", "kd_weight_end": 0.1}, "needs --kd-schedule-updates of at least 1, got 0"),
        ({"kd_schedule": "cosine", "kd_schedule_updates": 5}, "and --kd-weight-end or --kd-temperature-end"),
        ({"kd_square_temperature": True}, "--kd-objective paper does not"),
        ({"kd_objective": "full", "kd_projection": "chunked"}, "--kd-objective full compares whole"),
        (
            {"kd_objective": "tail-bucket", "kd_temperature_end": 5.0, "kd_schedule": "linear", "kd_schedule_updates": 5},
            "--kd-objective tail-bucket needs one of the store's. Leave it out$",
        ),
        (
            {"kd_objective": "sampled", "kd_temperature_end": 5.0, "kd_schedule": "linear", "kd_schedule_updates": 5},
            "--kd-objective sampled needs one of the store's. Leave it out$",
        ),
    ],
)  # fmt: skip
def test_options_that_contradict_each_other_are_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        criterion(**options)


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        ({}, TeacherRequirements(3, temperature=10.0)),
        (
            {"kd_objective": "tail-bucket", "kd_temperature": 5.0},
            TeacherRequirements(3, (("--kd-objective tail-bucket", 5.0),), 5.0),
        ),
        (
            {"kd_objective": "sampled", "kd_temperature": 5.0},
            TeacherRequirements(3, (("--kd-objective sampled", 5.0), ("--kd-objective sampled", 1.0)), 5.0, samples=True),
        ),
        ({"kd_objective": "full", "kd_temperature": 1.0}, TeacherRequirements(3, (), 1.0, full=True)),
        ({"kd_token_weight": "entropy"}, TeacherRequirements(3, (("--kd-token-weight entropy", 1.0),), 10.0)),
    ],
)  # fmt: skip
def test_requirements_of_a_teacher(options, needs):
    assert criterion(**options).teacher_requirements == needs


def test_full_without_the_whole_distribution_is_an_error(model, sample):
    with pytest.raises(ValueError, match="which no store holds; add --kd-live-teacher CHECKPOINT"):
        criterion(kd_objective="full")(model, sample)


def test_full_is_the_divergence_over_the_dictionary(model, rich_sample):
    _loss, _, log = criterion(kd_objective="full", kd_temperature=2.0, kd_weight=1.0)(model, rich_sample)
    scores = model(**rich_sample["net_input"])[0]
    teacher = rich_sample[TEACHER][0]
    divergence = torch.nn.functional.kl_div(
        (scores / 2).log_softmax(-1),
        (teacher["full_logits"] / 2).log_softmax(-1),
        reduction="none",
        log_target=True,
    )
    expected = torch.where(teacher["present"], divergence.sum(-1), 0.0).sum()
    assert log["kd_loss"].item() == pytest.approx(expected.item(), rel=1e-4)


LN2 = math.log(2)
# of two workers, 6 and 2 target tokens, 3 and 1 of them with teacher rows; all losses in nats
LOGS = [
    {"loss": 20 * LN2, "nll_loss": 18 * LN2, "label_loss": 24 * LN2, "kd_loss": 9 * LN2, "kd_positions": 3,
     "kd_rows": 3, "kd_agreement": 2.0, "kd_captured": 1.5, "kd_student_tail": 0.6, "kd_teacher_nll": 6 * LN2,
     "kd_gold_nll": 9 * LN2, "ntokens": 6, "nsentences": 2, "sample_size": 6},
    {"loss": 12 * LN2, "nll_loss": 6 * LN2, "label_loss": 8 * LN2, "kd_loss": 11 * LN2, "kd_positions": 1,
     "kd_rows": 1, "kd_agreement": 1.0, "kd_captured": 0.9, "kd_student_tail": 0.4, "kd_teacher_nll": 2 * LN2,
     "kd_gold_nll": 3 * LN2, "ntokens": 2, "nsentences": 1, "sample_size": 2},
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
        "kd_agreement": 75.0,  # 3 of 4 rows
        "kd_captured": 60.0,
        "kd_teacher_tail": 40.0,
        "kd_student_tail": 25.0,
        "kd_teacher_nll": 2.0,
        "kd_teacher_ppl": 4.0,
        "kd_gold_nll": 3.0,
        "kd_student_ppl": 8.0,
    }
    assert {key: float(value) for key, value in values.items()} == pytest.approx(expected)


def test_metrics_are_the_same_when_fairseq_sums_first():
    summed = {key: LOGS[0][key] + LOGS[1][key] for key in LOGS[0]}
    assert reduced([summed]) == pytest.approx(reduced(LOGS))


def test_metrics_without_any_covered_position():
    nothing = {key: 0 for key in LOGS[0] if key.startswith("kd_")}
    logs = [LOGS[0] | nothing]
    values = reduced(logs)
    assert values["kd_coverage"] == 0.0
    assert values["kd_loss"] == 0.0


def test_validation_metrics_are_fairseqs():
    keys = ("loss", "nll_loss", "ntokens", "nsentences", "sample_size")
    assert set(reduced([{key: log[key] for key in keys} for log in LOGS])) == {"loss", "nll_loss", "ppl"}
