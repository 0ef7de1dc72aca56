"""Where a transformers encoder keeps its layers and their parts, and how to keep only some layers."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

from torch import nn

from fairseq_bert_kd.functional.encoder_states import AttentionParts, EncoderParts


class _Places(NamedTuple):
    """Names of modules in an encoder of some model type.

    Attributes:
        owner: module of the encoder whose ``layer`` is a plain list of layers, as many as ``config.num_hidden_layers``.
        after_attention: module of a layer that follows its attention: its inputs, and those of all later ones, are
            position by position.
        attention: query, key and value projections of a layer.
    """

    owner: str
    after_attention: str
    attention: tuple[str, str, str]


_BERT = _Places(
    "encoder", "attention.output", ("attention.self.query", "attention.self.key", "attention.self.value")
)
_KNOWN = dict.fromkeys(("bert", "camembert", "electra", "roberta", "xlm-roberta"), _BERT) | {
    "distilbert": _Places(
        "transformer", "sa_layer_norm", ("attention.q_lin", "attention.k_lin", "attention.v_lin")
    )
}


def layer_owner(encoder: Any) -> Optional[nn.Module]:
    """The module whose ``layer`` is the list of layers; None for a model type that is not known."""
    known = _KNOWN.get(encoder.config.model_type)
    return None if known is None else encoder.get_submodule(known.owner)


def inside(encoder: Any) -> EncoderParts:
    """The modules of an encoder that `encoder_states.record` listens to.

    Raises:
        ValueError: its model type is not known.
    """
    layers = tuple(_known_owner(encoder, "choose a teacher and a student of those types").layer)  # type: ignore[arg-type]
    attention = _KNOWN[encoder.config.model_type].attention
    return EncoderParts(
        layers=layers,
        attentions=tuple(AttentionParts(*map(layer.get_submodule, attention)) for layer in layers),
        heads=encoder.config.num_attention_heads,
    )


def keep_first_layers(encoder: Any, count: int) -> int:
    """Drop all layers after the first ``count``, from the encoder and from its config.

    Returns:
        The number of layers before.

    Raises:
        ValueError: the encoder has fewer layers, ``count`` is below 1, or its model type is not known.
    """
    layers = len(_known_owner(encoder, "keep all layers").layer)  # type: ignore[arg-type]
    if not 1 <= count <= layers:
        raise ValueError(
            f"the layers to keep must be from 1 to {layers}, the layers of the pre-trained model, got {count}"
        )
    return keep_layers(encoder, range(count))


def keep_layers(encoder: Any, chosen: Sequence[int]) -> int:
    """Drop all layers but the chosen ones, from the encoder and from its config.

    Args:
        encoder: a transformers encoder.
        chosen: layers in the order in which they stay, counted from 0.

    Returns:
        The number of layers before.

    Raises:
        ValueError: no layer is chosen, one is chosen that the encoder does not have, they do not increase, or the model type
            is not known.
    """
    owner: Any = _known_owner(encoder, "keep all layers")
    layers = len(owner.layer)
    if not chosen or [*chosen] != sorted({*chosen}) or not 0 <= chosen[0] <= chosen[-1] < layers:
        raise ValueError(
            f"the layers to keep must be increasing numbers from 0 to {layers - 1}, the layers of the model, got "
            f"{','.join(map(str, chosen)) or 'none'}"
        )
    owner.layer = nn.ModuleList(owner.layer[number] for number in chosen)
    encoder.config.num_hidden_layers = len(chosen)
    return layers


def after_attention(encoder: Any) -> Optional[nn.Module]:
    """The module of the last layer from which on positions are independent; None if it is not known, or not alone."""
    config, owner = encoder.config, layer_owner(encoder)
    if owner is None or getattr(config, "is_decoder", False) or getattr(config, "chunk_size_feed_forward", 0):
        return None  # cross attention would follow; the feed forward would be cut along the rows
    layer: Any = owner.layer[-1]  # type: ignore[index]
    if any(getattr(module, "gradient_checkpointing", False) for module in (owner, layer)):
        return None  # the layer runs again in the backward pass, when the hook is gone
    if layer._forward_hooks:
        return None  # such as `encoder_states.record`, which reads the whole output
    return layer.get_submodule(_KNOWN[config.model_type].after_attention)


def _known_owner(encoder: Any, otherwise: str) -> nn.Module:
    """`layer_owner`, or ValueError that says what else can be done."""
    owner = layer_owner(encoder)
    if owner is None:
        raise ValueError(
            f"the layers of model type `{encoder.config.model_type}` are not known; use an encoder of type "
            f"{', '.join(sorted(_KNOWN))}, or {otherwise}"
        )
    return owner
