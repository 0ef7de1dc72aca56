"""From an encoder's hidden states to classes: pooler and head, and where transformers' own classifiers keep them."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor, nn

from fairseq_bert_kd.functional.pooling import first_token, mean_over_tokens
from fairseq_bert_kd.modules.pretrained_encoder import Head

POOLINGS = ("pooler", "cls", "mean")
CLASSIFIERS = ("dropout", "relu")
ACTIVATIONS = {"tanh": torch.tanh, "gelu": nn.functional.gelu, "relu": nn.functional.relu}


class _Places(NamedTuple):
    """Names of modules in a transformers ``*ForSequenceClassification`` of some model type.

    Attributes:
        dense: the pooler's linear layer.
        output: the linear layer that gives the logits.
        activation: between the two, one of `ACTIVATIONS`.
    """

    dense: str
    output: str
    activation: str = "tanh"


_KNOWN = dict.fromkeys(
    ("camembert", "roberta", "xlm-roberta"), _Places("classifier.dense", "classifier.out_proj")
) | {
    "bert": _Places("bert.pooler.dense", "classifier"),
    "electra": _Places("classifier.dense", "classifier.out_proj", "gelu"),
    "distilbert": _Places("pre_classifier", "classifier", "relu"),
}


class Pooler(nn.Module):
    """Linear layer and activation over the first token, as in transformers' classifier of the model type.

    BERT and RoBERTa have tanh, ELECTRA GELU, DistilBERT ReLU; other types get BERT's.

    Args:
        dense: the linear layer.
        model_type: of the encoder.
    """

    def __init__(self, dense: nn.Linear, model_type: str):
        super().__init__()
        self.dense = dense
        self.activation = _KNOWN[model_type].activation if model_type in _KNOWN else "tanh"

    @classmethod
    def new(cls, config: Any) -> "Pooler":
        """A pooler with random weights for an encoder of this config."""
        return cls(new_linear(config.hidden_size, config.hidden_size, config), config.model_type)

    def forward(self, hidden: Tensor) -> Tensor:
        """``(batch, length, d)`` hidden states to ``(batch, d)``."""
        return ACTIVATIONS[self.activation](self.dense(first_token(hidden)))


class ClassificationHead(nn.Module):
    """Logits of a sentence's vector.

    Args:
        output: linear layer to the classes.
        names: label names in the order of the classes; empty for regression.
        dropout: probability, of ``form`` dropout.
        form: "dropout", as transformers' BERT (``output(dropout(pooled))``), or "relu", as TinyBERT's released code
            (``output(relu(pooled))``).
    """

    def __init__(self, output: nn.Linear, names: Iterable[str], dropout: float, form: str):
        super().__init__()
        self.output = output
        self.names = tuple(names)
        self.before = nn.ReLU() if form == "relu" else nn.Dropout(dropout)

    def forward(self, pooled: Tensor) -> Tensor:
        """``(batch, d)`` to ``(batch, classes)`` logits."""
        return self.output(self.before(pooled))

    def description(self) -> Head:
        """The head without its weights."""
        return Head(self.output.out_features, self.names)


class SentenceParts(NamedTuple):
    """An encoder and what of a classifier comes with it.

    Attributes:
        encoder: a transformers encoder without its pooler.
        pooler: None if there are no weights for one.
        output: last layer of a classifier; None if there is none.
        names: label names of ``output``; empty for regression.
        projections: maps of hidden states for training alone, by name.
    """

    encoder: Any
    pooler: Optional[Pooler] = None
    output: Optional[nn.Linear] = None
    names: tuple[str, ...] = ()
    projections: Mapping[str, nn.Linear] = MappingProxyType({})


def pool(hidden: Tensor, tokens: Tensor, pooling: str, pooler: Optional[Pooler]) -> Tensor:
    """A sentence's vector.

    Args:
        hidden: ``(batch, length, d)`` last hidden states.
        tokens: ``(batch, length)``, 1 on tokens.
        pooling: one of `POOLINGS`.
        pooler: of pooling "pooler".

    Returns:
        ``(batch, d)``.
    """
    if pooling == "pooler":
        assert pooler is not None
        return pooler(hidden)
    return first_token(hidden) if pooling == "cls" else mean_over_tokens(hidden, tokens)


def new_linear(inputs: int, outputs: int, config: Any) -> nn.Linear:
    """A linear layer with the initial weights of the encoder's kind: normal with its standard deviation, bias zero."""
    linear = nn.Linear(inputs, outputs)
    nn.init.normal_(linear.weight, std=getattr(config, "initializer_range", 0.02))
    nn.init.zeros_(linear.bias)
    return linear


def take_apart(model: Any, missing: Iterable[str] = ()) -> SentenceParts:
    """Encoder, pooler and classifier of a transformers model.

    Args:
        model: an encoder, or a ``*ForSequenceClassification``; its encoder loses its pooler.
        missing: names of the model's weights that are random, and therefore not taken.
    """
    encoder, config = model.base_model, model.config
    pooler = getattr(encoder, "pooler", None)
    dense, output = getattr(pooler, "dense", pooler), None
    if pooler is not None:
        encoder.pooler = None
    if model is not encoder and config.model_type in _KNOWN:
        places = _KNOWN[config.model_type]
        dense = dense or model.get_submodule(places.dense)
        output = model.get_submodule(places.output)
    if any("dense" in key or "pre_classifier" in key or "pooler" in key for key in missing):
        dense = None
    if any(key.startswith("classifier") for key in missing):
        output = None
    return SentenceParts(
        encoder=encoder,
        pooler=Pooler(dense, config.model_type) if isinstance(dense, nn.Linear) else None,
        output=output,
        names=label_names(config) if output is not None else (),
    )


def label_names(config: Any) -> tuple[str, ...]:
    """Label names of a transformers config in the order of the classes; empty for regression."""
    if config.num_labels == 1:
        return ()
    return tuple(config.id2label[number] for number in range(config.num_labels))
