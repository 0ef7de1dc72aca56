"""Criterion ``entity_typing``: any number of types for a mention, each by itself (ERNIE's entity typing)."""

import math

import torch
import torch.nn.functional as F
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.logging import metrics

from fairseq_bert_kd.criterions.log_sums import log_sums


@register_criterion("entity_typing")
class EntityTypingCriterion(FairseqCriterion):
    """Binary cross-entropy, summed over types and sentences; ``sample_size`` counts sentences.

    A type is predicted where its logit is above 0. The log has micro F1 over all types and sentences, and the share of
    sentences whose set of types is right (strict accuracy).
    """

    def __init__(self, task):
        super().__init__(task)
        self.head = getattr(task.cfg, "classification_head_name", None)

    def forward(self, model, sample, reduce=True):
        """Loss, number of sentences, and what to log."""
        target = sample.get("target")
        if target is None or target.dim() != 2:
            raise ValueError(
                "--criterion entity_typing needs mentions with types, read by --task entity_sentence_prediction"
            )
        logits, _ = model(**sample["net_input"], features_only=True, classification_head_name=self.head)
        loss = F.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="sum")
        with torch.no_grad():
            found, true = logits > 0, target.bool()
            counts = {
                "hits": (found & true).sum(),
                "found": found.sum(),
                "true": true.sum(),
                "exact": (found == true).all(dim=1).sum(),
            }
        size = len(target)
        logging_output = {
            "loss": loss.data, "ntokens": sample["ntokens"], "nsentences": size, "sample_size": size, **counts,
        }  # fmt: skip
        return loss, size, logging_output

    @classmethod
    def reduce_metrics(cls, logging_outputs) -> None:
        """Cross-entropy of a sentence (base 2), micro F1 and strict accuracy in percent."""
        sums = log_sums(logging_outputs, ("loss", "sample_size", "hits", "found", "true", "exact"))
        size = max(sums["sample_size"], 1)
        metrics.log_scalar("loss", sums["loss"] / size / math.log(2), size, round=3)
        metrics.log_scalar_sum("_hits", sums["hits"])
        metrics.log_scalar_sum("_found_or_true", sums["found"] + sums["true"])
        metrics.log_derived(
            "f1", lambda meters: 200.0 * meters["_hits"].sum / max(meters["_found_or_true"].sum, 1)
        )
        metrics.log_scalar("strict_accuracy", 100.0 * sums["exact"] / size, size, round=2)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True
