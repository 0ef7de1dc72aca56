"""Criterion ``label_smoothed_cross_entropy_with_distillation`` (Chen et al. 2020, Eq. 5, and its relatives)."""

import logging
import math
from dataclasses import replace
from typing import Any

import torch
from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.logging import metrics
from fairseq.utils import get_perplexity

from fairseq_bert_kd.batch import TEACHER, TeacherRequirements
from fairseq_bert_kd.criterions.distillation_options import (
    DistillationConfig,
    check_changing_temperature,
    check_objective,
    check_schedule,
)
from fairseq_bert_kd.functional import soft_targets
from fairseq_bert_kd.functional.chunked_projection import chunk_positions, chunked_sums
from fairseq_bert_kd.functional.distillation import (
    Objective,
    distillation_sums,
    wanted_scores,
)
from fairseq_bert_kd.functional.schedules import Schedule
from fairseq_bert_kd.functional.student_scores import student_scores
from fairseq_bert_kd.functional.teacher_targets import teacher_targets
from fairseq_bert_kd.modules.student_projection import (
    Projection,
    features_only,
    projection_of,
    scores_of,
)

logger = logging.getLogger(__name__)


@register_criterion("label_smoothed_cross_entropy_with_distillation", dataclass=DistillationConfig)
class LabelSmoothedCrossEntropyWithDistillationCriterion(LabelSmoothedCrossEntropyCriterion):
    """Labels and teachers' soft targets in training; labels alone in validation.

    With ``kd_weight`` 0, during the warm-up, and in validation, this is fairseq's ``label_smoothed_cross_entropy`` itself,
    so validation losses compare with those of a plain run. In training the label side smooths as in the authors' code, see
    `fairseq_bert_kd.functional.distillation.distillation_sums`.
    """

    def __init__(
        self,
        task,
        sentence_avg,
        label_smoothing,
        ignore_prefix_size=0,
        report_accuracy=False,
        kd_weight=0.5,
        kd_temperature=10.0,
        kd_topk=8,
        kd_objective="paper",
        kd_square_temperature=False,
        kd_approximate_tail=False,
        kd_schedule="constant",
        kd_schedule_updates=0,
        kd_weight_end=None,
        kd_temperature_end=None,
        kd_warmup_updates=0,
        kd_token_weight="none",
        kd_projection="auto",
    ):
        super().__init__(task, sentence_avg, label_smoothing, ignore_prefix_size, report_accuracy)
        self.kd_topk = kd_topk
        self.kd_warmup_updates = kd_warmup_updates
        self.kd_projection = str(kd_projection)
        self.objective = Objective(
            str(kd_objective),
            kd_temperature,
            kd_weight,
            kd_square_temperature,
            kd_approximate_tail,
            str(kd_token_weight),
            label_smoothing,
            sum(symbol.startswith("madeupword") for symbol in task.target_dictionary.symbols) + 2,
        )
        ends = (kd_weight_end, kd_temperature_end)
        check_objective(self.objective, kd_topk, kd_warmup_updates, ends, self.kd_projection)
        shape = str(kd_schedule)
        check_schedule(shape, kd_schedule_updates, ends)
        self.weights, self.temperatures = (
            Schedule(start, start if end is None else end, shape, kd_schedule_updates)
            for start, end in zip((kd_weight, kd_temperature), ends, strict=True)
        )
        if not self.temperatures.constant:
            check_changing_temperature(self.objective)
        self.update = 0
        self._told: set[str] = set()

    @property
    def teacher_needs(self) -> TeacherRequirements | None:
        """What training needs of each teacher; None when it needs none."""
        name, token_weight = self.objective.name, self.objective.token_weight
        if max(self.weights.start, self.weights.end) == 0.0:
            return None
        temperatures = []
        if name in ("tail-bucket", "sampled") and not self.objective.approximate_tail:
            temperatures.append((f"--kd-objective {name}", self.objective.temperature))
        if name == "sampled":
            temperatures.append((f"--kd-objective {name}", 1.0))
        if token_weight != "none":
            temperatures.append((f"--kd-token-weight {token_weight}", 1.0))
        return TeacherRequirements(
            topk=self.kd_topk,
            temperatures=tuple(temperatures),
            temperature=self.objective.temperature,
            samples=name == "sampled",
            full=name == "full",
        )

    def set_num_updates(self, update: int) -> None:
        """Tell the schedules how far training is; the task does so before every step."""
        self.update = update

    def forward(self, model, sample, reduce=True):
        """Loss summed over target tokens, its denominator, and what to log."""
        objective = self._objective_now()
        if not model.training or objective.weight == 0.0:
            return self._without_teacher(model, sample, reduce, objective)
        if TEACHER not in sample:
            raise ValueError(
                "--kd-weight is above 0 but the batch has no teacher rows; train with "
                "--task translation_with_teacher, which attaches them"
            )
        sums = self._sums(model, sample, objective)
        loss = sums.pop("loss")
        sample_size = sample["target"].size(0) if self.sentence_avg else sample["ntokens"]
        logging_output = {
            "loss": loss.data,
            **sums,
            "ntokens": sample["ntokens"],
            "nsentences": sample["target"].size(0),
            "sample_size": sample_size,
        }
        if not self.report_accuracy:
            del logging_output["n_correct"], logging_output["total"]
        return loss, sample_size, logging_output

    def _objective_now(self) -> Objective:
        """The objective at this update."""
        update = self.update - self.kd_warmup_updates
        if update < 0 and self.training:
            return replace(self.objective, weight=0.0)
        return replace(
            self.objective, weight=self.weights.value(update), temperature=self.temperatures.value(update)
        )

    def _without_teacher(self, model, sample, reduce, objective):
        """The host's criterion; in validation with what there is to compare with a teacher, for the log alone."""
        if model.training or TEACHER not in sample:
            return super().forward(model, sample, reduce=reduce)
        net_output = model(**sample["net_input"])
        answered = _Answered(model, net_output)
        loss, sample_size, logging_output = super().forward(answered, sample, reduce=reduce)
        with torch.no_grad():
            sums = self._plain_sums(model, net_output, sample, objective)
        compared = {name: value for name, value in sums.items() if name.startswith("kd_")}
        return loss, sample_size, logging_output | compared

    def _sums(self, model, sample, objective):
        """See `distillation_sums`."""
        projection = self._projection(model, sample, objective)
        if projection is None:
            return self._plain_sums(model, model(**sample["net_input"]), sample, objective)
        with features_only(projection):
            features = model(**sample["net_input"])[0][:, self.ignore_prefix_size :].flatten(0, 1)
        target = self._target(sample)
        kept = target.ne(self.padding_idx).nonzero().squeeze(1)  # padding is not worth a projection
        target, features = target.index_select(0, kept), features.index_select(0, kept)
        teachers = [teacher_targets(rows, self.ignore_prefix_size, kept) for rows in sample[TEACHER]]
        everything = torch.ones_like(target, dtype=torch.bool)
        vocab = projection.weight.size(0)

        def loss(scores, rows):
            chosen = [teacher.select(rows) for teacher in teachers]
            return distillation_sums(scores, target[rows], everything[rows], chosen, objective, vocab)

        wanted = wanted_scores(target, teachers, objective)
        return chunked_sums(features, projection.weight, projection.bias, wanted, loss)

    def _plain_sums(self, model, net_output, sample, objective):
        """The same from all logits."""
        logits = scores_of(model, net_output)
        logits = logits[:, self.ignore_prefix_size :].flatten(0, 1)
        target = self._target(sample)
        teachers = [teacher_targets(rows, self.ignore_prefix_size) for rows in sample[TEACHER]]
        losses = None
        if objective.name == "full":
            losses = [self._full_loss(logits, teacher, objective) for teacher in teachers]
        scores = student_scores(logits, wanted_scores(target, teachers, objective))
        kept = target.ne(self.padding_idx)
        return distillation_sums(scores, target, kept, teachers, objective, logits.size(-1), losses)

    def _full_loss(self, logits, teacher, objective):
        if teacher.full_logits is None:
            raise ValueError(
                "--kd-objective full needs the teacher's whole distribution, which no store holds; add "
                "--kd-live-teacher CHECKPOINT"
            )
        return soft_targets.full(logits.float(), teacher.full_logits.float(), objective.temperature)

    def _target(self, sample):
        return sample["target"][:, self.ignore_prefix_size :].flatten()

    def _projection(self, model, sample, objective) -> Projection | None:
        """The student's output projection, if the loss is to do it by chunks."""
        if self.kd_projection == "plain" or objective.name == "full":
            return None
        found = projection_of(model)
        if isinstance(found, str):
            self._tell("the student projects onto its dictionary itself, all logits at once: %s", found)
            return None
        positions = sample["target"].numel()
        if self.kd_projection == "auto" and chunk_positions(positions, len(found.weight)) >= positions:
            return None
        self._tell("output projection and loss are done in chunks of positions%s", "")
        return found

    def _tell(self, message: str, reason: str) -> None:
        """Log once."""
        if message not in self._told:
            self._told.add(message)
            logger.info(message, reason)

    @classmethod
    def reduce_metrics(cls, logging_outputs) -> None:
        """The host's metrics, and beside a teacher the two sides of the loss (base 2) and how they compare.

        ``nll_loss`` and ``ppl`` are of the gold tokens alone. See docs/objectives.md, "What is logged".
        """
        super().reduce_metrics(logging_outputs)
        if not any("kd_positions" in log for log in logging_outputs):
            return
        sums: dict[str, Any] = {
            key: sum(log.get(key, 0) for log in logging_outputs)
            for key in {key for log in logging_outputs for key in log}
        }
        ntokens = max(sums["ntokens"], 1)
        covered, rows = int(sums["kd_positions"]), int(sums["kd_rows"])
        if "label_loss" in sums:
            metrics.log_scalar("label_loss", sums["label_loss"] / ntokens / math.log(2), ntokens, round=3)
        metrics.log_scalar("kd_loss", sums["kd_loss"] / max(covered, 1) / math.log(2), covered, round=3)
        metrics.log_scalar("kd_coverage", 100.0 * covered / ntokens, ntokens, round=2)

        def percent(name: str, share: Any) -> None:
            metrics.log_scalar(name, 100.0 * share / max(rows, 1), rows, round=2)

        percent("kd_agreement", sums["kd_agreement"])
        percent("kd_student_tail", sums["kd_student_tail"])
        if "kd_captured" in sums:
            percent("kd_captured", sums["kd_captured"])
            percent("kd_teacher_tail", rows - sums["kd_captured"])
        if "kd_teacher_nll" in sums:
            for who in ("teacher", "gold"):
                nll = f"kd_{who}_nll"
                metrics.log_scalar(nll, sums[nll] / max(rows, 1) / math.log(2), rows, round=3)
            metrics.log_derived("kd_teacher_ppl", lambda meters: get_perplexity(meters["kd_teacher_nll"].avg))
            metrics.log_derived("kd_student_ppl", lambda meters: get_perplexity(meters["kd_gold_nll"].avg))


class _Answered:
    """A model whose forward pass was made already."""

    def __init__(self, model, net_output):
        self._model, self._net_output = model, net_output

    def __call__(self, **_):
        return self._net_output

    def __getattr__(self, name):
        return getattr(self._model, name)
