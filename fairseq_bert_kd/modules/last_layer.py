"""An encoder's output at some positions, without computing all of the others.

After a layer's attention has mixed the positions, the rest of the layer (output projection, residuals, feed forward:
three quarters of its multiplications) treats each position by itself. The last layer needs that only where an output is
read: in training a C-MLM, at one position in thirteen.
"""

from typing import Any, Optional

from torch import Tensor, nn

from fairseq_bert_kd.modules.encoder_layers import layer_owner

# model type -> the module of a layer that follows its attention; all inputs of this module, and all later ones, are
# position by position
_AFTER_ATTENTION = {
    "bert": "attention.output",
    "camembert": "attention.output",
    "electra": "attention.output",
    "roberta": "attention.output",
    "xlm-roberta": "attention.output",
    "distilbert": "sa_layer_norm",
}


def output_rows(encoder: Any, positions: Tensor, **inputs: Any) -> Tensor:
    """Last hidden states at some positions; equal to those of the whole output, up to rounding.

    An encoder of a model type that is not known computes its whole output, of which rows are taken. Dropout draws other
    random numbers than over the whole output.

    Args:
        encoder: a transformers encoder.
        positions: ``(rows,)`` int64 in the flattened ``(batch, length)``.
        **inputs: inputs of the encoder by name.

    Returns:
        ``(rows, hidden)``.
    """
    part = after_attention(encoder)
    if part is None:
        return encoder(**inputs)[0].flatten(0, 1).index_select(0, positions)

    def select(_module: nn.Module, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # each (batch, length, hidden) to (1, rows, hidden): what follows expects three dimensions
        return tuple(state.flatten(0, 1).index_select(0, positions)[None] for state in states)

    hook = part.register_forward_pre_hook(select)
    try:
        hidden = encoder(**inputs)[0]
    finally:
        hook.remove()
    assert hidden.shape[:2] == (1, len(positions)), (encoder.config.model_type, hidden.shape, len(positions))
    return hidden[0]


def after_attention(encoder: Any) -> Optional[nn.Module]:
    """The module of the last layer from which on positions are independent; None if there is none that we know."""
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
