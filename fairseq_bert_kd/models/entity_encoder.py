"""fairseq model ``entity_encoder``: ``hf_encoder`` with knowledge-graph vectors beside its last layers (ERNIE)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from fairseq.models import register_model
from torch import Tensor

from fairseq_bert_kd.functional.entity_fusion import place_entities
from fairseq_bert_kd.functional.text_input import TextInput
from fairseq_bert_kd.models.hf_encoder import HfEncoder, HfEncoderConfig
from fairseq_bert_kd.modules.encoder_start import entities_of_checkpoint
from fairseq_bert_kd.modules.entity_reader import EntityOptions, EntityReader
from fairseq_bert_kd.modules.pretrained_encoder import EncoderSpec
from fairseq_bert_kd.modules.sentence_classifier import pool


@dataclass
class EntityEncoderConfig(EntityOptions, HfEncoderConfig):
    """Options of ``hf_encoder``, and those of the entity stream."""


@register_model("entity_encoder", dataclass=EntityEncoderConfig)
class EntityEncoder(HfEncoder):
    """Encoder whose last layers also read vectors of the entities that tokens name (Zhang et al., ACL 2019).

    Attributes:
        entities: the entity side of the layers, with the vectors.
    """

    entities: EntityReader

    @classmethod
    def build_model(cls, cfg, task):
        model = super().build_model(cfg, task)
        if cfg.encoder_spec:
            return model
        if not cfg.entity_vectors:
            raise ValueError(
                "--arch entity_encoder needs --entity-vectors, a file that `fairseq-bert-kd entity-vectors` wrote"
            )
        seed = getattr(getattr(task, "cfg", None), "seed", 1)
        model.entities = EntityReader.new(cfg, model.encoder, seed)
        if cfg.encoder_init:
            stated, weights = entities_of_checkpoint(cfg.encoder_init)
            if stated:
                model.entities.take(stated, weights, cfg.encoder_init)
        return model

    @classmethod
    def _from_spec(cls, spec, task, head_form):
        model = super()._from_spec(spec, task, head_form)
        model.entities = EntityReader.of_spec(spec.entities, model.encoder)
        return model

    def spec(self) -> str:
        """JSON for ``encoder_spec``, the stream's sizes included."""
        return EncoderSpec.from_json(super().spec()).with_entities(self.entities.spec()).to_json()

    def entities_digest(self) -> str:
        """Digest of the entity vectors that the model was made with."""
        return self.entities.digest

    # ------------------------------------------------------------ forward

    def forward(
        self,
        texts,
        lengths,
        features_only=False,
        classification_head_name=None,
        smoothed=None,
        entities=None,
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

        Returns:
            As `HfEncoder.forward`.

        Raises:
            ValueError: smoothed words, whose entities are not known.
        """
        if smoothed is not None:
            raise ValueError("--arch entity_encoder reads no smoothed words; train an hf_encoder with them")
        inputs = self.lay_out(texts, lengths)
        [hidden] = self.encode_inputs(inputs, entities=entities)
        if classification_head_name is None:
            return hidden, {"inputs": inputs}
        return self.classify(hidden, inputs, classification_head_name), {"inputs": inputs}

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
        placed = None if entities is None else place_entities(entities, inputs)
        return (self.entities(self.encoder, placed, **self._encoder_arguments(inputs)),)

    def _pooled(self, inputs: TextInput, pooling: str, inputs_embeds: Optional[Tensor] = None) -> Tensor:
        """``(batch, d)`` of sentences without entities; the stream needs all positions of the last layer."""
        [hidden] = self.encode_inputs(inputs, inputs_embeds)
        return pool(hidden, inputs.attention_mask, pooling, self.pooler)

    def sentence_vectors(self, tokens: Tensor, lengths: Tensor, vector: Optional[str] = None) -> Tensor:
        if vector == "last2-mean":
            raise ValueError(
                "--arch entity_encoder does not show its inner layers; take the vector mean or cls"
            )
        return super().sentence_vectors(tokens, lengths, vector)
