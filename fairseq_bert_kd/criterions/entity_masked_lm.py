"""Criterion ``entity_masked_lm``: masked language modelling and entity prediction (ERNIE, Zhang et al. 2019, Section 3.4)."""

import math

import torch
import torch.nn.functional as F
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.logging import metrics

from fairseq_bert_kd.criterions.log_sums import log_sums
from fairseq_bert_kd.functional.best_token import best_token
from fairseq_bert_kd.functional.entity_fusion import entity_alignment_loss

SUMS = (
    "sample_size",
    "loss",
    "token_loss",
    "entity_loss",
    "n_correct",
    "n_aligned",
    "entities_correct",
    "chance",
)


@register_criterion("entity_masked_lm")
class EntityMaskedLMCriterion(FairseqCriterion):
    """Sum of two means: cross-entropy of masked tokens, and of the entities that tokens name.

    The entities compete with those that the batch names (of the micro-batch with ``--update-freq``, of one worker). Next
    sentence prediction is left out (ours). ``sample_size`` counts the masked tokens, so the sum over entities is scaled to
    their number.
    """

    def prepare(self, model) -> None:
        """Give the model its entity head, before the optimizer is made."""
        model.add_entity_head()

    def forward(self, model, sample, reduce=True):
        """Loss in units of masked tokens, their number, and what to log."""
        target = sample["target"][sample["net_input"]["predicted"]]
        labels = sample["entity_labels"][sample["net_input"]["aligned"]]
        logits, features = model(**sample["net_input"])
        token_loss = F.cross_entropy(logits.float(), target, reduction="sum")
        entity_loss, entities_correct = entity_alignment_loss(features, labels, model.entities.vectors)
        n_predicted, n_aligned = target.numel(), labels.numel()
        loss = token_loss + entity_loss * (n_predicted / max(n_aligned, 1))
        with torch.no_grad():
            n_correct = (best_token(logits) == target).sum()
            n_candidates = labels.unique().numel()
        logging_output = {
            "loss": loss.data,
            "token_loss": token_loss.data,
            "entity_loss": entity_loss.data,
            "n_correct": n_correct,
            "entities_correct": entities_correct,
            "n_aligned": n_aligned,
            "chance": n_aligned / max(n_candidates, 1),
            "ntokens": sample["ntokens"],
            "nsentences": sample["nsentences"],
            "sample_size": n_predicted,
        }
        return loss, n_predicted, logging_output

    @classmethod
    def reduce_metrics(cls, logging_outputs) -> None:
        """Both cross-entropies (base 2) and accuracies in percent, and that of guessing among the candidates."""
        sums = log_sums(logging_outputs, SUMS)
        n_predicted, n_aligned = max(sums["sample_size"], 1), max(sums["n_aligned"], 1)
        for name, count in (("loss", n_predicted), ("token_loss", n_predicted), ("entity_loss", n_aligned)):
            metrics.log_scalar(name, sums[name] / count / math.log(2), count, round=3)
        for name, key, count in (
            ("masked_accuracy", "n_correct", n_predicted),
            ("entity_accuracy", "entities_correct", n_aligned),
            ("entity_chance", "chance", n_aligned),
        ):
            metrics.log_scalar(name, 100.0 * sums[key] / count, count, round=2)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True
