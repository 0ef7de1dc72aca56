"""fairseq model ``entity_encoder``: ``hf_encoder`` with knowledge-graph vectors beside its last layers (ERNIE)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from fairseq.dataclass import ChoiceEnum
from fairseq.models import register_model
from torch import Tensor

from fairseq_bert_kd.functional.entity_fusion import place_entities, states_of_arguments
from fairseq_bert_kd.functional.text_input import TextInput
from fairseq_bert_kd.models.hf_encoder import HfEncoder, HfEncoderConfig
from fairseq_bert_kd.modules.encoder_start import entities_of_checkpoint
from fairseq_bert_kd.modules.entity_reader import EntityOptions, EntityReader
from fairseq_bert_kd.modules.pretrained_encoder import EncoderSpec
from fairseq_bert_kd.modules.sentence_classifier import new_linear, pool

logger = logging.getLogger(__name__)

SENTENCE = "sentence"
ARGUMENTS = "arguments"
ENTITY_POOLINGS = (SENTENCE, ARGUMENTS)


@dataclass
class EntityEncoderConfig(EntityOptions, HfEncoderConfig):
    """Options of ``hf_encoder``, and those of the entity stream."""

    entity_pooling: ChoiceEnum(ENTITY_POOLINGS) = field(  # type: ignore[valid-type]
        default=SENTENCE,
        metadata={
            "help": "what a head classifies: sentence, the vector of --classification-pooling; or arguments, token and entity "
            "states at the first piece of each argument that --entity-markers marks, side by side (ours)"
        },
    )


@register_model("entity_encoder", dataclass=EntityEncoderConfig)
class EntityEncoder(HfEncoder):
    """Encoder whose last layers also read vectors of the entities that tokens name (Zhang et al., ACL 2019).

    Attributes:
        entities: the entity side of the layers, with the vectors.
        arguments: number of arguments at which a head reads; 0 for a sentence's vector.
    """

    entities: EntityReader
    arguments: int = 0
    _said_without = False  # that vectors of sentences read no entities

    @classmethod
    def build_model(cls, cfg, task):
        if cfg.entity_weights and cfg.encoder_init:
            raise ValueError(
                "--encoder-init and --entity-weights both say where encoder and entities start; give one of them"
            )
        model = super().build_model(cfg, task)
        if cfg.encoder_spec:
            return model
        if not cfg.entity_vectors:
            raise ValueError(
                "--arch entity_encoder needs --entity-vectors, a file that `fairseq-bert-kd entity-vectors` wrote"
            )
        seed = getattr(getattr(task, "cfg", None), "seed", 1)
        dense = None if model.pooler is None else model.pooler.dense
        model.entities = EntityReader.new(cfg, model.encoder, seed, dense, getattr(task, "entity_span", ""))
        if str(cfg.entity_pooling) == ARGUMENTS:
            arguments = getattr(task, "marked_arguments", 0)
            if not arguments:
                raise ValueError(
                    "--entity-pooling arguments reads at marked arguments; give --task entity_sentence_prediction "
                    "--entity-markers relation or typing"
                )
            model._read_at(arguments)
        elif str(cfg.classification_pooling) != "mean":
            model.entities.check_reach(
                "the first token, which is classified",
                "read them in more layers (mix,full), or give --classification-pooling mean",
            )
        if cfg.encoder_init:
            stated, weights = entities_of_checkpoint(cfg.encoder_init)
            if stated:
                model.entities.take(stated, weights, cfg.encoder_init)
        return model

    @classmethod
    def _from_spec(cls, spec, task, head_form):
        model = super()._from_spec(spec, task, head_form)
        model.entities = EntityReader.of_spec(spec.entities, model.encoder)
        model._read_at(spec.entities.get("arguments", 0))
        for name, (classes, names) in spec.heads.items():
            model._add_head(name, new_linear(model._head_width, classes, model.encoder.config), names)
        return model

    def _read_at(self, arguments: int) -> None:
        """Let the heads read at arguments, if at any; before the heads are made."""
        if not arguments:
            return
        self.arguments = arguments
        if self.pooler is not None:
            self.pooler.requires_grad_(False)  # not used, as in `HfEncoder`
        self.entities.stream.train_last_states()
        self._head_width = arguments * (self._width + self.entities.stream.width)

    def spec(self) -> str:
        """JSON for ``encoder_spec``, the stream's sizes included."""
        stated = self.entities.spec() | {"arguments": self.arguments}
        return EncoderSpec.from_json(super().spec()).with_entities(stated).to_json()

    def entities_digest(self) -> str:
        """Digest of the entity vectors that the model was made with."""
        return self.entities.digest

    def entity_span(self) -> str:
        """Which pieces the mentions of its training mark; empty where it is not known."""
        return self.entities.span

    # ------------------------------------------------------------ forward

    def forward(
        self,
        texts,
        lengths,
        features_only=False,
        classification_head_name=None,
        smoothed=None,
        entities=None,
        arguments=None,
        **_unused,
    ):
        """Logits of a head, or the last hidden states if none is named.

        Args:
            texts: see `lay_out`.
            lengths: see `lay_out`.
            features_only: of fairseq's criterion; no effect.
            classification_head_name: name of a registered head.
            smoothed: of `HfEncoder.forward`; refused.
            entities: one ``(batch, text_len)`` int64 per text, rows of the table of vectors, 0 for none; None for no
                entities at all.
            arguments: one ``(batch, text_len)`` int64 per text, at the first piece of an argument its number, elsewhere 0; for
                --entity-pooling arguments.

        Returns:
            As `HfEncoder.forward`.

        Raises:
            ValueError: smoothed words, whose entities are not known; or no arguments for a head that reads at them.
        """
        if smoothed is not None:
            raise ValueError("--arch entity_encoder reads no smoothed words; train an hf_encoder with them")
        inputs = self.lay_out(texts, lengths)
        hidden, states = self._states(inputs, entities)
        if classification_head_name is None:
            return hidden, {"inputs": inputs}
        if not self.arguments:
            return self.classify(hidden, inputs, classification_head_name), {"inputs": inputs}
        if arguments is None:
            raise ValueError(
                "the head was trained with --entity-pooling arguments; give texts with marked arguments (a data folder with "
                "mentions)"
            )
        both = torch.cat([hidden, states], dim=-1)
        read = states_of_arguments(both, place_entities(arguments, inputs), self.arguments)
        return self.classification_heads[classification_head_name](read), {"inputs": inputs}

    def classify(self, hidden, inputs, head):
        """As `HfEncoder.classify`.

        Raises:
            ValueError: a head that reads at arguments, of which the entity states are needed too.
        """
        if self.arguments:
            raise ValueError(
                "a head of --entity-pooling arguments reads entity states too, which are not at hand where layers are compared; learn "
                "predictions and layers in two stages (--layer-stage prediction), or from a model of --entity-pooling sentence"
            )
        return super().classify(hidden, inputs, head)

    def encode_inputs(
        self,
        inputs: TextInput,
        inputs_embeds: Optional[Tensor] = None,
        entities: Optional[Sequence[Tensor]] = None,
    ) -> Any:
        """``(batch, input_len, d)`` last hidden states of the tokens, in a tuple of one.

        Raises:
            ValueError: input embeddings, which this model does not take.
        """
        if inputs_embeds is not None:
            raise ValueError("--arch entity_encoder takes no input embeddings; give an hf_encoder")
        return self._states(inputs, entities)[:1]

    def _states(self, inputs: TextInput, entities: Optional[Sequence[Tensor]]) -> tuple[Tensor, Tensor]:
        """Last hidden states of the tokens and last entity states."""
        placed = None if entities is None else place_entities(entities, inputs)
        return self.entities(self.encoder, placed, **self._encoder_arguments(inputs))

    def _pooled(self, inputs: TextInput, pooling: str, inputs_embeds: Optional[Tensor] = None) -> Tensor:
        """``(batch, d)`` of sentences without entities; the stream needs all positions of the last layer."""
        [hidden] = self.encode_inputs(inputs, inputs_embeds)
        return pool(hidden, inputs.attention_mask, pooling, self.pooler)

    def sentence_vectors(self, tokens: Tensor, lengths: Tensor, vector: Optional[str] = None) -> Tensor:
        """As `HfEncoder.sentence_vectors`, without entities, as the log says once; not of "last2-mean"."""
        if vector == "last2-mean":
            raise ValueError(
                "--arch entity_encoder does not show its inner layers; take the vector mean or cls"
            )
        if self.entities.reads and not self._said_without:
            self._said_without = True
            logger.warning(
                "the model was trained with the entities that its texts name, and gives sentence vectors without them"
            )
        return super().sentence_vectors(tokens, lengths, vector)
