"""What an encoder needs to read entities: the stream beside its layers, the frozen vectors, and the options of both."""

from dataclasses import dataclass, field, fields
from typing import Any, Optional

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from torch import Tensor, nn

from fairseq_bert_kd.batch import as_bits, from_bits
from fairseq_bert_kd.functional.entity_fusion import (
    CONTROLS,
    NONE,
    TRUE,
    controlled_table,
    default_kinds,
    look_up,
    reach_others,
    unit_scale,
)
from fairseq_bert_kd.modules.entity_release import ReleasedWeights
from fairseq_bert_kd.modules.entity_stream import INITS, ZERO, EntityStream
from fairseq_bert_kd.storage.entity_mentions import ALL, FIRST
from fairseq_bert_kd.storage.entity_vectors import read_entity_vectors

UNIT = "unit"
SCALES = (UNIT, "none")
SAME_SCALE = 1e-3  # relative; a processor may sum in another order
SPANS = ("", FIRST, ALL)  # by their number in a checkpoint; "" is not known


@dataclass
class EntityOptions(FairseqDataclass):
    """Options of the vectors and of the entity stream."""

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
    entity_weights: Optional[str] = field(
        default=None,
        metadata={
            "help": "pytorch_model.bin of an ERNIE as its authors released it, or its folder: encoder and entity stream start "
            "from it; it needs the encoder, vectors, layers and heads that it was made with"
        },
    )
    entity_scale: ChoiceEnum(SCALES) = field(  # type: ignore[valid-type]
        default=UNIT,
        metadata={
            "help": "unit: the stream reads the vectors times one number, so that theirs have standard deviation 1 (ours: as they are, "
            "with length 1 like TransE's, the stream's own random weights drown them); none: as they are, as released, which "
            "--entity-weights needs"
        },
    )
    entity_control: ChoiceEnum(CONTROLS) = field(  # type: ignore[valid-type]
        default=TRUE,
        metadata={
            "help": "what the model reads of an entity: its own vector (true), or for comparisons that of another entity, always "
            "the same one (shuffled), random numbers of the same spread (random), or nothing (none); drawn from --seed"
        },
    )


def check_without_vectors(cfg: Any) -> None:
    """ValueError for an option of `EntityOptions` that has no effect, since ``--entity-vectors`` is not given."""
    for option in fields(EntityOptions):
        given = getattr(cfg, option.name, option.default)
        if option.name.startswith("entity_") and str(given) != str(option.default):
            name = option.name.replace("_", "-")
            raise ValueError(
                f"--{name} {given} has no effect without --entity-vectors; give them, or leave it out"
            )


class EntityReader(nn.Module):
    """Runs an encoder with the entities that its tokens name.

    Args:
        stream: the entity side of its layers.
        table: ``(entities + 1, entity_dim)`` float32, row 0 zeros for no entity.
        digest: of the vectors.
        reads: False for a model that is never shown an entity (``--entity-control none``).
        scale: by which the stream's input is multiplied; what predicts entities takes the vectors as they are.
        span: which pieces the mentions of its training mark, see `storage.entity_mentions.Mentions`; "" where it is not known.

    Attributes:
        vectors: the table, frozen.
        reading: ``(4,)`` int64, bits of ``scale``, ``reads``, the stream's heads and the number of ``span``: what a checkpoint is
            compared by.
        identity: ``(bytes,)`` int64, ``digest``, which is of the entities' ids too: compared likewise.
        head_start: weights from which a dEA head starts; None for random ones.
    """

    vectors: Tensor
    reading: Tensor
    identity: Tensor
    head_start: Optional[dict[str, Tensor]] = None

    def __init__(
        self,
        stream: EntityStream,
        table: Tensor,
        digest: str,
        reads: bool = True,
        scale: float = 1.0,
        span: str = "",
    ):
        super().__init__()
        self.stream, self.digest, self.reads, self.scale, self.span = stream, digest, reads, scale, span
        self.register_buffer("vectors", table)
        bits = as_bits(torch.tensor([scale]))
        others = torch.tensor([int(reads), stream.heads, SPANS.index(span)])
        self.register_buffer("reading", torch.cat([bits.long(), others]))
        # int64, since averaging checkpoints adds them up
        self.register_buffer("identity", torch.tensor(list(bytes.fromhex(digest))))

    @classmethod
    def new(cls, cfg: Any, encoder: Any, seed: int, pooler: Any = None, span: str = "") -> "EntityReader":
        """The reader of `EntityOptions` for an encoder.

        Args:
            cfg: `EntityOptions`.
            encoder: a transformers encoder; ``entity_weights`` fills it too.
            seed: of the random weights and of the controls.
            pooler: its pooler's linear layer, if it has one, for ``entity_weights``.
            span: see the class.

        Raises:
            FileNotFoundError: no vectors.
            ValueError: vectors or options that do not fit the encoder.
        """
        vectors = read_entity_vectors(cfg.entity_vectors)
        given, layers = cfg.entity_layers, encoder.config.num_hidden_layers
        kinds = given.split(",") if given else default_kinds(layers)
        control = str(cfg.entity_control)
        generator = torch.Generator().manual_seed(seed)
        table = controlled_table(torch.from_numpy(vectors.table()), control, generator)
        stream = EntityStream(encoder, kinds, table.size(1), cfg.entity_heads, str(cfg.entity_init))
        scale = unit_scale(table) if str(cfg.entity_scale) == UNIT else 1.0
        reader = cls(stream, table, vectors.digest(), control != NONE, scale, span)
        if cfg.entity_weights:
            if scale != 1.0:
                raise ValueError(
                    f"--entity-weights was trained on vectors as they are, --entity-scale is {UNIT}; add --entity-scale none"
                )
            released = ReleasedWeights.read(cfg.entity_weights)
            released.fill(encoder, stream, pooler)
            reader.head_start = released.head()
        return reader

    @classmethod
    def of_spec(cls, stated: dict[str, Any], encoder: Any) -> "EntityReader":
        """The reader of `spec`, without its weights."""
        table = torch.zeros(stated["rows"], stated["width"])
        stream = EntityStream(encoder, stated["kinds"], stated["width"], stated["heads"])
        scale, span = stated.get("scale", 1.0), stated.get("span", "")
        return cls(stream, table, stated["digest"], stated["reads"], scale, span)

    def check_reach(self, reading: str, advice: str) -> None:
        """Check that entities can change what is read from the last token states.

        Args:
            reading: what is read at tokens that name no entity, for the message.
            advice: what to give, for the message.

        Raises:
            ValueError: the last layer alone reads entities.
        """
        if self.reads and not reach_others(self.stream.kinds):
            raise ValueError(
                f"--entity-layers {','.join(self.stream.kinds)}: the last layer alone reads entities, and no attention above it carries "
                f"them to {reading}; {advice}"
            )

    def take(self, stated: dict[str, Any], weights: dict[str, Tensor], name: str) -> None:
        """Start from the reader of a checkpoint.

        Args:
            stated: its `spec`.
            weights: its weights.
            name: path of the checkpoint, for the message.

        Raises:
            ValueError: it has other layers, or other vectors.
        """
        given, own = ((list(said["kinds"]), said["heads"]) for said in (stated, self.spec()))
        if given != own:
            raise ValueError(
                f"`{name}` was trained with entity layers {', '.join(given[0])} and {given[1]} heads, the options say "
                f"{', '.join(own[0])} and {own[1]}; give --entity-layers and --entity-heads as there"
            )
        if stated.get("digest", self.digest) != self.digest:
            raise ValueError(
                f"`{name}` was trained with other entity vectors (sha256 {stated['digest'][:12]}) than --entity-vectors "
                f"({self.digest[:12]}), or with other ids of them; give the ones that it was trained with"
            )
        self._check_scale(stated.get("scale", 1.0), f"`{name}`")
        # whether it reads entities may change, a baseline without them starts from the same weights; so may the pieces
        self.load_state_dict(weights | {"reading": self.reading})

    def _check_scale(self, scale: float, name: str) -> None:
        """ValueError for a checkpoint whose stream read vectors times another number."""
        if abs(scale - self.scale) > SAME_SCALE * self.scale:
            raise ValueError(
                f"{name} was trained on entity vectors times {scale:.4g}, the options say times {self.scale:.4g}; give "
                "--entity-scale as there"
            )

    def _load_from_state_dict(self, state_dict, prefix, *others):
        """torch's; ValueError where a checkpoint was trained with other vectors than those that the options name, or read them
        otherwise."""
        given = state_dict.get(f"{prefix}vectors")
        # older checkpoints lack both, or the last numbers of the first
        reading = state_dict.get(f"{prefix}reading", self.reading[:0])
        reading = torch.cat([reading, self.reading[len(reading) :].to(reading)])
        state_dict[f"{prefix}reading"] = reading
        identity = state_dict.setdefault(f"{prefix}identity", self.identity)
        if given is not None and bool(self.vectors.any()):  # zeros: of a checkpoint's own description
            self._check_vectors(given, identity)
            self._check_reading(reading)
            state_dict[f"{prefix}vectors"] = self.vectors  # those of a checkpoint of --fp16 are rounded
        super()._load_from_state_dict(state_dict, prefix, *others)

    def _check_vectors(self, given: Tensor, identity: Tensor) -> None:
        """ValueError for a checkpoint of other vectors, or of these under other ids."""
        if not _same_vectors(given, self.vectors):
            raise ValueError(
                "the checkpoint was trained with other entity vectors, or with another --entity-control or --seed of it; give "
                "the ones that it was trained with, or another --save-dir"
            )
        if not torch.equal(identity.cpu(), self.identity.cpu()):
            raise ValueError(
                "the checkpoint was trained with these entity vectors under other ids, so that mentions would name other "
                "entities; give --entity-vectors with the ids that it was trained with, or another --save-dir"
            )

    def _check_reading(self, reading: Tensor) -> None:
        """ValueError for a checkpoint that read the vectors otherwise; ``reading`` as the attribute of that name."""
        self._check_scale(float(from_bits(reading[:1].int())), "the checkpoint")
        reads, heads, number = reading[1:4].tolist()
        if reads != self.reads:
            said = "without entities; give" if self.reads else "with entities; leave out"
            raise ValueError(
                f"the checkpoint was trained {said} --entity-control {NONE}, or give another --save-dir"
            )
        if heads != self.stream.heads:
            raise ValueError(
                f"the checkpoint was trained with --entity-heads {heads}, which is {self.stream.heads} now; give {heads}, or another "
                "--save-dir"
            )
        span = SPANS[number]
        if span and self.span and span != self.span:
            raise ValueError(
                f"the checkpoint was trained on mentions of --entity-span {span}, those of the data are of {self.span}; write them "
                f"with `fairseq-bert-kd entities --entity-span {span}`, or give another --save-dir"
            )

    def spec(self) -> dict[str, Any]:
        """What `of_spec` needs, ready for JSON."""
        rows, width = self.vectors.shape
        return {
            "rows": rows, "width": width, "kinds": self.stream.kinds, "heads": self.stream.heads, "digest": self.digest,
            "reads": self.reads, "scale": self.scale, "span": self.span,
        }  # fmt: skip

    def forward(
        self,
        encoder: Any,
        placed: Optional[Tensor],
        input_ids: Tensor,
        attention_mask: Optional[Tensor] = None,
        token_type_ids: Optional[Tensor] = None,
    ) -> tuple[Tensor, Tensor]:
        """Last hidden states, ``(batch, input_len, d)``, and last entity states, ``(batch, input_len, entity_dim)``.

        Args:
            encoder: the one that the stream was made for.
            placed: ``(batch, input_len)`` int64 rows of the table, 0 for none; None for no entities at all.
            input_ids: ``(batch, input_len)`` encoder ids.
            attention_mask: ``(batch, input_len)``, 1 on tokens; None if nothing is padded.
            token_type_ids: ``(batch, input_len)`` segments.
        """
        if placed is None or not self.reads:
            placed = torch.zeros_like(input_ids)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        entities = look_up(placed, self.vectors)
        entities = entities._replace(vectors=entities.vectors * self.scale)
        return self.stream(encoder, entities, input_ids, attention_mask, token_type_ids)


def _same_vectors(one: Tensor, other: Tensor) -> bool:
    """Whether two tables are the same in the coarser of their number formats."""
    if one.shape != other.shape:
        return False
    return torch.equal(one.to(other), other) or torch.equal(other.to(one), one)
