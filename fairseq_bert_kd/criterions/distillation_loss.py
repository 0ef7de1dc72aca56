"""Criterion ``label_smoothed_cross_entropy_with_distillation`` (Chen et al. 2020, Eq. 5, and its relatives)."""

import logging
import math
from collections import defaultdict
from dataclasses import replace
from typing import Any

import torch
from fairseq import utils
from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.logging import metrics

from fairseq_bert_kd.batch import TEACHER, TeacherRequirements, twice
from fairseq_bert_kd.criterions.distillation_options import NEEDS_TAIL, DistillationConfig, check_options
from fairseq_bert_kd.functional import soft_targets
from fairseq_bert_kd.functional.chunked_projection import chunked_sums
from fairseq_bert_kd.functional.distillation import Objective, distillation_sums, score_request
from fairseq_bert_kd.functional.projected_scores import product_dtype, projected_scores
from fairseq_bert_kd.functional.projection_plan import ProjectionPlan, projection_plan
from fairseq_bert_kd.functional.rdrop import PASSES, regularised, symmetric_divergence
from fairseq_bert_kd.functional.schedules import Schedule
from fairseq_bert_kd.functional.student_scores import student_scores
from fairseq_bert_kd.functional.teacher_targets import teacher_targets
from fairseq_bert_kd.modules.student_projection import (
    AssembledProbabilities,
    Projection,
    projection_of,
    scores_of,
)

logger = logging.getLogger(__name__)


@register_criterion("label_smoothed_cross_entropy_with_distillation", dataclass=DistillationConfig)
class LabelSmoothedCrossEntropyWithDistillationCriterion(
    AssembledProbabilities, LabelSmoothedCrossEntropyCriterion
):
    """Labels and teachers' soft targets in training; labels alone in validation.

    With ``kd_weight`` 0, during the warm-up, and in validation, this is fairseq's ``label_smoothed_cross_entropy`` itself,
    so validation losses compare with those of a plain run. In training the label side smooths as in the authors' code, see
    `fairseq_bert_kd.functional.distillation.distillation_sums`.

    Raises:
        ValueError: options that are out of range or contradict each other.
    """

    def __init__(self, cfg: DistillationConfig, task):
        super().__init__(
            task,
            sentence_avg=cfg.sentence_avg,
            label_smoothing=cfg.label_smoothing,
            ignore_prefix_size=cfg.ignore_prefix_size,
            report_accuracy=cfg.report_accuracy,
        )
        check_options(cfg)
        self.topk = cfg.kd_topk
        self.warmup_updates = cfg.kd_warmup_updates
        self.projection = str(cfg.kd_projection)
        self.objective = Objective(
            name=str(cfg.kd_objective),
            temperature=cfg.kd_temperature,
            weight=cfg.kd_weight,
            square_temperature=cfg.kd_square_temperature,
            token_weight=str(cfg.kd_token_weight),
            epsilon=cfg.label_smoothing,
        )
        self.weights = _schedule(cfg, cfg.kd_weight, cfg.kd_weight_end)
        self.temperatures = _schedule(cfg, cfg.kd_temperature, cfg.kd_temperature_end)
        self.rdrop_weight = cfg.rdrop_weight
        self.update = 0
        self._counting = False  # whether someone tells the number of the update
        self._logged: set[str] = set()

    @property
    def teacher_requirements(self) -> TeacherRequirements | None:
        """Requirements of training on each teacher; None if it needs no teacher."""
        if max(self.weights.start, self.weights.end) == 0.0:
            return None
        name, token_weight = self.objective.name, self.objective.token_weight
        temperatures = []
        if name in NEEDS_TAIL:
            temperatures.append((f"--kd-objective {name}", self.objective.temperature))
        if name == "sampled":
            temperatures.append((f"--kd-objective {name}", 1.0))
        if token_weight != "none":
            temperatures.append((f"--kd-token-weight {token_weight}", 1.0))
        return TeacherRequirements(
            topk=self.topk,
            temperatures=tuple(temperatures),
            temperature=self.objective.temperature,
            samples=name == "sampled",
            full=name == "full",
        )

    @property
    def learns_from_teachers(self) -> bool:
        """Whether the next batch is: not while the weight is 0, as in the warm-up."""
        return self._present_objective().weight > 0.0

    def set_num_updates(self, update: int) -> None:
        """Tell the schedules how far training is; the task does so before every step."""
        self.update = update
        self._counting = True

    def forward(self, model, sample, reduce=True):
        """Loss summed over target tokens, its denominator, and what to log."""
        if not model.training:
            return self._validate(model, sample, reduce)
        objective = self._present_objective()
        if TEACHER not in sample and (objective.weight or self._waits_for_ever()):
            weight = "--kd-weight is above 0" if objective.weight else "the weight of the teacher rises later"
            raise ValueError(
                f"{weight} but the batch has no teacher rows; train with --task translation_with_teacher, which attaches them"
            )
        if objective.weight == 0.0 and not self.rdrop_weight:
            return super().forward(model, sample, reduce=reduce)
        projection = self._own_projection(model, objective)
        if self.rdrop_weight:
            sums = self._two_passes(model, sample, objective)
        elif projection is None:
            sums = self._plain_sums(self._logits(model, model(**sample["net_input"])), sample, objective)
        else:
            sums = self._projected_sums(model, projection, sample, objective)
        loss = sums.pop("loss")
        if not self.report_accuracy:
            sums = {name: value for name, value in sums.items() if name not in ("n_correct", "total")}
        return self._result(loss, sample, sums)

    def _validate(self, model, sample, reduce):
        """fairseq's loss; where there are teacher rows, the comparison with the teacher too, for the log alone."""
        if TEACHER not in sample:
            return super().forward(model, sample, reduce=reduce)
        net_output = model(**sample["net_input"])
        loss, nll_loss = self.compute_loss(model, net_output, sample, reduce=reduce)
        log = {"nll_loss": nll_loss.data}
        if self.report_accuracy:
            n_correct, total = self.compute_accuracy(model, net_output, sample)
            log |= {"n_correct": utils.item(n_correct.data), "total": utils.item(total.data)}
        with torch.no_grad():
            sums = self._plain_sums(self._logits(model, net_output), sample, self._present_objective())
        log |= {name: value for name, value in sums.items() if name.startswith("kd_")}
        return self._result(loss, sample, log)

    def _result(self, loss, sample, log):
        """The loss, its denominator and what to log, as fairseq takes them from a criterion."""
        sample_size = sample["target"].size(0) if self.sentence_avg else sample["ntokens"]
        counts = {
            "ntokens": sample["ntokens"],
            "nsentences": sample["target"].size(0),
            "sample_size": sample_size,
        }
        return loss, sample_size, {"loss": loss.data, **log, **counts}

    def _waits_for_ever(self) -> bool:
        """Whether the teacher's turn is to come, and no one counts the updates till then: another task than ours."""
        return self.teacher_requirements is not None and not self._counting

    def _present_objective(self) -> Objective:
        """The objective of the present update, whose schedules begin at the end of the warm-up."""
        update = self.update - self.warmup_updates
        return replace(
            self.objective,
            weight=self.weights.value(update) if update >= 0 else 0.0,
            temperature=self.temperatures.value(update),
        )

    def _projected_sums(self, model, projection, sample, objective):
        """`distillation_sums` from the decoder's features; the criterion applies the output projection."""
        features = model(**sample["net_input"], features_only=True)[0]  # (batch, tgt_len, dim)
        features = features[:, self.ignore_prefix_size :].flatten(0, 1)  # (positions, dim)
        plan = self._plan(features)
        target, kept = self._target(sample), None
        if plan.loss_by_chunk:  # elsewhere the number of tokens is not known without waiting for the device
            kept = target.ne(self.padding_idx).nonzero().squeeze(1)  # padding is not worth a projection
            target, features = target.index_select(0, kept), features.index_select(0, kept)
        teachers = self._teachers(sample, objective, kept)
        is_token = target.ne(self.padding_idx)
        weight, bias = projection
        request = score_request(target, teachers, objective)

        def loss(scores, rows):
            chosen = [teacher.select(rows) for teacher in teachers]
            return distillation_sums(scores, target[rows], is_token[rows], chosen, objective, len(weight))

        chunk = plan.chunk(len(features), len(weight))
        if plan.loss_by_chunk:
            return chunked_sums(features, weight, bias, request, loss, chunk)
        return loss(projected_scores(features, weight, bias, request, chunk), slice(None))

    def _plan(self, features) -> ProjectionPlan:
        plan = projection_plan(
            features.device, product_dtype(features), small_chunks=self.projection == "chunked"
        )
        self._log_once(f"output projection and loss in one: {plan.reason}")
        return plan

    def _logits(self, model, net_output):
        """``(batch, tgt_len, vocab)`` without the ignored prefix."""
        return scores_of(model, net_output)[:, self.ignore_prefix_size :]

    def _plain_sums(self, logits, sample, objective):
        """`distillation_sums` from ``(batch, tgt_len, vocab)`` logits."""
        logits = logits.flatten(0, 1)  # (positions, vocab)
        target = self._target(sample)
        teachers = self._teachers(sample, objective)
        losses = None
        if objective.name == "full":
            losses = [self._full_loss(logits, teacher, objective) for teacher in teachers]
        scores = student_scores(logits, score_request(target, teachers, objective))
        kept = target.ne(self.padding_idx)
        return distillation_sums(scores, target, kept, teachers, objective, logits.size(-1), losses)

    def _two_passes(self, model, sample, objective):
        """Sums of R-Drop: means over two passes with different dropout, and the divergence between them."""
        if not _has_dropout(model):
            self._log_once(
                "--rdrop-weight has no effect but its cost: the student has no dropout, so both passes are equal; give --dropout",
                logging.WARNING,
            )
        both = twice(sample)
        net_output = model(**both["net_input"])
        logits = self._logits(model, net_output)  # (2 batch, tgt_len, vocab)
        if objective.weight:
            sums = self._plain_sums(logits, both, objective)
        else:
            loss, nll_loss = self.compute_loss(model, net_output, both)
            sums = {"loss": loss, "nll_loss": nll_loss.data}
            if self.report_accuracy:
                n_correct, total = self.compute_accuracy(model, net_output, both)
                sums |= {"n_correct": n_correct.data, "total": total.data}
        kept = sample["target"][:, self.ignore_prefix_size :].ne(self.padding_idx)  # (batch, tgt_len)
        divergence = symmetric_divergence(logits.unflatten(0, (-1, PASSES))).masked_fill(~kept, 0).sum()
        loss = regularised(sums.pop("loss"), divergence, self.rdrop_weight)
        means = {name: value / PASSES for name, value in sums.items()}
        return {"loss": loss, **means, "rdrop_kl": divergence.detach()}

    def _full_loss(self, logits, teacher, objective):
        if teacher.full_logits is None:
            raise ValueError(
                "--kd-objective full needs the teacher's whole distribution, which no store holds; add "
                "--kd-live-teacher CHECKPOINT"
            )
        return soft_targets.full(logits.float(), teacher.full_logits.float(), objective.temperature)

    def _target(self, sample):
        """``(positions,)`` gold ids without the ignored prefix."""
        return sample["target"][:, self.ignore_prefix_size :].flatten()

    def _teachers(self, sample, objective, kept=None):
        """What the teachers say; the parts that only other objectives need are not decoded."""
        unused = set()
        if objective.name != "sampled":
            unused |= {"sample_ids", "sample_logits"}
        if objective.name != "full":
            unused.add("full_logits")
        return [
            teacher_targets(
                {name: part for name, part in rows.items() if name not in unused},
                self.ignore_prefix_size,
                kept,
            )
            for rows in sample[TEACHER]
        ]

    def _own_projection(self, model, objective) -> Projection | None:
        """The student's output projection if the criterion is to apply it, else None."""
        if self.projection == "plain":
            return None
        projection_or_reason = projection_of(model)
        if objective.name == "full":
            projection_or_reason = "--kd-objective full compares whole distributions"
        if self.rdrop_weight:
            projection_or_reason = "--rdrop-weight compares whole distributions"
        if isinstance(projection_or_reason, Projection):
            return projection_or_reason
        self._log_once(
            f"the student projects onto its dictionary itself, all logits at once: {projection_or_reason}"
        )
        return None

    def _log_once(self, message: str, level: int = logging.INFO) -> None:
        if message not in self._logged:
            self._logged.add(message)
            logger.log(level, message)

    @classmethod
    def reduce_metrics(cls, logging_outputs) -> None:
        """Log fairseq's metrics, and beside a teacher the two sides of the loss (base 2) and how they compare.

        ``nll_loss`` and ``ppl`` are of the gold tokens alone. See docs/objectives.md, "What is logged".
        """
        super().reduce_metrics(logging_outputs)
        if any("rdrop_kl" in log for log in logging_outputs):
            tokens = max(sum(log["ntokens"] for log in logging_outputs), 1)
            divergence = sum(log.get("rdrop_kl", 0) for log in logging_outputs)
            metrics.log_scalar("rdrop_kl", divergence / tokens / math.log(2), tokens, round=3)
        if not any("kd_positions" in log for log in logging_outputs):
            return
        sums = _sums(logging_outputs)
        ntokens = max(sums["ntokens"], 1)
        covered, rows = int(sums["kd_positions"]), int(sums["kd_rows"])
        if "label_loss" in sums:
            metrics.log_scalar("label_loss", sums["label_loss"] / ntokens / math.log(2), ntokens, round=3)
        metrics.log_scalar("kd_loss", sums["kd_loss"] / max(covered, 1) / math.log(2), covered, round=3)
        metrics.log_scalar("kd_coverage", 100.0 * covered / ntokens, ntokens, round=2)

        def log_percent(name: str, share: Any) -> None:
            metrics.log_scalar(name, 100.0 * share / max(rows, 1), rows, round=2)

        log_percent("kd_agreement", sums["kd_agreement"])
        log_percent("kd_student_tail", sums["kd_student_tail"])
        if "kd_captured" in sums:
            log_percent("kd_captured", sums["kd_captured"])
            log_percent("kd_teacher_tail", rows - sums["kd_captured"])
        if "kd_teacher_nll" in sums:
            for who in ("teacher", "gold"):
                nll = f"kd_{who}_nll"
                metrics.log_scalar(nll, sums[nll] / max(rows, 1) / math.log(2), rows, round=3)
            metrics.log_derived(
                "kd_teacher_ppl", lambda meters: utils.get_perplexity(meters["kd_teacher_nll"].avg)
            )
            metrics.log_derived(
                "kd_student_ppl", lambda meters: utils.get_perplexity(meters["kd_gold_nll"].avg)
            )


def _sums(logging_outputs: list[dict[str, Any]]) -> dict[str, float]:
    """Sums of what is logged beside a teacher; tensors of one type come from their device together, without a launch each."""
    sums: dict[str, float] = defaultdict(float)
    tensors: dict[torch.dtype, list[tuple[str, torch.Tensor]]] = defaultdict(list)
    for log in logging_outputs:
        for key, value in log.items():
            if not (key.startswith("kd_") or key in ("label_loss", "ntokens")):
                continue
            if isinstance(value, torch.Tensor):
                tensors[value.dtype].append((key, value))
            else:
                sums[key] += value
    for found in tensors.values():
        for (key, _), value in zip(found, torch.stack([tensor for _, tensor in found]).tolist(), strict=True):
            sums[key] += value
    return sums


def _has_dropout(model: torch.nn.Module) -> bool:
    """Whether two passes of a model in training differ; what drops whole layers does the same to both."""
    layers = (module for module in model.modules() if "dropout" in type(module).__name__.lower())
    return any(getattr(layer, "p", 0) > 0 for layer in layers)


def _schedule(cfg: DistillationConfig, start: float, end: float | None) -> Schedule:
    return Schedule(start, start if end is None else end, str(cfg.kd_schedule), cfg.kd_schedule_updates)
