"""Criterion ``conditional_masked_lm``: cross-entropy over predicted target positions (Chen et al. 2020, Eq. 3)."""

import math

import torch
import torch.nn.functional as F
from fairseq import utils
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.logging import metrics

from fairseq_bert_kd.criterions.log_sums import log_sums
from fairseq_bert_kd.functional.best_token import best_token


@register_criterion("conditional_masked_lm")
class ConditionalMaskedLMCriterion(FairseqCriterion):
    """Mean cross-entropy over the predicted target positions of the update (``sample_size`` counts them).

    They are the masked ones, those that are kept or replaced by a random piece among them. For a left-to-right teacher
    they are all target positions, and ``masked_accuracy`` is over all of them.
    """

    def forward(self, model, sample, reduce=True):
        """Loss summed over predicted positions, their number, and what to log."""
        predicted = sample["net_input"].get("predicted")
        if predicted is None:
            raise ValueError("--criterion conditional_masked_lm needs --task conditional_masked_lm")
        # before the model runs: on a GPU this waits for the device, and would hold the backward pass up
        target = sample["target"][predicted]
        logits = model(**sample["net_input"])  # (predicted positions, target dictionary)
        loss = F.cross_entropy(logits.float(), target, reduction="sum" if reduce else "none")
        n_predicted = target.numel()
        with torch.no_grad():
            n_correct = (best_token(logits) == target).sum()
        logging_output = {
            "loss": loss.data,
            "n_correct": n_correct,
            "ntokens": sample["ntokens"],
            "nsentences": sample["nsentences"],
            "sample_size": n_predicted,
        }
        return loss, n_predicted, logging_output

    @classmethod
    def reduce_metrics(cls, logging_outputs) -> None:
        """Masked cross-entropy (base 2), perplexity and accuracy in percent, over all workers."""
        sums = log_sums(logging_outputs, ("loss", "n_correct", "sample_size"))
        n_predicted = max(sums["sample_size"], 1)
        metrics.log_scalar("loss", sums["loss"] / n_predicted / math.log(2), n_predicted, round=3)
        metrics.log_derived("ppl", lambda meters: utils.get_perplexity(meters["loss"].avg))
        metrics.log_scalar("masked_accuracy", 100.0 * sums["n_correct"] / n_predicted, n_predicted, round=2)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True
