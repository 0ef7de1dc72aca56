"""`student_scores` on a GPU in two Triton kernels: one reads each row of logits once, one writes its gradient in place.

Sums are in float32 whatever the type of the logits. Triton comes with torch's builds for CUDA; without it, PyTorch's
operations do the same. The kernels are plain functions until the first launch, so this file needs no Triton to be imported.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import math
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
MOST_VOCAB_BLOCK = 4096  # logits of a row that are processed together
SPARSE_BLOCK = 32  # tokens that are compared with all tokens of a row together

# kernels look both names up among the globals of their file; `compiled` sets them
tl: Any = None
constexpr = Any


def usable(logits: Tensor) -> bool:
    """Whether the kernels can process these ``(positions, vocab)`` logits."""
    return logits.dtype in DTYPES and logits.stride(-1) == 1 and works(logits.device)


@functools.cache
def works(device: torch.device) -> bool:
    """Whether Triton is installed and can compile and run a kernel on a device; the log says why not."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if importlib.util.find_spec("triton") is None or not (device.type == "cuda" or interpreted):
        return False
    logits = torch.zeros(1, 1, device=device)
    found = logits.new_full((5, 1), math.nan)
    try:
        statistics(logits, logits.long(), 1.0, True, found[:1], *found[1:])
        gradient(
            logits, logits.long(), 1.0, found[1], found[2], found[3], (None, found[2], None, None), logits
        )
        if found[2].item() != 0.0 or logits.item() != 0.0:
            raise ArithmeticError("the log-normaliser of a single logit, or a gradient of nothing, is not 0")
    except Exception as error:  # no C compiler, a GPU that Triton does not know, and whatever else there is
        reason = (str(error).splitlines() or [""])[0]
        message = "Triton does not work on %s, PyTorch's operations are used: %s: %s"
        logger.warning(message, device, type(error).__name__, reason)
        return False
    return True


def statistics(
    logits: Tensor,
    ids: Tensor,
    temperature: float,
    logit_sum: bool,
    token_logits: Tensor,
    row_max: Tensor,
    log_normaliser: Tensor,
    tempered_log_normaliser: Tensor,
    sums: Tensor,
) -> None:
    """Write the statistics of each row, relative to its best logit.

    Args:
        logits: ``(positions, vocab)``.
        ids: ``(positions, n)`` int64.
        temperature: temperature of the second log-normaliser; not written at 1.
        logit_sum: whether to sum the logits.
        token_logits: ``(positions, n)`` float32 to write to.
        row_max: ``(positions,)`` float32 to write to.
        log_normaliser: ``(positions,)`` float32 to write to.
        tempered_log_normaliser: ``(positions,)`` float32 to write to.
        sums: ``(positions,)`` float32 to write to.
    """
    positions, vocab = logits.shape
    tokens = ids.size(1)
    launch(
        _statistics_kernel, positions, logits, logits.stride(0), ids.contiguous(), token_logits, log_normaliser,
        tempered_log_normaliser, sums, row_max, vocab, tokens, 1.0 / temperature, TEMPERED=temperature != 1.0, SUM=logit_sum,
        TOKENS=_power_of_two(tokens), VOCAB_BLOCK=_vocab_block(vocab),
    )  # fmt: skip


def gradient(
    logits: Tensor,
    ids: Tensor,
    temperature: float,
    row_max: Tensor,
    log_normaliser: Tensor,
    tempered_log_normaliser: Tensor,
    grads: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
    out: Tensor,
) -> None:
    """Write the gradient with respect to the logits.

    Args:
        logits: ``(positions, vocab)``.
        ids: token ids, as given to `statistics`; the gradients of a repeated token add up.
        temperature: temperature, as given to `statistics`.
        row_max: best logits of `statistics`.
        log_normaliser: log-normalisers of `statistics`.
        tempered_log_normaliser: the same at the temperature.
        grads: gradients with respect to the logits of the tokens, the log-normalisers at 1 and at the temperature, and the
            sums; None where the loss does not depend on one.
        out: ``(positions, vocab)``; may be ``logits`` itself.
    """
    positions, vocab = logits.shape
    present = [grad is not None for grad in grads]
    # a kernel takes tensors only: what is not there is replaced by what is not read
    token_grads, *row_grads = (row_max if grad is None else grad.contiguous() for grad in grads)
    tokens = ids.size(1) if present[0] else 0
    launch(
        _gradient_kernel, positions, logits, logits.stride(0), out, out.stride(0), ids.contiguous(), token_grads,
        log_normaliser, tempered_log_normaliser, row_max, *row_grads, vocab, tokens, 1.0 / temperature, UNIT=present[1],
        TEMPERED=present[2], SUM=present[3], TOKENS=_power_of_two(tokens),
        SPARSE_BLOCK=min(SPARSE_BLOCK, _power_of_two(tokens)), VOCAB_BLOCK=_vocab_block(vocab),
    )  # fmt: skip


def launch(kernel: Callable[..., None], positions: int, *arguments: Any, **constants: Any) -> None:
    """Run a kernel, one program per position."""
    if positions == 0:
        return
    warps = 8 if constants["VOCAB_BLOCK"] > 1024 else 4
    with torch.cuda.device_of(arguments[0]):  # Triton launches on the current device
        compiled(kernel)[(positions,)](*arguments, **constants, num_warps=warps)


@functools.cache
def compiled(kernel: Callable[..., None]) -> Any:
    """The kernel as Triton compiles it."""
    import triton
    import triton.language

    globals().update(tl=triton.language, constexpr=triton.language.constexpr)
    return triton.jit(kernel)


def _power_of_two(number: int) -> int:
    """The least power of two that is not below a number, 1 at least."""
    return 1 << max(number - 1, 0).bit_length()


def _vocab_block(vocab: int) -> int:
    return min(_power_of_two(vocab), MOST_VOCAB_BLOCK)


def _statistics_kernel(
    logits_ptr, logits_stride, ids_ptr, token_logits_ptr, log_normaliser_ptr, tempered_ptr, sums_ptr, row_max_ptr,
    vocab, tokens, inverse_temperature,
    TEMPERED: constexpr, SUM: constexpr, TOKENS: constexpr, VOCAB_BLOCK: constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)  # a batch may have more than 2^31 logits
    logits_ptr += row * logits_stride
    offsets = tl.arange(0, VOCAB_BLOCK)
    best = float("-inf")
    shift = 0.0  # the best logit so far, or 0 while there is none above minus infinity
    exp_sum = 0.0
    tempered_sum = 0.0
    total = 0.0
    for start in range(0, vocab, VOCAB_BLOCK):
        inside = start + offsets < vocab
        logits = tl.load(logits_ptr + start + offsets, mask=inside, other=float("-inf")).to(tl.float32)
        best = tl.maximum(best, tl.max(logits, axis=0))
        new_shift = tl.where(best == float("-inf"), 0.0, best)
        shifted = logits - new_shift
        # sums over the blocks before are relative to the old best; they are 0 where the new one is not above it
        change = tl.minimum(shift - new_shift, 0.0)
        exp_sum = exp_sum * tl.exp(change) + tl.sum(tl.exp(shifted), axis=0)
        if TEMPERED:
            tempered_sum = tempered_sum * tl.exp(change * inverse_temperature)
            tempered_sum += tl.sum(tl.exp(shifted * inverse_temperature), axis=0)
        if SUM:
            total += start * (shift - new_shift) + tl.sum(tl.where(inside, shifted, 0.0), axis=0)
        shift = new_shift
    tl.store(row_max_ptr + row, best)
    tl.store(log_normaliser_ptr + row, tl.log(exp_sum))
    if TEMPERED:
        tl.store(tempered_ptr + row, tl.log(tempered_sum))
    if SUM:
        tl.store(sums_ptr + row, total)
    columns = tl.arange(0, TOKENS)
    requested = columns < tokens
    ids = tl.load(ids_ptr + row * tokens + columns, mask=requested, other=0)
    token_logits = tl.load(logits_ptr + ids, mask=requested, other=0.0).to(tl.float32)
    tl.store(token_logits_ptr + row * tokens + columns, token_logits - best, mask=requested)


def _gradient_kernel(
    logits_ptr, logits_stride, out_ptr, out_stride, ids_ptr, token_grads_ptr, log_normaliser_ptr, tempered_ptr, row_max_ptr,
    grad_unit_ptr, grad_tempered_ptr, grad_sum_ptr, vocab, tokens, inverse_temperature,
    UNIT: constexpr, TEMPERED: constexpr, SUM: constexpr, TOKENS: constexpr, SPARSE_BLOCK: constexpr,
    VOCAB_BLOCK: constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    logits_ptr += row * logits_stride
    out_ptr += row * out_stride
    ids_ptr += row * tokens
    token_grads_ptr += row * tokens
    best = tl.load(row_max_ptr + row)
    unit = 0.0  # factors of exp(z), exp(z / T) and 1
    tempered = 0.0
    constant = 0.0
    if UNIT:
        unit = tl.load(grad_unit_ptr + row) * tl.exp(-tl.load(log_normaliser_ptr + row))
    if TEMPERED:
        tempered = (
            tl.load(grad_tempered_ptr + row) * inverse_temperature * tl.exp(-tl.load(tempered_ptr + row))
        )
    if SUM:
        constant = tl.load(grad_sum_ptr + row)

    # the whole gradient of the requested tokens, before the loop below overwrites their logits
    columns = tl.arange(0, TOKENS)
    requested = columns < tokens
    ids = tl.load(ids_ptr + columns, mask=requested, other=0)
    token_shifted = tl.load(logits_ptr + ids, mask=requested, other=float("-inf")).to(tl.float32) - best
    token_grads = unit * tl.exp(token_shifted) + constant
    if TEMPERED:
        token_grads += tempered * tl.exp(token_shifted * inverse_temperature)
    for start in range(0, tokens, SPARSE_BLOCK):
        others = start + tl.arange(0, SPARSE_BLOCK)
        other_ids = tl.load(ids_ptr + others, mask=others < tokens, other=-1)
        other_grads = tl.load(token_grads_ptr + others, mask=others < tokens, other=0.0)
        same = ids[:, None] == other_ids[None, :]  # (TOKENS, SPARSE_BLOCK): a repeated token adds up
        token_grads += tl.sum(tl.where(same, other_grads[None, :], 0.0), axis=1)
    tl.debug_barrier()

    offsets = tl.arange(0, VOCAB_BLOCK)
    for start in range(0, vocab, VOCAB_BLOCK):
        inside = start + offsets < vocab
        shifted = (
            tl.load(logits_ptr + start + offsets, mask=inside, other=float("-inf")).to(tl.float32) - best
        )
        grads = unit * tl.exp(shifted) + constant
        if TEMPERED:
            grads += tempered * tl.exp(shifted * inverse_temperature)
        tl.store(out_ptr + start + offsets, grads.to(out_ptr.dtype.element_ty), mask=inside)
    tl.debug_barrier()  # a repeated token is written several times, with the same value
    tl.store(out_ptr + ids, token_grads.to(out_ptr.dtype.element_ty), mask=requested)
