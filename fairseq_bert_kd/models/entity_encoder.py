"""fairseq model ``entity_encoder``: ``hf_encoder`` with knowledge-graph vectors beside its last layers (ERNIE)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from fairseq.dataclass import ChoiceEnum
from fairseq.models import register_model
from torch import Tensor

from fairseq_bert_kd.functional.entity_fusion import default_kinds, look_up, place_entities
from fairseq_bert_kd.functional.text_input import TextInput
from fairseq_bert_kd.models.hf_encoder import HfEncoder, HfEncoderConfig
from fairseq_bert_kd.modules.entity_stream import INITS, ZERO, EntityStream
from fairseq_bert_kd.modules.pretrained_encoder import EncoderSpec
from fairseq_bert_kd.modules.sentence_classifier import pool
from fairseq_bert_kd.storage.entity_vectors import read_entity_vectors

DIGEST = "entities"  # of the vectors, among the model's digests


@dataclass
class EntityEncoderConfig(HfEncoderConfig):
    """Options of ``hf_encoder``, and those of the entity stream."""

    entity_vectors: Optional[str] = field(
        default=None,
        metadata={
            "help": "entity vectors that `fairseq-bert-kd entity-vectors` wrote: the .safetensors file, its ids beside it"
        },
    )
    entity_layers: Optional[str] = field(
        default=None,
        metadata={
            "help": "kinds of the last layers, separated by commas: plain (BERT's), mix (entities join the tokens) or full (and "
            "attend to each other); default: half of the layers plain, at most 5, one mix, the others full"
        },
    )
    entity_heads: int = field(
        default=4,
        metadata={"help": "heads of the entities' attention, which divide their width (released: 4)"},
    )
    entity_init: ChoiceEnum(INITS) = field(  # type: ignore[valid-type]
        default=ZERO,
        metadata={
            "help": "zero: training starts exactly from the encoder without entities (ours); normal: N(0, 0.02), as released"
        },
    )


@register_model("entity_encoder", dataclass=EntityEncoderConfig)
class EntityEncoder(HfEncoder):
    """Encoder whose last layers also read vectors of the entities that tokens name (Zhang et al., ACL 2019).

    Attributes:
        stream: the entity side of the layers.
        entity_vectors: ``(entities + 1, entity_dim)`` frozen, row 0 zeros for no entity.
    """

    stream: EntityStream
    entity_vectors: Tensor

    @classmethod
    def build_model(cls, cfg, task):
        model = super().build_model(cfg, task)
        if cfg.encoder_spec:
            return model
        if not cfg.entity_vectors:
            raise ValueError(
                "--arch entity_encoder needs --entity-vectors, a file that `fairseq-bert-kd entity-vectors` wrote"
            )
        vectors = read_entity_vectors(cfg.entity_vectors)
        kinds = (
            cfg.entity_layers.split(",")
            if cfg.entity_layers
            else default_kinds(model.encoder.config.num_hidden_layers)
        )
        model.add_entities(torch.from_numpy(vectors.table()), kinds, cfg.entity_heads, str(cfg.entity_init))
        model.digests = {**model.digests, DIGEST: vectors.digest()}
        return model

    @classmethod
    def _from_spec(cls, spec, task, head_form):
        model = super()._from_spec(spec, task, head_form)
        stated = spec.entities
        table = torch.zeros(stated["rows"], stated["width"])  # filled when the weights are loaded
        model.add_entities(table, stated["kinds"], stated["heads"])
        return model

    def add_entities(self, table: Tensor, kinds: Sequence[str], heads: int, init: str = ZERO) -> None:
        """Give the model its entity stream.

        Args:
            table: ``(entities + 1, entity_dim)`` float32, row 0 zeros.
            kinds: see `EntityStream`.
            heads: of the entities' attention.
            init: see `EntityStream`.
        """
        self.stream = EntityStream(self.encoder, kinds, table.size(1), heads, init)
        self.register_buffer("entity_vectors", table)

    def spec(self) -> str:
        """JSON for ``encoder_spec``, the stream's sizes included."""
        rows, width = self.entity_vectors.shape
        entities = {"rows": rows, "width": width, "kinds": self.stream.kinds, "heads": self.stream.heads}
        return EncoderSpec.from_json(super().spec()).with_entities(entities).to_json()

    def entities_digest(self) -> str:
        """Digest of the entity vectors that the model was made with."""
        return self.digests[DIGEST]

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
        placed = torch.zeros_like(inputs.input_ids) if entities is None else place_entities(entities, inputs)
        stream = look_up(placed, self.entity_vectors)
        return (self.stream(self.encoder, stream, **self._encoder_arguments(inputs)),)

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
