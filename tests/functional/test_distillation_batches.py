"""The whole loss over several teachers, over rows that are not there, and in half precision."""

import math

import pytest
import torch

from fairseq_bert_kd.batch import pack
from fairseq_bert_kd.functional.distillation import OBJECTIVES
from fairseq_bert_kd.functional.teacher_targets import TeacherTargets, teacher_targets
from tests.functional.slow_losses import (
    PAD,
    example,
    objective_of,
    rows_of,
    slow_of,
    sums_of,
    targets_of,
    teacher_rows_of,
    to_type,
)

# --- several teachers


def two_teachers(vocab=9, positions=6, k=None):
    wholes = [teacher_rows_of(positions, vocab, seed=s) for s in (7, 8)]
    teachers = [
        targets_of(whole, k or vocab, (1.0, 2.0), full_logits=whole, weight=weight)
        for whole, weight in zip(wholes, (1.0, 3.0), strict=True)
    ]
    return teachers, [(whole / 2.0).softmax(1) for whole in wholes]


def test_renormalised_against_two_is_the_cross_entropy_with_their_mixture():
    teachers, (first, second) = two_teachers()
    student, target = rows_of(6, 9), torch.full((6,), 4)
    total = sums_of(student, target, teachers, objective_of("renormalised", 2.0, 1.0))["loss"]
    mixture = 0.25 * first + 0.75 * second
    torch.testing.assert_close(total, -(mixture * (student / 2.0).log_softmax(1)).sum())


@pytest.mark.parametrize("name", ["full", "conditional", "tail-bucket"])
def test_gradient_against_two_whole_distributions_is_that_of_their_mixture(name):
    teachers, (first, second) = two_teachers()
    student, target = rows_of(6, 9).requires_grad_(), torch.full((6,), 4)
    total = sums_of(student, target, teachers, objective_of(name, 2.0, 1.0))["loss"]
    mixture = 0.25 * first + 0.75 * second
    divergence = (mixture * (mixture.log() - (student / 2.0).log_softmax(1))).sum()
    torch.testing.assert_close(*(torch.autograd.grad(loss, student)[0] for loss in (total, divergence)))
    assert total > divergence + 1e-3  # by how much the teachers differ


def test_weights_are_scaled_to_those_that_have_a_row():
    student, target = rows_of(3, 9), torch.full((3,), 4)
    both, _ = two_teachers(positions=3, k=3)
    objective = objective_of("conditional", 2.0, 1.0)
    present = [torch.tensor([True, True, False]), torch.tensor([False, True, False])]
    teachers = [one._replace(present=there) for one, there in zip(both, present, strict=True)]

    def alone(teacher, row):
        rows = slice(row, row + 1)
        return sums_of(student[rows], target[rows], [teacher.select(rows)], objective)

    sums = sums_of(student, target, teachers, objective)
    mixed = 0.25 * alone(teachers[0], 1)["loss"] + 0.75 * alone(teachers[1], 1)["loss"]
    expected = alone(teachers[0], 0)["loss"] + mixed + alone(teachers[0], 2)["label_loss"]
    torch.testing.assert_close(sums["loss"], expected)
    assert (sums["kd_positions"], sums["kd_rows"]) == (2, 2)


def test_weight_of_a_single_teacher_has_no_effect():
    student, target, [teacher] = example()
    totals = [
        sums_of(student, target, [teacher._replace(weight=w)], objective_of())["loss"] for w in (0.01, 7.0)
    ]
    assert torch.equal(*totals)


# --- odd batches


def batch_entry(teacher: TeacherTargets, batch: int, garbage: torch.Tensor | None = None):
    """As a data set gives it; ``garbage`` are values for the rows that are not there."""
    logits, normalisers = teacher.topk_logits.half(), teacher.log_normalisers.float()
    gold, drawn = teacher.gold_logit.half(), teacher.sample_logits.half()
    full, ids, sample_ids = teacher.full_logits.float(), teacher.topk_ids.clone(), teacher.sample_ids.clone()
    if garbage is not None:
        for part in (logits, normalisers, gold, drawn, full):
            part[~teacher.present] = garbage.to(part.dtype)
        ids[~teacher.present] = sample_ids[~teacher.present] = 10**6
    shaped = {
        "topk_ids": ids, "topk_logits": logits, "present": teacher.present,
        "log_normalisers": normalisers, "gold_logit": gold,
        "sample_ids": sample_ids, "sample_logits": drawn, "full_logits": full,
    }  # fmt: skip
    entry = {name: part.unflatten(0, (batch, -1)) for name, part in shaped.items()}
    return pack(entry) | {"temperatures": teacher.temperatures, "weight": teacher.weight, "gold_stored": True}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize(("value", "kind"), [(math.nan, "entropy"), (-math.inf, "none")])
def test_rows_that_are_not_there_may_hold_anything(name, value, kind):
    student, target, teachers = example(teachers=2)
    teachers = [teacher._replace(gold_stored=True) for teacher in teachers]
    objective, results = objective_of(name, 2.0, token_weight=kind), []
    student = student.float().requires_grad_()
    for garbage in (None, torch.tensor(value)):
        decoded = [teacher_targets(batch_entry(teacher, 3, garbage), 0) for teacher in teachers]
        sums = sums_of(student, target, decoded, objective)
        results.append([*sums.values(), *torch.autograd.grad(sums["loss"], student)])
    for clean, dirty in zip(*results, strict=True):
        assert torch.isfinite(dirty).all()
        torch.testing.assert_close(dirty, clean, rtol=0, atol=0)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_symbols_that_the_student_rules_out_do_no_harm_where_a_row_is_missing(name):
    # an absent row names token 0, which some students give no probability at all
    student, target, teachers = example(teachers=2)
    student[:, 0] = -math.inf
    student.requires_grad_()
    for i, teacher in enumerate(teachers):
        whole = teacher.full_logits.clone()
        whole[:, 0] = -math.inf
        new = targets_of(whole, 3, gold=target, gold_stored=True, samples=2, full_logits=whole)
        new = new._replace(present=teacher.present, weight=teacher.weight)
        absent = ~teacher.present
        zeroed = [
            part.masked_fill(absent.view(-1, *[1] * (part.dim() - 1)), 0)
            if isinstance(part, torch.Tensor)
            else part
            for part in new
        ]
        teachers[i] = TeacherTargets(*zeroed)._replace(present=teacher.present)
    objective = objective_of(name, 2.0, epsilon=0.0)
    total = sums_of(student, target, teachers, objective)["loss"]
    assert torch.isfinite(total)
    assert torch.isfinite(torch.autograd.grad(total, student)[0]).all()


@pytest.mark.parametrize(
    ("name", "temperature"), [*((name, 2.0) for name in OBJECTIVES), ("tail-bucket", 1.0)]
)
def test_only_padding_gives_zero_with_a_gradient_path(name, temperature):
    student, target, teachers = example(teachers=2)
    student.requires_grad_()
    sums = sums_of(student, torch.full_like(target, PAD), teachers, objective_of(name, temperature))
    assert all(value == 0 for value in sums.values())
    sums["loss"].backward()
    assert torch.equal(student.grad, torch.zeros_like(student))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_positions_at_all_give_zero(name):
    student, target, [teacher] = example()
    student = student[:0].requires_grad_()
    sums = sums_of(student, target[:0], [teacher.select(slice(0, 0))], objective_of(name, 2.0))
    assert sums["loss"] == 0
    sums["loss"].backward()


def test_inputs_are_not_modified():
    student, target, teachers = example(teachers=3)
    tensors = [student, target, *(part for one in teachers for part in one if torch.is_tensor(part))]
    before = [tensor.clone() for tensor in tensors]
    for name in OBJECTIVES:
        sums_of(student, target, teachers, objective_of(name, 2.0, token_weight="entropy"))
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, before, strict=True))


# --- half precision


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "full"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_summed_in_float32(name, dtype):
    student, target, teachers = example(teachers=2)
    student = student.to(dtype).requires_grad_()
    teachers = [to_type(teacher, torch.float32) for teacher in teachers]
    objective = objective_of(name, 2.0)
    total = sums_of(student, target, teachers, objective)["loss"]
    assert total.dtype == torch.float32
    exact = student.detach().double().requires_grad_()
    expected = slow_of(exact, target, teachers, objective)
    assert total.item() == pytest.approx(expected.item(), rel=2e-6)
    ours, slow = torch.autograd.grad(total, student)[0], torch.autograd.grad(expected, exact)[0]
    torch.testing.assert_close(ours.double(), slow, rtol=0.51 * torch.finfo(dtype).eps, atol=2e-6)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "full"])
def test_logits_at_the_ends_of_half_precision(name):
    student, target, teachers = example(teachers=2)
    student = (student.sign() * 60000).half().requires_grad_()
    teachers = [to_type(teacher, torch.float32) for teacher in teachers]
    sums = sums_of(student, target, teachers, objective_of(name, 2.0))
    assert all(torch.isfinite(value) for value in sums.values())
    assert torch.isfinite(torch.autograd.grad(sums["loss"], student)[0]).all()
