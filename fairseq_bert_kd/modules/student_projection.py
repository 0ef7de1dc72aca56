"""A student's output projection, for losses that compute its logits themselves, chunk by chunk."""

from typing import Any, NamedTuple

import torch
from fairseq.distributed import LegacyDistributedDataParallel, ModuleProxyWrapper
from fairseq.models import BaseFairseqModel
from fairseq.models.fairseq_decoder import FairseqDecoder
from fairseq.models.transformer import TransformerDecoderBase, TransformerModelBase
from fairseq.modules import AdaptiveSoftmax
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

WRAPPERS = (ModuleProxyWrapper, DistributedDataParallel, LegacyDistributedDataParallel)
# The log-softmax of the first output, unless there is an adaptive softmax: methods of the model and of its decoder.
NORMALISATIONS = (BaseFairseqModel.get_normalized_probs, TransformerModelBase.get_normalized_probs)
SCRIPTABLE = (BaseFairseqModel.get_normalized_probs_scriptable,)
DECODER_NORMALISATIONS = (FairseqDecoder.get_normalized_probs,)
DECODER_SCRIPTABLE = (FairseqDecoder.get_normalized_probs_scriptable,)


class Projection(NamedTuple):
    """A linear output layer.

    Attributes:
        weight: ``(vocab, dim)``, perhaps shared with embeddings.
        bias: ``(vocab,)`` or None.
    """

    weight: Tensor
    bias: Tensor | None


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside fairseq's wrappers for several processes; an unknown wrapper is returned as it is."""
    while isinstance(model, WRAPPERS):
        model = model.module
    return model


def adaptive_softmax_of(model: Any) -> Any:
    """fairseq's adaptive softmax of the student's decoder; None for another output layer."""
    layer = getattr(getattr(unwrapped(model), "decoder", None), "adaptive_softmax", None)
    return layer if isinstance(layer, AdaptiveSoftmax) else None


def gives_logits(model: nn.Module) -> bool:
    """Whether the model's probabilities are the softmax of its first output."""
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
    """Logits or log-probabilities, ``(batch, tgt_len, vocab)``: their softmax is the student's distribution.

    An adaptive softmax is assembled here, because fairseq's own writes into what its gradient needs.
    """
    if gives_logits(model):
        return net_output[0]
    adaptive = adaptive_softmax_of(model)
    if adaptive is None:
        return model.get_normalized_probs(net_output, log_probs=True)
    features = net_output[0]  # (batch, tgt_len, dim)
    head = torch.log_softmax(adaptive.head(features), dim=-1, dtype=torch.float32)
    frequent = adaptive.cutoff[0]
    parts = [head[..., :frequent]]  # (batch, tgt_len, frequent), then one part per cluster
    for i, tail in enumerate(adaptive.tail):
        within = torch.log_softmax(tail(features), dim=-1, dtype=torch.float32)
        parts.append(within + head[..., frequent + i, None])
    return torch.cat(parts, dim=-1)


class AssembledProbabilities:
    """Mixin for criterions that extend fairseq's cross-entropy; name it before fairseq's own class.

    An adaptive softmax is assembled by `scores_of`: the gradient of fairseq's own cannot be computed.
    """

    ignore_prefix_size: int

    def get_lprobs_and_target(self, model, net_output, sample):
        if adaptive_softmax_of(model) is None or not torch.is_grad_enabled():
            return super().get_lprobs_and_target(model, net_output, sample)  # type: ignore[misc]
        log_probs = scores_of(model, net_output)[:, self.ignore_prefix_size :]  # (batch, tgt_len, vocab)
        return log_probs.flatten(0, 1), sample["target"][:, self.ignore_prefix_size :].flatten()


def projection_of(model: nn.Module) -> Projection | str:
    """The student's output projection, or the reason why the loss cannot apply it itself.

    A model with a projection returns ``(batch, tgt_len, dim)`` features from ``model(..., features_only=True)``, and its
    logits are their projection. These are fairseq's Transformers. Subclasses with a copy mechanism or another output layer,
    and models with an adaptive softmax, project by themselves. So do models in wrappers that hold weights elsewhere outside
    the forward pass (fully sharded) or that look for unused weights in it.
    """
    if getattr(model, "find_unused_parameters", False):
        return (
            "--find-unused-parameters looks for them in the forward pass, which would not use the projection"
        )
    inner = unwrapped(model)
    decoder: Any = getattr(inner, "decoder", None)
    if getattr(decoder, "adaptive_softmax", None) is not None:
        return "the student has an adaptive softmax"
    # checked on the classes: a subclass may have a forward pass that knows no features_only
    if not (
        getattr(type(inner), "forward", None) is TransformerModelBase.forward
        and getattr(type(decoder), "forward", None) is TransformerDecoderBase.forward
    ):
        return f"{type(inner).__name__} is not one of fairseq's Transformers"
    if not _is_one_of(decoder, "output_layer", (TransformerDecoderBase.output_layer,)) or not gives_logits(
        model
    ):
        return f"the output layer of {type(decoder).__name__} is not a plain projection"
    layer = decoder.output_projection
    if type(layer) is not nn.Linear:
        return f"the student's projection is a {type(layer).__name__}, not a plain linear layer"
    return Projection(layer.weight, layer.bias)


def _is_one_of(module: nn.Module, method: str, known: tuple[Any, ...]) -> bool:
    """Whether a method of the module is one of these functions, not overridden by a subclass or on the instance."""
    return getattr(type(module), method, None) in known and method not in vars(module)
