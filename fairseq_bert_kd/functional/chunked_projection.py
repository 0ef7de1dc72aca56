"""A loss over a vocabulary from features and the output projection, without all logits at once.

For each chunk of positions: project, compute the scores (`student_scores.row_statistics`), let the loss give its gradient
with respect to them, turn the logits into their gradient in place, and multiply that into the gradients of features and
projection. The logits of one chunk are all that is ever kept, and no product is computed twice (as in Liger's fused loss;
Hsu et al. 2024).

Under float16 the gradient has to be multiplied by fairseq's loss scale before it is rounded, and the scale is known only in
the backward pass. The gradient is then deferred to it, where a chunk's logits are computed again (one product more).
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fairseq_bert_kd.functional.student_scores import (
    ScoreGradients,
    ScoreRequest,
    StudentScores,
    accumulate_dtype,
    logits_gradient,
    row_statistics,
)

CHUNK_LOGITS = 1 << 24  # 64 MiB in float32
MOST_CHUNKS = 16  # each adds a pass over the gradient of the projection

Sums = dict[str, Tensor]
Loss = Callable[[StudentScores, slice], Sums]


def chunked_sums(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    request: ScoreRequest,
    loss: Loss,
    chunk: int | None = None,
) -> Sums:
    """Sums over chunks of positions of what ``loss`` returns; the sum named ``loss`` is differentiable.

    Args:
        features: ``(positions, dim)``.
        weight: ``(vocab, dim)`` of the projection; may be shared with embeddings.
        bias: ``(vocab,)`` or None.
        request: scores that the loss needs, for all positions.
        loss: function from the scores of ``rows`` (a slice of the positions) to scalars by name, ``loss`` among them,
            made by differentiable operations.
        chunk: positions per chunk; by default `chunk_positions`.
    """
    names: list[str] = []
    chunk = chunk or chunk_positions(len(features), len(weight))
    grad_enabled = torch.is_grad_enabled()  # always off inside the function
    values = _ChunkedSums.apply(features, weight, bias, request, loss, chunk, names, grad_enabled)
    return dict(zip(names, values, strict=True))


def chunk_positions(positions: int, vocab: int) -> int:
    """Positions per chunk: `CHUNK_LOGITS` logits, or more where that would make over `MOST_CHUNKS` chunks."""
    chunks = min(-(-positions * vocab // CHUNK_LOGITS), MOST_CHUNKS)
    return -(-positions // max(chunks, 1)) or 1


class _ChunkedSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, request: ScoreRequest, loss: Loss, chunk: int,
        names: list[str], grad_enabled: bool,
    ) -> Any:  # fmt: skip
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in (features, weight, bias)]
        features, weight, bias = _as_autocast(features, weight, bias)
        chunks = _Chunks(features, weight, bias, request, loss, chunk)
        needs_grad = grad_enabled and any(ctx.needs_input_grad)
        defer_gradient = needs_grad and chunks.features.dtype == torch.float16
        ctx.deferred = chunks if defer_gradient else None
        sums, ctx.gradients = chunks.run(ctx.needs_input_grad if needs_grad and not defer_gradient else None)
        names.extend(sums)
        values = tuple(sums.values())
        ctx.loss_index = names.index("loss")
        ctx.mark_non_differentiable(*(value for i, value in enumerate(values) if i != ctx.loss_index))
        ctx.set_materialize_grads(False)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        grad_loss = grad_outputs[ctx.loss_index]
        if grad_loss is None:
            return (None,) * 8
        if ctx.deferred is not None:
            _, ctx.gradients = ctx.deferred.run(ctx.needs_input_grad, grad_loss)
            grad_loss = None  # is in the gradients already
        gradients, ctx.gradients, ctx.deferred = ctx.gradients, None, None
        assert gradients is not None, "the gradient was taken before; run the forward pass again"
        results = []
        for tensor, dtype in zip(gradients, ctx.dtypes, strict=True):
            if tensor is not None:
                tensor = (tensor if grad_loss is None else tensor.mul_(grad_loss)).to(dtype)
            results.append(tensor)
        return (*results, None, None, None, None, None)


class _Chunks:
    """Features, projection and loss of a batch, run chunk by chunk."""

    def __init__(
        self, features: Tensor, weight: Tensor, bias: Tensor | None, request: ScoreRequest, loss: Loss, chunk: int
    ):  # fmt: skip
        self.features, self.weight, self.bias = features, weight, bias
        self.request, self.loss, self.chunk = request, loss, chunk

    def run(
        self, needed: tuple[bool, ...] | None, grad_loss: Tensor | None = None
    ) -> tuple[Sums, list[Tensor | None] | None]:
        """The sums, and the gradients with respect to features, weight and bias where they are needed.

        Args:
            needed: whether features, weight and bias need a gradient; None for no gradients at all.
            grad_loss: derivative of what is minimised with respect to ``loss``; 1 by default.
        """
        gradients = None if needed is None else self._empty_gradients(needed)
        sums: Sums = {}
        # an empty batch is one empty chunk
        for start in range(0, max(len(self.features), 1), self.chunk):
            rows = slice(start, start + self.chunk)
            with torch.autocast(self.features.device.type, enabled=False):
                chunk_sums, grad_logits = self._one(rows, gradients is not None, grad_loss)
                if gradients is not None:
                    self._add(gradients, rows, grad_logits)
            for name, value in chunk_sums.items():
                sums[name] = sums[name] + value if name in sums else value
        return sums, gradients

    def _one(self, rows: slice, needs_grad: bool, grad_loss: Tensor | None) -> tuple[Sums, Tensor]:
        """Sums of a chunk, and the gradient with respect to its logits, ``(chunk, vocab)``."""
        logits = F.linear(self.features[rows], self.weight, self.bias)  # (chunk, dim) -> (chunk, vocab)
        request = self.request._replace(ids=self.request.ids[rows])  # ids: (chunk, n)
        scores, row_max = row_statistics(logits, request)
        if not needs_grad:
            return self.loss(scores, rows), logits
        # one leaf per score: (chunk, n) token logits and (chunk,) normalisers and sum
        score_leaves = [tensor.requires_grad_() for tensor in scores if tensor is not None]
        with torch.enable_grad():
            sums = self.loss(scores, rows)
            leaf_grads = torch.autograd.grad(sums["loss"], score_leaves, grad_loss, allow_unused=True)
        # by identity: at temperature 1 both normalisers are the same tensor
        grad_of = dict(zip(map(id, score_leaves), leaf_grads, strict=True))
        grads = ScoreGradients(*(None if tensor is None else grad_of[id(tensor)] for tensor in scores))
        if scores.tempered_log_normaliser is scores.log_normaliser:
            grads = grads._replace(tempered_log_normaliser=None)
        logits_gradient(logits, request, scores, row_max, grads, out=logits)  # overwrites the chunk's logits
        return {name: value.detach() for name, value in sums.items()}, logits

    def _empty_gradients(self, needed: tuple[bool, ...]) -> list[Tensor | None]:
        """Buffers for the gradients; those of the projection are summed over chunks in float32 at least."""
        dtype = accumulate_dtype(self.weight.dtype)
        return [
            torch.empty_like(self.features) if needed[0] else None,
            torch.zeros_like(self.weight, dtype=dtype) if needed[1] else None,
            torch.zeros_like(self.bias, dtype=dtype) if self.bias is not None and needed[2] else None,
        ]

    def _add(self, gradients: list[Tensor | None], rows: slice, grad_logits: Tensor) -> None:
        grad_features, grad_weight, grad_bias = gradients
        if grad_features is not None:
            torch.mm(grad_logits, self.weight, out=grad_features[rows])  # (chunk, vocab) -> (chunk, dim)
        if grad_weight is not None and grad_weight.dtype == grad_logits.dtype:
            grad_weight.addmm_(grad_logits.t(), self.features[rows])  # (vocab, chunk) x (chunk, dim)
        elif grad_weight is not None:
            grad_weight.add_(grad_logits.t() @ self.features[rows])
        if grad_bias is not None:
            grad_bias.add_(grad_logits.sum(dim=0, dtype=grad_bias.dtype))


def _as_autocast(*tensors: Tensor | None) -> list[Any]:
    """The tensors in autocast's type, where it is on."""
    device = next(tensor.device.type for tensor in tensors if tensor is not None)
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    dtype = torch.get_autocast_dtype(device)
    return [None if tensor is None else tensor.to(dtype) for tensor in tensors]
