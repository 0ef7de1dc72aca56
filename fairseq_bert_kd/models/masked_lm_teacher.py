"""fairseq model ``hf_masked_lm``: a transformers masked language model of pairs (C-MLM teacher) or of sentences."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Optional

import torch
from fairseq.dataclass import ChoiceEnum
from fairseq.models import BaseFairseqModel, register_model
from torch import Tensor

from fairseq_bert_kd import compat
from fairseq_bert_kd.functional.entity_fusion import place_entities
from fairseq_bert_kd.functional.masking import ALWAYS_MASKED, Replacement
from fairseq_bert_kd.functional.text_format import TextFormat
from fairseq_bert_kd.functional.text_input import ATTENTIONS, BIDIRECTIONAL, LEFT_TO_RIGHT, TextLayout
from fairseq_bert_kd.modules.encoder_layers import keep_first_layers
from fairseq_bert_kd.modules.entity_reader import EntityOptions, EntityReader, check_without_vectors
from fairseq_bert_kd.modules.entity_stream import EntityHead
from fairseq_bert_kd.modules.last_layer import output_rows
from fairseq_bert_kd.modules.masked_lm_head import put_head, take_head
from fairseq_bert_kd.modules.pretrained_encoder import (
    EncoderSpec,
    check_embedded,
    config_settings,
    encoder_positions,
    masked_lm_from_config,
    masked_lm_with_random_weights,
    pretrained_masked_lm,
)

logger = logging.getLogger(__name__)

NO_FOLD = (0, 0)  # of a teacher of all pairs


@dataclass
class HfMaskedLMConfig(EntityOptions):
    """Options of the pre-trained model, of how much of it is used, of its attention, and of entities beside its layers."""

    teacher_model: Optional[str] = field(
        default=None,
        metadata={"help": "folder or hub name of the pre-trained transformers masked language model"},
    )
    teacher_tokenizer: Optional[str] = field(
        default=None,
        metadata={"help": "folder or hub name of its tokenizer (default: the same as --teacher-model)"},
    )
    teacher_attention: ChoiceEnum(ATTENTIONS) = field(  # type: ignore[valid-type]
        default=BIDIRECTIONAL,
        metadata={
            "help": "what the prediction of a target token may use: both sides of it (the paper's C-MLM), or the source "
            "and the target's tokens before it, without mask tokens and in one pass (the paper's BERT_l2r; it does not "
            "say how that masks attention, this prefix language model is our choice)"
        },
    )
    teacher_layers: Optional[int] = field(
        default=None,
        metadata={
            "help": "keep the first N layers of the pre-trained model only (default: all; the paper's BERT_sm has 6, "
            "it does not say which; the first ones are our choice)"
        },
    )
    teacher_random_weights: bool = field(
        default=False,
        metadata={
            "help": "start from the random weights of the model's own initialisation instead of the pre-trained ones: "
            "same architecture and tokenizer, drawn from --seed"
        },
    )
    teacher_spec: Optional[str] = field(
        default=None,
        metadata={
            "help": "not for users: JSON with the teacher's architecture, attention and special ids, written into "
            "the checkpoint so that it loads where the original weights and tokenizer are not"
        },
    )


@register_model("hf_masked_lm", dataclass=HfMaskedLMConfig)
class HfMaskedLM(BaseFairseqModel):
    """Masked language model over the student's dictionaries, of pairs (Chen et al. 2020, Eq. 3) or of sentences.

    Takes and predicts *student* ids; the maps to teacher ids are buffers, so a checkpoint needs neither
    the tokenizer nor the original weights. It is a `teachers.interface.TokenTeacher`.

    Args:
        masked_lm: a transformers ``*ForMaskedLM``; taken apart into encoder and head.
        to_teacher: ``(dictionary,)`` teacher id of each symbol, by side; ``source`` and ``target``, or ``target`` alone for
            single sentences. They are the buffers ``source_to_teacher`` and ``target_to_teacher``.
        text_format: the teacher's special ids.
        digests: digests of what the maps were made with (tokenizer, the sides' dictionaries), by name.
        attention: one of `text_input.ATTENTIONS`.
        replacement: what it was trained to see at predicted positions.
        held_out: number and count of the fold of pairs that it is trained without; it travels with the weights, so that a run
            that goes on from a checkpoint knows what that has seen.

    Attributes:
        entities: what reads the entities that pieces name; None without ``--entity-vectors``.
        entity_head: what predicts them, for ``--criterion entity_masked_lm`` alone.

    Raises:
        ValueError: the encoder cannot be restricted to left-to-right attention, or its head is not known.
    """

    entities: Optional[EntityReader]
    entity_head: Optional[EntityHead]
    target_to_teacher: Tensor
    held_out_fold: Tensor  # (2,) int64

    def __init__(
        self,
        masked_lm: Any,
        to_teacher: Mapping[str, Tensor],
        text_format: TextFormat,
        digests: dict[str, str],
        attention: str = BIDIRECTIONAL,
        replacement: Replacement = ALWAYS_MASKED,
        held_out: tuple[int, int] = NO_FOLD,
    ):
        super().__init__()
        self.sides = tuple(to_teacher)
        assert self.sides[-1] == "target", self.sides
        self.encoder = masked_lm.base_model
        self.head = take_head(masked_lm, vocab_size=len(to_teacher["target"]))
        self.text_format = text_format
        self.digests = digests
        self.attention = attention
        self.replacement = replacement
        self._pair_attention = _pair_attention(self.encoder, text_format, attention)
        for side, ids in to_teacher.items():
            self.register_buffer(f"{side}_to_teacher", ids)
        self.register_buffer("held_out_fold", torch.tensor(held_out, dtype=torch.int64))
        self.uses_segments = getattr(masked_lm.config, "type_vocab_size", 0) > 1
        self.entities = self.entity_head = None

    @classmethod
    def build_model(cls, cfg, task):
        """Build from the checkpoint's own description if it has one, else from pre-trained weights."""
        if cfg.teacher_spec:
            spec = EncoderSpec.from_json(cfg.teacher_spec)
            blank = {  # filled when the weights are loaded
                side: torch.zeros(len(dictionary), dtype=torch.int64)
                for side, dictionary in task.dictionaries.items()
            }
            masked_lm = masked_lm_from_config(spec.config)
            model = cls(masked_lm, blank, spec.text_format, spec.digests, spec.attention, spec.replacement)
            if spec.entities:
                model.entities = EntityReader.of_spec(spec.entities, model.encoder)
            if spec.entities.get("predicts"):
                model.add_entity_head()
            return model
        vocabulary = getattr(task, "teacher_vocabulary", None)
        if vocabulary is None:
            raise ValueError("--arch hf_masked_lm is trained with --task conditional_masked_lm")
        # copies: loading a checkpoint writes into them
        to_teacher = {side: torch.tensor(ids) for side, ids in vocabulary.to_teacher.items()}
        model = cls(
            _starting_point(cfg),
            to_teacher,
            vocabulary.text_format,
            vocabulary.digests,
            str(cfg.teacher_attention),
            task.replacement,
            getattr(task, "held_out", NO_FOLD),
        )
        largest = max(int(ids.max()) for ids in to_teacher.values())
        check_embedded(model.encoder, largest, cfg.teacher_model)
        model.head.initialise_projection(model.encoder.get_input_embeddings().weight, model.target_to_teacher)
        if cfg.entity_vectors:
            model._read_entities(cfg, task)
        else:
            check_without_vectors(cfg)
        return model

    def _read_entities(self, cfg: Any, task: Any) -> None:
        """Put the entity stream of ``--entity-vectors`` beside the layers.

        Raises:
            ValueError: a left-to-right teacher: the entity at the first piece of a mention would name those after it.
        """
        if self.attention == LEFT_TO_RIGHT:
            raise ValueError(
                "--entity-vectors needs a teacher that masks what it predicts: an entity names the pieces of its mention, which "
                "--teacher-attention left-to-right shows one by one; leave one of them out"
            )
        seed = getattr(getattr(task, "cfg", None), "cmlm_seed", 1)
        span = getattr(task, "entity_span", "")
        self.entities = EntityReader.new(cfg, self.encoder, seed, span=span)

    def add_entity_head(self) -> None:
        """Let the model predict entities, if it does not yet."""
        assert self.entities is not None
        if self.entity_head is None:
            self.entity_head = EntityHead(self.encoder.config, self.entities.vectors.size(1))
            if self.entities.head_start is not None:
                self.entity_head.load_state_dict(self.entities.head_start)

    def entities_digest(self) -> str:
        """Digest of the vectors of ``--entity-vectors``; empty for a teacher that reads no entities."""
        return self.entities.digest if self.entities is not None else ""

    def entity_span(self) -> str:
        """Which pieces the mentions of its training mark; empty without entities, or where it is not known."""
        return self.entities.span if self.entities is not None else ""

    @classmethod
    def of_transformers(
        cls,
        path_or_name: str,
        to_teacher: Tensor,
        text_format: TextFormat,
        digests: dict[str, str],
        replacement: Replacement = ALWAYS_MASKED,
    ) -> "HfMaskedLM":
        """A pre-trained masked language model as it is: of single texts.

        Args:
            path_or_name: transformers folder or hub name; its head must be pre-trained too.
            to_teacher: ``(dictionary,)`` its id of each symbol; all of its ids for its own vocabulary.
            text_format: its special ids.
            digests: see the class.
            replacement: see the class.

        Raises:
            ValueError: it cannot be loaded, has no pre-trained head, or embeds fewer ids.
        """
        masked_lm = pretrained_masked_lm(path_or_name, with_head=True)
        output = masked_lm.get_output_embeddings()
        model = cls(masked_lm, {"target": to_teacher}, text_format, digests, replacement=replacement)
        check_embedded(model.encoder, int(to_teacher.max()), path_or_name)
        model.head.copy_projection(output, to_teacher)
        return model

    @classmethod
    def of_checkpoint(cls, state: dict[str, Any]) -> "HfMaskedLM":
        """The model of a checkpoint alone: no data folder and no task is needed. It is shown no entities; the log says so.

        Args:
            state: what `compat.load_checkpoint` read.
        """
        weights = dict(state["model"])
        model = cls.build_model(SimpleNamespace(**compat.model_settings(state)), _DictionarySizes(weights))
        model.upgrade_state_dict(weights)
        model.load_state_dict(weights)
        if model.entities is not None and model.entities.reads:
            logger.warning(
                "the model was trained with the entities that its texts name (--entity-vectors), and is used without them"
            )
        return model

    def spec(self) -> str:
        """JSON for ``teacher_spec``: what `build_model` needs beside the weights."""
        settings = config_settings(self.encoder.config)
        spec = EncoderSpec(settings, self.text_format, self.digests, self.attention, self.replacement)
        if self.entities is not None:
            predicts = {"predicts": self.entity_head is not None}
            spec = spec.with_entities(self.entities.spec() | predicts)
        return spec.to_json()

    def to_transformers(self) -> Any:
        """The transformers ``*ForMaskedLM`` with these weights, over the encoder's own vocabulary.

        Its logit of a token's id is that of the token's symbol in the dictionary; see `masked_lm_head.put_head`.

        Raises:
            ValueError: the attention is restricted, or an entity stream belongs to it, which transformers would not know.
        """
        if self.entities is not None:
            raise ValueError(
                "it has an entity stream (--entity-vectors), without which its encoder was not trained, and transformers has "
                "none; export a model that was trained without entities"
            )
        if self.attention != BIDIRECTIONAL:
            raise ValueError(
                f"it was trained with --teacher-attention {self.attention}, and transformers' masked language models look "
                "to both sides; export its encoder (--encoder-only), or train one with --teacher-attention bidirectional"
            )
        settings = config_settings(self.encoder.config)
        masked_lm = masked_lm_from_config(settings | {"tie_word_embeddings": False})
        masked_lm.base_model.load_state_dict(self.encoder.state_dict())
        put_head(masked_lm, self.head, self.target_to_teacher)
        return masked_lm.eval()

    def upgrade_state_dict_named(self, state_dict: dict[str, Any], name: str) -> None:
        """Rename the maps of older checkpoints, ``source_ids`` and ``target_ids``; older ones have seen all pairs."""
        prefix = f"{name}." if name else ""
        state_dict.setdefault(f"{prefix}held_out_fold", torch.tensor(NO_FOLD))
        for side in ("source", "target"):
            if f"{prefix}{side}_ids" in state_dict:
                state_dict[f"{prefix}{side}_to_teacher"] = state_dict.pop(f"{prefix}{side}_ids")
        super().upgrade_state_dict_named(state_dict, name)

    def forward(self, texts, lengths, predicted, hidden=None, entities=None, aligned=None):
        """Logits of the target positions to predict, and of no others.

        Args:
            texts: ids of each side, ``(batch, text_len)``, right-padded: a source without end of sentence and a target
                with it, or a target alone.
            lengths: ``(batch,)`` tokens of each side.
            predicted: ``(batch, tgt_len)`` bool, target positions to predict.
            hidden: ``(batch, tgt_len)`` bool, positions at which a bidirectional teacher sees its mask token; None for the
                predicted ones. From a left-to-right teacher nothing need be hidden.
            entities: for each text, ``(batch, text_len)`` int64 rows of the table of vectors, 0 for none; None for a teacher
                without entities.
            aligned: ``(batch, tgt_len)`` bool, target positions whose entity is to be predicted.

        Returns:
            ``(positions, target dictionary)``, in row-major order of ``predicted``; with ``aligned`` also
            ``(positions, entity_dim)`` features of the entity head, in row-major order of it.
        """
        hidden = predicted if hidden is None else hidden
        inputs, predicted_at = self.text_layout().lay_out(texts, lengths, hidden)
        width, positions = inputs.input_ids.size(1), []
        for wanted in (predicted,) if aligned is None else (predicted, aligned):
            rows, columns = wanted.nonzero(as_tuple=True)  # once: on a GPU it waits for the device
            positions.append(rows * width + predicted_at[rows, columns])
        placed = None if entities is None else place_entities(entities, inputs)
        features = self.extract_features(
            torch.cat(positions), inputs.input_ids, inputs.token_type_ids, inputs.attention_mask, placed
        )
        if aligned is None:
            return self.project(features)
        tokens, named = features.split([len(part) for part in positions])
        assert self.entity_head is not None
        return self.project(tokens), self.entity_head(named)

    def text_layout(self) -> TextLayout:
        """The layout of texts in student ids as the encoder's input."""
        maps = tuple(getattr(self, f"{side}_to_teacher") for side in self.sides)
        return TextLayout(self.attention, maps, self.text_format)

    def extract_features(
        self,
        positions: Tensor,
        input_ids: Tensor,
        token_type_ids: Tensor,
        attention_mask: Optional[Tensor] = None,
        entities: Optional[Tensor] = None,
    ) -> Tensor:
        """Hidden states at some positions of a batch of `text_layout`.

        Args:
            positions: ``(rows,)`` int64 in the flattened ``(batch, input_len)``.
            input_ids: ``(batch, input_len)`` teacher ids.
            token_type_ids: ``(batch, input_len)``; left out for teachers without segments.
            attention_mask: ``(batch, input_len)``, 1 on tokens; None if nothing is padded, which lets the attention take
                its fastest path. Of a left-to-right teacher `text_input.prefix_attention`.
            entities: ``(batch, input_len)`` int64 rows of the table of vectors, 0 for none; None for none at all.

        Returns:
            ``(rows, hidden)``. The encoder's last layer runs at these positions only, as far as it can (`last_layer`); with
            entities it runs at all.
        """
        if self._pair_attention is not None:
            assert attention_mask is not None  # the source never attends to the target
            attention_mask = self._pair_attention(attention_mask, next(self.encoder.parameters()).dtype)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.uses_segments:
            inputs["token_type_ids"] = token_type_ids
        if self.entities is not None:
            states, _ = self.entities(self.encoder, entities, **inputs)
            return states.flatten(0, 1).index_select(0, positions)
        return output_rows(self.encoder, positions, **inputs)

    def input_embeddings(self) -> Tensor:
        """``(teacher vocabulary, embedding)`` vectors of the teacher's ids."""
        return self.encoder.get_input_embeddings().weight

    def project(self, features: Tensor) -> Tensor:
        """``(rows, hidden)`` features to ``(rows, target dictionary)`` logits."""
        return self.head(features)

    def max_positions(self) -> int:
        """Tokens of the longest texts of all sides together, the teacher's own special tokens excluded."""
        return encoder_positions(self.encoder) - self.text_format.overhead(len(self.sides))

    def tokenizer_digest(self) -> str:
        """Digest of the tokenizer that the maps were made with; empty if not known."""
        return self.digests.get("tokenizer", "")


class _DictionarySizes:
    """The part of a task that `HfMaskedLM.build_model` needs for a checkpoint: dictionaries of which it asks the length."""

    def __init__(self, weights: Mapping[str, Tensor]):
        maps = {side: weights.get(f"{side}_to_teacher") for side in ("source", "target")}
        self.dictionaries = {side: ids for side, ids in maps.items() if ids is not None}


def _starting_point(cfg: Any) -> Any:
    """The transformers model from which a teacher's training starts."""
    if cfg.teacher_random_weights:
        masked_lm = masked_lm_with_random_weights(cfg.teacher_model)
        logger.info(
            "--teacher-random-weights: the teacher has the architecture of `%s` and random weights, drawn by its own "
            "initialisation; nothing pre-trained was loaded",
            cfg.teacher_model,
        )
    else:
        masked_lm = pretrained_masked_lm(cfg.teacher_model)
    if cfg.teacher_layers is not None:
        try:
            layers = keep_first_layers(masked_lm.base_model, cfg.teacher_layers)
        except ValueError as error:
            raise ValueError(f"--teacher-layers {cfg.teacher_layers}: {error}") from None
        logger.info("--teacher-layers: the first %d of %d layers", cfg.teacher_layers, layers)
    return masked_lm


def _pair_attention(encoder: Any, text_format: TextFormat, attention: str) -> Optional[compat.PairAttention]:
    """The form in which a left-to-right teacher's encoder takes its mask; None for a bidirectional one."""
    if attention == BIDIRECTIONAL:
        return None
    if attention != LEFT_TO_RIGHT:
        raise ValueError(
            f"the teacher's attention must be {' or '.join(ATTENTIONS)}, got `{attention}`: the checkpoint is of a "
            "newer version; upgrade fairseq-bert-kd"
        )
    if not text_format.middle:
        raise ValueError(
            "--teacher-attention left-to-right predicts the first target token at the separator after the source, and "
            "the teacher's tokenizer writes none; use another teacher, or leave it out"
        )
    form = compat.pair_attention_form(encoder)
    if form is None:
        raise ValueError(
            f"--teacher-attention left-to-right does not work with model type `{encoder.config.model_type}`: the "
            "installed transformers cannot restrict which of its positions attend to which. Use a BERT, RoBERTa, "
            "XLM-R or ELECTRA teacher, or leave the option out."
        )
    return form
