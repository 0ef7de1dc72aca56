"""Projection and loss in one, in both forms and any chunks, compared with the plain form: `student_scores` of all logits.

By chunk: the loss runs on each chunk (`chunked_projection`). Once: it runs on the scores of all (`projected_scores`).
"""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from fairseq_bert_kd.functional import chunked_projection
from fairseq_bert_kd.functional.chunked_projection import chunked_sums
from fairseq_bert_kd.functional.distillation import distillation_sums, score_request
from fairseq_bert_kd.functional.projected_scores import projected_scores
from fairseq_bert_kd.functional.student_scores import student_scores
from tests.functional.slow_losses import DOUBLE, objective_of, rows_of, targets_of, teacher_rows_of, to_type

N, DIM, VOCAB = 8, 5, 13
OBJECTIVES = [
    objective_of("paper"),
    objective_of("paper", epsilon=0.0, weight=0.9),
    objective_of("renormalised", 2.0, square_temperature=True),
    objective_of("renormalised", 1.0),
    objective_of("conditional", 2.0),
    objective_of("tail-bucket", 2.0, token_weight="entropy"),
    objective_of("tail-bucket", 1.0),
    objective_of("sampled", 2.0, epsilon=0.0),
    objective_of("sampled", 1.0, token_weight="confidence"),
]
# one normaliser and no sum of logits; two normalisers and a sum; drawn tokens
some_objectives = pytest.mark.parametrize("objective", [OBJECTIVES[i] for i in (1, 5, 8)], ids=str)
FORMS = ("by chunk", "once")
both_forms = pytest.mark.parametrize("form", FORMS)
# float16 is for one form only
forms_and_types = pytest.mark.parametrize(
    ("form", "dtype"), [("by chunk", DOUBLE), ("once", DOUBLE), ("once", torch.float16)]
)


class Example:
    """Features, projection and teachers; every chunk differs from the others."""

    def __init__(self, objective, positions=N, dtype=DOUBLE, bias=True, exact=None):
        self.objective = objective
        self.features = rows_of(positions, DIM, 1).to(dtype).requires_grad_()
        self.weight = rows_of(VOCAB, DIM, 2, spread=0.7).to(dtype).requires_grad_()
        self.bias = rows_of(1, VOCAB, 3)[0].to(dtype).requires_grad_() if bias else None
        self.target = torch.arange(positions) * 5 % VOCAB
        missing = torch.arange(positions) % 3 != 1
        exact = exact or (DOUBLE if dtype == DOUBLE else torch.float32)
        self.teachers = [
            to_type(
                targets_of(
                    teacher_rows_of(positions, VOCAB, seed), k, gold=self.target, gold_stored=True, samples=2,
                    weight=weight, present=present,
                ),
                exact,
            )
            for seed, k, weight, present in ((4, 3, 1.0, missing), (5, 2, 2.5, ~missing | (self.target > 6)))
        ]  # fmt: skip
        self.request = score_request(self.target, self.teachers, objective)

    @property
    def leaves(self):
        return [tensor for tensor in (self.features, self.weight, self.bias) if tensor is not None]

    def loss(self, scores, rows):
        teachers = [teacher.select(rows) for teacher in self.teachers]
        kept = torch.ones_like(self.target, dtype=torch.bool)
        return distillation_sums(scores, self.target[rows], kept[rows], teachers, self.objective, VOCAB)

    def plain(self):
        scores = student_scores(F.linear(self.features, self.weight, self.bias), self.request)
        return self.loss(scores, slice(None))

    def chunked(self, form, chunk=3):
        if form == "by chunk":
            return chunked_sums(self.features, self.weight, self.bias, self.request, self.loss, chunk)
        scores = projected_scores(self.features, self.weight, self.bias, self.request, chunk)
        return self.loss(scores, slice(None))

    def gradients(self, total):
        return torch.autograd.grad(total, self.leaves)


def assert_same(ours, expected, **tolerance):
    assert ours.keys() == expected.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], expected[name], **tolerance)


def assert_all_close(ours, expected, eps=None):
    """Within ``eps`` of each tensor's largest entry; of the same types."""
    for one, other in zip(ours, expected, strict=True):
        assert one.dtype == other.dtype
        tolerance = {} if eps is None else {"rtol": 0, "atol": eps * float(other.abs().max())}
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize(
    ("objective", "chunk", "bias"),
    [
        *((objective, 3, True) for objective in OBJECTIVES),
        *((OBJECTIVES[5], chunk, False) for chunk in (1, 3, N, N + 7)),
    ],
    ids=str,
)
@both_forms
def test_equals_the_plain_form(objective, form, chunk, bias):
    example = Example(objective, bias=bias)
    ours, plain = example.chunked(form, chunk), example.plain()
    assert_same(ours, plain)
    assert_all_close(example.gradients(ours["loss"]), example.gradients(plain["loss"]))


@some_objectives
@both_forms
def test_float32(objective, form):
    example = Example(objective, dtype=torch.float32)
    ours, plain = example.chunked(form), example.plain()
    assert_same(ours, plain, rtol=1e-5, atol=1e-5)
    assert_all_close(example.gradients(ours["loss"]), example.gradients(plain["loss"]), 2e-6)


@some_objectives
@pytest.mark.parametrize(
    ("form", "dtype"), [("by chunk", torch.bfloat16), ("once", torch.bfloat16), ("once", torch.float16)]
)
@pytest.mark.parametrize("chunk", [3, N])
def test_half_precision(objective, form, dtype, chunk):
    example = Example(objective, dtype=dtype)
    ours, plain = example.chunked(form, chunk), example.plain()
    assert_same(ours, plain, rtol=1e-5, atol=1e-4)  # the same logits, and sums in float32
    # the plain form rounds a product over all positions, ours one of each chunk: half an eps for each of 3
    assert_all_close(
        example.gradients(ours["loss"]), example.gradients(plain["loss"]), 2 * torch.finfo(dtype).eps
    )


@some_objectives
@both_forms
@pytest.mark.parametrize("chunk", [3, N])
def test_autocast(objective, form, chunk):
    example = Example(objective, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, plain = example.chunked(form, chunk), example.plain()
    assert_same(ours, plain, rtol=1e-5, atol=1e-4)
    gradients, expected = example.gradients(ours["loss"]), example.gradients(plain["loss"])
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    assert_all_close(gradients, expected, 2 * torch.finfo(torch.bfloat16).eps)
    without = example.chunked(form, chunk)
    assert (without["loss"] - ours["loss"]).abs() > 1e-5  # autocast did something


def test_autocast_is_left_on_and_the_loss_runs_without():
    example, seen = Example(OBJECTIVES[0], dtype=torch.float32), []
    plain_loss = example.loss
    example.loss = lambda *arguments: (
        seen.append(torch.is_autocast_enabled("cpu")),
        plain_loss(*arguments),
    )[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        example.chunked("by chunk")
        assert torch.is_autocast_enabled("cpu")
    assert seen == [False] * 3


@some_objectives
@both_forms
def test_empty_batch(objective, form):
    example = Example(objective, positions=0)
    ours, plain = example.chunked(form), example.plain()
    assert_same(ours, plain)
    assert ours["loss"] == 0.0
    for gradient, leaf in zip(example.gradients(ours["loss"]), example.leaves, strict=True):
        assert torch.equal(gradient, torch.zeros_like(leaf))


@forms_and_types
def test_total_in_a_larger_expression(form, dtype):
    example = Example(OBJECTIVES[2], dtype=dtype)
    results = []
    for sums in (example.chunked(form), example.plain()):
        total = sums["loss"]
        results.append(example.gradients(0.25 * total + (total / 100.0) ** 2))
    assert_all_close(*results, 1e-12 if dtype == DOUBLE else 3 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("scale", [0.0, -3.0, 128.0])
@forms_and_types
def test_scaled_total(scale, form, dtype):
    example = Example(OBJECTIVES[5], dtype=dtype)
    results = [example.gradients(sums["loss"] * scale) for sums in (example.chunked(form), example.plain())]
    assert_all_close(*results, 1e-12 if dtype == DOUBLE else 2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("chunk", [3, N])
def test_loss_scale_saves_gradients_that_float16_would_lose(chunk):
    # gradients of at most 1e-8 by a logit, while the least float16 is 6e-8
    exact, half = Example(OBJECTIVES[5], exact=torch.float32), Example(OBJECTIVES[5], dtype=torch.float16)
    for old, new in zip(exact.leaves, half.leaves, strict=True):
        old.data = new.data.double()
    for example in (exact, half):
        whole = example.loss
        example.loss = lambda scores, rows, whole=whole: {"loss": 1e-8 * whole(scores, rows)["loss"]}
    expected = exact.gradients(exact.plain()["loss"])
    assert all((gradient != 0).all() for gradient in expected)
    assert not any(gradient.any() for gradient in half.gradients(half.chunked("once", chunk)["loss"]))
    scaled = half.gradients(half.chunked("once", chunk)["loss"] * 2.0**15)
    for ours, right in zip(scaled, expected, strict=True):
        assert ours.dtype == torch.float16
        assert (ours.double() / 2**15 - right).abs().max() < 0.01 * right.abs().max()


@forms_and_types
def test_weight_that_is_an_embedding_too(form, dtype):
    example = Example(OBJECTIVES[6], dtype=dtype, bias=False)
    tokens, results = torch.arange(N) % 4, []
    for sums in (lambda: example.chunked(form), example.plain):
        example.features = F.embedding(tokens, example.weight).tanh()
        results.append(torch.autograd.grad(sums()["loss"], [example.weight]))
    assert_all_close(*results, 1e-12 if dtype == DOUBLE else 2 * torch.finfo(dtype).eps)
    example.features = example.features.detach()
    [alone] = torch.autograd.grad(example.chunked(form)["loss"], [example.weight])
    assert (alone - results[0][0]).abs().max() > 0.01  # both uses count


@pytest.mark.parametrize("learnt", [(0,), (1,), (2,), (0, 2), (1, 2)])
@forms_and_types
def test_only_some_are_learnt(learnt, form, dtype):
    example = Example(OBJECTIVES[3], dtype=dtype)
    for index, leaf in enumerate(example.leaves):
        leaf.requires_grad_(index in learnt)
    chosen = [example.leaves[index] for index in learnt]
    results = [torch.autograd.grad(sums["loss"], chosen) for sums in (example.chunked(form), example.plain())]
    assert_all_close(*results, 1e-12 if dtype == DOUBLE else 2 * torch.finfo(dtype).eps)


@forms_and_types
def test_without_gradients(form, dtype):
    example = Example(OBJECTIVES[0], dtype=dtype)
    expected = example.plain()
    with torch.no_grad():
        assert_same(example.chunked(form), expected, rtol=1e-5, atol=1e-4)
        assert not example.chunked(form)["loss"].requires_grad
    for leaf in example.leaves:
        leaf.requires_grad_(False)
    assert not example.chunked(form)["loss"].requires_grad


def test_no_gradient_is_computed_where_none_is_needed(monkeypatch):
    example = Example(OBJECTIVES[0])

    def fail(*_, **__):
        raise AssertionError("gradient computed")

    monkeypatch.setattr(chunked_projection, "logits_gradient", fail)
    with torch.no_grad():
        example.chunked("by chunk")
    with pytest.raises(AssertionError, match="gradient computed"):
        example.chunked("by chunk")


@forms_and_types
def test_only_the_total_is_differentiable(form, dtype):
    sums = Example(OBJECTIVES[5], dtype=dtype).chunked(form)
    assert [name for name, value in sums.items() if value.requires_grad] == ["loss"]
    assert len(sums) > 8
    assert sums["kd_positions"].dtype == torch.int64


def test_second_backward_pass_is_an_error_by_chunk():
    example = Example(OBJECTIVES[0])
    total = example.chunked("by chunk")["loss"]
    torch.autograd.grad(total, example.leaves, retain_graph=True)
    with pytest.raises(AssertionError, match="the gradient was taken before; run the forward pass again"):
        torch.autograd.grad(total, example.leaves)


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float16])
@pytest.mark.parametrize("chunk", [3, N])
def test_second_backward_pass_gives_the_same_once(dtype, chunk):
    example = Example(OBJECTIVES[5], dtype=dtype)
    total = example.chunked("once", chunk)["loss"]
    first, second = (torch.autograd.grad(total, example.leaves, retain_graph=keep) for keep in (True, False))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_float16_by_chunk_is_an_error():
    with pytest.raises(AssertionError, match="float16 needs `projected_scores`"):
        Example(OBJECTIVES[0], dtype=torch.float16).chunked("by chunk")


@pytest.mark.parametrize("chunk", [3, N])
def test_one_product_is_computed_again_only_where_there_are_chunks(monkeypatch, chunk):
    calls, linear = [], F.linear
    monkeypatch.setattr(F, "linear", lambda *arguments: (calls.append(1), linear(*arguments))[1])
    example = Example(OBJECTIVES[0])
    example.gradients(example.chunked("once", chunk)["loss"])
    assert len(calls) == (1 if chunk == N else 6)


@forms_and_types
def test_inputs_are_not_modified(form, dtype):
    example = Example(OBJECTIVES[5], dtype=dtype)
    before = [leaf.detach().clone() for leaf in example.leaves]
    example.gradients(example.chunked(form)["loss"] * 2.0)
    assert all(torch.equal(leaf, copy) for leaf, copy in zip(example.leaves, before, strict=True))
    assert all(leaf._version == 0 for leaf in example.leaves)


@both_forms
def test_features_that_are_not_contiguous(form):
    example = Example(OBJECTIVES[5])
    base = rows_of(DIM, N, 1).requires_grad_()
    example.features = base.t()
    results = [torch.autograd.grad(sums["loss"], [base]) for sums in (example.chunked(form), example.plain())]
    assert_all_close(*results)


class LargestTensor(TorchDispatchMode):
    """Number of elements of the largest floating tensor that an operation made."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.itemsize)
        return result


@pytest.mark.parametrize(
    ("form", "dtype"),
    [
        ("by chunk", torch.float32),
        ("once", torch.float32),
        ("once", torch.float16),
        ("by chunk", torch.bfloat16),
    ],
)
def test_all_logits_are_never_there_at_once(form, dtype):
    positions, chunk = 400, 20
    example = Example(objective_of("tail-bucket", 2.0), positions=positions, dtype=dtype)
    for sums, at_least, at_most in (
        (example.plain, positions * VOCAB, positions * VOCAB),
        # features, scores and what teachers say of all positions are larger than a chunk's logits here
        (lambda: example.chunked(form, chunk), chunk * VOCAB, positions * (VOCAB - 1)),
    ):
        with LargestTensor() as largest:
            example.gradients(sums()["loss"])
        assert at_least <= largest.elements <= at_most


def test_a_chunks_logits_are_the_largest_thing_where_the_vocabulary_is_large():
    positions, vocab, chunk = 40, 2000, 4
    features, weight = (
        torch.randn(positions, 4, requires_grad=True),
        torch.randn(vocab, 4, requires_grad=True),
    )
    request = Example(OBJECTIVES[0], positions=positions).request
    with LargestTensor() as largest:
        sums = chunked_sums(
            features, weight, None, request, lambda scores, _: {"loss": scores.log_normaliser.sum()}, chunk
        )
        sums["loss"].backward()
    assert largest.elements == max(chunk * vocab, weight.numel())
    logits = (features @ weight.t()).detach()
    expected = torch.logsumexp(logits - logits.amax(dim=1, keepdim=True), dim=1).sum()
    torch.testing.assert_close(sums["loss"].detach(), expected)
