"""One vector of a sequence's hidden states."""

from torch import Tensor


def first_token(hidden: Tensor) -> Tensor:
    """``(batch, length, d)`` hidden states to ``(batch, d)``: those of the first token, BERT's ``[CLS]``."""
    return hidden[:, 0]


def mean_over_tokens(hidden: Tensor, tokens: Tensor) -> Tensor:
    """Mean over a sequence's tokens, special ones included, padding not.

    Args:
        hidden: ``(batch, length, d)``.
        tokens: ``(batch, length)``, 1 on tokens, at least one per row.

    Returns:
        ``(batch, d)`` in the type of ``hidden``; sums are float32.
    """
    weights = tokens[:, :, None].float()
    return (hidden.float().mul(weights).sum(dim=1) / weights.sum(dim=1)).to(hidden.dtype)
