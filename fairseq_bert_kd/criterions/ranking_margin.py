"""Criterion ``ranking_margin``: an evaluator learns to place references above what the generator samples."""

from dataclasses import dataclass, field

import torch
from fairseq.criterions import register_criterion
from fairseq.criterions.sentence_prediction import SentencePredictionConfig, SentencePredictionCriterion
from fairseq.logging import metrics

from fairseq_bert_kd.criterions.log_sums import log_sums
from fairseq_bert_kd.functional.policy_gradient import curriculum_probabilities, ranking_margin
from fairseq_bert_kd.functional.sampling import uniform_draws
from fairseq_bert_kd.functional.schedules import Schedule

SUMS = ("loss", "margin", "learned", "sampled_score", "reference_score", "nsentences")


@dataclass
class RankingMarginConfig(SentencePredictionConfig):
    """Options of ``sentence_prediction``, with which validation is judged, and of the curriculum."""

    ranking_curriculum_delta: float = field(
        default=0.0,
        metadata={
            "help": "delta with which the curriculum begins: a pair is learned with probability sigmoid(delta (0.5 - rank / K)), "
            "rank 1 the pair whose source and reference are closest; 0 learns every pair (default)"
        },
    )
    ranking_curriculum_updates: int = field(
        default=0,
        metadata={
            "help": "updates after which delta has gone to 0 and every pair has probability 1/2; 0 keeps it"
        },
    )


@register_criterion("ranking_margin", dataclass=RankingMarginConfig)
class RankingMarginCriterion(SentencePredictionCriterion):
    """``max(0, 1 - ROUGE-L + M(X, Yhat) - M(X, Y))`` of sources, references and samples (Li et al. 2018, J_IRL).

    It is summed over pairs, and ``sample_size`` counts the pairs that are learned. In validation, on labelled pairs, it is
    fairseq's ``sentence_prediction``.

    Raises:
        ValueError: options out of range.
    """

    def __init__(self, cfg: RankingMarginConfig, task):
        super().__init__(cfg, task)
        for name in ("ranking_curriculum_delta", "ranking_curriculum_updates"):
            if getattr(cfg, name) < 0:
                raise ValueError(
                    f"--{name.replace('_', '-')} must be at least 0, got {getattr(cfg, name)}; the default is 0, no curriculum"
                )
        delta, updates = cfg.ranking_curriculum_delta, cfg.ranking_curriculum_updates
        if updates and not delta:
            raise ValueError(
                f"--ranking-curriculum-updates {updates} ends a curriculum, which begins with --ranking-curriculum-delta; give it "
                "above 0, 12 for example, or leave the updates out"
            )
        self.curriculum = Schedule(delta, 0.0, "linear", updates) if updates else Schedule(delta, delta)
        self.has_curriculum = delta > 0.0
        self.positive = getattr(task, "positive", None)
        self.seed = getattr(task.cfg, "seed", 1)
        self.update = 0

    def set_num_updates(self, update: int) -> None:
        """Tell the curriculum how far training is; the task does so before every step."""
        self.update = update

    def forward(self, model, sample, reduce=True):
        """Loss summed over pairs, the number of those that are learned, and what to log."""
        texts, lengths = sample["net_input"]["texts"], sample["net_input"]["lengths"]
        if len(texts) != 3:
            if model.training:
                raise ValueError("--criterion ranking_margin needs --task ranking_margin")
            return super().forward(model, sample, reduce=reduce)
        reference, sampled = (
            self._scores(model, (texts[0], texts[side]), (lengths[0], lengths[side])) for side in (1, 2)
        )
        rouge, places = sample["target"].to(reference).unbind(dim=1)
        margins = ranking_margin(rouge, sampled, reference)
        learned = self._learned(sample["id"], places)
        loss = (margins * learned).sum()
        size = int(learned.sum())
        log = {
            "loss": loss.detach(),
            "margin": margins.detach().sum(),
            "learned": size,
            "sampled_score": sampled.detach().sum(),
            "reference_score": reference.detach().sum(),
            "ntokens": sample["ntokens"],
            "nsentences": len(margins),
            "sample_size": size,
        }
        return loss, size, log

    def _scores(self, model, texts, lengths):
        """``(pairs,)`` probabilities of the class of paraphrases."""
        logits, _ = model(
            texts, lengths, features_only=True, classification_head_name=self.classification_head_name
        )
        return logits.float().softmax(dim=1)[:, self.positive]

    def _learned(self, ids, places):
        """``(pairs,)`` 1 for pairs that the curriculum has drawn; a function of seed, update and pair."""
        if not self.has_curriculum:
            return torch.ones_like(places)
        probabilities = curriculum_probabilities(places, self.curriculum.value(self.update))
        draws = uniform_draws(self.seed, self.update, ids.tolist(), [1] * len(ids), 1).squeeze(1)
        return (draws.to(places.device) < probabilities).to(places)

    @staticmethod
    def reduce_metrics(logging_outputs) -> None:
        """In training the margin, the share of learned pairs and both mean scores; in validation fairseq's metrics."""
        if not any("margin" in log for log in logging_outputs):
            SentencePredictionCriterion.reduce_metrics(logging_outputs)
            return
        sums = log_sums(logging_outputs, SUMS)
        pairs, learned = max(sums["nsentences"], 1), max(sums["learned"], 1)
        metrics.log_scalar("loss", sums["loss"] / learned, learned, round=4)
        for name in ("margin", "learned", "sampled_score", "reference_score"):
            metrics.log_scalar(name, sums[name] / pairs, pairs, round=4)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True
