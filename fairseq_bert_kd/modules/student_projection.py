"""Where a student's logits come from: the projection that a loss can do chunk by chunk."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from fairseq.distributed import LegacyDistributedDataParallel, ModuleProxyWrapper
from fairseq.models import BaseFairseqModel
from fairseq.models.fairseq_decoder import FairseqDecoder
from fairseq.models.lstm import LSTMDecoder
from fairseq.models.transformer import TransformerDecoderBase, TransformerModelBase
from fairseq.modules import AdaptiveSoftmax
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

WRAPPERS = (ModuleProxyWrapper, DistributedDataParallel, LegacyDistributedDataParallel)
OUTPUT_LAYERS = (TransformerDecoderBase.output_layer, LSTMDecoder.output_layer)
# of the model and of its decoder: log softmax of the first output unless there is an adaptive softmax
NORMALISATIONS = (BaseFairseqModel.get_normalized_probs, TransformerModelBase.get_normalized_probs)
SCRIPTABLE = (BaseFairseqModel.get_normalized_probs_scriptable,)
DECODER_NORMALISATIONS = (FairseqDecoder.get_normalized_probs,)
DECODER_SCRIPTABLE = (FairseqDecoder.get_normalized_probs_scriptable,)


class Projection(NamedTuple):
    """A linear output layer.

    Attributes:
        decoder: whose ``output_layer`` it is.
        weight: ``(vocab, dim)``, perhaps shared with embeddings.
        bias: ``(vocab,)`` or None.
    """

    decoder: nn.Module
    weight: Tensor
    bias: Tensor | None


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside the host's wrappers for several processes, or the wrapper that is not known here."""
    while isinstance(model, WRAPPERS):
        model = model.module
    return model


def gives_logits(model: nn.Module) -> bool:
    """Whether the model's probabilities are the softmax of the first thing it returns."""
    model = unwrapped(model)
    decoder = getattr(model, "decoder", None)
    if decoder is None or getattr(decoder, "adaptive_softmax", None) is not None:
        return False
    return (
        _is_one_of(model, "get_normalized_probs", NORMALISATIONS)
        and _is_one_of(model, "get_normalized_probs_scriptable", SCRIPTABLE)
        and _is_one_of(decoder, "get_normalized_probs", DECODER_NORMALISATIONS)
        and _is_one_of(decoder, "get_normalized_probs_scriptable", DECODER_SCRIPTABLE)
    )


def scores_of(model: Any, net_output: Any) -> Tensor:
    """``(batch, tgt_len, vocab)`` whose softmax the student's probabilities are: logits, or log-probabilities.

    An adaptive softmax is put together here, because the host's own writes into what its gradient needs.
    """
    if gives_logits(model):
        return net_output[0]
    adaptive = getattr(getattr(unwrapped(model), "decoder", None), "adaptive_softmax", None)
    if not isinstance(adaptive, AdaptiveSoftmax):
        return model.get_normalized_probs(net_output, log_probs=True)
    features = net_output[0]
    head = torch.log_softmax(adaptive.head(features), dim=-1, dtype=torch.float32)
    frequent = adaptive.cutoff[0]
    parts = [head[..., :frequent]]
    for i, tail in enumerate(adaptive.tail):
        within = torch.log_softmax(tail(features), dim=-1, dtype=torch.float32)
        parts.append(within + head[..., frequent + i, None])
    return torch.cat(parts, dim=-1)


def projection_of(model: nn.Module) -> Projection | str:
    """The student's output projection, or why the loss cannot take it apart.

    A copy mechanism, an adaptive softmax or another output layer than the host's own is left alone, and so are wrappers
    that hold weights outside the forward pass elsewhere (fully sharded) or look for unused weights in it.
    """
    if getattr(model, "find_unused_parameters", False):
        return (
            "--find-unused-parameters looks for them in the forward pass, which would not use the projection"
        )
    inner = unwrapped(model)
    decoder: Any = getattr(inner, "decoder", None)
    if not isinstance(inner, BaseFairseqModel) or not isinstance(decoder, nn.Module):
        return f"{type(inner).__name__} is no encoder-decoder that is known here"
    if getattr(decoder, "adaptive_softmax", None) is not None:
        return "the student has an adaptive softmax"
    if not _is_one_of(decoder, "output_layer", OUTPUT_LAYERS) or not gives_logits(model):
        return f"the output layer of {type(decoder).__name__} is not a plain projection"
    if isinstance(decoder, LSTMDecoder):
        if decoder.share_input_output_embed:
            return Projection(decoder, decoder.embed_tokens.weight, None)
        return Projection(decoder, decoder.fc_out.weight, decoder.fc_out.bias)
    layer = decoder.output_projection
    if type(layer) is not nn.Linear:
        return f"the student's projection is a {type(layer).__name__}, not a plain linear layer"
    return Projection(decoder, layer.weight, layer.bias)


@contextmanager
def features_only(projection: Projection) -> Iterator[None]:
    """Within the block the model returns ``(batch, tgt_len, dim)`` features where its logits would stand."""
    decoder = projection.decoder
    assert "output_layer" not in vars(decoder)
    vars(decoder)["output_layer"] = lambda features: features
    try:
        yield
    finally:
        del vars(decoder)["output_layer"]


def _is_one_of(module: nn.Module, method: str, known: tuple[Any, ...]) -> bool:
    return getattr(type(module), method, None) in known and method not in vars(module)
