"""The Triton kernels beside PyTorch's operations, by Triton's interpreter; `test_triton_kernels` runs this file."""

import math

import pytest
import torch

from fairseq_bert_kd.functional import triton_kernels
from fairseq_bert_kd.functional.distillation import distillation_sums, score_request
from fairseq_bert_kd.functional.projected_scores import projected_scores
from fairseq_bert_kd.functional.student_scores import (
    RowStatistics,
    ScoreGradients,
    ScoreRequest,
    logits_gradient,
    row_statistics,
    student_scores,
)
from tests.functional.slow_losses import (
    DOUBLE,
    PAD,
    example,
    objective_of,
    rows_of,
    slow_total,
    to_type,
)

OBJECTIVES = [
    objective_of("paper"),
    objective_of("paper", 1.0, epsilon=0.0),
    objective_of("renormalised", 2.0, square_temperature=True),
    objective_of("conditional", 2.0),
    objective_of("tail-bucket", 2.0, token_weight="entropy"),
    objective_of("sampled", 2.0),
    objective_of("sampled", 1.0, token_weight="confidence"),
]
CASES = {
    "repeated tokens": (rows_of(5, 7), torch.tensor([[3, 0, 3, 6, 3]]).expand(5, -1)),
    "several blocks of a row": (rows_of(3, 9000), torch.tensor([[8999, 0, 4095, 4096, 4096]]).expand(3, -1)),
    "many tokens": (rows_of(2, 50), torch.arange(140).remainder(50).expand(2, -1)),
    "a vocabulary of one": (rows_of(3, 1), torch.zeros(3, 2, dtype=torch.int64)),
    "no tokens": (rows_of(3, 7), torch.empty(3, 0, dtype=torch.int64)),
    "no positions": (rows_of(0, 7), torch.empty(0, 2, dtype=torch.int64)),
    "far below zero": (rows_of(4, 5000) - 300.0, torch.tensor([[1, 4999]]).expand(4, -1)),
    "far above zero": (rows_of(4, 5000) + 300.0, torch.tensor([[1, 4999]]).expand(4, -1)),
    "ruled out at first": (rows_of(2, 9000).index_fill(1, torch.arange(5000), -math.inf), torch.tensor([[5, 8000]] * 2)),
    "best at last": (rows_of(2, 9000) + torch.arange(9000) * 0.01, torch.tensor([[5, 8000]] * 2)),
}  # fmt: skip


@pytest.fixture
def launched(monkeypatch):
    """Names of the kernels that were launched."""
    assert triton_kernels.works(torch.device("cpu"))  # which launches one itself
    names, launch = [], triton_kernels.launch

    def counted(kernel, *arguments, **constants):
        names.append(kernel.__name__)
        launch(kernel, *arguments, **constants)

    monkeypatch.setattr(triton_kernels, "launch", counted)
    return names


def statistics_and_gradient(logits, request, parts, in_place):
    """Statistics that were requested, and the gradient for some gradients of the scores."""
    statistics = RowStatistics.empty(request.ids, logits.dtype)
    row_statistics(logits, request, statistics)
    factors = torch.arange(1.0, request.ids.numel() + 1).view(request.ids.shape).cos()
    rows = torch.arange(1.0, len(logits) + 1)
    grads = ScoreGradients(
        *(
            grad if part in parts else None
            for part, grad in zip("lnts", (factors, rows, rows.sin(), rows.cos()), strict=True)
        )
    )
    out = logits.clone() if in_place else torch.empty_like(logits)
    logits_gradient(out if in_place else logits, request, statistics, grads, out=out)
    scores = [score for score in statistics.scores(request) if score is not None]
    return [*scores, statistics.row_max, out]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", triton_kernels.DTYPES, ids=str)
@pytest.mark.parametrize(
    ("temperature", "logit_sum", "parts"), [(1.0, True, "lns"), (4.0, False, "lnt"), (0.5, True, "ts")]
)
def test_kernels_are_the_operations(monkeypatch, launched, name, dtype, temperature, logit_sum, parts):
    logits, ids = CASES[name]
    logits, request = logits.to(dtype), ScoreRequest(ids, temperature, logit_sum)
    in_place = "several" in name or "many" in name
    ours = statistics_and_gradient(logits, request, parts, in_place)
    assert launched == ["_statistics_kernel", "_gradient_kernel"]
    monkeypatch.setattr(triton_kernels, "usable", lambda _: False)
    expected = statistics_and_gradient(logits, request, parts, in_place)
    assert len(launched) == 2
    for one, other in zip(ours[:-1], expected[:-1], strict=True):
        torch.testing.assert_close(one, other, rtol=2e-6, atol=2e-6 * logits.size(1) ** 0.5)
    assert ours[-1].dtype == dtype
    # float32 on both sides; at the edge between two halves they may fall on either side
    torch.testing.assert_close(ours[-1], expected[-1], rtol=1.1 * torch.finfo(dtype).eps + 1e-5, atol=1e-6)
    assert torch.isfinite(ours[-1]).all()


def test_rows_apart_are_read_where_they_lie(launched):
    base = rows_of(6, 20).float()
    logits, request = base[::2, :11], ScoreRequest(torch.tensor([[3, 3]] * 3), 2.0, True)
    apart = statistics_and_gradient(logits, request, "lnts", False)
    together = statistics_and_gradient(logits.contiguous(), request, "lnts", False)
    assert all(torch.equal(one, other) for one, other in zip(apart, together, strict=True))
    assert len(launched) == 4


def test_columns_apart_and_float64_are_not_for_the_kernels():
    assert triton_kernels.usable(torch.zeros(3, 4))
    assert not triton_kernels.usable(torch.zeros(4, 3).t())
    assert not triton_kernels.usable(torch.zeros(3, 4, dtype=DOUBLE))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
@pytest.mark.parametrize("chunk", [None, 5, 100])
@pytest.mark.parametrize("count", [1, 2])
def test_every_objective_is_the_slow_one(launched, objective, chunk, count):
    logits, target, teachers = example(teachers=count)
    if objective.name == "sampled":
        teachers = [teacher._replace(gold_stored=True) for teacher in teachers]
    weight = rows_of(logits.size(1), 6, 3, spread=0.7)
    features = rows_of(len(logits), 6, 4)
    ours, exact = (
        [part.to(dtype).requires_grad_() for part in (features, weight)] for dtype in (torch.float32, DOUBLE)
    )
    exact_sum = slow_total(exact[0] @ exact[1].t(), target, target.ne(PAD), teachers, objective)
    teachers = [to_type(teacher, torch.float32) for teacher in teachers]
    request = score_request(target, teachers, objective)
    if chunk is None:
        scores = student_scores(ours[0] @ ours[1].t(), request)
    else:
        scores = projected_scores(*ours, None, request, chunk)
    loss = distillation_sums(scores, target, target.ne(PAD), teachers, objective, logits.size(1))["loss"]
    assert loss.item() == pytest.approx(exact_sum.item(), rel=1e-5)
    gradients = torch.autograd.grad(loss, ours), torch.autograd.grad(exact_sum, exact)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=2e-5)
    assert launched.count("_gradient_kernel") == (3 if chunk == 5 else 1)


def test_more_than_two_to_the_31_logits(launched):
    stride = 2**31 + 16
    try:
        memory = torch.empty(stride + 8, dtype=torch.float16)  # only two pages of it are ever touched
    except RuntimeError:
        pytest.skip("4 GiB of address space are not available")
    logits = memory.as_strided((2, 7), (stride, 1))
    logits.copy_(rows_of(2, 7))
    request = ScoreRequest(torch.tensor([[3, 3], [1, 6]]), 2.0, True)
    expected = statistics_and_gradient(
        logits.clone(memory_format=torch.contiguous_format), request, "lnts", False
    )
    statistics = RowStatistics.empty(request.ids, logits.dtype)
    row_statistics(logits, request, statistics)
    assert all(
        torch.equal(one, other) for one, other in zip(statistics.scores(request), expected[:4], strict=True)
    )
    assert len(launched) == 3
