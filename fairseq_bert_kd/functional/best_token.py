"""The best token of each row of logits."""

import torch
from torch import Tensor

BLOCK = 256  # with fewer, maxima of bfloat16 are slow too


def best_token(logits: Tensor) -> Tensor:
    """``(rows,)`` columns of the largest logits, the first of equal ones and of NaNs, as of torch's argmax.

    On a CPU argmax compares one number at a time, in bfloat16 for longer than a cross-entropy and its gradient take
    (vocabulary of 30,000). Maxima are fast there. So they find the best block of each row, and argmax looks into that one alone.

    Args:
        logits: ``(rows, vocab)``.
    """
    vocab = logits.size(1)
    if logits.is_cuda or vocab < 2 * BLOCK:
        return logits.argmax(dim=1)
    n_blocks = vocab // BLOCK
    blocks = logits[:, : n_blocks * BLOCK].unflatten(1, (n_blocks, BLOCK)).amax(dim=2)  # (rows, blocks)
    last = logits[:, -BLOCK:].amax(dim=1, keepdim=True)  # with what is left over
    block = torch.cat([blocks, last], dim=1).argmax(dim=1, keepdim=True)
    places = (block * BLOCK).clamp_(max=vocab - BLOCK) + torch.arange(BLOCK, device=logits.device)
    return places.gather(1, logits.gather(1, places).argmax(dim=1, keepdim=True)).squeeze(1)
