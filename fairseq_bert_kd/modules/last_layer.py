"""An encoder's output at some positions, without computing all of the others.

After a layer's attention has mixed the positions, the rest of the layer (output projection, residuals, feed forward:
three quarters of its multiplications) treats each position by itself. The last layer needs that only where an output is
read: in training a C-MLM, at one position in thirteen.
"""

from typing import Any

from torch import Tensor, nn

from fairseq_bert_kd.modules.encoder_layers import after_attention


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
