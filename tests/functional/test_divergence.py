"""Losses against a teacher beside the full divergence: equal, below it, or right in the mean over draws."""

import itertools
import math

import pytest
import torch

from fairseq_bert_kd.functional import soft_targets
from fairseq_bert_kd.functional.teacher_rows import teacher_rows
from tests.functional.slow_losses import (
    DOUBLE,
    loss_of,
    rows_of,
    targets_of,
    teacher_rows_of,
    to_type,
)


def stored_teacher(k, temperatures, positions=24, vocab=400):
    """Rows as the store rounds them, and the whole distributions that they stand for, in float64."""
    exact = teacher_rows_of(positions, vocab, seed=3, spread=2.5)
    rows = teacher_rows(exact.float(), torch.zeros(positions).long(), torch.tensor([0, 1]), k, temperatures)
    exact[:, :2] = -math.inf
    exact = exact.float().double()
    exact -= exact.amax(dim=1, keepdim=True)
    return rows, exact.scatter(1, rows.topk_ids, rows.topk_logits.double())


@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_tail_bucket_grows_with_k_up_to_the_full_divergence(temperature, dtype):
    temperatures, rounding = (1.0, 2.0, 10.0), 4e-6  # the stored log-normalisers are in float32
    rows, whole = stored_teacher(398, temperatures)
    student = (0.7 * whole.masked_fill(whole.isinf(), -9) + rows_of(24, 400, spread=1.5)).to(dtype)
    full = soft_targets.full(student.double(), whole, temperature)
    column = rows.log_normalisers[:, temperatures.index(temperature)].to(dtype)
    log_normaliser = torch.logsumexp(student / temperature, dim=1)
    at = student.gather(1, rows.topk_ids)
    losses = torch.stack(
        [
            soft_targets.tail_bucket(
                at[:, :k], log_normaliser, rows.topk_logits[:, :k].to(dtype), column, temperature
            )
            for k in (1, 2, 8, 64, 300, 390, 398)
        ]
    ).double()
    assert (losses >= -rounding).all()
    assert (losses.diff(dim=0) >= -rounding).all()
    assert (losses <= full + rounding).all()
    assert (losses[0] < 0.7 * full).all()  # there is something to see
    assert (losses[-1] - full).abs().max() < rounding


@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
def test_at_k_of_the_whole_vocabulary_all_forms_are_the_full_divergence(temperature):
    student, whole = rows_of(8, 60), teacher_rows_of(8, 60)
    teacher = targets_of(whole, 60, (temperature,))
    full = loss_of("full", student, teacher, temperature, whole)
    p, q = (whole / temperature).log_softmax(-1), (student / temperature).log_softmax(-1)
    torch.testing.assert_close(full, (p.exp() * (p - q)).sum(1))
    torch.testing.assert_close(loss_of("conditional", student, teacher, temperature), full)
    torch.testing.assert_close(loss_of("tail_bucket", student, teacher, temperature), full)
    entropy = -(p.exp() * p).sum(1)
    torch.testing.assert_close(loss_of("renormalised", student, teacher, temperature), full + entropy)
    untempered = -(p.exp() * student.log_softmax(-1)).sum(1)
    torch.testing.assert_close(loss_of("paper", student, teacher, temperature), untempered)
    if temperature == 1.0:
        torch.testing.assert_close(untempered, full + entropy)


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
@pytest.mark.parametrize("name", ["conditional", "tail_bucket"])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_never_negative_and_zero_for_the_teacher_itself(name, dtype, k):
    whole = teacher_rows_of(40, 60).to(dtype)
    teacher = targets_of(whole, k, (2.0,))
    rounding = 1e-12 if dtype == DOUBLE else 2e-6
    near = whole + 0.01 * rows_of(40, 60).to(dtype)
    for student in (near, rows_of(40, 60).to(dtype), -whole):
        assert (loss_of(name, student, teacher, 2.0) >= -rounding).all()
    assert loss_of(name, whole + 3.0, teacher, 2.0).abs().max() < rounding


# --- unbiased


def single_draws(whole, k, temperature, gold=None):
    """A teacher for every possible draw, and the draws' probabilities ``(vocab,)``: whole is one row."""
    vocab = whole.size(1)
    many = whole.expand(vocab, vocab)
    teacher = targets_of(many, k, (temperature, 1.0))
    stored_ids, stored = teacher.topk_ids, teacher.topk_logits
    if gold is not None:
        among = gold in teacher.topk_ids[0].tolist()
        stored_ids = torch.cat([stored_ids, torch.full((vocab, 1), gold)], dim=1)
        extra = many[:, gold : gold + 1]
        stored = torch.cat([stored, torch.full_like(extra, -math.inf) if among else extra], dim=1)
    probs = whole[0].exp().scatter(0, stored_ids[0], 0.0)
    draws = torch.arange(vocab)[:, None]
    teacher = teacher._replace(
        topk_ids=stored_ids, topk_logits=stored, sample_ids=draws, sample_logits=many.gather(1, draws)
    )
    return teacher, probs / probs.sum()


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("gold", [None, "among the k", "outside"])
def test_sampled_is_the_full_divergence_over_all_possible_draws(temperature, k, gold):
    student, whole = rows_of(1, 30).requires_grad_(), teacher_rows_of(3, 30)[2:]
    order = whole[0].argsort(descending=True).tolist()
    token = None if gold is None else order[0] if gold == "among the k" else order[9]
    teacher, probs = single_draws(whole, k, temperature, token)
    estimates = loss_of("sampled", student.expand(30, 30), teacher, temperature)
    full = loss_of("full", student, teacher, temperature, whole).sum()
    expected = (probs * estimates).sum()
    assert estimates[probs > 0].std() > 1e-3  # single draws do differ
    torch.testing.assert_close(expected, full)
    torch.testing.assert_close(*(torch.autograd.grad(x, student)[0] for x in (expected, full)))


def test_sampled_with_two_draws_is_the_mean_over_all_pairs():
    student, whole, temperature = rows_of(1, 8).requires_grad_(), teacher_rows_of(2, 8)[1:], 3.0
    single, probs = single_draws(whole, 2, temperature)
    expected = 0.0
    for first, second in itertools.product(range(8), repeat=2):
        draws = torch.tensor([[first, second]])
        teacher = targets_of(whole, 2, (temperature, 1.0))
        teacher = teacher._replace(sample_ids=draws, sample_logits=whole.gather(1, draws))
        expected += probs[first] * probs[second] * loss_of("sampled", student, teacher, temperature).sum()
    full = loss_of("full", student, single, temperature, whole).sum()
    torch.testing.assert_close(expected, full)
    torch.testing.assert_close(*(torch.autograd.grad(x, student)[0] for x in (expected, full)))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("samples", [1, 4])
def test_sampled_is_unbiased_in_value_and_gradient(temperature, samples):
    count, vocab = 20_000, 50
    student, whole = rows_of(1, vocab, spread=1.0), teacher_rows_of(1, vocab, spread=1.0)
    teacher = targets_of(whole.expand(count, vocab), 4, (1.0, 2.0), samples=samples)
    students = student.repeat(count, 1).requires_grad_()
    losses = loss_of("sampled", students, teacher, temperature)
    losses.sum().backward()
    student.requires_grad_()
    full = loss_of("full", student, teacher, temperature, whole)
    full.sum().backward()
    found = torch.cat([losses.detach()[:, None], students.grad], dim=1)
    expected = torch.cat([full.detach()[:, None], student.grad], dim=1)
    z = (found.mean(0) - expected[0]) / (found.std(0) / math.sqrt(count)).clamp(min=1e-12)
    # 51 numbers: 4.5 deviations are reached by chance once in 3,000 times
    assert z[found.std(0) > 1e-9].abs().max() < 4.5
    assert (found.std(0) > 1e-9).sum() > 40


@pytest.mark.parametrize("gap", [12.0, 30.0, 60.0, 150.0, 60000.0])
@pytest.mark.parametrize("samples", [1, 3])
def test_sampled_with_a_rest_that_float32_does_not_know(gap, samples):
    # at temperature 1 the rest is 3e4 exp(-gap), rounding from 30 on, and p / p1 has no bound; at 10 it matters
    whole = torch.full((1, 30_000), -gap)
    whole[0, :2] = torch.tensor([0.0, -1.0])
    teacher = targets_of(whole.double(), 2, (1.0, 10.0))
    teacher = to_type(teacher, torch.float32)._replace(
        sample_ids=torch.full((1, samples), 7), sample_logits=torch.full((1, samples), -gap)
    )
    student = torch.zeros_like(whole).requires_grad_()
    loss = loss_of("sampled", student, teacher, 10.0)
    expected = loss_of("full", student.detach().double(), teacher, 10.0, whole.double())
    assert loss.item() == pytest.approx(expected.item(), rel=0.01)
    assert torch.isfinite(torch.autograd.grad(loss.sum(), student)[0]).all()
