"""fairseq model ``hf_encoder``: a transformers encoder with classification heads, for sentences and pairs of sentences."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, cast

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model
from torch import Tensor, nn

from fairseq_bert_kd.functional.encoder_states import record
from fairseq_bert_kd.functional.pooling import mean_over_tokens
from fairseq_bert_kd.functional.text_format import TextFormat
from fairseq_bert_kd.functional.text_input import TextInput, assemble_texts
from fairseq_bert_kd.functional.text_smoothing import SmoothedText, smooth_embeddings
from fairseq_bert_kd.modules.encoder_layers import inside
from fairseq_bert_kd.modules.encoder_start import same_shape, starting_point, take_common_parts
from fairseq_bert_kd.modules.last_layer import output_rows
from fairseq_bert_kd.modules.pretrained_encoder import (
    EncoderSpec,
    check_embedded,
    config_settings,
    encoder_from_config,
    encoder_positions,
)
from fairseq_bert_kd.modules.sentence_classifier import (
    CLASSIFIERS,
    POOLINGS,
    ClassificationHead,
    Pooler,
    SentenceParts,
    new_linear,
    pool,
    pool_first,
    take_apart,
)

logger = logging.getLogger(__name__)

VECTORS = (*POOLINGS, "last2-mean")


@dataclass
class HfEncoderConfig(FairseqDataclass):
    """Options of the encoder's origin or sizes, and of the classification heads on it."""

    encoder_model: Optional[str] = field(
        default=None,
        metadata={
            "help": "folder or hub name of a pre-trained transformers encoder, with or without a classification head"
        },
    )
    encoder_init: Optional[str] = field(
        default=None,
        metadata={
            "help": "checkpoint of ours (hf_encoder or hf_masked_lm) from which encoder, pooler and, where the label names "
            "agree, the head start"
        },
    )
    encoder_init_layers: Optional[str] = field(
        default=None,
        metadata={
            "help": "layers of --encoder-model or --encoder-init to start from, counted from 0 and separated by commas, such "
            "as 0,2,4 (default: all)"
        },
    )
    encoder_layers: Optional[int] = field(
        default=None,
        metadata={
            "help": "layers of a BERT with random weights; with --encoder-model or --encoder-init this and the next three "
            "must agree with it"
        },
    )
    encoder_hidden: Optional[int] = field(default=None, metadata={"help": "width of its hidden states"})
    encoder_heads: Optional[int] = field(default=None, metadata={"help": "attention heads of its layers"})
    encoder_ffn: Optional[int] = field(
        default=None, metadata={"help": "width of its feed-forward parts (default: 4 times the hidden width)"}
    )
    classification_pooling: ChoiceEnum(POOLINGS) = field(  # type: ignore[valid-type]
        default="pooler",
        metadata={
            "help": "vector of a sentence for the head: the pooler over the first token (BERT's fine-tuning; a new one where "
            "no weights exist), the first token's hidden state, or the mean over all tokens"
        },
    )
    classification_dropout: float = field(
        default=0.1, metadata={"help": "dropout before the head's linear layer (BERT: 0.1)"}
    )
    classifier: ChoiceEnum(CLASSIFIERS) = field(  # type: ignore[valid-type]
        default="dropout",
        metadata={
            "help": "what comes before the head's linear layer: dropout as in transformers, or a ReLU without dropout as in "
            "TinyBERT's released code (cannot be exported to transformers)"
        },
    )
    encoder_spec: Optional[str] = field(
        default=None,
        metadata={
            "help": "not for users: JSON with architecture, special ids and label names, written into the checkpoint so that "
            "it loads where the original weights and tokenizer are not"
        },
    )


@register_model("hf_encoder", dataclass=HfEncoderConfig)
class HfEncoder(BaseFairseqModel):
    """Transformers encoder over the dictionary of one or two texts, with classification heads.

    Takes ids of the task's dictionary; the map to the encoder's ids is a buffer, so a checkpoint needs neither the tokenizer
    nor the original weights. It trains under fairseq's own criterion ``sentence_prediction``.

    Args:
        parts: encoder, and its pooler if it has one.
        token_to_encoder: ``(dictionary,)`` encoder id of each symbol.
        text_format: the encoder's special ids.
        digests: digests of what the map was made with (tokenizer, dictionary), by name.
        pooling: one of `POOLINGS`.
        dropout: rate of dropout before the heads' linear layers.
        classifier: one of `CLASSIFIERS`.
        label_names: names of the classes of the task's data; empty for regression and unlabelled text.
    """

    token_to_encoder: Tensor
    default_vector = "mean"  # of `sentence_vectors`

    def __init__(
        self,
        parts: SentenceParts,
        token_to_encoder: Tensor,
        text_format: TextFormat,
        digests: dict[str, str],
        pooling: str = "pooler",
        dropout: float = 0.1,
        classifier: str = "dropout",
        label_names: Sequence[str] = (),
    ):
        super().__init__()
        self.encoder = parts.encoder
        self.pooler = parts.pooler
        if pooling == "pooler":
            self.pooler = self.pooler or Pooler.new(self.encoder.config)
        elif self.pooler is not None:
            # kept for sentence vectors; a weight that gets no gradient would stop training with several workers
            self.pooler.requires_grad_(False)
        self.classification_heads = nn.ModuleDict()
        self.projections: Any = nn.ModuleDict()  # see `register_projection`
        self.register_buffer("token_to_encoder", token_to_encoder)
        self.text_format = text_format
        self.digests = digests
        self.pooling, self.dropout, self.classifier = pooling, dropout, classifier
        self.label_names = tuple(label_names)
        self._head_width = self._width  # of what the heads classify
        self.uses_segments = getattr(self.encoder.config, "type_vocab_size", 0) > 1
        self._positions = encoder_positions(self.encoder)
        self._given: Optional[SentenceParts] = parts  # whose classifier a new head may start from
        self._given_projections = dict(parts.projections)

    @classmethod
    def build_model(cls, cfg, task):
        """Build from the checkpoint's own description if it has one, else from what the options name."""
        names = tuple(getattr(task, "label_names", ()))
        head_form = (str(cfg.classification_pooling), cfg.classification_dropout, str(cfg.classifier), names)
        if cfg.encoder_spec:
            return cls._from_spec(EncoderSpec.from_json(cfg.encoder_spec), task, head_form)
        vocabulary = getattr(task, "vocabulary", None)
        if vocabulary is None:
            raise ValueError("--arch hf_encoder is trained with --task sentence_prediction_with_teacher")
        parts = starting_point(cfg, vocabulary)
        token_to_encoder = torch.from_numpy(vocabulary.token_to_encoder)
        origin = cfg.encoder_model or cfg.encoder_init or "the new encoder"
        check_embedded(parts.encoder, int(token_to_encoder.max()), origin)
        return cls(parts, token_to_encoder, vocabulary.text_format, vocabulary.digests, *head_form)

    @classmethod
    def _from_spec(cls, spec: EncoderSpec, task: Any, head_form: tuple[Any, ...]) -> "HfEncoder":
        """The model of a checkpoint, without its weights."""
        parts = take_apart(encoder_from_config(spec.config))
        parts = parts._replace(pooler=Pooler.new(parts.encoder.config) if spec.pooler else None)
        # filled when the weights are loaded
        tokens = torch.zeros(len(task.source_dictionary), dtype=torch.int64)
        model = cls(parts, tokens, spec.text_format, spec.digests, *head_form)
        for name, (classes, names) in spec.heads.items():
            if model.label_names and names and model.label_names != names:
                raise ValueError(
                    f"the checkpoint's classes are {', '.join(names)}, in this order, those of the data "
                    f"{', '.join(model.label_names)}; prepare the data with the labels of the checkpoint"
                )
            model._add_head(name, new_linear(model._head_width, classes, parts.encoder.config), names)
        for name, (width, bias) in spec.projections.items():
            model.register_projection(name, nn.Linear(model._width, width, bias))
        return model

    def spec(self) -> str:
        """JSON for ``encoder_spec``: what `build_model` needs beside the weights."""
        return EncoderSpec(
            config=config_settings(self.encoder.config),
            text_format=self.text_format,
            digests=self.digests,
            pooler=self.pooler is not None,
            heads={name: self._head(name).description() for name in self.classification_heads},
            projections={
                name: (projection.out_features, projection.bias is not None)
                for name, projection in self.projections.items()
            },
        ).to_json()

    @property
    def _width(self) -> int:
        return self.encoder.config.hidden_size

    # ------------------------------------------------------------ heads

    def register_classification_head(self, name, num_classes=None, inner_dim=None, **_unused):
        """Add a head, or keep the one of this name and size.

        A head starts from the classifier of ``--encoder-model`` or ``--encoder-init`` if that has the same label names, in
        any order; else from random weights.

        Args:
            name: name of the head.
            num_classes: numbers that it gives, 1 for regression.
            inner_dim: width of the pooler, if given.

        Raises:
            ValueError: a width that the encoder has not.
        """
        if inner_dim not in (None, self._width):
            raise ValueError(
                f"the pooler is as wide as the encoder ({self._width}), got inner_dim {inner_dim}"
            )
        if name in self.classification_heads:
            if self._head(name).description().classes == num_classes:
                return
            logger.warning("head `%s` is replaced by one with %d classes", name, num_classes)
        output = self._given_output(num_classes)
        if output is None:
            logger.info("head `%s` starts from random weights", name)
            output = new_linear(self._head_width, num_classes, self.encoder.config)
        self._add_head(name, output, self.label_names)

    def _head(self, name: str) -> ClassificationHead:
        return cast(ClassificationHead, self.classification_heads[name])

    def _add_head(self, name: str, output: nn.Linear, names: Sequence[str]) -> None:
        self.classification_heads[name] = ClassificationHead(output, names, self.dropout, self.classifier)

    def _given_output(self, num_classes: int) -> Optional[nn.Linear]:
        """The classifier that came with the encoder, its rows in the order of the task's label names; None if others."""
        given, self._given = self._given, None
        if given is None or given.output is None:
            return None
        if given.output.in_features != self._head_width:
            logger.info("the classifier that came with the encoder reads other vectors and is not used")
            return None
        output, shown = given.output, ", ".join(given.names) or "a number"
        same_labels = output.out_features == num_classes and set(given.names) == set(self.label_names)
        if not same_labels or given.form != (self.pooling, self.classifier):
            logger.info(
                "the classifier that came with the encoder (%s, %s) is not used: this one is for %s, %s",
                shown,
                " and ".join(given.form),
                ", ".join(self.label_names) or "a number",
                f"{self.pooling} and {self.classifier}",
            )
            return None
        rows = [given.names.index(name) for name in self.label_names] or [0]
        output.weight.data, output.bias.data = output.weight.data[rows], output.bias.data[rows]
        logger.info("the head starts from the classifier that came with the encoder (%s)", shown)
        return output

    # ------------------------------------------------------------ what only training uses

    def register_projection(self, name: str, projection: nn.Linear) -> None:
        """Add a map of hidden states into another width, which a criterion uses and an export leaves out.

        The one of this name that is there already, or came with ``--encoder-init``, is kept if it has the same sizes.
        """
        known = [kept[name] for kept in (self.projections, self._given_projections) if name in kept]
        self.projections[name] = next((kept for kept in known if _same_sizes(kept, projection)), projection)

    def upgrade_state_dict_named(self, state_dict: dict[str, Any], name: str) -> None:
        """Let ``--finetune-from-model`` take what both models have of pooler, heads and projections."""
        take_common_parts(self, state_dict, name, ("pooler", "classification_heads", "projections"))
        super().upgrade_state_dict_named(state_dict, name)

    # ------------------------------------------------------------ forward

    def lay_out(self, texts: Sequence[Tensor], lengths: Sequence[Tensor]) -> TextInput:
        """One or two texts as the encoder's input.

        Args:
            texts: one or two ``(batch, text_len)`` int64 ids of the dictionary, right-padded, each with end of sentence.
            lengths: ``(batch,)`` tokens of each text, end of sentence included.

        Raises:
            ValueError: a row is longer than the encoder's positions.
        """
        *first, last = lengths
        # between two texts the format's own tokens stand for the first one's end of sentence
        lengths = [*(length - 1 for length in first), last]
        inputs = assemble_texts([self.token_to_encoder[text] for text in texts], lengths, self.text_format)
        if inputs.input_ids.size(1) > self._positions:
            raise ValueError(
                f"the encoder has {self._positions} positions, but a text or pair takes {inputs.input_ids.size(1)}; give "
                f"the task --max-positions {self.max_positions()} or less, which cuts longer ones"
            )
        return inputs

    def encode_inputs(self, inputs: TextInput, inputs_embeds: Optional[Tensor] = None) -> Any:
        """Run the encoder.

        Args:
            inputs: result of `lay_out`.
            inputs_embeds: ``(batch, input_len, embedding)`` in the place of the input embeddings of ``input_ids``.

        Returns:
            What the transformers encoder returns; first the last hidden states, ``(batch, input_len, d)``.
        """
        return self.encoder(**self._encoder_arguments(inputs, inputs_embeds))

    def _encoder_arguments(
        self, inputs: TextInput, inputs_embeds: Optional[Tensor] = None
    ) -> dict[str, Tensor]:
        words = {"input_ids": inputs.input_ids} if inputs_embeds is None else {"inputs_embeds": inputs_embeds}
        arguments = {**words, "attention_mask": inputs.attention_mask}
        return arguments | ({"token_type_ids": inputs.token_type_ids} if self.uses_segments else {})

    def _smoothed(
        self, inputs: TextInput, texts: Sequence[Tensor], smoothed: Sequence[SmoothedText]
    ) -> Tensor:
        """``(batch, input_len, embedding)`` with mixtures in the places of smoothed tokens, of single sentences."""
        [tokens], [text], [columns] = texts, smoothed, inputs.positions
        words = self.encoder.get_input_embeddings().weight
        return smooth_embeddings(words, inputs.input_ids, text, tokens, columns, self.token_to_encoder)

    def _pooled(self, inputs: TextInput, pooling: str, inputs_embeds: Optional[Tensor] = None) -> Tensor:
        """``(batch, d)``; what only the first token needs of the last layer is computed for it alone (`last_layer`)."""
        if pooling == "mean":
            return pool(self.encode_inputs(inputs, inputs_embeds)[0], inputs.attention_mask, pooling, None)
        rows, length = inputs.input_ids.shape
        first = torch.arange(0, rows * length, length, device=inputs.input_ids.device)
        states = output_rows(self.encoder, first, **self._encoder_arguments(inputs, inputs_embeds))
        return pool_first(states, pooling, self.pooler)

    def forward(
        self, texts, lengths, features_only=False, classification_head_name=None, smoothed=None, **_unused
    ):
        """Logits of a head, or the last hidden states if none is named.

        Args:
            texts: ids of each text, see `lay_out`.
            lengths: tokens of each text, see `lay_out`.
            features_only: argument of fairseq's criterion; no effect.
            classification_head_name: name of a registered head.
            smoothed: a `SmoothedText` of the only text, whose mixtures of input embeddings stand in the place of its tokens.

        Returns:
            ``(batch, classes)`` logits or ``(batch, input_len, d)`` hidden states; and a dict with the `TextInput` under
            ``inputs``.
        """
        inputs = self.lay_out(texts, lengths)
        embeds = None if smoothed is None else self._smoothed(inputs, texts, smoothed)
        if classification_head_name is None:
            return self.encode_inputs(inputs, embeds)[0], {"inputs": inputs}
        pooled = self._pooled(inputs, self.pooling, embeds)
        return self.classification_heads[classification_head_name](pooled), {"inputs": inputs}

    def classify(self, hidden: Tensor, inputs: TextInput, head: str) -> Tensor:
        """Logits of a head from hidden states that are there already.

        Args:
            hidden: ``(batch, input_len, d)`` last hidden states.
            inputs: result of `lay_out`.
            head: its name.

        Returns:
            ``(batch, classes)``.
        """
        pooled = pool(hidden, inputs.attention_mask, self.pooling, self.pooler)
        return self.classification_heads[head](pooled)

    def sentence_vectors(self, tokens: Tensor, lengths: Tensor, vector: Optional[str] = None) -> Tensor:
        """One vector per sentence, as a `teachers.interface.SentenceEncoder` gives them.

        Args:
            tokens: ``(batch, length)`` int64 ids of the dictionary, right-padded, each row with end of sentence.
            lengths: ``(batch,)`` tokens of each row, end of sentence included.
            vector: "cls", the first token's last hidden state; "pooler", the pooler over it; "mean", the mean of the last
                hidden states over all tokens, special ones included; "last2-mean", that of the mean of the last two layers.
                None for "mean".

        Returns:
            ``(batch, d)``.

        Raises:
            ValueError: an unknown vector, or no pooler.
        """
        vector = vector or self.default_vector
        if vector not in VECTORS:
            raise ValueError(f"the vector must be one of {', '.join(VECTORS)}, got `{vector}`")
        if vector == "pooler" and self.pooler is None:
            raise ValueError(
                "the encoder has no pooler (none came with its weights); take the vector cls or mean"
            )
        inputs = self.lay_out((tokens,), (lengths,))
        if vector != "last2-mean":
            return self._pooled(inputs, vector)
        last = self.encoder.config.num_hidden_layers
        with record(inside(self.encoder), hidden=(last - 1, last)) as states:
            self.encode_inputs(inputs)
        return mean_over_tokens((states.hidden[last - 1] + states.hidden[last]) / 2, inputs.attention_mask)

    def max_positions(self) -> int:
        """Most tokens of all texts of a row together, each with its end of sentence."""
        first_end_replaced = max(len(self.text_format.middle) - 1, 0)
        return self._positions - len(self.text_format.prefix) - first_end_replaced

    def tokenizer_digest(self) -> str:
        """Digest of the tokenizer that the map was made with; empty if not known."""
        return self.digests.get("tokenizer", "")


def _same_sizes(one: nn.Linear, other: nn.Linear) -> bool:
    return same_shape(one.weight, other.weight) and same_shape(one.bias, other.bias)
