"""From an encoder's hidden states to classes: pooler and head, and where transformers' own classifiers keep them."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor, nn

from fairseq_bert_kd.functional.pooling import first_token, mean_over_tokens
from fairseq_bert_kd.modules.pretrained_encoder import (
    Head,
    classifier_from_config,
    config_settings,
    encoder_from_config,
)

POOLINGS = ("pooler", "cls", "mean")
CLASSIFIERS = ("dropout", "relu")
TRANSFORMERS_FORM = ("pooler", "dropout")  # the one that transformers has
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "gelu": nn.functional.gelu,
    "relu": nn.functional.relu,
}


class _Places(NamedTuple):
    """Names of modules in a transformers ``*ForSequenceClassification`` of some model type.

    Attributes:
        dense: the pooler's linear layer.
        output: the linear layer that gives the logits.
        activation: activation between the two, one of `ACTIVATIONS`.
        dropout: name in the config of the probability before ``output``.
    """

    dense: str
    output: str
    activation: str = "tanh"
    dropout: str = "classifier_dropout"


_KNOWN = dict.fromkeys(
    ("camembert", "roberta", "xlm-roberta"), _Places("classifier.dense", "classifier.out_proj")
) | {
    "bert": _Places("bert.pooler.dense", "classifier"),
    "electra": _Places("classifier.dense", "classifier.out_proj", "gelu"),
    "distilbert": _Places("pre_classifier", "classifier", "relu", "seq_classif_dropout"),
}


class Pooler(nn.Module):
    """Linear layer and activation over the first token, as in transformers' classifier of the model type.

    BERT and RoBERTa have tanh, ELECTRA GELU, DistilBERT ReLU; other types get BERT's.

    Args:
        dense: the linear layer.
        model_type: type of the encoder.
    """

    def __init__(self, dense: nn.Linear, model_type: str):
        super().__init__()
        self.dense = dense
        self.activation = _KNOWN[model_type].activation if model_type in _KNOWN else "tanh"

    @classmethod
    def new(cls, config: Any) -> "Pooler":
        """A pooler with random weights for an encoder of this config."""
        return cls(new_linear(config.hidden_size, config.hidden_size, config), config.model_type)

    def forward(self, first: Tensor) -> Tensor:
        """``(batch, d)`` hidden states of the first token to ``(batch, d)``."""
        return ACTIVATIONS[self.activation](self.dense(first))


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
        form: what ``output`` was trained on: one of `POOLINGS` and one of `CLASSIFIERS`.
        projections: maps of hidden states for training alone, by name.
    """

    encoder: Any
    pooler: Optional[Pooler] = None
    output: Optional[nn.Linear] = None
    names: tuple[str, ...] = ()
    form: tuple[str, str] = TRANSFORMERS_FORM
    projections: Mapping[str, nn.Linear] = MappingProxyType({})


def pool(hidden: Tensor, tokens: Tensor, pooling: str, pooler: Optional[Pooler]) -> Tensor:
    """A sentence's vector.

    Args:
        hidden: ``(batch, length, d)`` last hidden states.
        tokens: ``(batch, length)``, 1 on tokens.
        pooling: one of `POOLINGS`.
        pooler: pooler of pooling "pooler".

    Returns:
        ``(batch, d)``.
    """
    if pooling == "mean":
        return mean_over_tokens(hidden, tokens)
    return pool_first(first_token(hidden), pooling, pooler)


def pool_first(first: Tensor, pooling: str, pooler: Optional[Pooler]) -> Tensor:
    """`pool` by "cls" or "pooler" of ``(batch, d)`` last hidden states of the first token."""
    if pooling == "cls":
        return first
    assert pooling == "pooler"
    assert pooler is not None
    return pooler(first)


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
    dense, output = _pooler_of(encoder), None
    if dense is not None:
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
        pooler=None if dense is None else Pooler(dense, config.model_type),
        output=output,
        names=label_names(config) if output is not None else (),
    )


def _pooler_of(encoder: Any) -> Any:
    """The linear layer of an encoder's own pooler; None if it has none."""
    pooler = getattr(encoder, "pooler", None)
    dense = getattr(pooler, "dense", pooler)
    return dense if isinstance(dense, nn.Linear) else None


def label_names(config: Any) -> tuple[str, ...]:
    """Label names of a transformers config in the order of the classes; empty for regression."""
    if config.num_labels == 1:
        return ()
    return tuple(config.id2label[number] for number in range(config.num_labels))


def to_transformers(parts: SentenceParts, dropout: float) -> Any:
    """The transformers model with these weights, inverse of `take_apart`.

    Args:
        parts: without ``output`` an encoder alone is made.
        dropout: rate of dropout before ``output``, for those who train it further.

    Returns:
        A ``*ForSequenceClassification``, or an encoder.

    Raises:
        ValueError: transformers has no classifier of this form for the model type.
    """
    config = parts.encoder.config
    settings = config_settings(config)
    if parts.output is None:
        model = encoder_from_config(settings)
        dense = _pooler_of(model)
    else:
        _check_representable(config.model_type, *parts.form)
        places = _KNOWN[config.model_type]
        model = classifier_from_config(settings | _label_settings(parts) | {places.dropout: dropout})
        dense = model.get_submodule(places.dense)
        model.get_submodule(places.output).load_state_dict(parts.output.state_dict())
    if dense is not None and parts.pooler is not None:
        dense.load_state_dict(parts.pooler.dense.state_dict())
    absent = model.base_model.load_state_dict(parts.encoder.state_dict(), strict=False)
    assert not absent.unexpected_keys, absent
    assert all(key.startswith("pooler.") for key in absent.missing_keys), absent
    return model.eval()


def _label_settings(parts: SentenceParts) -> dict[str, Any]:
    """Settings of a transformers config that name the classes."""
    assert parts.output is not None
    classes = parts.output.out_features
    names = parts.names or tuple(f"LABEL_{number}" for number in range(classes))
    return {
        "num_labels": classes,
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
        "problem_type": "single_label_classification" if parts.names else "regression",
    }


def _check_representable(model_type: str, pooling: str, classifier: str) -> None:
    instead = "or export the encoder without the head (--encoder-only)"
    if model_type not in _KNOWN:
        raise ValueError(
            f"the classifier of model type `{model_type}` in transformers is not known; use an encoder of type "
            f"{', '.join(sorted(_KNOWN))}, {instead}"
        )
    for option, given, known in zip(
        ("--classification-pooling", "--classifier"), (pooling, classifier), TRANSFORMERS_FORM, strict=True
    ):
        if given != known:
            raise ValueError(
                f"transformers has no `{model_type}` classifier of {option} {given}; train with {option} {known}, {instead}"
            )
