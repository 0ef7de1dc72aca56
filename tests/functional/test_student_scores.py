"""Scores of rows of logits and their gradient, compared with torch's own operations."""

import math
from unittest import mock

import pytest
import torch

from fairseq_bert_kd.functional import student_scores as module
from fairseq_bert_kd.functional.student_scores import ScoreRequest, student_scores
from tests.functional.slow_losses import DOUBLE, rows_of

HALVES = (torch.float16, torch.bfloat16)
# tokens 3 and 3 again; positions differ
IDS = torch.tensor([[3, 0, 3, 6], [1, 1, 1, 1], [6, 5, 4, 3], [0, 1, 2, 2], [2, 2, 6, 6]])


def plain_scores(logits, request):
    """The same by ordinary operations, not relative to anything."""
    total = logits.sum(dim=1) if request.logit_sum else None
    tempered = torch.logsumexp(logits / request.temperature, dim=1)
    return logits.gather(1, request.ids), torch.logsumexp(logits, dim=1), tempered, total


def some_loss(scores, request, vocab):
    """Uses every score with different factors, and does not change when a row's logits move together."""
    found, log_normaliser, tempered, total = scores
    factors = torch.arange(1.0, found.numel() + 1, dtype=DOUBLE).view_as(found).cos()
    loss = (factors * (log_normaliser[:, None] - found)).sum()
    loss = loss + (factors.sin() * (tempered[:, None] - found / request.temperature) ** 2).sum()
    if total is not None:
        loss = loss + 0.3 * (vocab * log_normaliser - total).square().sum()
    return loss


def blocks_of(rows, vocab=7):
    return mock.patch.dict(module.BLOCK, {"cpu": rows * vocab})


def test_by_hand():
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    scores = student_scores(logits, ScoreRequest(torch.tensor([[1, 0, 0]]), 2.0, True))
    assert scores.logits.tolist() == [[0.0, -2.0, -2.0]]
    assert scores.log_normaliser.item() == pytest.approx(math.log(1 + math.exp(-1) + math.exp(-2)))
    assert scores.tempered_log_normaliser.item() == pytest.approx(math.log(1 + math.exp(-0.5) + math.exp(-1)))
    assert scores.logit_sum.item() == -3.0


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("total", [False, True])
def test_equal_plain_operations_in_value_and_gradient(temperature, total):
    logits, request = rows_of(5, 7).requires_grad_(), ScoreRequest(IDS, temperature, total)
    ours, plain = student_scores(logits, request), plain_scores(logits, request)
    best = logits.detach().amax(dim=1)
    torch.testing.assert_close(ours.logits, plain[0] - best[:, None])
    torch.testing.assert_close(ours.log_normaliser, plain[1] - best)
    torch.testing.assert_close(ours.tempered_log_normaliser, plain[2] - best / temperature)
    if total:
        torch.testing.assert_close(ours.logit_sum, plain[3] - 7 * best)
    else:
        assert ours.logit_sum is None
    losses = [some_loss(scores, request, 7) for scores in (ours, plain)]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in losses))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("total", [False, True])
def test_gradcheck(temperature, total):
    request = ScoreRequest(IDS, temperature, total)
    logits = rows_of(5, 7).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: some_loss(student_scores(z, request), request, 7), (logits,))


@pytest.mark.parametrize("used", ["logits", "log_normaliser", "tempered_log_normaliser", "logit_sum"])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("dtype", [DOUBLE, torch.float16])
def test_a_loss_of_one_score_alone(used, temperature, dtype):
    # not the same under a shift, so the best logit's part is added by hand
    logits = rows_of(5, 7).to(dtype).requires_grad_()
    scores = student_scores(logits, ScoreRequest(IDS, temperature, True))
    [ours] = torch.autograd.grad(getattr(scores, used).sum(), logits)
    reference = logits.detach().double().requires_grad_()
    plain = module.StudentScores(*plain_scores(reference, ScoreRequest(IDS, temperature, True)))
    [expected] = torch.autograd.grad(getattr(plain, used).sum(), reference)
    torch.testing.assert_close(ours, expected.to(dtype))


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 100])
@pytest.mark.parametrize("dtype", [DOUBLE, torch.bfloat16])
def test_results_do_not_depend_on_the_size_of_a_block(rows, dtype):
    logits, request = rows_of(5, 7).to(dtype).requires_grad_(), ScoreRequest(IDS, 3.0, True)
    results = []
    for patch in (mock.MagicMock(), blocks_of(rows)):
        with patch:
            scores = student_scores(logits, request)
            results.append([*scores, torch.autograd.grad(some_loss(scores, request, 7), logits)[0]])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_a_block_has_at_least_one_row():
    logits = rows_of(5, 7)
    with mock.patch.dict(module.BLOCK, {"cpu": 3}):
        assert len(module.BlockBuffers(logits, DOUBLE, 1).blocks) == 5
    with mock.patch.dict(module.BLOCK, {"cpu": 15}):
        assert module.BlockBuffers(logits, DOUBLE, 1).blocks == [slice(0, 2), slice(2, 4), slice(4, 5)]
    with mock.patch.dict(module.BLOCK, clear=True):  # another device
        assert module.BlockBuffers(logits, DOUBLE, 1).blocks == [slice(0, 5)]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("rows", [2, 100])
def test_half_precision_is_float32_rounded_once(dtype, temperature, rows):
    logits, request = (
        rows_of(5, 7, spread=4.0).to(dtype).requires_grad_(),
        ScoreRequest(IDS, temperature, True),
    )
    with blocks_of(rows):
        scores = student_scores(logits, request)
        assert {score.dtype for score in scores} == {torch.float32}
        [grad] = torch.autograd.grad(some_loss(scores, request, 7), logits)
    assert grad.dtype == dtype
    reference = logits.detach().float().requires_grad_()
    plain = plain_scores(reference, request)
    torch.testing.assert_close(scores.log_normaliser, plain[1] - reference.detach().amax(dim=1))
    [expected] = torch.autograd.grad(some_loss(plain, request, 7), reference)
    # float32 on both sides; at the edge between two halves they may fall on either side
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(grad.float(), expected, rtol=0.5 * eps + 1e-4, atol=1e-4)
    assert (grad == expected.to(dtype)).float().mean() > 0.9


@pytest.mark.parametrize("dtype", HALVES)
def test_logits_at_the_ends_of_half_precision(dtype):
    logits = torch.tensor([[60000.0, -60000.0, 0.0, 60000.0, 5.0, -math.inf, 0.0]], dtype=dtype)
    logits.requires_grad_()
    scores = student_scores(logits, ScoreRequest(torch.tensor([[0, 3, 4]]), 10.0, False))
    assert scores.log_normaliser.item() == pytest.approx(math.log(2))
    assert scores.tempered_log_normaliser.item() == pytest.approx(math.log(2))
    (scores.log_normaliser - scores.logits[:, 0]).sum().backward()
    assert logits.grad.tolist() == [[-0.5, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("offset", [0.0, 100.0, -3000.0, 1e5])
def test_gradient_is_exact_wherever_the_logits_lie(offset):
    # whole numbers, so that adding the offset rounds nothing
    logits = (rows_of(5, 7).mul(3).round() + offset).float().requires_grad_()
    scores = student_scores(logits, ScoreRequest(IDS, 2.0, False))
    loss = (scores.log_normaliser + scores.tempered_log_normaliser).sum()
    [grad] = torch.autograd.grad(loss, logits)
    exact = logits.detach().double()
    expected = exact.softmax(1) + (exact / 2).softmax(1) / 2
    torch.testing.assert_close(grad.double(), expected, rtol=1e-6, atol=0)


def test_minus_infinity_has_no_mass_and_no_gradient():
    logits = torch.tensor([[0.0, -math.inf, 1.0]], requires_grad=True)
    scores = student_scores(logits, ScoreRequest(torch.tensor([[0, 2]]), 2.0, False))
    assert scores.log_normaliser.item() == pytest.approx(math.log(1 + math.exp(-1)))
    (scores.log_normaliser + scores.tempered_log_normaliser).sum().backward()
    assert logits.grad[0, 1] == 0.0
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("positions", [0, 1])
def test_few_positions(positions, temperature):
    logits = rows_of(positions, 7).requires_grad_()
    request = ScoreRequest(IDS[:positions], temperature, True)
    losses = [some_loss(scores(logits, request), request, 7) for scores in (student_scores, plain_scores)]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in losses))


def test_no_tokens_and_a_vocabulary_of_one():
    scores = student_scores(rows_of(3, 7), ScoreRequest(torch.empty(3, 0).long(), 1.0, False))
    assert scores.logits.shape == (3, 0)
    one = rows_of(3, 1).requires_grad_()
    scores = student_scores(one, ScoreRequest(torch.zeros(3, 1).long(), 2.0, True))
    assert scores.log_normaliser.tolist() == scores.logit_sum.tolist() == [0.0] * 3
    some_loss(scores, ScoreRequest(torch.zeros(3, 1).long(), 2.0, True), 1).backward()
    assert one.grad.abs().max() < 1e-12


@pytest.mark.parametrize("form", ["transposed", "sliced", "prefix", "expanded"])
@pytest.mark.parametrize("dtype", [DOUBLE, torch.bfloat16])
def test_logits_that_are_not_contiguous(form, dtype):
    base = rows_of(7, 7).to(dtype).requires_grad_()
    logits = {
        "transposed": base.t()[:5],
        "sliced": base[::2, :][:4],
        "prefix": base.view(7, 1, 7)[1:6].flatten(0, 1),
        "expanded": base[:1].expand(5, 7),
    }[form]
    request, results = ScoreRequest(IDS[: len(logits)], 2.0, True), []
    for part in (logits, logits.contiguous()):
        scores = student_scores(part, request)
        results.append(
            [*scores, *torch.autograd.grad(some_loss(scores, request, 7), base, retain_graph=True)]
        )
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_nothing_of_vocabulary_size_is_kept_but_the_logits(dtype, temperature):
    logits, kept = torch.randn(50, 300, dtype=dtype, requires_grad=True), []

    def pack(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        request = ScoreRequest(torch.randint(300, (50, 4)), temperature, True)
        scores = student_scores(logits, request)
        loss = some_loss(scores, request, 300)
    large = [tensor for tensor in kept if tensor.numel() > 50 * 10]
    assert [tensor.data_ptr() for tensor in large] == [logits.data_ptr()]
    loss.backward()
    assert logits.grad.dtype == dtype


def test_logits_are_left_as_they_are():
    logits = torch.randn(5, 7, requires_grad=True)
    before = logits.detach().clone()
    request = ScoreRequest(IDS, 2.0, True)
    some_loss(student_scores(logits, request), request, 7).backward()
    assert torch.equal(logits, before)
    assert logits._version == 0


def test_second_backward_pass():
    logits, request = rows_of(5, 7).requires_grad_(), ScoreRequest(IDS, 2.0, True)
    loss = some_loss(student_scores(logits, request), request, 7)
    first, second = (torch.autograd.grad(loss, logits, retain_graph=keep)[0] for keep in (True, False))
    assert torch.equal(first, second)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, logits)


def test_gradient_of_the_gradient_is_an_error():
    logits, request = rows_of(5, 7).requires_grad_(), ScoreRequest(IDS, 2.0, True)
    loss = some_loss(student_scores(logits, request), request, 7)
    [grad] = torch.autograd.grad(loss, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
