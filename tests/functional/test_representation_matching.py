"""Losses between vectors by hand."""

import math

import pytest
import torch

from fairseq_bert_kd.functional.representation_matching import (
    cosine_loss,
    neighbour_cosines,
    pair_features,
    relational_loss,
    squared_loss,
)

ONE, TWO = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])


def test_cosine_and_squared_difference_by_hand():
    assert cosine_loss(ONE, TWO).tolist() == pytest.approx([0.2929], abs=5e-5)
    assert cosine_loss(3 * ONE, TWO).tolist() == pytest.approx([1 - math.sqrt(0.5)])  # length plays no part
    assert squared_loss(ONE, TWO).tolist() == [0.5]


def test_a_zero_vector_has_a_loss_of_one_and_a_finite_gradient():
    student = torch.zeros(1, 2, requires_grad=True)
    loss = cosine_loss(student, ONE)
    assert loss.tolist() == [1]
    loss.sum().backward()
    assert torch.isfinite(student.grad).all()


def test_half_precision_is_computed_in_float32():
    big = torch.full((1, 384), 200.0, dtype=torch.float16)  # its square is beyond float16
    assert cosine_loss(big, big).tolist() == pytest.approx([0], abs=1e-6)
    assert squared_loss(big, -big).tolist() == [160_000]


def test_relations_by_hand():
    """Cosines of three sentences: student 0, 0, 1; teacher 1, 0, 0."""
    student = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 5.0]])
    teacher = torch.tensor([[3.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert relational_loss(student, teacher).item() == pytest.approx(2 / 3)
    assert relational_loss(student, 7 * student).item() == pytest.approx(0, abs=1e-12)
    assert relational_loss(student[:2], teacher[:2]).item() == pytest.approx(1)  # two sentences
    alone = torch.ones(1, 2, requires_grad=True)
    loss = relational_loss(alone, ONE)
    loss.backward()
    assert (loss.item(), alone.grad.tolist()) == (0, [[0, 0]])


def test_a_zero_vector_is_related_to_nothing_and_not_compared_with_itself():
    """Its cosine with itself is 0 on one side and 1 on the other; those with the other sentence are 0 on both."""
    student, teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 2.0], [3.0, 0.0]])
    assert relational_loss(student, teacher).item() == 0


def test_relations_are_float32_under_automatic_casts():
    """Differences of cosines are far below what bfloat16 resolves."""
    generator = torch.Generator().manual_seed(1)
    teacher = torch.randn(16, 64, generator=generator)
    student = teacher + 0.02 * torch.randn(16, 64, generator=generator)
    expected = relational_loss(student, teacher).item()
    with torch.autocast("cpu", torch.bfloat16):
        assert relational_loss(student, teacher).item() == pytest.approx(expected, rel=1e-5)
    rounded = [torch.nn.functional.normalize(vectors).bfloat16().float() for vectors in (student, teacher)]
    assert relational_loss(*rounded).item() != pytest.approx(expected, rel=1e-2)  # so that the test can fail


def test_neighbours_by_hand():
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    teacher = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    assert neighbour_cosines(student, teacher).tolist() == pytest.approx([1, math.sqrt(0.5)])


def test_features_of_a_pair_and_of_the_same_pair_swapped():
    one, other = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0]])
    assert pair_features(one, other).tolist() == [[1, 2, 3, -1, 2, 3, 3, -2]]
    changed = pair_features(one, other) != pair_features(other, one)
    assert changed.tolist() == [[True] * 4 + [False] * 4]
