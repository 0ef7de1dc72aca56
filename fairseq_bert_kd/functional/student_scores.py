"""The few numbers per position that every loss over a vocabulary needs, with their gradient in closed form.

Label smoothing, the gold label and soft labels need only these of a row of logits ``z``: the values at some tokens, the
log-normaliser ``log Z = logsumexp(z)``, another one at a temperature T, and perhaps the plain sum. A loss of these has the
gradient

    d loss / dz_w = a softmax(z)_w + b softmax(z / T)_w / T + c + (sparse entries)

where ``a, b, c`` are its derivatives with respect to the two log-normalisers and the sum. So a loss is written in ordinary
autograd on ``(positions,)`` and ``(positions, n)`` tensors, and no second buffer of vocabulary size is kept. fairseq's
plain cross-entropy keeps log-probabilities in float32 beside the logits and makes two more such buffers in the backward
pass. On a CPU rows are processed in blocks that stay in its cache, on a GPU by the kernels of `triton_kernels` or, without
Triton, by PyTorch's operations on all rows together.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fairseq_bert_kd.functional import triton_kernels

BLOCK = {
    "cpu": 1 << 20
}  # logits per block, 4 MiB in float32; all on other devices, where every operation is a launch


class StudentScores(NamedTuple):
    """Statistics of each row of logits; all in float32 (float64 for logits in float64).

    Everything is relative to the row's best logit, which counts as a constant. Use it in expressions that do not change
    when all logits of a row move together, as every function of the softmax.

    Attributes:
        logits: ``(positions, n)`` at the requested tokens; 0 at the best token.
        log_normaliser: ``(positions,)``, ``logsumexp(z)``.
        tempered_log_normaliser: ``(positions,)``, ``logsumexp(z / T)``.
        logit_sum: ``(positions,)`` sum of the row; None if not requested.
    """

    logits: Tensor
    log_normaliser: Tensor
    tempered_log_normaliser: Tensor
    logit_sum: Tensor | None


class ScoreRequest(NamedTuple):
    """Which statistics of each row of logits to compute.

    Attributes:
        ids: ``(positions, n)`` int64 tokens, repeats allowed.
        temperature: temperature of the second log-normaliser; 1 for none.
        logit_sum: whether to sum the logits of each row.
    """

    ids: Tensor
    temperature: float
    logit_sum: bool


class ScoreGradients(NamedTuple):
    """Gradient of a loss with respect to each field of `StudentScores`; None where it does not depend on one."""

    logits: Tensor | None
    log_normaliser: Tensor | None
    tempered_log_normaliser: Tensor | None
    logit_sum: Tensor | None


class RowStatistics(NamedTuple):
    """Statistics of each row, in float32 (float64 for logits in float64); relative to the best logit.

    Attributes:
        token_logits: ``(positions, n)`` at the requested tokens.
        row_max: ``(positions,)`` best logit.
        log_normaliser: ``(positions,)`` at temperature 1.
        tempered_log_normaliser: ``(positions,)`` at the request's temperature; not filled in at temperature 1.
        logit_sum: ``(positions,)``; not filled in if not requested.
    """

    token_logits: Tensor
    row_max: Tensor
    log_normaliser: Tensor
    tempered_log_normaliser: Tensor
    logit_sum: Tensor

    @classmethod
    def empty(cls, ids: Tensor, dtype: torch.dtype) -> "RowStatistics":
        """Buffers for the statistics of logits of a type, at ``(positions, n)`` tokens."""
        dtype = accumulate_dtype(dtype)
        return cls(ids.new_empty(ids.shape, dtype=dtype), *ids.new_empty(4, len(ids), dtype=dtype).unbind())

    def select(self, rows: slice) -> "RowStatistics":
        """Some of the positions."""
        return RowStatistics(*(part[rows] for part in self))

    def scores(self, request: ScoreRequest) -> StudentScores:
        """What was requested."""
        tempered = self.log_normaliser if request.temperature == 1.0 else self.tempered_log_normaliser
        return StudentScores(
            self.token_logits, self.log_normaliser, tempered, self.logit_sum if request.logit_sum else None
        )


def student_scores(logits: Tensor, request: ScoreRequest) -> StudentScores:
    """Scores of rows of logits, differentiable (once) with respect to the logits.

    Args:
        logits: ``(positions, vocab)`` of any floating type.
        request: what to compute.
    """
    return scores_from_outputs(_StudentScores.apply(logits, *request))


def row_statistics(logits: Tensor, request: ScoreRequest, out: RowStatistics) -> None:
    """Write the statistics of rows of logits.

    Args:
        logits: ``(positions, vocab)``.
        request: what to compute.
        out: buffers of as many positions.
    """
    if triton_kernels.usable(logits):
        triton_kernels.statistics(logits, *request, *out)
        return
    tempered = request.temperature != 1.0
    buffers = BlockBuffers(logits, accumulate_dtype(logits.dtype), 2 if tempered else 1)
    for rows in buffers.blocks:
        block, part = logits[rows], out.select(rows)  # block: (block rows, vocab)
        part.row_max.copy_(block.amax(dim=1))
        shifted = torch.sub(block, part.row_max[:, None], out=buffers.view(0, block))
        torch.gather(shifted, 1, request.ids[rows], out=part.token_logits)
        if request.logit_sum:
            torch.sum(shifted, dim=1, out=part.logit_sum)
        if tempered:
            divided = torch.div(shifted, request.temperature, out=buffers.view(1, block))
            torch.sum(divided.exp_(), dim=1, out=part.tempered_log_normaliser)
        torch.sum(shifted.exp_(), dim=1, out=part.log_normaliser)  # last, as it overwrites the shifted logits
    out.log_normaliser.log_()
    if tempered:
        out.tempered_log_normaliser.log_()


def logits_gradient(
    logits: Tensor, request: ScoreRequest, statistics: RowStatistics, grads: ScoreGradients, out: Tensor
) -> None:
    """Write the gradient with respect to the logits, by the formula at the top of this file.

    Args:
        logits: ``(positions, vocab)``.
        request: scores to compute, as given to `row_statistics`.
        statistics: result of `row_statistics`; best logits and log-normalisers are read.
        grads: gradient of the loss with respect to the scores.
        out: ``(positions, vocab)`` of any floating type; may be ``logits`` itself.
    """
    if triton_kernels.usable(logits):
        read = statistics[1:4]
        triton_kernels.gradient(logits, request.ids, request.temperature, *read, grads, out)
        return
    dtype = accumulate_dtype(logits.dtype)
    in_place = out.dtype == dtype  # otherwise a buffer holds the sum before it is rounded
    unit, tempered = _exp_factors(request, statistics, grads)
    buffers = BlockBuffers(logits, dtype, (0 if in_place else 1) + (0 if tempered is None else 1))
    for rows in buffers.blocks:
        block, best = logits[rows], statistics.row_max[rows, None]  # (block rows, vocab), (block rows, 1)
        if tempered is not None:
            tempered_part = torch.sub(block, best, out=buffers.view(-1, block))
            tempered_part.div_(request.temperature).exp_().mul_(tempered[rows, None])
        result = out[rows] if in_place else buffers.view(0, block)
        if unit is None:
            result.zero_()
        else:
            # best and normaliser one after the other: their sum would round the normaliser to the size of the logits
            torch.sub(block, best, out=result).exp_().mul_(unit[rows, None])
        if tempered is not None:
            result.add_(tempered_part)
        if grads.logit_sum is not None:
            result.add_(grads.logit_sum[rows, None])
        if grads.logits is not None:
            result.scatter_add_(1, request.ids[rows], grads.logits[rows])
        if not in_place:
            out[rows] = result


def _exp_factors(
    request: ScoreRequest, statistics: RowStatistics, grads: ScoreGradients
) -> tuple[Tensor | None, Tensor | None]:
    """``(positions,)`` factors of ``exp(z)`` and ``exp(z / T)`` in the gradient; None for none."""
    unit = tempered = None
    if grads.log_normaliser is not None:
        unit = grads.log_normaliser * torch.exp(-statistics.log_normaliser)
    if grads.tempered_log_normaliser is not None:
        factor = torch.exp(-statistics.tempered_log_normaliser) / request.temperature
        tempered = grads.tempered_log_normaliser * factor
    return unit, tempered


class BlockBuffers:
    """Buffers for blocks of rows, used again for every block: fresh memory costs more than the arithmetic.

    Args:
        logits: ``(positions, vocab)`` to be processed.
        dtype: type of the buffers.
        count: number of buffers.

    Attributes:
        blocks: slices of the rows.
    """

    def __init__(self, logits: Tensor, dtype: torch.dtype, count: int):
        positions, vocab = logits.shape
        step = max(BLOCK.get(logits.device.type, logits.numel()) // max(vocab, 1), 1)
        self.blocks = [slice(start, min(start + step, positions)) for start in range(0, positions, step)]
        size = min(step, positions) * vocab
        self._buffers = [logits.new_empty(size, dtype=dtype) for _ in range(count)]

    def view(self, index: int, block: Tensor) -> Tensor:
        """A buffer in the shape of a block."""
        return self._buffers[index][: block.numel()].view_as(block)


def function_outputs(scores: StudentScores) -> tuple[Tensor | None, ...]:
    """The scores as an autograd function returns them: each tensor once."""
    tempered = scores.tempered_log_normaliser
    once = None if tempered is scores.log_normaliser else tempered
    return scores.logits, scores.log_normaliser, once, scores.logit_sum


def scores_from_outputs(outputs: Any) -> StudentScores:
    """The scores from `function_outputs`."""
    token_logits, log_normaliser, tempered, logit_sum = outputs
    return StudentScores(
        token_logits, log_normaliser, log_normaliser if tempered is None else tempered, logit_sum
    )


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type in which sums over rows of this type are computed."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class _StudentScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, temperature: float, logit_sum: bool) -> Any:
        ctx.request = temperature, logit_sum
        request = ScoreRequest(ids, *ctx.request)
        statistics = RowStatistics.empty(ids, logits.dtype)
        row_statistics(logits, request, statistics)
        ctx.save_for_backward(logits, ids, *statistics)
        ctx.set_materialize_grads(False)
        return function_outputs(statistics.scores(request))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        logits, ids, *statistics = ctx.saved_tensors
        grad_logits = torch.empty_like(logits)
        request, grads = ScoreRequest(ids, *ctx.request), ScoreGradients(*grad_outputs)
        logits_gradient(logits, request, RowStatistics(*statistics), grads, out=grad_logits)
        return grad_logits, None, None, None
