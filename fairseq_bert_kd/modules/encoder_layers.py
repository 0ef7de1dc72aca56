"""Where a transformers encoder keeps its layers, and how to keep only the first of them."""

from typing import Any, Optional

from torch import nn

# model type -> module of the encoder whose `layer` is a plain list of layers, as many as `config.num_hidden_layers`; and
# the module of a layer that follows its attention: its inputs, and those of all later ones, are position by position
_BERT = ("encoder", "attention.output")
_KNOWN = dict.fromkeys(("bert", "camembert", "electra", "roberta", "xlm-roberta"), _BERT) | {
    "distilbert": ("transformer", "sa_layer_norm")
}


def layer_owner(encoder: Any) -> Optional[nn.Module]:
    """The module whose ``layer`` is the list of layers; None for a model type that is not known."""
    known = _KNOWN.get(encoder.config.model_type)
    return None if known is None else encoder.get_submodule(known[0])


def keep_first_layers(encoder: Any, count: int) -> int:
    """Drop all layers after the first ``count``, from the encoder and from its config.

    Returns:
        The number of layers before.

    Raises:
        ValueError: the encoder has fewer layers, ``count`` is below 1, or its model type is not known.
    """
    owner = layer_owner(encoder)
    if owner is None:
        raise ValueError(
            f"the layers of model type `{encoder.config.model_type}` are not known; use an encoder of type "
            f"{', '.join(sorted(_KNOWN))}, or keep all layers"
        )
    layers = len(owner.layer)  # type: ignore[arg-type]
    if not 1 <= count <= layers:
        raise ValueError(
            f"the layers to keep must be from 1 to {layers}, the layers of the pre-trained model, got {count}"
        )
    owner.layer = owner.layer[:count]  # type: ignore[index]
    encoder.config.num_hidden_layers = count
    return layers


def after_attention(encoder: Any) -> Optional[nn.Module]:
    """The module of the last layer from which on positions are independent; None if it is not known, or not alone."""
    config, owner = encoder.config, layer_owner(encoder)
    if owner is None or getattr(config, "is_decoder", False) or getattr(config, "chunk_size_feed_forward", 0):
        return None  # cross attention would follow; the feed forward would be cut along the rows
    layer: Any = owner.layer[-1]  # type: ignore[index]
    if any(getattr(module, "gradient_checkpointing", False) for module in (owner, layer)):
        return None  # the layer runs again in the backward pass, when the hook is gone
    return layer.get_submodule(_KNOWN[config.model_type][1])
