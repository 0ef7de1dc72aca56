"""The few numbers per position that every loss over a vocabulary needs, with their gradient in closed form.

Label smoothing, the gold label and soft labels need only these of a row of logits ``z``: the values at some tokens, the
log-normaliser ``log Z = logsumexp(z)``, another one at a temperature T, and perhaps the plain sum. A loss of these has the
gradient

    d loss / dz_w = a softmax(z)_w + b softmax(z / T)_w / T + c + (sparse entries)

where ``a, b, c`` are its derivatives with respect to the two log-normalisers and the sum. So a loss is written in ordinary
autograd on ``(positions,)`` and ``(positions, n)`` tensors, and no second buffer of vocabulary size is kept. fairseq's
plain cross-entropy keeps log-probabilities in float32 beside the logits and makes two more such buffers in the backward
pass. Rows are processed in blocks that stay in a processor's cache.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = {"cpu": 1 << 20}  # logits per block: 4 MiB in float32
LARGE_BLOCK = 1 << 25  # on a GPU, where starting a kernel costs more than memory


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


def student_scores(logits: Tensor, request: ScoreRequest) -> StudentScores:
    """Scores of rows of logits, differentiable (once) with respect to the logits.

    Args:
        logits: ``(positions, vocab)`` of any floating type.
        request: what to compute.
    """
    token_logits, log_normaliser, tempered, logit_sum = _StudentScores.apply(logits, *request)
    tempered = log_normaliser if request.temperature == 1.0 else tempered
    return StudentScores(token_logits, log_normaliser, tempered, logit_sum)


def row_statistics(logits: Tensor, request: ScoreRequest) -> tuple[StudentScores, Tensor]:
    """`student_scores` without a gradient, and the best logit of each row, ``(positions, 1)``."""
    positions, dtype = len(logits), accumulate_dtype(logits.dtype)
    row_max = logits.new_empty(positions, 1, dtype=dtype)
    token_logits = logits.new_empty(request.ids.shape, dtype=dtype)  # (positions, n)
    exp_sums, tempered_exp_sums = (logits.new_empty(positions, dtype=dtype) for _ in range(2))
    logit_sums = torch.empty_like(exp_sums) if request.logit_sum else None
    buffers = BlockBuffers(logits, dtype, 2 if request.temperature != 1.0 else 1)
    for rows in buffers.blocks:
        block = logits[rows]  # (block rows, vocab)
        row_max[rows] = block.amax(dim=1, keepdim=True)
        shifted = torch.sub(block, row_max[rows], out=buffers.view(0, block))
        torch.gather(shifted, 1, request.ids[rows], out=token_logits[rows])
        if logit_sums is not None:
            logit_sums[rows] = shifted.sum(dim=1)
        if request.temperature != 1.0:
            tempered = torch.div(shifted, request.temperature, out=buffers.view(1, block))
            tempered_exp_sums[rows] = tempered.exp_().sum(dim=1)
        exp_sums[rows] = shifted.exp_().sum(dim=1)  # last, as it overwrites the shifted logits
    log_normaliser = exp_sums.log_()
    tempered_log_normaliser = tempered_exp_sums.log_() if request.temperature != 1.0 else log_normaliser
    return StudentScores(token_logits, log_normaliser, tempered_log_normaliser, logit_sums), row_max


def logits_gradient(
    logits: Tensor,
    request: ScoreRequest,
    scores: StudentScores,
    row_max: Tensor,
    grads: ScoreGradients,
    out: Tensor,
) -> None:
    """Write the gradient with respect to the logits, by the formula at the top of this file.

    Args:
        logits: ``(positions, vocab)``.
        request: as given to `row_statistics`.
        scores: from `row_statistics`.
        row_max: from `row_statistics`.
        grads: gradient of the loss with respect to the scores.
        out: ``(positions, vocab)`` of any floating type; may be ``logits`` itself.
    """
    dtype = accumulate_dtype(logits.dtype)
    in_place = out.dtype == dtype  # otherwise a buffer holds the sum before it is rounded
    grad_tempered = grads.tempered_log_normaliser
    buffers = BlockBuffers(logits, dtype, (0 if in_place else 1) + (0 if grad_tempered is None else 1))
    for rows in buffers.blocks:
        block = logits[rows]  # (block rows, vocab)
        if grad_tempered is not None:
            tempered = torch.sub(block, row_max[rows], out=buffers.view(-1, block))
            tempered.div_(request.temperature).exp_()
            factor = grad_tempered[rows] / request.temperature
            tempered.mul_((factor * torch.exp(-scores.tempered_log_normaliser[rows]))[:, None])
        result = out[rows] if in_place else buffers.view(0, block)
        if grads.log_normaliser is None:
            result.zero_()
        else:
            # best and normaliser one after the other: their sum would round the normaliser to the size of the logits
            torch.sub(block, row_max[rows], out=result).exp_()
            result.mul_((grads.log_normaliser[rows] * torch.exp(-scores.log_normaliser[rows]))[:, None])
        if grad_tempered is not None:
            result.add_(tempered)
        if grads.logit_sum is not None:
            result.add_(grads.logit_sum[rows, None])
        if grads.logits is not None:
            result.scatter_add_(1, request.ids[rows], grads.logits[rows])
        if not in_place:
            out[rows] = result


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
        step = max(BLOCK.get(logits.device.type, LARGE_BLOCK) // max(vocab, 1), 1)
        self.blocks = [slice(start, min(start + step, positions)) for start in range(0, positions, step)]
        size = min(step, positions) * vocab
        self._buffers = [logits.new_empty(size, dtype=dtype) for _ in range(count)]

    def view(self, index: int, block: Tensor) -> Tensor:
        """A buffer in the shape of a block."""
        return self._buffers[index][: block.numel()].view_as(block)


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type in which sums over rows of this type are computed."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class _StudentScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, temperature: float, logit_sum: bool) -> Any:
        request = ScoreRequest(ids, temperature, logit_sum)
        scores, row_max = row_statistics(logits, request)
        ctx.temperature, ctx.logit_sum = temperature, logit_sum
        ctx.save_for_backward(logits, ids, row_max, scores.log_normaliser, scores.tempered_log_normaliser)
        ctx.set_materialize_grads(False)
        tempered = scores.tempered_log_normaliser
        if temperature == 1.0:  # an output may be returned once only
            tempered = tempered.new_empty(0)
        return scores.logits, scores.log_normaliser, tempered, scores.logit_sum

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        logits, ids, row_max, log_normaliser, tempered = ctx.saved_tensors
        request = ScoreRequest(ids, ctx.temperature, ctx.logit_sum)
        grads = ScoreGradients(*grad_outputs)
        if ctx.temperature == 1.0:
            grads = grads._replace(tempered_log_normaliser=None)
        grad_logits = torch.empty_like(logits)
        scores = StudentScores(ids, log_normaliser, tempered, None)  # the gradient reads the normalisers only
        logits_gradient(logits, request, scores, row_max, grads, out=grad_logits)
        return grad_logits, None, None, None
