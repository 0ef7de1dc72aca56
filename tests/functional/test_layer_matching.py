"""Maps of layers and losses between them, by hand and against slow versions."""

import math

import pytest
import torch
from torch.testing import assert_close

from fairseq_bert_kd.functional import layer_matching
from fairseq_bert_kd.functional.layer_matching import (
    hidden_mse,
    layer_map,
    number_mse,
    projected_hidden_mse,
    projected_score_mse,
    relation_divergence,
    row_divergence,
    score_mse,
    soft_cross_entropy,
)

LN3 = math.log(3.0)


# ---- maps --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "student", "teacher", "layers"),
    [
        ("uniform", 4, 12, (0, 3, 6, 9, 12)),
        ("uniform", 3, 6, (0, 2, 4, 6)),
        ("uniform", 6, 6, (0, 1, 2, 3, 4, 5, 6)),
        ("top", 4, 12, (0, 9, 10, 11, 12)),
        ("bottom", 4, 12, (0, 1, 2, 3, 4)),
        ("0,2,4,6", 3, 6, (0, 2, 4, 6)),
        ("0,1,5,6", 3, 6, (0, 1, 5, 6)),
        ("0, 2, 3, 5, 6", 4, 6, (0, 2, 3, 5, 6)),
    ],
)
def test_maps(name, student, teacher, layers):
    assert layer_map(name, student, teacher) == layers


@pytest.mark.parametrize(
    ("name", "student", "reason"),
    [
        (
            "uniform",
            4,
            r"divides the teacher's 6 \(1, 2, 3, 6\), it has 4. Give top, bottom or .* such as 0,2,3,4,6",
        ),
        ("0,4,2,6", 3, "does not rise"),
        ("0,2,2,6", 3, "does not rise"),
        ("1,2,4,6", 3, "begins with 1 and must begin with 0"),
        ("0,2,4,5", 3, "ends with 5 and must end with 6, the teacher's last layer"),
        ("0,2,4,6,8", 3, "has 5 numbers and must have 4"),
        ("middle", 3, "`middle` is not a map of layers; give uniform, top, bottom or numbers"),
        ("uniform", 7, "it has 7 and the teacher 6. Give it at most 6 layers"),
        ("uniform", 0, "it has 0 and the teacher 6"),
    ],
)
def test_maps_that_do_not_fit_are_refused(name, student, reason):
    with pytest.raises(ValueError, match=reason):
        layer_map(name, student, 6)


def test_what_is_proposed_in_place_of_uniform_is_accepted():
    for teacher in range(1, 25):
        for student in range(1, teacher + 1):
            try:
                layer_map("uniform", student, teacher)
            except ValueError as error:
                layer_map(str(error).split("such as ")[1], student, teacher)


# ---- scores ------------------------------------------------------------------------------------------------
SCORES = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
ONE, BOTH = torch.tensor([[True, False]]), torch.tensor([[True, True]])


@pytest.mark.parametrize(("tokens", "expected"), [(ONE, 2.5), (BOTH, 7.5)])
def test_scores_by_hand(tokens, expected):
    assert score_mse(torch.zeros_like(SCORES), SCORES, tokens).tolist() == [expected]


def test_scores_are_a_mean_over_heads():
    teacher = torch.cat([SCORES, torch.zeros_like(SCORES)], dim=1)
    assert score_mse(torch.zeros_like(teacher), teacher, BOTH).item() == 3.75


def test_very_small_scores_count_as_masked():
    teacher = torch.tensor([[[[-200.0, 2.0], [3.0, 4.0]]]])
    assert score_mse(torch.zeros_like(teacher), teacher, BOTH).item() == (4 + 9 + 16) / 4


@pytest.mark.parametrize(("heads", "widths"), [(1, (2, 2)), (3, (6, 12))])
@pytest.mark.parametrize("at_once", [1, 40, 2**17])
def test_scores_made_in_parts_are_those_made_whole(monkeypatch, heads, widths, at_once):
    monkeypatch.setitem(layer_matching.NUMBERS_AT_ONCE, "cpu", at_once)
    torch.manual_seed(0)
    valid = torch.arange(4) < torch.tensor([4, 2, 1])[:, None]
    student, teacher = ([torch.randn(3, 4, width) for _ in range(2)] for width in widths)

    def scores(queries, keys):
        one, other = (vectors.unflatten(2, (heads, -1)).transpose(1, 2) for vectors in (queries, keys))
        return one @ other.transpose(2, 3) / one.size(3) ** 0.5

    results = []
    for whole in (True, False):
        vectors = [each.clone().requires_grad_() for each in student]
        if whole:
            squares = (scores(*vectors) - scores(*teacher)).square().mean(dim=1)  # (B, L, L)
            pairs = valid[:, :, None] & valid[:, None, :]
            losses = (squares * pairs).sum(dim=(1, 2)) / pairs.sum(dim=(1, 2))
        else:
            losses = projected_score_mse(tuple(vectors), tuple(teacher), heads, valid)
        (losses * torch.tensor([1.0, 3.0, 0.5])).sum().backward()
        results.append((losses.detach(), *(each.grad for each in vectors)))
    for expected, found in zip(*results, strict=True):
        assert_close(found, expected)
    with torch.no_grad():
        assert_close(projected_score_mse(tuple(student), tuple(teacher), heads, valid), results[0][0])


def test_scores_from_queries_and_keys_by_hand():
    """Q = ((1, 0), (0, 1)) sqrt(2), K = ((1, 3), (2, 4)): scores 1, 2, 3, 4."""
    queries = torch.eye(2)[None] * 2**0.5
    keys = torch.tensor([[[1.0, 3.0], [2.0, 4.0]]])
    nothing = torch.zeros(1, 2, 2)
    for valid, expected in ((BOTH, 7.5), (ONE, 1.0)):
        found = projected_score_mse((nothing, nothing), (queries, keys), 1, valid)
        assert found.item() == pytest.approx(expected)


# ---- hidden states -----------------------------------------------------------------------------------------
def test_hidden_states_by_hand():
    teacher = torch.tensor([[[1.0, 1.0], [3.0, 3.0]]])
    assert hidden_mse(torch.zeros_like(teacher), teacher, ONE).tolist() == [1.0]
    assert hidden_mse(torch.zeros_like(teacher), teacher, None).tolist() == [5.0]


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("at_once", [1, 13, 2**17])
def test_states_projected_in_parts_are_those_projected_whole(monkeypatch, with_bias, masked, at_once):
    monkeypatch.setitem(layer_matching.NUMBERS_AT_ONCE, "cpu", at_once)
    torch.manual_seed(0)
    valid = torch.arange(4) < torch.tensor([4, 2, 1])[:, None] if masked else None
    student, weight, bias, teacher = (
        torch.randn(3, 4, 2), torch.randn(5, 2), torch.randn(5) if with_bias else None, torch.randn(3, 4, 5),
    )  # fmt: skip
    results = []
    for whole in (True, False):
        given = [None if each is None else each.clone().requires_grad_() for each in (student, weight, bias)]
        if whole:
            loss = hidden_mse(torch.nn.functional.linear(*given), teacher, valid).sum()
        else:
            loss = projected_hidden_mse(*given, teacher, valid)
        (3 * loss).backward()
        results.append((loss.detach(), *(each.grad for each in given if each is not None)))
    for expected, found in zip(*results, strict=True):
        assert_close(found, expected)
    with torch.no_grad():
        assert_close(projected_hidden_mse(student, weight, bias, teacher, valid), results[0][0])


def test_projected_states_by_hand():
    teacher, weight = torch.tensor([[[1.0, 1.0], [3.0, 3.0]]]), torch.ones(2, 1)
    for valid, expected in ((ONE, 1.0), (None, 5.0)):
        assert projected_hidden_mse(torch.zeros(1, 2, 1), weight, None, teacher, valid).item() == expected
    assert projected_hidden_mse(torch.ones(1, 2, 1), weight, torch.ones(2), teacher, BOTH).item() == 1.0


@pytest.mark.parametrize("kind", ["hidden", "scores", "relations"])
def test_a_sentence_has_the_same_loss_in_every_batch(kind):
    torch.manual_seed(0)
    lengths = torch.tensor([5, 3])
    tokens = torch.arange(5) < lengths[:, None]
    student, teacher = torch.randn(2, 2, 5, 6).unbind()
    student.requires_grad_()

    def loss(rows, length):
        one, other, valid = student[rows, :length], teacher[rows, :length], tokens[rows, :length]
        if kind == "scores":
            return projected_score_mse((one, one), (other, other), 2, valid)
        return (
            hidden_mse(one, other, valid) if kind == "hidden" else relation_divergence(one, other, 2, valid)
        )

    together = loss(slice(None), 5)
    assert_close(together, torch.cat([loss(slice(0, 1), 5), loss(slice(1, 2), 3)]))
    together.sum().backward()
    assert (student.grad[1, 3:] == 0).all()  # of padding
    assert (student.grad[1, :3] != 0).any()


def test_losses_in_half_precision_are_those_of_float32():
    scores = torch.tensor([[[[300.0, 300.0], [300.0, 300.0]]]], dtype=torch.float16)  # whose squares overflow
    assert score_mse(scores, torch.zeros_like(scores), BOTH).item() == 90000.0
    hidden = torch.full((1, 2, 2), 300.0, dtype=torch.float16)
    assert hidden_mse(hidden, -hidden, BOTH).item() == 360000.0


# ---- relations ---------------------------------------------------------------------------------------------
def test_relations_by_hand():
    teacher, student = torch.tensor([[LN3, 0.0]]), torch.zeros(1, 2)  # (.75, .25) and (.5, .5)
    assert row_divergence(student, teacher).item() == pytest.approx(0.1308, abs=5e-5)
    # X = (sqrt(ln 3), 0): rows (ln 3, 0) and (0, 0) before softmax, so the second row adds nothing
    teacher, student = torch.tensor([[[LN3**0.5], [0.0]]]), torch.zeros(1, 2, 1)
    assert relation_divergence(student, teacher, 1, BOTH).item() == pytest.approx(0.1308 / 2, abs=5e-5)
    assert relation_divergence(teacher, teacher, 1, BOTH).item() == 0.0


def test_relations_of_other_widths_and_heads():
    torch.manual_seed(0)
    student, teacher = torch.randn(1, 3, 4), torch.randn(1, 3, 6)
    valid = torch.ones(1, 3, dtype=torch.bool)
    expected = []
    for head in range(2):
        one, other = student[0, :, 2 * head : 2 * head + 2], teacher[0, :, 3 * head : 3 * head + 3]
        for row in range(3):
            p = torch.softmax(other[row] @ other.T / 3**0.5, dim=0)
            q = torch.softmax(one[row] @ one.T / 2**0.5, dim=0)
            expected.append((p * (p / q).log()).sum())
    assert_close(relation_divergence(student, teacher, 2, valid)[0], torch.stack(expected).mean())


def test_relations_have_a_finite_gradient_at_a_row_with_one_key():
    teacher = torch.tensor([[[400.0], [-400.0]]])  # each position sees itself alone: exp underflows
    student = torch.tensor([[[30.0], [-30.0]]], requires_grad=True)
    loss = relation_divergence(student, teacher, 1, BOTH)
    loss.sum().backward()
    assert loss.item() == 0.0
    assert torch.isfinite(student.grad).all()
    far = torch.tensor([[[1.0], [1.0]]], requires_grad=True)
    relation_divergence(far, teacher, 1, BOTH).sum().backward()
    assert torch.isfinite(far.grad).all()


# ---- predictions -------------------------------------------------------------------------------------------
def test_soft_cross_entropy_by_hand():
    teacher, student = torch.tensor([[LN3, 0.0]]), torch.zeros(1, 2, requires_grad=True)
    loss = soft_cross_entropy(student, teacher)
    assert loss.item() == pytest.approx(math.log(2))
    loss.sum().backward()
    assert_close(student.grad, torch.tensor([[0.5 - 0.75, 0.5 - 0.25]]))
    assert soft_cross_entropy(student, teacher, mean_over_classes=True).item() == pytest.approx(
        0.3466, abs=5e-5
    )


def test_temperature_divides_both_sides():
    teacher, student = torch.tensor([[2 * LN3, 0.0]]), torch.tensor([[0.0, 2 * LN3]])
    expected = -(0.75 * math.log(0.25) + 0.25 * math.log(0.75))
    assert soft_cross_entropy(student, teacher, temperature=2.0).item() == pytest.approx(expected)


def test_numbers():
    assert number_mse(torch.tensor([[1.0], [2.0]]), torch.tensor([[4.0], [2.0]])).tolist() == [9.0, 0.0]


@pytest.mark.parametrize(
    "loss",
    [
        lambda student, teacher: score_mse(student[:, None], teacher[:, None], ONE),
        lambda student, teacher: projected_score_mse((student, student), (teacher, teacher), 1, ONE),
        lambda student, teacher: hidden_mse(student, teacher, ONE),
        lambda student, teacher: relation_divergence(student, teacher, 2, ONE),
        lambda student, teacher: soft_cross_entropy(student[0], teacher[0]),
    ],
)
def test_nothing_is_left_to_learn_where_student_and_teacher_are_equal(loss):
    torch.manual_seed(0)
    teacher = torch.randn(1, 2, 2)
    student = teacher.clone().requires_grad_()
    loss(student, teacher).sum().backward()
    assert student.grad.abs().max() < 1e-7
