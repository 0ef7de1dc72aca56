"""Head of a masked language model over the student's target dictionary."""

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

NEVER = -1e4  # logit of an id that the target dictionary has not; finite, so that a training can go on


class MaskedLMHead(nn.Module):
    """MLM transform and a projection onto the student's target dictionary, untied from the input.

    Scores are ``projection(layer_norm(activation(dense(hidden))))``, as in BERT, RoBERTa, DistilBERT,
    ALBERT, ELECTRA, DeBERTa, MPNet and ModernBERT.
    """

    def __init__(self, dense: nn.Linear, activation: Any, layer_norm: nn.Module, vocab_size: int):
        super().__init__()
        self.dense = dense
        self.activation = activation
        self.layer_norm = layer_norm
        self.projection = nn.Linear(dense.out_features, vocab_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """``(positions, hidden)`` to ``(positions, target dictionary)`` logits."""
        return self.projection(self.layer_norm(self.activation(self.dense(hidden))))

    def initialise_projection(self, input_embeddings: Tensor, target_to_teacher: Tensor) -> None:
        """Copy each symbol's row of the input embeddings; bias zero (the authors' cmlm/model.py).

        Args:
            input_embeddings: ``(teacher vocabulary, embedding)``.
            target_to_teacher: ``(target dictionary,)`` teacher id of each symbol.

        Raises:
            ValueError: the transform and the embeddings differ in width.
        """
        if input_embeddings.size(1) != self.projection.in_features:
            raise ValueError(
                f"the teacher's MLM transform gives {self.projection.in_features} features but its input "
                f"embeddings have {input_embeddings.size(1)}: its output layer cannot start from them"
            )
        with torch.no_grad():
            self.projection.weight.copy_(input_embeddings[target_to_teacher])
            self.projection.bias.zero_()

    def copy_projection(self, output: Any, target_to_teacher: Tensor) -> None:
        """Copy each symbol's row of a model's own output layer.

        Args:
            output: ``get_output_embeddings()`` of a transformers ``*ForMaskedLM``.
            target_to_teacher: ``(target dictionary,)`` teacher id of each symbol.
        """
        with torch.no_grad():
            self.projection.weight.copy_(output.weight[target_to_teacher])
            self.projection.bias.copy_(output.bias[target_to_teacher])


def take_head(masked_lm: Any, vocab_size: int) -> MaskedLMHead:
    """The model's MLM transform with a new projection; a new transform if the model has none.

    Args:
        masked_lm: a transformers ``*ForMaskedLM``.
        vocab_size: symbols of the target dictionary.

    Raises:
        ValueError: the head is not dense -> activation -> layer norm.
    """
    dense, norms = _transform(masked_lm)
    config = masked_lm.config
    if not dense and not norms:
        logger.warning("%s has no MLM transform: created one with random weights", config.model_type)
        hidden_size, embedding = config.hidden_size, masked_lm.get_input_embeddings().weight.size(1)
        dense, norms = [nn.Linear(hidden_size, embedding)], [nn.LayerNorm(embedding, eps=1e-12)]
        nn.init.normal_(dense[0].weight, std=getattr(config, "initializer_range", 0.02))
        nn.init.zeros_(dense[0].bias)
    _check_transform(config, dense, norms)
    return MaskedLMHead(dense[0], _activation(config), norms[0], vocab_size)


def put_head(masked_lm: Any, head: MaskedLMHead, target_to_teacher: Tensor) -> None:
    """Give a transformers model this head over its own vocabulary: inverse of `take_head`.

    An id that no symbol of the target dictionary stands for gets the logit `NEVER`. Where several symbols share an id, the
    first one counts: fairseq's own come first, fillers after them.

    Args:
        masked_lm: a ``*ForMaskedLM`` whose output layer is not tied to its input embeddings; changed in place.
        head: the head to write.
        target_to_teacher: ``(target dictionary,)`` id of each symbol.

    Raises:
        ValueError: the model's head is of another form.
    """
    dense, norms = _transform(masked_lm)
    _check_transform(masked_lm.config, dense, norms)
    dense[0].load_state_dict(head.dense.state_dict())
    norms[0].load_state_dict(head.layer_norm.state_dict())
    output = masked_lm.get_output_embeddings()
    ids, symbols = (
        torch.from_numpy(each) for each in np.unique(target_to_teacher.numpy(), return_index=True)
    )
    bias = torch.full_like(output.bias, NEVER)
    bias[ids] = head.projection.bias[symbols]
    with torch.no_grad():
        output.weight.zero_()
        output.weight[ids] = head.projection.weight[symbols]
        for module in _outside_encoder(masked_lm):  # BERT keeps the bias of its output layer beside that, too
            own = module._parameters.get("bias")
            if own is not None and own.shape == bias.shape:
                own.copy_(bias)


def _outside_encoder(masked_lm: Any) -> list[nn.Module]:
    inside_encoder = set(masked_lm.base_model.modules())
    return [module for module in masked_lm.modules() if module not in inside_encoder]


def _transform(masked_lm: Any) -> tuple[list[nn.Linear], list[nn.LayerNorm]]:
    """Linear layers and normalisations of a model's head before its output layer."""
    outside, output = _outside_encoder(masked_lm), masked_lm.get_output_embeddings()
    dense = [module for module in outside if isinstance(module, nn.Linear) and module is not output]
    return dense, [module for module in outside if isinstance(module, nn.LayerNorm)]


def _check_transform(config: Any, dense: list[nn.Linear], norms: list[nn.LayerNorm]) -> None:
    if len(dense) != 1 or len(norms) != 1:
        raise ValueError(
            f"the MLM head of model type `{config.model_type}` is not dense -> activation -> layer norm "
            f"({len(dense)} dense and {len(norms)} normalisation layers found); use a BERT, RoBERTa, XLM-R, "
            "DistilBERT, ALBERT, ELECTRA, DeBERTa, MPNet or ModernBERT teacher"
        )


def _activation(config: Any) -> Any:
    """The head's activation; ELECTRA and MPNet-style configs name the same one as in their encoder."""
    from transformers.activations import ACT2FN

    for key in ("hidden_act", "activation", "classifier_activation", "hidden_activation"):
        name = getattr(config, key, None)
        if isinstance(name, str) and name in ACT2FN:
            return ACT2FN[name]
    return ACT2FN["gelu"]
