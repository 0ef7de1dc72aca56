"""A loss over a vocabulary from features and the output projection, without all logits at once.

For each chunk of positions: project, find the scores (`student_scores.measure`), let the loss give its derivatives by
them, turn the logits into their gradient in place, and multiply that into the gradients of features and projection. The
logits of one chunk are all that is ever kept, and no product is made twice (as in Liger's fused loss; Hsu et al. 2024).

Under float16 the gradient has to be multiplied by the host's loss scale before it is rounded, and the scale is known
only on the way back: there a chunk's logits are made again (one product more).
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fairseq_bert_kd.functional.student_scores import (
    Derivatives,
    StudentScores,
    Wanted,
    exact_type,
    gradient,
    measure,
)

CHUNK_LOGITS = 1 << 24  # 64 MiB in float32
MOST_CHUNKS = 16  # each adds a pass over the gradient of the projection

Sums = dict[str, Tensor]
Loss = Callable[[StudentScores, slice], Sums]


def chunked_sums(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    wanted: Wanted,
    loss: Loss,
    chunk: int | None = None,
) -> Sums:
    """What ``loss`` returns, added up over chunks of positions; ``loss`` is differentiable.

    Args:
        features: ``(positions, dim)``.
        weight: ``(vocab, dim)`` of the projection; may be shared with embeddings.
        bias: ``(vocab,)`` or None.
        wanted: scores that the loss looks at, for all positions.
        loss: from the scores of ``rows`` (a slice of the positions) to scalars by name, ``loss`` among them, made by
            differentiable operations.
        chunk: positions of a chunk; by default as `chunk_positions` says.
    """
    names: list[str] = []
    chunk = chunk or chunk_positions(len(features), len(weight))
    learn = torch.is_grad_enabled()  # always off inside
    values = _ChunkedSums.apply(features, weight, bias, wanted, loss, chunk, names, learn)
    return dict(zip(names, values, strict=True))


def chunk_positions(positions: int, vocab: int) -> int:
    """Positions of a chunk: `CHUNK_LOGITS` logits, more where that would make over `MOST_CHUNKS` chunks."""
    chunks = min(-(-positions * vocab // CHUNK_LOGITS), MOST_CHUNKS)
    return -(-positions // max(chunks, 1)) or 1


class _ChunkedSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, wanted: Wanted, loss: Loss, chunk: int,
        names: list[str], learn: bool,
    ) -> Any:  # fmt: skip
        ctx.types = [None if tensor is None else tensor.dtype for tensor in (features, weight, bias)]
        features, weight, bias = _as_autocast(features, weight, bias)
        chunks = _Chunks(features, weight, bias, wanted, loss, chunk)
        learn = learn and any(ctx.needs_input_grad)
        ctx.late = chunks if learn and chunks.features.dtype == torch.float16 else None
        sums, ctx.gradients = chunks.run(ctx.needs_input_grad if learn and ctx.late is None else None)
        names.extend(sums)
        values = tuple(sums.values())
        ctx.place = names.index("loss")
        ctx.mark_non_differentiable(*(value for i, value in enumerate(values) if i != ctx.place))
        ctx.set_materialize_grads(False)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *by: Any) -> Any:
        scale = by[ctx.place]
        if scale is None:
            return (None,) * 8
        if ctx.late is not None:
            _, ctx.gradients = ctx.late.run(ctx.needs_input_grad, scale)
            scale = None
        gradients, ctx.gradients, ctx.late = ctx.gradients, None, None
        assert gradients is not None, "the gradient was taken before; run the forward pass again"
        results = []
        for tensor, dtype in zip(gradients, ctx.types, strict=True):
            if tensor is not None:
                tensor = (tensor if scale is None else tensor.mul_(scale)).to(dtype)
            results.append(tensor)
        return (*results, None, None, None, None, None)


class _Chunks:
    """Features, projection and loss of a batch, to be run chunk by chunk."""

    def __init__(
        self, features: Tensor, weight: Tensor, bias: Tensor | None, wanted: Wanted, loss: Loss, chunk: int
    ):
        self.features, self.weight, self.bias = features, weight, bias
        self.wanted, self.loss, self.chunk = wanted, loss, chunk

    def run(
        self, needed: tuple[bool, ...] | None, scale: Tensor | None = None
    ) -> tuple[Sums, list[Tensor | None] | None]:
        """The sums, and the gradients by features, weight and bias where they are needed.

        Args:
            needed: of features, weight and bias; None for no gradients at all.
            scale: derivative of what is minimised by ``loss``; 1 by default.
        """
        gradients = None if needed is None else self._empty_gradients(needed)
        sums: Sums = {}
        # an empty batch is one empty chunk
        for start in range(0, max(len(self.features), 1), self.chunk):
            rows = slice(start, start + self.chunk)
            with torch.autocast(self.features.device.type, enabled=False):
                found, by_logits = self._one(rows, gradients is not None, scale)
                if gradients is not None:
                    self._add(gradients, rows, by_logits)
            for name, value in found.items():
                sums[name] = sums[name] + value if name in sums else value
        return sums, gradients

    def _one(self, rows: slice, learn: bool, scale: Tensor | None) -> tuple[Sums, Tensor]:
        """Sums of a chunk, and the gradient by its logits ``(rows, vocab)``."""
        logits = F.linear(self.features[rows], self.weight, self.bias)
        wanted = self.wanted._replace(ids=self.wanted.ids[rows])
        scores, best = measure(logits, wanted)
        if not learn:
            return self.loss(scores, rows), logits
        leaves = [tensor.requires_grad_() for tensor in scores if tensor is not None]
        with torch.enable_grad():
            sums = self.loss(scores, rows)
            by = torch.autograd.grad(sums["loss"], leaves, scale, allow_unused=True)
        found = dict(zip(map(id, leaves), by, strict=True))
        derivatives = Derivatives(*(None if tensor is None else found[id(tensor)] for tensor in scores))
        if scores.tempered_log_normaliser is scores.log_normaliser:
            derivatives = derivatives._replace(tempered_log_normaliser=None)
        gradient(logits, wanted, scores, best, derivatives, out=logits)
        return {name: value.detach() for name, value in sums.items()}, logits

    def _empty_gradients(self, needed: tuple[bool, ...]) -> list[Tensor | None]:
        """Zeros to add to; a shared projection is summed over chunks in float32 at least."""
        exact = exact_type(self.weight.dtype)
        return [
            torch.empty_like(self.features) if needed[0] else None,
            torch.zeros_like(self.weight, dtype=exact) if needed[1] else None,
            torch.zeros_like(self.bias, dtype=exact) if self.bias is not None and needed[2] else None,
        ]

    def _add(self, gradients: list[Tensor | None], rows: slice, by_logits: Tensor) -> None:
        by_features, by_weight, by_bias = gradients
        if by_features is not None:
            torch.mm(by_logits, self.weight, out=by_features[rows])
        if by_weight is not None and by_weight.dtype == by_logits.dtype:
            by_weight.addmm_(by_logits.t(), self.features[rows])
        elif by_weight is not None:
            by_weight.add_(by_logits.t() @ self.features[rows])
        if by_bias is not None:
            by_bias.add_(by_logits.sum(dim=0, dtype=by_bias.dtype))


def _as_autocast(*tensors: Tensor | None) -> list[Any]:
    """The tensors in autocast's type, where it is on."""
    device = next(tensor.device.type for tensor in tensors if tensor is not None)
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    dtype = torch.get_autocast_dtype(device)
    return [None if tensor is None else tensor.to(dtype) for tensor in tensors]
