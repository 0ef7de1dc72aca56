"""Criterion ``policy_gradient``: log-probabilities of sampled sequences, weighted by their advantages."""

import math
from dataclasses import dataclass, field

import torch
from fairseq import utils
from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
)
from fairseq.logging import metrics

from fairseq_bert_kd.batch import POLICY
from fairseq_bert_kd.criterions.log_sums import log_sums
from fairseq_bert_kd.functional.chunked_projection import chunked_sums
from fairseq_bert_kd.functional.policy_gradient import kl_to_reference, policy_gradient_loss
from fairseq_bert_kd.functional.projected_scores import product_dtype, projected_scores
from fairseq_bert_kd.functional.projection_plan import projection_plan
from fairseq_bert_kd.functional.sampling import allowed_log_probs, allowed_token_log_probs
from fairseq_bert_kd.functional.student_scores import ScoreRequest
from fairseq_bert_kd.modules.decoding_policy import evaluation_mode, scoring_input, symbols_of
from fairseq_bert_kd.modules.student_projection import AssembledProbabilities, projection_of, scores_of

SUMS = ("loss", "nll_loss", "rl_loss", "rl_kl", "rl_scored", "ntokens", "sample_size")


@dataclass
class PolicyGradientConfig(LabelSmoothedCrossEntropyCriterionConfig):
    """Options of ``label_smoothed_cross_entropy``, which the likelihood term has, and the weights of the terms."""

    rl_weight: float = field(
        default=0.9,
        metadata={
            "help": "weight W of the policy gradient: loss = W * policy gradient + (1 - W) * label-smoothed cross-entropy of the "
            "targets, both per token; 1 in the paper, 0.9 is our choice; 0 is plain training without samples"
        },
    )
    rl_kl_weight: float = field(
        default=0.0,
        metadata={
            "help": "weight of KL(policy || policy of --rl-reference) per sampled token; 0 in the paper, which has no such term"
        },
    )


@register_criterion("policy_gradient", dataclass=PolicyGradientConfig)
class PolicyGradientCriterion(AssembledProbabilities, LabelSmoothedCrossEntropyCriterion):
    """Policy gradient on samples that the task has drawn and rewarded; in validation fairseq's label-smoothed cross-entropy.

    Samples are scored with the dropout off with which they were drawn, and label smoothing is in the likelihood term alone.
    ``sample_size`` counts sampled tokens; the other terms are brought to that unit.

    Raises:
        ValueError: weights out of range.
    """

    def __init__(self, cfg: PolicyGradientConfig, task):
        super().__init__(
            task, cfg.sentence_avg, cfg.label_smoothing, cfg.ignore_prefix_size, cfg.report_accuracy
        )
        if not 0.0 <= cfg.rl_weight <= 1.0:
            raise ValueError(f"--rl-weight must be from 0 to 1, got {cfg.rl_weight}; our default is 0.9")
        if cfg.rl_kl_weight < 0.0:
            raise ValueError(
                f"--rl-kl-weight must not be negative, got {cfg.rl_kl_weight}; the default is 0, no such term"
            )
        if cfg.sentence_avg:
            raise ValueError("--sentence-avg divides by sentences, policy_gradient by tokens; leave it out")
        self.weight, self.kl_weight = cfg.rl_weight, cfg.rl_kl_weight
        self.symbols = symbols_of(task.target_dictionary)

    @property
    def needs_samples(self) -> bool:
        """Whether the task is to sample."""
        return self.weight > 0.0 or self.kl_weight > 0.0

    @property
    def needs_reference(self) -> bool:
        """Whether the samples need the distributions of the policy at its start."""
        return self.kl_weight > 0.0

    def forward(self, model, sample, reduce=True):
        """Loss summed over sampled tokens, their number, and what to log."""
        if not model.training or not self.needs_samples:
            return super().forward(model, sample, reduce=reduce)
        if POLICY not in sample:
            raise ValueError("--criterion policy_gradient needs --task translation_with_reward")
        policy = sample[POLICY]
        scored = int(policy["sampled"].sum())
        with evaluation_mode(model):
            terms = self._policy_terms(model, sample, policy)
        log = {name: value.detach() for name, value in terms.items()}
        loss = self.weight * terms["rl_loss"]
        if self.needs_reference:
            loss = loss + self.kl_weight * terms["rl_kl"]
        if self.weight < 1.0:
            likelihood, nll = self.compute_loss(model, model(**sample["net_input"]), sample)
            loss = loss + (1.0 - self.weight) * (scored / max(sample["ntokens"], 1)) * likelihood
            log["nll_loss"] = nll.detach()
        log |= {"loss": loss.detach(), "rl_scored": scored, "sample_size": scored}
        log |= {"ntokens": sample["ntokens"], "nsentences": sample["target"].size(0)}
        return loss, scored, log

    def _policy_terms(self, model, sample, policy):
        """``rl_loss`` and, where it is needed, ``rl_kl``, summed over sampled tokens."""
        net_input = scoring_input(sample["net_input"], policy, self.symbols.eos)
        projection = projection_of(model)
        if self.needs_reference or isinstance(projection, str):
            return self._whole_terms(model, net_input, policy)
        features = model(**net_input, features_only=True)[0]  # (sequences, length, dim)
        kept = policy["sampled"].flatten().nonzero().squeeze(1)
        features = features.flatten(0, 1).index_select(0, kept)
        tokens, advantage = (
            policy[name].expand(policy["tokens"].shape).flatten()[kept] for name in ("tokens", "advantages")
        )
        forbidden = tokens.new_tensor(self.symbols.forbidden).expand(len(tokens), -1)
        request = ScoreRequest(torch.cat([tokens[:, None], forbidden], dim=1), 1.0, False)
        everything = torch.ones_like(kept, dtype=torch.bool)

        def loss(scores, rows):
            log_probs = allowed_token_log_probs(scores.logits, scores.log_normaliser)
            return {"loss": policy_gradient_loss(log_probs, advantage[rows], everything[rows])}

        plan = projection_plan(features.device, product_dtype(features), small_chunks=False)
        chunk = plan.chunk(len(features), len(projection.weight))
        if plan.loss_by_chunk:
            sums = chunked_sums(features, *projection, request, loss, chunk)
        else:
            sums = loss(projected_scores(features, *projection, request, chunk), slice(None))
        return {"rl_loss": sums["loss"]}

    def _whole_terms(self, model, net_input, policy):
        """`_policy_terms` from whole distributions."""
        log_probs = allowed_log_probs(scores_of(model, model(**net_input)), self.symbols)
        tokens, sampled = policy["tokens"], policy["sampled"]
        drawn = log_probs.gather(2, tokens[..., None]).squeeze(2)
        drawn = drawn.masked_fill(~sampled, 0.0)  # padding is not of the policy
        terms = {"rl_loss": policy_gradient_loss(drawn, policy["advantages"], sampled)}
        if self.needs_reference:
            terms["rl_kl"] = kl_to_reference(log_probs, policy["reference"], sampled)
        return terms

    @classmethod
    def reduce_metrics(cls, logging_outputs) -> None:
        """In validation fairseq's metrics; in training every term per token, the likelihood in bits."""
        if not any("rl_scored" in log for log in logging_outputs):
            super().reduce_metrics(logging_outputs)
            return
        sums = log_sums(logging_outputs, SUMS)
        scored = max(sums["rl_scored"], 1)
        for name in ("loss", "rl_loss", "rl_kl"):
            if any(name in log for log in logging_outputs):
                metrics.log_scalar(name, sums[name] / scored, scored, round=4)
        if any("nll_loss" in log for log in logging_outputs):
            ntokens = max(sums["ntokens"], 1)
            metrics.log_scalar("nll_loss", sums["nll_loss"] / ntokens / math.log(2), ntokens, round=3)
            metrics.log_derived("ppl", lambda meters: utils.get_perplexity(meters["nll_loss"].avg))

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True
