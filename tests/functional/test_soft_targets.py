"""Losses against a teacher: by hand, compared with a slow form, and at the limits of the number types."""

import math

import pytest
import torch

from fairseq_bert_kd.functional import soft_targets
from fairseq_bert_kd.functional.student_scores import ScoreRequest, student_scores
from tests.functional.slow_losses import (
    DOUBLE,
    LOSSES,
    loss_of,
    rows_of,
    slow_loss_of,
    targets_of,
    teacher_rows_of,
)

# Vocabulary 5, k = 2. The student says the same everywhere; -log: 0.693147, 2.302585, 1.609438, 2.302585, 2.302585.
STUDENT = torch.tensor([0.5, 0.1, 0.2, 0.1, 0.1], dtype=DOUBLE).log().repeat(3, 1)
# 3/4 and 1/4 of its two tokens at temperature 1
LOGITS = torch.tensor([0.0, -math.log(3.0)], dtype=DOUBLE).repeat(3, 1)
IDS = torch.tensor([[0, 2], [2, 0], [3, 4]])
NOTHING = torch.zeros(3, dtype=DOUBLE)  # log-normaliser of a student given as log-probabilities


# --- numbers by hand


def test_the_mass_outside_some_tokens():
    """Log-probabilities that sum to more than 1 by rounding leave nothing."""
    found = soft_targets.tail_mass(torch.tensor([[0.5, 0.25], [0.625, 0.5]]).log())
    assert found.tolist() == pytest.approx([0.25, 0])
    assert found[1] == 0


def test_paper_by_hand():
    losses = soft_targets.paper(STUDENT.gather(1, IDS), NOTHING, LOGITS, 1.0)
    # 0.75 * 0.693147 + 0.25 * 1.609438; 0.75 * 1.609438 + 0.25 * 0.693147; 2.302585 for both tokens
    torch.testing.assert_close(losses, losses.new_tensor([0.922220, 1.380365, 2.302585]), atol=1e-6, rtol=0)


def test_paper_divides_only_the_teacher():
    # T = 2: sqrt(3) / (1 + sqrt(3)) = 0.633975, so 0.633975 * 0.693147 + 0.366025 * 1.609438; no factor of 4
    losses = soft_targets.paper(STUDENT.gather(1, IDS), NOTHING, LOGITS, 2.0)
    assert losses[0].item() == pytest.approx(1.028533, abs=1e-6)


def test_renormalised_by_hand():
    # T = 2: roots of the student are .7071, .3162, .4472, .3162, .3162, together 2.103000
    normaliser = torch.full((3,), math.log(2.103000), dtype=DOUBLE)
    losses = soft_targets.renormalised(STUDENT.gather(1, IDS), normaliser, LOGITS, 2.0)
    # 0.633975 * log(2.103 / .707107) + 0.366025 * log(2.103 / .447214)
    assert losses[0].item() == pytest.approx(0.633975 * 1.089938 + 0.366025 * 1.548083, abs=1e-5)


def test_conditional_by_hand():
    losses = soft_targets.conditional(STUDENT.gather(1, IDS), LOGITS, 1.0)
    # student over its two tokens: 5/7, 2/7; 2/7, 5/7; 1/2, 1/2
    expected = [
        0.75 * math.log(0.75 * 7 / 5) + 0.25 * math.log(0.25 * 7 / 2),
        0.75 * math.log(0.75 * 7 / 2) + 0.25 * math.log(0.25 * 7 / 5),
        0.75 * math.log(1.5) + 0.25 * math.log(0.5),
    ]
    torch.testing.assert_close(losses, losses.new_tensor(expected))


def test_tail_bucket_by_hand():
    # the teacher gives 0.6, 0.2 and 0.2 to all others: log-normaliser log(1 / 0.6)
    normaliser = torch.full((3,), -math.log(0.6), dtype=DOUBLE)
    losses = soft_targets.tail_bucket(STUDENT.gather(1, IDS), NOTHING, LOGITS, normaliser, 1.0)
    expected = [
        0.6 * math.log(0.6 / 0.5) + 0.2 * math.log(0.2 / 0.2) + 0.2 * math.log(0.2 / 0.3),
        0.6 * math.log(0.6 / 0.2) + 0.2 * math.log(0.2 / 0.5) + 0.2 * math.log(0.2 / 0.3),
        0.6 * math.log(0.6 / 0.1) + 0.2 * math.log(0.2 / 0.1) + 0.2 * math.log(0.2 / 0.8),
    ]
    torch.testing.assert_close(losses, losses.new_tensor(expected))


def test_sampled_by_hand():
    # as above with tokens 1, 3, 4 at 0.1, 0.06, 0.04; drawn: 1 and 4, each standing for half of 0.2
    normaliser = torch.full((1,), -math.log(0.6), dtype=DOUBLE)
    drawn = torch.tensor([[0.1 / 0.6, 0.04 / 0.6]], dtype=DOUBLE).log()
    losses = soft_targets.sampled(
        STUDENT[:1, [0, 2]], NOTHING[:1], LOGITS[:1], normaliser, STUDENT[:1, [1, 4]], drawn, normaliser, 1.0
    )
    head = 0.6 * math.log(0.6 / 0.5) + 0.2 * math.log(0.2 / 0.2)
    assert losses.item() == pytest.approx(head + 0.1 * math.log(0.1 / 0.1) + 0.1 * math.log(0.04 / 0.1))


@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_paper_gradient_is_student_minus_teacher(temperature):
    # no factor of T anywhere
    student = rows_of(6, 11).requires_grad_()
    teacher = targets_of(teacher_rows_of(6, 11), 4, (temperature,))
    loss_of("paper", student, teacher, temperature).sum().backward()
    soft = torch.zeros_like(student).scatter(
        1, teacher.topk_ids, (teacher.topk_logits / temperature).softmax(-1)
    )
    torch.testing.assert_close(student.grad, student.detach().softmax(-1) - soft)


@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_one_teacher_token_is_cross_entropy_with_that_token(temperature):
    losses = soft_targets.paper(STUDENT[:2, :1], NOTHING[:2], torch.tensor([[-9.0], [4.0]]), temperature)
    torch.testing.assert_close(losses, -STUDENT[:2, 0])


def test_ties_share_equally():
    losses = soft_targets.paper(STUDENT[:1, [0, 2, 3]], NOTHING[:1], torch.full((1, 3), 4.0), 10.0)
    # (0.693147 + 1.609438 + 2.302585) / 3
    assert losses.item() == pytest.approx(1.535057, abs=1e-6)


# --- each compared with the slow form


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("temperature", "k"), [(0.5, 4), (1.0, 1), (3.0, 10)])
def test_equals_the_slow_form_in_value_and_gradient(name, temperature, k):
    student = rows_of(6, 12).requires_grad_()
    whole = teacher_rows_of(6, 12, excluded=[1])
    teacher = targets_of(whole, k, (temperature, 1.0), samples=3)
    losses = loss_of(name, student, teacher, temperature, whole)
    assert losses.shape == (6,)
    slow = torch.stack([slow_loss_of(name, student, teacher, row, temperature, whole) for row in range(6)])
    torch.testing.assert_close(losses, slow)
    for ours, expected in zip(*(torch.autograd.grad(x.sum(), student) for x in (losses, slow)), strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck(name):
    student = rows_of(3, 7).requires_grad_()
    whole = teacher_rows_of(3, 7)
    teacher = targets_of(whole, 3, (1.0, 2.5), samples=2)
    assert torch.autograd.gradcheck(lambda z: loss_of(name, z, teacher, 2.5, whole), (student,))


@pytest.mark.parametrize("name", ["paper", "renormalised", "conditional", "full"])
def test_constant_added_to_the_teachers_logits_changes_nothing(name):
    student, whole = rows_of(4, 9), teacher_rows_of(4, 9)
    teacher = targets_of(whole, 3)
    shift = torch.arange(4, dtype=DOUBLE)[:, None]
    moved = teacher._replace(topk_logits=teacher.topk_logits - shift)
    torch.testing.assert_close(
        loss_of(name, student, moved, 2.0, whole - shift), loss_of(name, student, teacher, 2.0, whole)
    )


# --- parts


@pytest.mark.parametrize(
    ("temperature", "column"), [(10.0, 1), (0.1, 2), (0.30000001, 3), (2.0, None), (10.01, None)]
)
def test_column_of_a_temperature(temperature, column):
    assert soft_targets.column_of((1.0, 10.0, 0.1, 0.3), temperature) == column


def test_entropy_of_buckets_by_hand():
    probs = torch.tensor([[0.5, 0.25], [0.75, 0.25], [1.0, 0.0]], dtype=DOUBLE)
    found = soft_targets.bucket_entropy(probs.log())
    # 1/2, 1/4 and 1/4 left; nothing left; sure
    expected = [1.5 * math.log(2), 0.75 * math.log(4 / 3) + 0.25 * math.log(4), 0.0]
    torch.testing.assert_close(found, found.new_tensor(expected))


# --- never NaN


def extreme_students(vocab, dtype):
    """Rows that a student may have; all tokens of the teacher are 0, 1 and 2."""
    rows = torch.zeros(7, vocab)
    rows[0] = 60000.0 * (1 - 2 * (torch.arange(vocab) % 2))
    rows[1] = -rows[0]
    rows[2, 0] = 200.0  # one token has all mass, the teacher's best
    rows[3, vocab - 1] = 200.0  # or one outside its tokens
    rows[4, 3:] = -60000.0  # exactly no tail
    rows[5, 3:] = -math.inf
    rows[6, 1] = -17.0
    return rows.to(dtype)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("dtype", "logits", "tail"),
    [
        (torch.float32, (0.0, -1.0, -2.0), 0.3),
        (torch.float16, (0.0, 0.0, 0.0), 0.0),
        (torch.bfloat16, (0.0, -65504.0, -65504.0), 0.0),
        (torch.float16, (0.0, -2.0, -math.inf), 0.3),
        (torch.float32, (0.0, -2.0, -math.inf), 0.0),
    ],
)
def test_never_nan_nor_infinite(name, dtype, logits, tail):
    student = extreme_students(9, dtype).requires_grad_()
    ids, temperature = torch.arange(3).expand(7, 3), 2.0
    stored = torch.tensor(logits).expand(7, 3)
    head = torch.logsumexp(stored, dim=1), torch.logsumexp(stored / temperature, dim=1)
    unit, normaliser = (part - math.log(1 - tail) for part in head)
    drawn = torch.tensor([[4, 6]]).expand(7, 2)
    drawn_logits = torch.tensor([[-7.0, -8.0]]).expand(7, 2)
    if name == "full":
        whole = torch.full((7, 9), -math.inf).scatter(1, ids, stored)
        losses = soft_targets.full(student.float(), whole, temperature)
    else:
        scores = student_scores(student, ScoreRequest(torch.cat([ids, drawn], dim=1), temperature, False))
        at, at_drawn = scores.logits.split([3, 2], dim=1)
        if name == "paper":
            losses = soft_targets.paper(at, scores.log_normaliser, stored, temperature)
        elif name == "renormalised":
            losses = soft_targets.renormalised(at, scores.tempered_log_normaliser, stored, temperature)
        elif name == "conditional":
            losses = soft_targets.conditional(at, stored, temperature)
        elif name == "tail_bucket":
            losses = soft_targets.tail_bucket(
                at, scores.tempered_log_normaliser, stored, normaliser, temperature
            )
        else:
            losses = soft_targets.sampled(
                at, scores.tempered_log_normaliser, stored, normaliser, at_drawn, drawn_logits, unit, temperature
            )  # fmt: skip
    if name == "sampled":
        # row 5 has -inf at drawn tokens, where the teacher has mass: the divergence itself is infinite
        losses = losses[[0, 1, 2, 3, 4, 6]]
    assert torch.isfinite(losses).all(), losses
    [grad] = torch.autograd.grad(losses.sum(), student)
    assert torch.isfinite(grad).all(), grad
