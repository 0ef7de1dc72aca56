"""Criterion ``label_smoothed_cross_entropy_with_distillation`` (Chen et al. 2020, Eq. 5)."""

import math
from dataclasses import dataclass, field

from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
)
from fairseq.logging import metrics

from fairseq_bert_kd.batch import TEACHER, decode_logits
from fairseq_bert_kd.functional.soft_targets import distillation_loss

LOGGED = ("kd_loss", "label_loss", "kd_positions")


@dataclass
class DistillationConfig(LabelSmoothedCrossEntropyCriterionConfig):
    """Options of ``label_smoothed_cross_entropy`` and the teacher's side."""

    kd_weight: float = field(
        default=0.5,
        metadata={
            "help": "weight of the teacher's side: loss = (1 - W) * label-smoothed cross-entropy + W * cross-entropy "
            "against the teacher; 0.5 for De-En in the paper, 0.1 for its other tasks; 0 is plain training"
        },
    )
    kd_temperature: float = field(
        default=10.0,
        metadata={
            "help": "divides the teacher's logits before their softmax over the top k; the student's logits are "
            "never divided and the loss is not multiplied by T^2; 10 for De-En and Gigaword in the paper, else 5"
        },
    )
    kd_topk: int = field(
        default=8,
        metadata={"help": "teacher tokens per position, at most what the store holds; 8 in the paper"},
    )


@register_criterion("label_smoothed_cross_entropy_with_distillation", dataclass=DistillationConfig)
class LabelSmoothedCrossEntropyWithDistillationCriterion(LabelSmoothedCrossEntropyCriterion):
    """Labels and a teacher's soft targets in training; labels alone in validation.

    With ``kd_weight`` 0, and in validation, this is fairseq's ``label_smoothed_cross_entropy`` itself,
    so validation losses compare with those of a plain run. In training the label side smooths as in the
    authors' code, see `fairseq_bert_kd.functional.soft_targets.paper_label_smoothing`.
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
    ):
        super().__init__(task, sentence_avg, label_smoothing, ignore_prefix_size, report_accuracy)
        if not 0.0 <= kd_weight <= 1.0:
            raise ValueError(f"--kd-weight must be in [0, 1], got {kd_weight}; the paper uses 0.5 and 0.1")
        if not kd_temperature > 0.0:
            raise ValueError(
                f"--kd-temperature must be positive, got {kd_temperature}; the paper uses 10 and 5"
            )
        if kd_topk < 1:
            raise ValueError(f"--kd-topk must be at least 1, got {kd_topk}; the paper uses 8")
        self.kd_weight = kd_weight
        self.kd_temperature = kd_temperature
        self.kd_topk = kd_topk

    @property
    def teacher_topk(self) -> int:
        """Teacher tokens per position that training needs; 0 when it needs no teacher."""
        return self.kd_topk if self.kd_weight > 0.0 else 0

    def forward(self, model, sample, reduce=True):
        """Loss summed over target tokens, its denominator, and what to log."""
        if not self.teacher_topk or not model.training:
            return super().forward(model, sample, reduce=reduce)
        if TEACHER not in sample:
            raise ValueError(
                "--kd-weight is above 0 but the batch has no teacher rows; train with "
                "--task translation_with_teacher, which attaches them"
            )
        net_output = model(**sample["net_input"])
        lprobs, target = self.get_lprobs_and_target(model, net_output, sample)
        teacher = {
            # (positions, k) or (positions,), the same prefix left out as in the targets
            name: rows[:, self.ignore_prefix_size :].flatten(0, 1)
            for name, rows in sample[TEACHER].items()
        }
        losses = distillation_loss(
            lprobs,
            target,
            teacher["ids"],
            decode_logits(teacher["logit_bits"]),
            teacher["present"],
            self.padding_idx,
            self.kd_weight,
            self.kd_temperature,
            self.eps,
        )
        sample_size = sample["target"].size(0) if self.sentence_avg else sample["ntokens"]
        logging_output = {
            "loss": losses.total.data,
            "nll_loss": losses.nll.data,
            "label_loss": losses.label.data,
            "kd_loss": losses.teacher.data,
            "kd_positions": losses.covered.data,
            "ntokens": sample["ntokens"],
            "nsentences": sample["target"].size(0),
            "sample_size": sample_size,
        }
        if self.report_accuracy:
            n_correct, total = self.compute_accuracy(model, net_output, sample)
            logging_output["n_correct"] = n_correct.item()
            logging_output["total"] = total.item()
        return losses.total, sample_size, logging_output

    @classmethod
    def reduce_metrics(cls, logging_outputs) -> None:
        """The host's metrics, and in training the two sides of the loss (base 2) and the coverage.

        ``nll_loss`` and ``ppl`` are of the gold tokens alone; ``kd_coverage`` is the share of target
        tokens that have a teacher row, in percent.
        """
        super().reduce_metrics(logging_outputs)
        if not any("kd_positions" in log for log in logging_outputs):
            return
        teacher, label, covered = (sum(log.get(key, 0) for log in logging_outputs) for key in LOGGED)
        covered = int(covered)
        ntokens = max(sum(log.get("ntokens", 0) for log in logging_outputs), 1)
        metrics.log_scalar("label_loss", label / ntokens / math.log(2), ntokens, round=3)
        metrics.log_scalar("kd_loss", teacher / max(covered, 1) / math.log(2), covered, round=3)
        metrics.log_scalar("kd_coverage", 100.0 * covered / ntokens, ntokens, round=2)
