"""fairseq model ``hf_masked_lm``: a transformers masked language model as C-MLM teacher."""

import json
import logging
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model
from torch import Tensor, nn

from fairseq_bert_kd import compat
from fairseq_bert_kd.functional.left_to_right import ATTENTIONS, BIDIRECTIONAL, LEFT_TO_RIGHT, teacher_input
from fairseq_bert_kd.functional.pair_input import PairFormat
from fairseq_bert_kd.modules.encoder_layers import keep_first_layers
from fairseq_bert_kd.modules.last_layer import output_rows

logger = logging.getLogger(__name__)


@dataclass
class HfMaskedLMConfig(FairseqDataclass):
    """Where the pre-trained model comes from, how much of it is used, and what it may look at."""

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

    def initialise_projection(self, input_embeddings: Tensor, target_ids: Tensor) -> None:
        """Copy each symbol's row of the input embeddings; bias zero (the authors' cmlm/model.py).

        Args:
            input_embeddings: ``(teacher vocabulary, embedding)``.
            target_ids: ``(target dictionary,)`` teacher id of each symbol.
        """
        if input_embeddings.size(1) != self.projection.in_features:
            raise ValueError(
                f"the teacher's MLM transform gives {self.projection.in_features} features but its input "
                f"embeddings have {input_embeddings.size(1)}: its output layer cannot start from them"
            )
        with torch.no_grad():
            self.projection.weight.copy_(input_embeddings[target_ids])
            self.projection.bias.zero_()


@register_model("hf_masked_lm", dataclass=HfMaskedLMConfig)
class HfMaskedLM(BaseFairseqModel):
    """Conditional masked language model over the student's dictionaries (Chen et al. 2020, Eq. 3).

    Takes and predicts *student* ids; the maps to teacher ids are buffers, so a checkpoint needs neither
    the tokenizer nor the original weights.

    Args:
        masked_lm: a transformers ``*ForMaskedLM``; taken apart into encoder and head.
        source_ids: ``(source dictionary,)`` teacher id of each source symbol.
        target_ids: ``(target dictionary,)`` teacher id of each target symbol.
        pair_format: the teacher's special ids.
        digests: what the maps were made with (tokenizer, source and target dictionary), by name.
        attention: one of `left_to_right.ATTENTIONS`.

    Raises:
        ValueError: the teacher cannot look from left to right only, or its head is not known.
    """

    def __init__(
        self,
        masked_lm: Any,
        source_ids: Tensor,
        target_ids: Tensor,
        pair_format: PairFormat,
        digests: dict[str, str],
        attention: str = BIDIRECTIONAL,
    ):
        super().__init__()
        self.encoder = masked_lm.base_model
        self.head = take_head(masked_lm, vocab_size=len(target_ids))
        self.pair_format = pair_format
        self.digests = digests
        self.attention = attention
        self._pair_attention = _pair_attention(self.encoder, pair_format, attention)
        self.register_buffer("source_ids", source_ids)
        self.register_buffer("target_ids", target_ids)
        self.uses_segments = getattr(masked_lm.config, "type_vocab_size", 0) > 1

    @classmethod
    def build_model(cls, cfg, task):
        """Build from pre-trained weights, or from the checkpoint's own description where it has one."""
        sizes = len(task.source_dictionary), len(task.target_dictionary)
        if cfg.teacher_spec:
            spec = json.loads(cfg.teacher_spec)
            source_ids, target_ids = (
                torch.zeros(size, dtype=torch.int64) for size in sizes
            )  # filled on load
            pair_format = PairFormat.from_dict(spec["pair_format"])
            masked_lm = compat.masked_lm_from_config(spec["config"])
            attention = spec.get("attention", BIDIRECTIONAL)  # older checkpoints do not say
            return cls(masked_lm, source_ids, target_ids, pair_format, spec["digests"], attention)
        vocabulary = getattr(task, "teacher_vocabulary", None)
        if vocabulary is None:
            raise ValueError("--arch hf_masked_lm is trained with --task conditional_masked_lm")
        source_ids, target_ids = map(torch.from_numpy, (vocabulary.source_ids, vocabulary.target_ids))
        model = cls(
            _starting_point(cfg),
            source_ids,
            target_ids,
            vocabulary.pair_format,
            vocabulary.digests,
            str(cfg.teacher_attention),
        )
        embeddings = model.encoder.get_input_embeddings().weight
        largest = max(int(source_ids.max()), int(target_ids.max()))
        if largest >= embeddings.size(0):
            raise ValueError(
                f"the tokenizer uses id {largest} but `{cfg.teacher_model}` embeds only {embeddings.size(0)} "
                "ids: model and tokenizer do not belong together; give the model's own tokenizer"
            )
        model.head.initialise_projection(embeddings, target_ids)
        return model

    def spec(self) -> str:
        """JSON for ``teacher_spec``: what `build_model` needs beside the weights."""
        spec = {
            "config": compat.config_settings(self.encoder.config),
            "pair_format": self.pair_format.to_dict(),
            "digests": self.digests,
            "attention": self.attention,
        }
        return json.dumps(spec, sort_keys=True)

    def forward(self, src_tokens, src_lengths, tgt_tokens, tgt_lengths, masked):
        """Logits of the target positions that are to be predicted only.

        Args:
            src_tokens: ``(batch, src_len)`` source ids without end of sentence, right-padded.
            src_lengths: ``(batch,)``.
            tgt_tokens: ``(batch, tgt_len)`` target ids with end of sentence, right-padded.
            tgt_lengths: ``(batch,)``, end of sentence included.
            masked: ``(batch, tgt_len)`` bool, positions to predict; a bidirectional teacher sees its mask token
                there, from a left-to-right one they need not be hidden.

        Returns:
            ``(positions, target dictionary)``, in row-major order of ``masked``.
        """
        inputs = teacher_input(
            self.attention,
            src_tokens,
            src_lengths,
            tgt_tokens,
            tgt_lengths,
            masked,
            self.source_ids,
            self.target_ids,
            self.pair_format,
        )
        rows, columns = masked.nonzero(as_tuple=True)  # once: on a GPU it waits for the device
        slots = rows * inputs.input_ids.size(1) + inputs.prediction_columns[rows, columns]
        features = self.slot_features(inputs.input_ids, inputs.token_type_ids, slots, inputs.attention_mask)
        return self.head(features)

    def slot_features(self, input_ids, token_type_ids, slots, attention_mask=None):
        """Hidden states of some positions of an assembled batch, see `left_to_right.TeacherInput`.

        Args:
            input_ids: ``(batch, pair_len)`` teacher ids.
            token_type_ids: ``(batch, pair_len)``; left out for teachers without segments.
            slots: ``(positions,)`` int64 places in the flattened ``(batch, pair_len)``.
            attention_mask: ``(batch, pair_len)``, 1 on tokens; None where nothing is padded, which lets the
                attention take its fastest path. Of a left-to-right teacher `left_to_right.prefix_attention`.

        Returns:
            ``(positions, hidden)``; the head makes logits of them. The encoder's last layer runs at these
            positions only, as far as it can (`last_layer`).
        """
        if self._pair_attention is not None:
            attention_mask = self._pair_attention(attention_mask, next(self.encoder.parameters()).dtype)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.uses_segments:
            inputs["token_type_ids"] = token_type_ids
        return output_rows(self.encoder, slots, **inputs)

    def max_positions(self) -> int:
        """Longest pair in source and target tokens together, the teacher's own special tokens excluded."""
        return encoder_positions(self.encoder) - self.pair_format.overhead


def _starting_point(cfg: Any) -> Any:
    """The transformers model that a teacher's training starts from."""
    if cfg.teacher_random_weights:
        masked_lm = compat.masked_lm_with_random_weights(cfg.teacher_model)
        logger.info(
            "--teacher-random-weights: the teacher has the architecture of `%s` and random weights, drawn by its own "
            "initialisation; nothing pre-trained was loaded",
            cfg.teacher_model,
        )
    else:
        masked_lm, missing = compat.masked_lm_from_pretrained(cfg.teacher_model)
        _check_missing(masked_lm, missing, cfg.teacher_model)
    if cfg.teacher_layers is not None:
        layers = keep_first_layers(masked_lm.base_model, cfg.teacher_layers)
        logger.info("--teacher-layers: the first %d of %d layers", cfg.teacher_layers, layers)
    return masked_lm


def _pair_attention(encoder: Any, pair_format: PairFormat, attention: str) -> Optional[compat.PairAttention]:
    """How a left-to-right teacher's encoder takes its mask; None for a bidirectional one."""
    if attention == BIDIRECTIONAL:
        return None
    if attention != LEFT_TO_RIGHT:
        raise ValueError(
            f"the teacher's attention must be {' or '.join(ATTENTIONS)}, got `{attention}`: the checkpoint is of a "
            "newer version; upgrade fairseq-bert-kd"
        )
    if not pair_format.middle:
        raise ValueError(
            "--teacher-attention left-to-right predicts the first target token at the separator after the source, and "
            "the teacher's tokenizer writes none; use another teacher, or leave it out"
        )
    form = compat.pair_attention_form(encoder)
    if form is None:
        raise ValueError(
            f"--teacher-attention left-to-right does not work with model type `{encoder.config.model_type}`: with the "
            "installed transformers, its attention cannot be told which slot may see which; use a BERT, RoBERTa, "
            "XLM-R or ELECTRA teacher, or leave it out"
        )
    return form


def encoder_positions(encoder: Any) -> int:
    """Number of input tokens that the encoder has positions for.

    RoBERTa and its relatives start counting after the padding index: 514 embeddings, 512 positions.
    """
    for name, module in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            skipped = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - skipped
    limit = getattr(encoder.config, "max_position_embeddings", None)
    return limit if limit and limit > 0 else 2**20  # relative positions: no limit of the model's own


def take_head(masked_lm: Any, vocab_size: int) -> MaskedLMHead:
    """The model's MLM transform with a new projection; a new transform where the model has none."""
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


def _check_missing(masked_lm: Any, missing: list[str], name: str) -> None:
    """Log a created MLM transform; refuse a checkpoint whose encoder would be random."""
    prefix = masked_lm.base_model_prefix + "."
    encoder = [
        key for key in missing if key.startswith(prefix) and "pooler" not in key and "position_ids" not in key
    ]
    if encoder:
        raise ValueError(
            f"`{name}` lacks {len(encoder)} weights of its encoder (first: {encoder[0]}): it would start from "
            "random numbers; give a complete checkpoint of this architecture"
        )
    transform = [
        key for key in missing if not key.startswith(prefix) and ("dense" in key or "transform" in key)
    ]
    if transform:
        logger.warning(
            "`%s` has no MLM transform (an encoder without its pre-training head): created one with random "
            "weights; it is learned while fine-tuning",
            name,
        )
