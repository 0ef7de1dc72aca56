"""Criterion ``sentence_representation``: approximate a teacher's sentence vectors (Wu et al. 2020; the losses are ours)."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.logging import metrics
from torch import Tensor

from fairseq_bert_kd.batch import VECTORS, from_bits
from fairseq_bert_kd.criterions.log_sums import log_sums
from fairseq_bert_kd.functional.representation_matching import (
    cosine_loss,
    neighbour_cosines,
    relational_loss,
    squared_loss,
)

ROW_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cosine": cosine_loss, "mse": squared_loss}
LOSSES = ("auto", *ROW_LOSSES, "both")
# what the log has of them
OF_SENTENCES = ("loss", "cosine_loss", "mse_loss", "student_length", "teacher_length")
RELATIONAL = "relational_loss"

logger = logging.getLogger(__name__)


@dataclass
class SentenceRepresentationConfig(FairseqDataclass):
    """Options of the loss between vectors."""

    vector_loss: ChoiceEnum(LOSSES) = field(  # type: ignore[valid-type]
        default="auto",
        metadata={
            "help": "cosine: 1 - cos, which leaves the length free; mse: mean squared difference of the numbers; both: their "
            "sum; auto: cosine for a teacher that is made to be compared by it, else mse, since length carries meaning"
        },
    )
    relational_weight: float = field(
        default=0.0,
        metadata={
            "help": "weight of the mean squared difference between student's and teacher's cosines of different sentences of a "
            "batch (of a micro-batch with --update-freq)"
        },
    )


@register_criterion("sentence_representation", dataclass=SentenceRepresentationConfig)
class SentenceRepresentationCriterion(FairseqCriterion):
    """Loss between the student's and the teacher's vectors, summed over sentences (``sample_size`` counts them).

    Logged in units of a sentence: each loss, weighed or not; the mean length of both sides' vectors, since a cosine leaves the
    student's free; and the mean cosine of true pairs (a sentence's two vectors) and of random ones (its vector and that of
    another sentence): where these two meet, the vectors say nothing.
    """

    def __init__(self, task, vector_loss, relational_weight):
        super().__init__(task)
        if relational_weight < 0:
            raise ValueError(f"--relational-weight must not be negative, got {relational_weight}")
        name = str(vector_loss)
        if name == "auto":
            name = "cosine" if task.similarity == "cosine" else "mse"
            logger.info(
                "--vector-loss auto is %s: the teacher's vectors are %s", name, _said(task.similarity)
            )
        self.losses = tuple(ROW_LOSSES) if name == "both" else (name,)
        self.relational_weight = relational_weight

    def forward(self, model, sample, reduce=True):
        """Loss summed over sentences, their number, and what to log."""
        if VECTORS not in sample:
            raise ValueError("--criterion sentence_representation needs --task sentence_vectors")
        _, extra = model(**sample["net_input"])
        if "vectors" not in extra:
            raise ValueError(
                "--criterion sentence_representation needs a model of sentence vectors, such as --arch sentence_lstm"
            )
        student, teacher = extra["vectors"][0].float(), from_bits(sample[VECTORS])
        sentences = len(teacher)
        rows = {name: loss(student, teacher) for name, loss in ROW_LOSSES.items()}
        loss = torch.stack([rows[name] for name in self.losses]).sum(dim=0)  # (batch,)
        if self.relational_weight:
            relations = relational_loss(student, teacher)
            loss = loss + self.relational_weight * relations
        with torch.no_grad():
            logging_output = {
                "loss": loss.sum().data,
                "cosine_loss": rows["cosine"].sum().data,
                "mse_loss": rows["mse"].sum().data,
                "student_length": student.norm(dim=1).sum(),
                "teacher_length": teacher.norm(dim=1).sum(),
                # a tensor in any case: workers add up tensors and numbers apart
                "random_cosine": neighbour_cosines(student, teacher).sum() * (sentences > 1),
                "random_pairs": sentences if sentences > 1 else 0,
                "ntokens": sample["ntokens"],
                "nsentences": sentences,
                "sample_size": sentences,
            }
            if self.relational_weight:
                logging_output["relational_loss"] = relations.data * sentences
        return loss.sum() if reduce else loss, sentences, logging_output

    @classmethod
    def reduce_metrics(cls, logging_outputs) -> None:
        """Means over all workers' sentences."""
        sums = log_sums(
            logging_outputs, (*OF_SENTENCES, RELATIONAL, "sample_size", "random_pairs", "random_cosine")
        )
        sentences = max(sums["sample_size"], 1)
        relational = any(RELATIONAL in log for log in logging_outputs)
        for name in (*OF_SENTENCES, RELATIONAL) if relational else OF_SENTENCES:
            metrics.log_scalar(name, sums[name] / sentences, sentences, round=4)
        metrics.log_scalar("true_cosine", 1 - sums["cosine_loss"] / sentences, sentences, round=4)
        if pairs := sums["random_pairs"]:
            metrics.log_scalar("random_cosine", sums["random_cosine"] / pairs, pairs, round=4)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True


def _said(similarity: str) -> str:
    return f"compared by their {similarity}" if similarity else "not said to be compared by their cosine"
