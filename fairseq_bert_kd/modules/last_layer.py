"""Some rows of an encoder's output, without computing all of the others.

After a layer's attention has mixed the positions, what remains of the layer (output projection, residuals, feed
forward: three quarters of its multiplications) treats each position by itself. In the last layer that is needed
only where an output is asked for: in training a C-MLM, at one position in thirteen.
"""

from typing import Any, Optional

from torch import Tensor, nn

from fairseq_bert_kd.modules.encoder_layers import layer_owner

# model type -> the module of a layer that comes when its attention is over: all that this one takes, and all that
# comes after it, is position by position
_AFTER_ATTENTION = {
    "bert": "attention.output",
    "camembert": "attention.output",
    "electra": "attention.output",
    "roberta": "attention.output",
    "xlm-roberta": "attention.output",
    "distilbert": "sa_layer_norm",
}


def output_rows(encoder: Any, rows: Tensor, **inputs: Any) -> Tensor:
    """Last hidden states at some positions; those of the whole output, up to rounding.

    An encoder whose layers are not known computes its whole output, of which rows are taken. Dropout draws other
    random numbers than over the whole output.

    Args:
        encoder: a transformers encoder.
        rows: ``(rows,)`` int64 places in the flattened ``(batch, length)``.
        **inputs: of the encoder by name.

    Returns:
        ``(rows, hidden)``.
    """
    part = after_attention(encoder)
    if part is None:
        return encoder(**inputs)[0].flatten(0, 1).index_select(0, rows)

    def select(_module: nn.Module, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Each ``(batch, length, hidden)`` to ``(1, rows, hidden)``."""
        return tuple(state.flatten(0, 1).index_select(0, rows)[None] for state in states)

    hook = part.register_forward_pre_hook(select)
    try:
        hidden = encoder(**inputs)[0]
    finally:
        hook.remove()
    assert hidden.shape[:2] == (1, len(rows)), (encoder.config.model_type, hidden.shape, len(rows))
    return hidden[0]


def after_attention(encoder: Any) -> Optional[nn.Module]:
    """The module of the last layer from which on positions are independent; None where that is not known."""
    config = encoder.config
    owner, part = layer_owner(encoder), _AFTER_ATTENTION.get(config.model_type)
    if owner is None or part is None:
        return None
    if getattr(config, "is_decoder", False) or getattr(config, "chunk_size_feed_forward", 0):
        return None  # cross attention would follow; the feed forward would be cut along the rows
    layer: Any = owner.layer[-1]  # type: ignore[index]
    if any(getattr(module, "gradient_checkpointing", False) for module in (owner, layer)):
        return None  # the layer runs again in the backward pass, when the hook is gone
    return layer.get_submodule(part)
