"""Criterion ``layer_distillation``: TinyBERT's three stages (Jiao et al. 2020), with MiniLMv2's relations on request."""

import contextlib
import functools
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.logging import metrics
from torch import Tensor

from fairseq_bert_kd.batch import REPEATS, plain_input, single_rows
from fairseq_bert_kd.criterions.layer_distillation_options import (
    ALL,
    LAYER_TERMS,
    PREDICTION,
    TERMS,
    LayerDistillationConfig,
    check_options,
    term_weights,
)
from fairseq_bert_kd.criterions.layer_distillation_pairs import LayerPairs, layer_pairs
from fairseq_bert_kd.criterions.layer_distillation_reports import LISTS, kept, log_reports, reported
from fairseq_bert_kd.functional.compared_attention import ReplacedAttention, compared_attention
from fairseq_bert_kd.functional.encoder_states import EncoderStates, record
from fairseq_bert_kd.functional.layer_matching import (
    hidden_mse,
    number_mse,
    projected_hidden_mse,
    projected_score_mse,
    relation_divergence,
    score_mse,
    soft_cross_entropy,
)
from fairseq_bert_kd.modules.encoder_layers import inside
from fairseq_bert_kd.modules.layer_projections import NONE, new_projection, projection_names

logger = logging.getLogger(__name__)


@register_criterion("layer_distillation", dataclass=LayerDistillationConfig)
class LayerDistillationCriterion(FairseqCriterion):
    """Sum over sentences of weighted losses against a teacher's layers, its predictions, and labels.

    The denominator is the number of sentences. With a label weight of 1 and all others 0 it is fairseq's
    ``sentence_prediction``. The teacher is the task's (``--kd-teacher``); `prepare` fits the student to it.

    Raises:
        ValueError: options that are out of range or contradict each other.
    """

    def __init__(self, cfg: LayerDistillationConfig, task):
        super().__init__(task)
        check_options(cfg)
        self.cfg = cfg
        self.head = cfg.classification_head_name
        self.weights = {term: weight for term, weight in term_weights(cfg).items() if weight}
        self.regression = task.num_classes == 1
        self.reports = reported(cfg)
        self.keep_pred_and_targ = bool(self.reports)  # the task asks, as of fairseq's criterion
        self.pairs = LayerPairs()
        self.projections: list[str] = []  # name of each layer's; empty without

    # ------------------------------------------------------------ before training

    @property
    def needs_teacher(self) -> bool:
        """Whether there is something to learn from a teacher."""
        return self.weights.keys() != {"label"}

    @property
    def needs_predictions(self) -> bool:
        """Whether the teacher's predictions are learned."""
        return "prediction" in self.weights

    @property
    def needs_head(self) -> bool:
        """Whether the student's predictions learn."""
        return bool(self.weights.keys() & {"prediction", "label"})

    def prepare(self, student) -> None:
        """Fit the student to its teacher: choose layers, add projections, freeze what the loss does not reach.

        A parameter without a gradient would stop a run with several workers. What the loss reaches is found by one step
        on a row of two tokens, whose gradients are dropped.

        Args:
            student: model to train, on the CPU and not wrapped yet.

        Raises:
            ValueError: the teacher's layers, heads or widths do not fit the student's, or the student has no head.
        """
        if self.needs_head and self.head not in student.classification_heads:
            raise ValueError(
                f"--layer-stage {self.cfg.layer_stage} learns predictions, and the student has no head `{self.head}`, because "
                "the data have no labels; give data with labels, or leave out --layer-prediction-weight and --layer-label-weight"
            )
        if str(self.cfg.layer_stage) == PREDICTION and not self.task.starts_from:
            logger.warning(
                "--layer-stage prediction starts from random weights: it is made for a student of the intermediate stage, given "
                "by --encoder-init"
            )
        if self.weights.keys() & {*LAYER_TERMS}:
            if not hasattr(student, "encoder"):
                raise ValueError(
                    f"--layer-stage {self.cfg.layer_stage} compares layers, which a {type(student).__name__} does not have; choose "
                    "--layer-stage prediction, or --arch hf_encoder"
                )
            self.pairs = layer_pairs(self.cfg, student.encoder.config, self.task.teacher)
            self._add_projections(student, self.task.teacher.width)
        self._freeze(student)

    def _add_projections(self, student, teacher_width: int) -> None:
        """Give the student the maps that its hidden layers need."""
        kind, config = str(self.cfg.layer_projection), student.encoder.config
        if kind == NONE and self.pairs.hidden and config.hidden_size != teacher_width:
            raise ValueError(
                f"--layer-projection none needs a student as wide as its teacher, got {config.hidden_size} and "
                f"{teacher_width}; choose paper, shared or per-layer"
            )
        self.projections = projection_names(kind, config.num_hidden_layers)
        used = [self.projections[layer] for layer, _ in self.pairs.hidden] if self.projections else []
        for name in dict.fromkeys(used):
            student.register_projection(name, new_projection(kind, config.hidden_size, teacher_width))

    def _freeze(self, student) -> None:
        """Freeze what the loss does not reach."""
        reached = self._reached(student)
        frozen = []
        for name, parameter in student.named_parameters():
            if parameter.requires_grad and name not in reached:
                parameter.requires_grad_(False)
                frozen.append(".".join(name.split(".")[:2]))
        if frozen:
            parts = ", ".join(dict.fromkeys(frozen))
            logger.info(
                "--layer-stage %s does not reach %d parameters, in %s: they stay as they are",
                self.cfg.layer_stage,
                len(frozen),
                parts,
            )

    def _reached(self, student) -> set[str]:
        """Names of the parameters that have a gradient after a step; weights and random numbers stay as they are."""
        sample = {
            "net_input": self.task.trial_input(),
            "target": torch.zeros(1, dtype=torch.float32 if self.regression else torch.int64),
            "ntokens": 2,
            "nsentences": 1,
        }
        training = student.training
        with torch.random.fork_rng(devices=[]):
            self.forward(student.train(), sample)[0].backward()
        student.train(training)
        reached = {name for name, parameter in student.named_parameters() if parameter.grad is not None}
        student.zero_grad(set_to_none=True)
        return reached

    # ------------------------------------------------------------ a step

    def forward(self, model, sample, reduce=True):
        """Loss summed over sentences, their number, and what to log."""
        shows_logits = self.needs_head or (not model.training and self._can_show(model, sample))
        # first, while the student holds nothing for its backward pass
        teacher = self._ask_teacher(model, sample) if self.needs_teacher else None
        found: list[tuple[str, Tensor]] = []  # term, and losses by sentence or summed
        head = self.head if shows_logits else None
        with self._comparing(model, teacher, found):
            # a model that gives logits may leave out what they do not need, which layers do
            output, extra = model(
                **sample["net_input"],
                features_only=True,
                classification_head_name=None if any(self.pairs) else head,
            )
        logits: Any = model.classify(output, extra["inputs"], head) if head and any(self.pairs) else output
        if self.needs_head:
            found += self._prediction_losses(logits, teacher and teacher.logits, sample.get("target"))
        losses: dict[str, Tensor] = {}
        for term, by_sentence in found:
            losses[term] = losses.get(term, 0.0) + self.weights[term] * by_sentence.sum()
        loss: Any = sum(losses.values())
        sentences = sample["nsentences"]
        log = {"loss": loss.data, **{f"{term}_loss": value.data for term, value in losses.items()}}
        log |= {"ntokens": sample["ntokens"], "nsentences": sentences, "sample_size": sentences}
        if shows_logits and not self.regression:
            log |= _hits(logits, teacher and teacher.logits, sample.get("target"))
        if self.reports and not model.training and self._can_show(model, sample):
            log |= kept(logits.detach(), sample["target"], self.reports)
        return loss, sentences, log

    def _ask_teacher(self, model, sample) -> Any:
        """Hidden states and predictions of the teacher that the losses need.

        Smoothed and plain, a sentence stands in the batch twice; its teacher reads it once.
        """
        repeats = sample.get(REPEATS, 1)
        return self.task.teacher.run(
            single_rows(plain_input(sample["net_input"]), repeats),
            next(model.parameters()),
            predict=self.needs_predictions,
            **self.pairs.of(1),
        ).repeated(repeats)

    def _comparing(self, model, teacher: Any, found: list[tuple[str, Tensor]]) -> AbstractContextManager[Any]:
        """Context in which each layer of the student is compared as soon as it is done, and both sides' states let go."""
        if not any(self.pairs):
            return contextlib.nullcontext()

        pairs, contexts = self.pairs, contextlib.ExitStack()
        if self._attention_compares(model):
            pairs = pairs._replace(scores=())
            contexts.enter_context(ReplacedAttention(functools.partial(self._attend, teacher, found)))

        def compare(student: EncoderStates, layer: int) -> None:
            # squares and sums stay in float32
            with torch.autocast(teacher.tokens.device.type, enabled=False):
                found.extend(self._layer_losses(model, pairs, layer, student, teacher))

        contexts.enter_context(record(inside(model.encoder), **pairs.of(0), after_layer=compare))
        return contexts

    def _attention_compares(self, model) -> bool:
        """Whether `compared_attention` can take the place of the student's, which is faster in training on a CPU."""
        weight = next(model.parameters())
        return (
            model.training
            and bool(self.pairs.scores)
            and str(self.cfg.layer_loss_positions) != ALL
            and (weight.device.type, weight.dtype) == ("cpu", torch.float32)
            and not torch.is_autocast_enabled("cpu")
            and model.encoder.config._attn_implementation == "sdpa"
        )

    def _attend(
        self,
        teacher: Any,
        found: list[tuple[str, Tensor]],
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        **given: Any,
    ) -> Tensor:
        """Attention of a student's layer, which adds the loss of its scores to what was found."""
        matched = dict(self.pairs.scores).get(layer)
        if matched is None:
            return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, **given)
        others = teacher.states.take_queries_and_keys(matched)
        output, losses = compared_attention(query, key, value, others, teacher.tokens, attn_mask, dropout_p)
        found.append(("attention", losses))
        return output

    def _can_show(self, model, sample) -> bool:
        """Whether validation can tell the accuracy, even of a head that this stage does not train."""
        return "target" in sample and self.head in model.classification_heads

    def _layer_losses(
        self, model, pairs: LayerPairs, layer: int, student: EncoderStates, output: Any
    ) -> Iterator[tuple[str, Tensor]]:
        """Term, and losses by sentence or summed, of a layer of the student."""
        teacher, tokens = output.states, output.tokens
        # the teacher's layer for each, or None
        hidden, scores, relations = (dict(kind).get(layer) for kind in pairs)
        as_released = str(self.cfg.layer_loss_positions) == ALL
        if scores is not None and as_released:
            yield "attention", score_mse(student.scores(layer), teacher.scores(scores), tokens)
        elif scores is not None:
            pair = student.take_queries_and_keys(layer), teacher.take_queries_and_keys(scores)
            yield "attention", projected_score_mse(*pair, self.task.teacher.heads, tokens)
            del pair
        if hidden is not None:
            states, others = student.take_hidden(layer), teacher.take_hidden(hidden)
            valid = None if as_released else tokens
            yield "hidden" if layer else "embedding", self._hidden_loss(model, layer, states, others, valid)
        if relations is not None:
            vectors = zip(student.relations(layer), teacher.relations(relations), strict=True)
            for one, other in vectors:  # of queries, keys and values
                yield "attention", relation_divergence(one, other, self.cfg.layer_relation_heads, tokens)

    def _hidden_loss(self, model, layer: int, states: Tensor, others: Tensor, valid: Tensor | None) -> Tensor:
        """Loss of a layer's hidden states, by sentence or summed."""
        if not self.projections:
            return hidden_mse(states, others, valid)
        projection = model.projections[self.projections[layer]]
        return projected_hidden_mse(states, projection.weight, projection.bias, others, valid)

    def _prediction_losses(
        self, logits: Tensor, teacher_logits: Any, targets: Tensor | None
    ) -> Iterator[tuple[str, Tensor]]:
        """Term and ``(B,)`` losses of the predictions."""
        temperature, mean_over_classes = self.cfg.layer_temperature, self.cfg.layer_mean_over_classes
        if "prediction" in self.weights and self.regression:
            yield "prediction", number_mse(logits, teacher_logits)
        elif "prediction" in self.weights:
            yield "prediction", soft_cross_entropy(logits, teacher_logits, temperature, mean_over_classes)
        if "label" in self.weights:
            yield "label", self._label_loss(logits, targets)

    def _label_loss(self, logits: Tensor, targets: Tensor | None) -> Tensor:
        """``(B,)`` losses of fairseq's ``sentence_prediction``."""
        if targets is None:
            raise ValueError(
                f"--layer-label-weight {self.weights['label']} learns from labels, and the data have none; leave it out"
            )
        if self.regression:
            return F.mse_loss(logits.view(-1).float(), targets.float(), reduction="none")
        log_probs = F.log_softmax(logits, dim=-1, dtype=torch.float32)
        return F.nll_loss(log_probs, targets, reduction="none")

    # ------------------------------------------------------------ log

    @classmethod
    def reduce_metrics(cls, logging_outputs) -> None:
        """Loss and its weighted terms per sentence, which add up to it; accuracy, agreement and reports in per cent."""
        summed = [key for key in logging_outputs[0] if key not in LISTS]
        sums = {key: sum(log[key] for log in logging_outputs) for key in summed}
        sentences = max(int(sums["nsentences"]), 1)
        for name in ("loss", *(f"{term}_loss" for term in TERMS)):
            if name in sums:
                metrics.log_scalar(name, sums[name] / sentences, sentences, round=4)
        for name in ("accuracy", "agreement"):
            if f"n_{name}" in sums:
                metrics.log_scalar(name, 100.0 * sums[f"n_{name}"] / sentences, sentences, round=2)
        log_reports(logging_outputs)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True


def _hits(logits: Tensor, teacher_logits: Tensor | None, targets: Tensor | None) -> dict[str, Any]:
    """How many of the student's classes are those of the data, and those of the teacher."""
    with torch.no_grad():
        classes = logits.argmax(dim=1)
        hits = {}
        if targets is not None:
            hits["n_accuracy"] = (classes == targets).sum()
        if teacher_logits is not None:
            hits["n_agreement"] = (classes == teacher_logits.argmax(dim=1)).sum()
    return hits
