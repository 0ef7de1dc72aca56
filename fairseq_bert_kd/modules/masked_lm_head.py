"""Head of a masked language model over the student's target dictionary."""

import logging
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)


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
    inside_encoder = set(masked_lm.base_model.modules())
    outside = [module for module in masked_lm.modules() if module not in inside_encoder]
    output = masked_lm.get_output_embeddings()
    dense = [module for module in outside if isinstance(module, nn.Linear) and module is not output]
    norms = [module for module in outside if isinstance(module, nn.LayerNorm)]
    config = masked_lm.config
    if not dense and not norms:
        logger.warning("%s has no MLM transform: created one with random weights", config.model_type)
        hidden_size, embedding = config.hidden_size, masked_lm.get_input_embeddings().weight.size(1)
        dense, norms = [nn.Linear(hidden_size, embedding)], [nn.LayerNorm(embedding, eps=1e-12)]
        nn.init.normal_(dense[0].weight, std=getattr(config, "initializer_range", 0.02))
        nn.init.zeros_(dense[0].bias)
    if len(dense) != 1 or len(norms) != 1:
        raise ValueError(
            f"the MLM head of model type `{config.model_type}` is not dense -> activation -> layer norm "
            f"({len(dense)} dense and {len(norms)} normalisation layers found); use a BERT, RoBERTa, XLM-R, "
            "DistilBERT, ALBERT, ELECTRA, DeBERTa, MPNet or ModernBERT teacher"
        )
    return MaskedLMHead(dense[0], _activation(config), norms[0], vocab_size)


def _activation(config: Any) -> Any:
    """The head's activation; ELECTRA and MPNet-style configs name the same one as in their encoder."""
    from transformers.activations import ACT2FN

    for key in ("hidden_act", "activation", "classifier_activation", "hidden_activation"):
        name = getattr(config, key, None)
        if isinstance(name, str) and name in ACT2FN:
            return ACT2FN[name]
    return ACT2FN["gelu"]
