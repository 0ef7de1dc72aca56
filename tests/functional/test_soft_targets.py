import math

import numpy as np
import pytest
import torch
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss

from fairseq_bert_kd.functional.soft_targets import (
    distillation_loss,
    paper_label_smoothing,
    topk_soft_cross_entropy,
)

PAD = 1

# Two targets of three tokens, vocabulary 5, k = 2, flattened to six positions. The student says the same
# everywhere; -log: 0.693147, 2.302585, 1.609438, 2.302585, 2.302585, together 9.210340.
STUDENT = torch.tensor([0.5, 0.1, 0.2, 0.1, 0.1], dtype=torch.float64).log().repeat(6, 1)
# the teacher gives its two tokens 3/4 and 1/4 at temperature 1
TEACHER_LOGITS = torch.tensor([math.log(3.0), 0.0], dtype=torch.float64).repeat(6, 1)
TEACHER_IDS = torch.tensor([[0, 2], [2, 0], [3, 4], [0, 2], [0, 2], [0, 0]])
GOLD = torch.tensor([0, 2, 3, 4, 0, PAD])
PRESENT = torch.tensor([True, True, True, False, True, False])


def example(**changes):
    arguments = {
        "lprobs": STUDENT,
        "target": GOLD,
        "topk_ids": TEACHER_IDS,
        "topk_logits": TEACHER_LOGITS,
        "present": PRESENT,
        "padding_idx": PAD,
        "kd_weight": 0.3,
        "temperature": 1.0,
        "epsilon": 0.1,
    }
    return distillation_loss(**(arguments | changes))


def random_example(positions=12, vocab=11, k=4, seed=0, dtype=torch.float64):
    """Student logits, gold ids with some padding, teacher ids and logits, present with some gaps."""
    generator = torch.Generator().manual_seed(seed)
    student_logits = torch.randn(positions, vocab, generator=generator, dtype=dtype)
    target = torch.randint(2, vocab, (positions,), generator=generator)
    target[::5] = PAD
    topk_logits, topk_ids = torch.randn(positions, vocab, generator=generator, dtype=dtype).mul(3).topk(k)
    present = torch.arange(positions) % 4 != 3
    return student_logits, target, topk_ids, topk_logits, present


def slow_loss(lprobs, target, topk_ids, topk_logits, present, kd_weight, temperature, epsilon):
    """papers.md A.2, position by position: total, label, nll, teacher, covered."""
    lprobs, topk_logits = lprobs.detach().double().numpy(), topk_logits.double().numpy()
    vocab = lprobs.shape[1]
    total = label = nll = teacher = 0.0
    covered = 0
    for t in range(len(target)):
        if target[t] == PAD:
            continue
        position_nll = -lprobs[t, target[t]]
        everything = sum(-lprobs[t, w] for w in range(vocab))  # gold and padding ids included
        position_label = (1 - epsilon) * position_nll + epsilon / (vocab - 2) * everything
        label += position_label
        nll += position_nll
        if not present[t]:
            total += position_label
            continue
        weights = np.exp(topk_logits[t] / temperature)
        weights /= weights.sum()
        position_teacher = -sum(p * lprobs[t, w] for p, w in zip(weights, topk_ids[t], strict=True))
        teacher += position_teacher
        covered += 1
        total += (1 - kd_weight) * position_label + kd_weight * position_teacher
    return total, label, nll, teacher, covered


# --- soft cross-entropy


def test_soft_cross_entropy_by_hand():
    losses = topk_soft_cross_entropy(STUDENT, TEACHER_IDS, TEACHER_LOGITS, 1.0)
    # 0.75 * 0.693147 + 0.25 * 1.609438; 0.75 * 1.609438 + 0.25 * 0.693147; 2.302585 for both tokens
    expected = torch.tensor([0.922220, 1.380365, 2.302585], dtype=torch.float64)
    torch.testing.assert_close(losses[:3], expected, atol=1e-6, rtol=0)


def test_temperature_by_hand():
    # T = 2: sqrt(3) / (1 + sqrt(3)) = 0.633975, so 0.633975 * 0.693147 + 0.366025 * 1.609438 = 1.028533
    losses = topk_soft_cross_entropy(STUDENT[:1], TEACHER_IDS[:1], TEACHER_LOGITS[:1], 2.0)
    assert losses.item() == pytest.approx(1.028533, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 5.0, 10.0])
def test_full_vocabulary_equals_plain_cross_entropy(temperature):
    generator = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(2, 20, 7, generator=generator, dtype=torch.float64)
    topk_logits, topk_ids = teacher.topk(7)
    losses = topk_soft_cross_entropy(student.log_softmax(-1), topk_ids, topk_logits, temperature)
    plain = torch.nn.functional.cross_entropy(student, (teacher / temperature).softmax(-1), reduction="none")
    torch.testing.assert_close(losses, plain)


@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_only_the_teacher_is_divided_by_the_temperature_and_nothing_multiplied(temperature):
    student, _, ids, logits, _ = random_example()
    lprobs = student.log_softmax(-1)
    losses = topk_soft_cross_entropy(lprobs, ids, logits, temperature)
    teacher = (logits / temperature).softmax(-1)
    torch.testing.assert_close(losses, -(teacher * lprobs.gather(1, ids)).sum(1))
    if temperature != 1.0:  # the forms that this is not
        scaled_student = -(teacher * (student / temperature).log_softmax(-1).gather(1, ids)).sum(1)
        assert not torch.allclose(losses, scaled_student, rtol=0.05)
        assert not torch.allclose(losses, temperature**2 * losses, rtol=0.05)


@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_gradient_is_student_minus_teacher(temperature):
    # d/dz of -sum_w p_w log softmax(z)_w = softmax(z) - p: no factor of T anywhere
    student, _, ids, logits, _ = random_example()
    student.requires_grad_()
    topk_soft_cross_entropy(student.log_softmax(-1), ids, logits, temperature).sum().backward()
    teacher = torch.zeros_like(student).scatter(1, ids, (logits / temperature).softmax(-1))
    torch.testing.assert_close(student.grad, student.detach().softmax(-1) - teacher)


def test_constant_added_to_the_teachers_logits_changes_nothing():
    student, _, ids, logits, _ = random_example()
    shifted = logits - torch.arange(len(logits), dtype=logits.dtype)[:, None]  # another constant each row
    torch.testing.assert_close(
        topk_soft_cross_entropy(student.log_softmax(-1), ids, shifted, 2.0),
        topk_soft_cross_entropy(student.log_softmax(-1), ids, logits, 2.0),
    )


@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_one_teacher_token_is_cross_entropy_with_that_token(temperature):
    losses = topk_soft_cross_entropy(
        STUDENT[:2], torch.tensor([[2], [0]]), torch.tensor([[-9.0], [4.0]]), temperature
    )
    torch.testing.assert_close(losses, -torch.tensor([0.2, 0.5], dtype=torch.float64).log())


def test_ties_share_equally():
    losses = topk_soft_cross_entropy(STUDENT[:1], torch.tensor([[0, 2, 3]]), torch.full((1, 3), 4.0), 10.0)
    # (0.693147 + 1.609438 + 2.302585) / 3
    assert losses.item() == pytest.approx(1.535057, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match=f"temperature must be positive, got {temperature}"):
        topk_soft_cross_entropy(STUDENT, TEACHER_IDS, TEACHER_LOGITS, temperature)


def test_more_teacher_tokens_than_the_vocabulary_are_refused():
    with pytest.raises(ValueError, match="k=6 teacher tokens exceed the vocabulary of 5"):
        topk_soft_cross_entropy(STUDENT, torch.zeros(6, 6, dtype=torch.int64), torch.zeros(6, 6), 1.0)


# --- label smoothing


def test_label_smoothing_by_hand():
    smoothed, nll = paper_label_smoothing(STUDENT[:2], torch.tensor([0, 2]), 0.1)
    torch.testing.assert_close(nll, torch.tensor([0.693147, 1.609438]).double(), atol=1e-6, rtol=0)
    # 0.9 * 0.693147 + 0.1 / 3 * 9.210340; 0.9 * 1.609438 + 0.1 / 3 * 9.210340
    torch.testing.assert_close(smoothed, torch.tensor([0.930844, 1.755506]).double(), atol=1e-6, rtol=0)


def test_label_smoothing_zero_is_plain():
    smoothed, nll = paper_label_smoothing(STUDENT[:2], torch.tensor([0, 2]), 0.0)
    assert torch.equal(smoothed, nll)


@pytest.mark.parametrize("symbol", [PAD, 0, 4], ids=["padding", "gold", "other"])
def test_every_symbol_is_in_the_smoothed_sum(symbol):
    changed = STUDENT[:1].clone()
    changed[0, symbol] -= 3.0
    target = torch.tensor([0])
    difference = (
        paper_label_smoothing(changed, target, 0.1)[0] - paper_label_smoothing(STUDENT[:1], target, 0.1)[0]
    )
    # 3 * 0.1 / (5 - 2), and 3 * 0.9 more for the gold symbol
    assert difference.item() == pytest.approx(0.1 + (2.7 if symbol == 0 else 0.0))


def test_fairseqs_label_smoothing_differs_by_about_epsilon_over_vocabulary():
    vocab, epsilon = 1000, 0.1
    lprobs = torch.full((1, vocab), -math.log(vocab), dtype=torch.float64)
    target = torch.tensor([7])
    paper, nll = paper_label_smoothing(lprobs, target, epsilon)
    fairseq, _ = label_smoothed_nll_loss(lprobs, target, epsilon)
    everything = -lprobs.sum()
    expected = epsilon / (vocab - 1) * nll + epsilon * everything / ((vocab - 1) * (vocab - 2))
    difference = (paper - fairseq).item()
    assert difference == pytest.approx(expected.item(), rel=1e-9)
    # a uniform student: 2 * eps / V of its loss, ln 1000
    assert difference / math.log(vocab) == pytest.approx(2 * epsilon / vocab, rel=0.01)


# --- the whole loss


def test_loss_by_hand():
    losses = example()
    # label: 0.930844 + 1.755506 + 2.379338 (gold 3) + 2.379338 (gold 4, no teacher) + 0.930844
    assert losses.label.item() == pytest.approx(8.375870, abs=2e-6)
    assert losses.nll.item() == pytest.approx(7.600902, abs=2e-6)
    # teacher: 0.922220 + 1.380365 + 2.302585 + 0.922220
    assert losses.teacher.item() == pytest.approx(5.527390, abs=2e-6)
    assert losses.covered.item() == 4
    assert losses.covered.dtype == torch.int64
    # 0.7 * (8.375870 - 2.379338) + 0.3 * 5.527390 + 2.379338; sides swapped it would be 8.047
    assert losses.total.item() == pytest.approx(8.235127, abs=2e-6)


def test_weight_is_of_the_teachers_side():
    everywhere = {"present": torch.ones(6, dtype=torch.bool), "topk_ids": TEACHER_IDS}
    assert torch.equal(example(kd_weight=0.0, **everywhere).total, example(**everywhere).label)
    torch.testing.assert_close(example(kd_weight=1.0, **everywhere).total, example(**everywhere).teacher)


@pytest.mark.parametrize("kd_weight", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 10.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_equals_the_papers_formulas_one_position_at_a_time(kd_weight, temperature, epsilon):
    student, target, ids, logits, present = random_example()
    lprobs = student.log_softmax(-1)
    losses = distillation_loss(lprobs, target, ids, logits, present, PAD, kd_weight, temperature, epsilon)
    expected = slow_loss(lprobs, target, ids, logits, present, kd_weight, temperature, epsilon)
    assert [value.item() for value in losses] == pytest.approx(list(expected), abs=1e-6, rel=1e-9)


def test_types_of_a_training_batch():
    # int32 ids, float32 student, logits that went through float16
    student, target, ids, logits, present = random_example(dtype=torch.float32)
    logits = logits.half()
    lprobs = student.log_softmax(-1)
    losses = distillation_loss(lprobs, target, ids.int(), logits.float(), present, PAD, 0.5, 10.0, 0.1)
    expected = slow_loss(lprobs, target, ids, logits, present, 0.5, 10.0, 0.1)
    assert losses.total.dtype == torch.float32
    assert [value.item() for value in losses] == pytest.approx(list(expected), rel=1e-5)


def test_gradcheck():
    student, target, ids, logits, present = random_example(positions=6, vocab=5, k=3)
    student.requires_grad_()

    def total(student_logits):
        lprobs = student_logits.log_softmax(-1)
        return distillation_loss(lprobs, target, ids, logits, present, PAD, 0.3, 2.0, 0.1).total

    assert torch.autograd.gradcheck(total, (student,))


def test_only_padding_gives_zero_with_a_gradient_path():
    lprobs = STUDENT.clone().requires_grad_()
    losses = example(lprobs=lprobs, target=torch.full((6,), PAD))
    assert [value.item() for value in losses] == [0.0, 0.0, 0.0, 0.0, 0]
    losses.total.backward()
    assert torch.equal(lprobs.grad, torch.zeros_like(lprobs))


def test_no_positions_at_all_give_zero():
    losses = example(
        lprobs=STUDENT[:0].clone().requires_grad_(), target=GOLD[:0], topk_ids=TEACHER_IDS[:0],
        topk_logits=TEACHER_LOGITS[:0], present=PRESENT[:0],
    )  # fmt: skip
    assert losses.total.item() == 0.0
    losses.total.backward()


def test_without_any_teacher_row_the_label_loss_counts_in_full():
    losses = example(present=torch.zeros(6, dtype=torch.bool))
    assert torch.equal(losses.total, losses.label)
    assert losses.total.item() == pytest.approx(8.375870, abs=2e-6)
    assert losses.covered.item() == 0
    assert losses.teacher.item() == 0.0


def test_teacher_rows_on_padding_are_not_covered():
    losses = example(present=torch.ones(6, dtype=torch.bool))
    assert losses.covered.item() == 5
    # 0.922220 of the position that had no row before; nothing of the padding
    assert losses.teacher.item() == pytest.approx(5.527390 + 0.922220, abs=2e-6)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_students_infinities_on_padding_reach_neither_loss_nor_gradient(value):
    lprobs = STUDENT.clone()
    lprobs[5] = value
    lprobs.requires_grad_()
    losses = example(lprobs=lprobs)
    losses.total.backward()
    assert losses.total.item() == pytest.approx(8.235127, abs=2e-6)
    assert torch.equal(lprobs.grad[5], torch.zeros(5, dtype=torch.float64))
    assert torch.isfinite(lprobs.grad).all()


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("row", [3, 5], ids=["no teacher row", "padding"])
def test_teachers_infinities_where_it_has_no_row_reach_neither_loss_nor_gradient(row, value):
    lprobs = STUDENT.clone().requires_grad_()
    logits = TEACHER_LOGITS.clone()
    logits[row] = value
    losses = example(lprobs=lprobs, topk_logits=logits)
    losses.total.backward()
    assert losses.total.item() == pytest.approx(8.235127, abs=2e-6)
    assert torch.isfinite(lprobs.grad).all()


def test_inputs_are_not_modified():
    inputs = {"lprobs": STUDENT, "target": GOLD, "topk_ids": TEACHER_IDS, "topk_logits": TEACHER_LOGITS, "present": PRESENT}  # fmt: skip
    before = {name: tensor.clone() for name, tensor in inputs.items()}
    example()
    assert all(torch.equal(inputs[name], before[name]) for name in inputs)
