"""Where a transformers encoder keeps its layers, and how to keep only the first of them."""

from typing import Any, Optional

from torch import nn

# model type -> module of the encoder whose `layer` is a plain list of layers, as many as `config.num_hidden_layers`
_OWNERS = {
    "bert": "encoder",
    "camembert": "encoder",
    "electra": "encoder",
    "roberta": "encoder",
    "xlm-roberta": "encoder",
    "distilbert": "transformer",
}


def layer_owner(encoder: Any) -> Optional[nn.Module]:
    """The module whose ``layer`` is the list of layers; None for a model type that is not known."""
    name = _OWNERS.get(encoder.config.model_type)
    return None if name is None else encoder.get_submodule(name)


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
            f"{', '.join(sorted(_OWNERS))}, or keep all layers"
        )
    layers = len(owner.layer)  # type: ignore[arg-type]
    if not 1 <= count <= layers:
        raise ValueError(
            f"the layers to keep must be from 1 to {layers}, the layers of the pre-trained model, got {count}"
        )
    owner.layer = owner.layer[:count]  # type: ignore[index]
    encoder.config.num_hidden_layers = count
    return layers
