"""A student's scores from its features and output projection, for a GPU.

The forward pass computes the scores of all positions (`student_scores.row_statistics`); a loss on them is ordinary
autograd, once for the whole batch. The backward pass turns the logits into their gradient in place and multiplies it into
the gradients of features and projection. Its gradients carry whatever the loss was multiplied by, so float16's loss scale
needs nothing of its own.

Where all logits together are too large, both passes go through chunks of positions, and the backward pass computes the
logits of a chunk again: one product more, as in Cut Cross-Entropy (Wijmans et al. 2025).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fairseq_bert_kd.functional.student_scores import (
    RowStatistics,
    ScoreGradients,
    ScoreRequest,
    StudentScores,
    accumulate_dtype,
    function_outputs,
    logits_gradient,
    row_statistics,
    scores_from_outputs,
)


def projected_scores(
    features: Tensor, weight: Tensor, bias: Tensor | None, request: ScoreRequest, chunk: int
) -> StudentScores:
    """Scores of the projected features, differentiable (once) with respect to features and projection.

    Args:
        features: ``(positions, dim)``.
        weight: ``(vocab, dim)`` of the projection; may be shared with embeddings.
        bias: ``(vocab,)`` or None.
        request: what to compute, for all positions.
        chunk: positions per chunk. One chunk keeps its logits for the backward pass.
    """
    return scores_from_outputs(_ProjectedScores.apply(features, weight, bias, *request, chunk))


class ProjectionGradients:
    """Gradients with respect to features, weight and bias, summed over chunks of positions.

    Sums over chunks of half precision are in float32.

    Args:
        features: ``(positions, dim)``.
        weight: ``(vocab, dim)``.
        needed: which of the three are needed.
        chunks: number of chunks.
    """

    def __init__(self, features: Tensor, weight: Tensor, needed: tuple[bool, ...], chunks: int):
        self._features, self._weight, self._needed = features, weight, needed
        self._dtype = accumulate_dtype(weight.dtype) if chunks > 1 else weight.dtype
        self._of_features = torch.empty_like(features) if needed[0] else None
        self._of_weight: Tensor | None = None
        self._of_bias: Tensor | None = None

    def add(self, rows: slice, grad_logits: Tensor) -> None:
        """Add a chunk with this gradient with respect to its logits, ``(chunk, vocab)``."""
        if self._of_features is not None:
            torch.mm(grad_logits, self._weight, out=self._of_features[rows])  # (chunk, vocab) -> (chunk, dim)
        if self._needed[1]:
            features = self._features[rows]
            if self._of_weight is not None and self._dtype == grad_logits.dtype:
                self._of_weight.addmm_(grad_logits.t(), features)  # (vocab, chunk) x (chunk, dim)
            else:
                self._of_weight = _sum(self._of_weight, grad_logits.t() @ features, self._dtype)
        if self._needed[2]:
            of_bias = grad_logits.sum(dim=0, dtype=accumulate_dtype(grad_logits.dtype))
            self._of_bias = _sum(self._of_bias, of_bias, of_bias.dtype)

    def results(self, dtypes: list[torch.dtype | None], factor: Tensor | None = None) -> list[Tensor | None]:
        """The three gradients, multiplied by a factor and then in these types; None where one is not needed."""
        results = []
        for gradient, dtype in zip((self._of_features, self._of_weight, self._of_bias), dtypes, strict=True):
            if gradient is not None:
                gradient = (gradient if factor is None else gradient.mul_(factor)).to(dtype)
            results.append(gradient)
        return results


def chunk_slices(positions: int, chunk: int) -> list[slice]:
    """The chunks of a batch; an empty batch is one empty chunk."""
    return [slice(start, start + chunk) for start in range(0, max(positions, 1), chunk)]


def product_dtype(tensor: Tensor) -> torch.dtype:
    """Type in which a tensor is multiplied: autocast's where it is on, else its own."""
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype


def as_autocast(*tensors: Tensor | None) -> list[Any]:
    """The tensors in autocast's type, where it is on."""
    first = next(tensor for tensor in tensors if tensor is not None)
    if not torch.is_autocast_enabled(first.device.type):
        return list(tensors)
    dtype = product_dtype(first)
    return [None if tensor is None else tensor.to(dtype) for tensor in tensors]


def _sum(so_far: Tensor | None, product: Tensor, dtype: torch.dtype) -> Tensor:
    return product.to(dtype) if so_far is None else so_far.add_(product)


class _ProjectedScores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, temperature: float, logit_sum: bool,
        chunk: int,
    ) -> Any:  # fmt: skip
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in (features, weight, bias)]
        ctx.request, ctx.chunk, ctx.logits = (temperature, logit_sum), chunk, None
        features, weight, bias = as_autocast(features, weight, bias)
        statistics = RowStatistics.empty(ids, features.dtype)
        with torch.autocast(features.device.type, enabled=False):
            for rows in chunk_slices(len(features), chunk):
                logits = F.linear(features[rows], weight, bias)  # (chunk, dim) -> (chunk, vocab)
                row_statistics(logits, ScoreRequest(ids[rows], *ctx.request), statistics.select(rows))
        if len(features) <= chunk and any(ctx.needs_input_grad):
            ctx.logits = logits
        ctx.save_for_backward(features, weight, bias, ids, *statistics)
        ctx.set_materialize_grads(False)
        return function_outputs(statistics.scores(ScoreRequest(ids, *ctx.request)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        features, weight, bias, ids, *parts = ctx.saved_tensors
        statistics = RowStatistics(*parts)
        kept, ctx.logits = ctx.logits, None  # overwritten below; a second backward pass computes them again
        chunks = chunk_slices(len(features), ctx.chunk)
        gradients = ProjectionGradients(features, weight, ctx.needs_input_grad[:3], len(chunks))
        with torch.autocast(features.device.type, enabled=False):
            for rows in chunks:
                logits = F.linear(features[rows], weight, bias) if kept is None else kept
                request = ScoreRequest(ids[rows], *ctx.request)
                grads = ScoreGradients(*(None if grad is None else grad[rows] for grad in grad_outputs))
                logits_gradient(logits, request, statistics.select(rows), grads, out=logits)
                gradients.add(rows, logits)
        return (*gradients.results(ctx.dtypes), None, None, None, None)
