"""A loss over a vocabulary from features and the output projection, chunk by chunk, for a CPU.

For each chunk of positions: project, compute the scores (`student_scores.row_statistics`), let the loss give its gradient
with respect to them, turn the logits into their gradient in place, and multiply that into the gradients of features and
projection. The logits of one chunk are all that is ever kept, and no product is computed twice (as in Liger's fused loss;
Hsu et al. 2024). The loss runs once per chunk, which is nothing on a CPU; on a GPU it would be hundreds of launches, see
`projected_scores`.

The gradient is computed in the forward pass and multiplied by what comes back. In float16 that is too late for a loss scale,
so float16 is not for this form.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fairseq_bert_kd.functional.projected_scores import ProjectionGradients, as_autocast, chunk_slices
from fairseq_bert_kd.functional.student_scores import (
    RowStatistics,
    ScoreGradients,
    ScoreRequest,
    StudentScores,
    function_outputs,
    logits_gradient,
    row_statistics,
    scores_from_outputs,
)

Sums = dict[str, Tensor]
Loss = Callable[[StudentScores, slice], Sums]


def chunked_sums(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    request: ScoreRequest,
    loss: Loss,
    chunk: int,
) -> Sums:
    """Sums over chunks of positions of what ``loss`` returns; the sum named ``loss`` is differentiable.

    Args:
        features: ``(positions, dim)``.
        weight: ``(vocab, dim)`` of the projection; may be shared with embeddings.
        bias: ``(vocab,)`` or None.
        request: scores that the loss needs, for all positions.
        loss: function from the scores of ``rows`` (a slice of the positions) to scalars by name, ``loss`` among them,
            made by differentiable operations.
        chunk: positions per chunk.
    """
    names: list[str] = []
    grad_enabled = torch.is_grad_enabled()  # always off inside the function
    values = _ChunkedSums.apply(features, weight, bias, request, loss, chunk, names, grad_enabled)
    return dict(zip(names, values, strict=True))


class _ChunkedSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, request: ScoreRequest, loss: Loss, chunk: int,
        names: list[str], grad_enabled: bool,
    ) -> Any:  # fmt: skip
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in (features, weight, bias)]
        features, weight, bias = as_autocast(features, weight, bias)
        assert features.dtype != torch.float16, "float16 needs `projected_scores`"
        ctx.gradients = None
        sums: Sums = {}
        chunks = chunk_slices(len(features), chunk)
        if grad_enabled and any(ctx.needs_input_grad):
            ctx.gradients = ProjectionGradients(features, weight, ctx.needs_input_grad[:3], len(chunks))
        with torch.autocast(features.device.type, enabled=False):
            for rows in chunks:
                logits = F.linear(features[rows], weight, bias)  # (chunk, dim) -> (chunk, vocab)
                chunk_request = request._replace(ids=request.ids[rows])
                if ctx.gradients is None:
                    chunk_sums = loss(_statistics(logits, chunk_request).scores(chunk_request), rows)
                else:
                    chunk_sums = _turn_into_gradient(logits, chunk_request, loss, rows)
                    ctx.gradients.add(rows, logits)
                for name, value in chunk_sums.items():
                    sums[name] = sums[name] + value if name in sums else value
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
        gradients, ctx.gradients = ctx.gradients, None
        assert gradients is not None, "the gradient was taken before; run the forward pass again"
        return (*gradients.results(ctx.dtypes, grad_loss), None, None, None, None, None)


def _statistics(logits: Tensor, request: ScoreRequest) -> RowStatistics:
    statistics = RowStatistics.empty(request.ids, logits.dtype)
    row_statistics(logits, request, statistics)
    return statistics


def _turn_into_gradient(logits: Tensor, request: ScoreRequest, loss: Loss, rows: slice) -> Sums:
    """Overwrite a chunk's logits, ``(chunk, vocab)``, by the gradient with respect to them; the sums of the chunk."""
    statistics = _statistics(logits, request)
    # one leaf per score: (chunk, n) token logits and (chunk,) normalisers and sum
    scores = [
        None if part is None else part.detach() for part in function_outputs(statistics.scores(request))
    ]
    score_leaves = [part.requires_grad_() for part in scores if part is not None]
    with torch.enable_grad():
        sums = loss(scores_from_outputs(scores), rows)
        found = iter(torch.autograd.grad(sums["loss"], score_leaves, allow_unused=True))
    grads = ScoreGradients(*(None if part is None else next(found) for part in scores))
    logits_gradient(logits, request, statistics, grads, out=logits)
    return {name: value.detach() for name, value in sums.items()}
