"""The few numbers of each position that every loss over a vocabulary is made of, with their gradient in closed form.

Label smoothing, the gold label and soft labels need of a row of logits ``z`` only: values at some tokens, ``log sum exp``
at one or two temperatures, and perhaps the plain sum. A loss of these has the gradient

    d loss / dz_w = a softmax(z)_w + b softmax(z / T)_w / T + c + (sparse entries)

with ``a, b, c`` its derivatives by the two log-normalisers and the sum. So a loss is written in ordinary autograd on
``(positions,)`` and ``(positions, n)`` tensors, and no second buffer of vocabulary size is kept: the plain cross-entropy
of the host keeps log-probabilities in float32 beside the logits and makes two more such buffers going back. Rows are
worked on in blocks that stay in a processor's cache.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = {"cpu": 1 << 20}  # logits of a block: 4 MiB in float32
LARGE_BLOCK = 1 << 25  # on a GPU, where starting a kernel costs more than memory


class StudentScores(NamedTuple):
    """Of some positions; all in float32 (float64 for logits in float64).

    Everything is relative to the row's best logit, which counts as a constant: use it in expressions that do not change
    when all logits of a row move together, as every function of the softmax.

    Attributes:
        logits: ``(positions, n)`` at the tokens that were asked for; 0 at the best token.
        log_normaliser: ``(positions,)`` log of the sum of ``exp(z)``.
        tempered_log_normaliser: ``(positions,)`` of ``exp(z / T)``.
        total: ``(positions,)`` sum of the logits; None when not asked for.
    """

    logits: Tensor
    log_normaliser: Tensor
    tempered_log_normaliser: Tensor
    total: Tensor | None


class Wanted(NamedTuple):
    """What to find out about each row of logits.

    Attributes:
        ids: ``(positions, n)`` int64 tokens, repeats allowed.
        temperature: of the second log-normaliser; 1 for none.
        total: the sum of the logits too.
    """

    ids: Tensor
    temperature: float
    total: bool


class Derivatives(NamedTuple):
    """Of a loss by the fields of `StudentScores`; None where it does not depend on one."""

    logits: Tensor | None
    log_normaliser: Tensor | None
    tempered_log_normaliser: Tensor | None
    total: Tensor | None


def student_scores(logits: Tensor, wanted: Wanted) -> StudentScores:
    """Scores of rows of logits, differentiable by the logits (once).

    Args:
        logits: ``(positions, vocab)`` of any floating type.
        wanted: see `Wanted`.
    """
    found, log_normaliser, tempered, total = _StudentScores.apply(logits, *wanted)
    tempered = log_normaliser if wanted.temperature == 1.0 else tempered
    return StudentScores(found, log_normaliser, tempered, total)


def measure(logits: Tensor, wanted: Wanted) -> tuple[StudentScores, Tensor]:
    """`student_scores` without a gradient, and the best logit of each row, ``(positions, 1)``."""
    positions, exact = len(logits), exact_type(logits.dtype)
    best = logits.new_empty(positions, 1, dtype=exact)
    found = logits.new_empty(wanted.ids.shape, dtype=exact)
    sums, tempered_sums = (logits.new_empty(positions, dtype=exact) for _ in range(2))
    totals = torch.empty_like(sums) if wanted.total else None
    scratch = Scratch(logits, exact, 2 if wanted.temperature != 1.0 else 1)
    for rows in scratch.blocks:
        block = logits[rows]
        best[rows] = block.amax(dim=1, keepdim=True)
        shifted = torch.sub(block, best[rows], out=scratch.view(0, block))
        torch.gather(shifted, 1, wanted.ids[rows], out=found[rows])
        if totals is not None:
            totals[rows] = shifted.sum(dim=1)
        if wanted.temperature != 1.0:
            tempered = torch.div(shifted, wanted.temperature, out=scratch.view(1, block))
            tempered_sums[rows] = tempered.exp_().sum(dim=1)
        sums[rows] = shifted.exp_().sum(dim=1)
    log_normaliser = sums.log_()
    tempered_log_normaliser = tempered_sums.log_() if wanted.temperature != 1.0 else log_normaliser
    return StudentScores(found, log_normaliser, tempered_log_normaliser, totals), best


def gradient(
    logits: Tensor, wanted: Wanted, scores: StudentScores, best: Tensor, by: Derivatives, out: Tensor
) -> None:
    """Write the gradient by the logits, see the head of this file.

    Args:
        logits: ``(positions, vocab)``.
        wanted: as given to `measure`.
        scores: from `measure`.
        best: from `measure`.
        by: derivatives of the loss by the scores.
        out: ``(positions, vocab)`` of any floating type; may be ``logits`` itself.
    """
    exact = exact_type(logits.dtype)
    in_place = out.dtype == exact  # write where it belongs; otherwise by way of scratch memory
    by_tempered = by.tempered_log_normaliser
    scratch = Scratch(logits, exact, (0 if in_place else 1) + (0 if by_tempered is None else 1))
    for rows in scratch.blocks:
        block = logits[rows]
        if by_tempered is not None:
            second = torch.sub(block, best[rows], out=scratch.view(-1, block)).div_(wanted.temperature).exp_()
            factor = by_tempered[rows] / wanted.temperature
            second.mul_((factor * torch.exp(-scores.tempered_log_normaliser[rows]))[:, None])
        result = out[rows] if in_place else scratch.view(0, block)
        if by.log_normaliser is None:
            result.zero_()
        else:
            # best and normaliser one after the other: their sum would round the normaliser to the size of the logits
            torch.sub(block, best[rows], out=result).exp_()
            result.mul_((by.log_normaliser[rows] * torch.exp(-scores.log_normaliser[rows]))[:, None])
        if by_tempered is not None:
            result.add_(second)
        if by.total is not None:
            result.add_(by.total[rows, None])
        if by.logits is not None:
            result.scatter_add_(1, wanted.ids[rows], by.logits[rows])
        if not in_place:
            out[rows] = result


class Scratch:
    """Memory for blocks of rows, the same for every block: fresh memory costs more than the arithmetic.

    Args:
        logits: ``(positions, vocab)`` to be worked on.
        dtype: of the buffers.
        buffers: how many.

    Attributes:
        blocks: slices of the rows.
    """

    def __init__(self, logits: Tensor, dtype: torch.dtype, buffers: int):
        positions, vocab = logits.shape
        step = max(BLOCK.get(logits.device.type, LARGE_BLOCK) // max(vocab, 1), 1)
        self.blocks = [slice(start, min(start + step, positions)) for start in range(0, positions, step)]
        size = min(step, positions) * vocab
        self._buffers = [logits.new_empty(size, dtype=dtype) for _ in range(buffers)]

    def view(self, index: int, block: Tensor) -> Tensor:
        """A buffer in the shape of a block."""
        return self._buffers[index][: block.numel()].view_as(block)


def exact_type(dtype: torch.dtype) -> torch.dtype:
    """The type to compute in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class _StudentScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, temperature: float, total: bool) -> Any:
        wanted = Wanted(ids, temperature, total)
        scores, best = measure(logits, wanted)
        ctx.temperature, ctx.total = temperature, total
        ctx.save_for_backward(logits, ids, best, scores.log_normaliser, scores.tempered_log_normaliser)
        ctx.set_materialize_grads(False)
        tempered = scores.tempered_log_normaliser
        if temperature == 1.0:  # an output may be returned once only
            tempered = tempered.new_empty(0)
        return scores.logits, scores.log_normaliser, tempered, scores.total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *by: Any) -> Any:
        logits, ids, best, log_normaliser, tempered = ctx.saved_tensors
        wanted = Wanted(ids, ctx.temperature, ctx.total)
        derivatives = Derivatives(*by)
        if ctx.temperature == 1.0:
            derivatives = derivatives._replace(tempered_log_normaliser=None)
        grad = torch.empty_like(logits)
        scores = StudentScores(ids, log_normaliser, tempered, None)  # the gradient needs no other field
        gradient(logits, wanted, scores, best, derivatives, out=grad)
        return grad, None, None, None
