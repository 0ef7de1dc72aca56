"""Criterion ``smoothed_sentence_prediction``: fairseq's sentence prediction on smoothed inputs (Wu et al. 2020)."""

import inspect
from dataclasses import dataclass

from fairseq.criterions import register_criterion
from fairseq.criterions.sentence_prediction import SentencePredictionConfig, SentencePredictionCriterion
from fairseq.logging import metrics

from fairseq_bert_kd.batch import SMOOTHING
from fairseq_bert_kd.modules.smoothing_options import SmoothingOptions
from fairseq_bert_kd.modules.text_smoother import TextSmoother


@dataclass
class SmoothedSentencePredictionConfig(SmoothingOptions, SentencePredictionConfig):
    """Options of fairseq's criterion and of text smoothing."""


@register_criterion("smoothed_sentence_prediction", dataclass=SmoothedSentencePredictionConfig)
class SmoothedSentencePredictionCriterion(SentencePredictionCriterion):
    """fairseq's loss with gold labels; in training the model reads smoothed words, in validation plain ones.

    The loss is summed over sentences, and ``sample_size`` counts them; with ``--smoothing-schedule both`` each counts twice,
    so the plain and the smoothed loss weigh half each. Accuracy in training is over all of them. Weight 0 is fairseq's own
    criterion.
    """

    def __init__(self, cfg, task):
        super().__init__(cfg, task)
        self.smoother = TextSmoother(cfg, task.cfg.seed)
        self.special = (task.dictionary.pad(), task.dictionary.eos())

    def prepare(self, model):
        """Check that a model can read smoothed words.

        Raises:
            ValueError: it cannot.
        """
        if self.smoother.active and "smoothed" not in inspect.signature(model.forward).parameters:
            raise ValueError(
                f"--criterion smoothed_sentence_prediction needs a model that reads smoothed words, `{type(model).__name__}` "
                "does not; choose --arch hf_encoder, or --smoothing-weight 0"
            )

    def set_num_updates(self, updates):
        """The draws of ``--smoothing-schedule mixed`` follow the number of updates."""
        self.smoother.updates = updates

    def forward(self, model, sample, reduce=True):
        if not (model.training and self.smoother.active):
            return super().forward(model, sample, reduce)
        if self.smoother.needs_store and SMOOTHING not in sample:
            # of validation, for a worker that has none left: fairseq ignores the gradient, and all must log the same names
            loss, sample_size, logs = super().forward(model, sample, reduce)
            return (
                loss,
                sample_size,
                {**logs, "smoothed_positions": 0, "smoothing_original": loss.new_zeros(())},
            )
        [tokens] = sample["net_input"]["texts"]
        sample, text = self.smoother.smoothed_batch(sample, tokens, self.special)
        net_input = {**sample["net_input"], "smoothed": (text,)}
        loss, sample_size, logs = super().forward(model, {**sample, "net_input": net_input}, reduce)
        logs.update(self.smoother.original(text, net_input["texts"][0]))
        return loss, sample_size, logs

    @classmethod
    def reduce_metrics(cls, logging_outputs):
        super().reduce_metrics(logging_outputs)
        log_original(logging_outputs)


def log_original(logging_outputs):
    """Log the mean probability of the original tokens, where anything was smoothed."""
    positions = sum(log.get("smoothed_positions", 0) for log in logging_outputs)
    if positions:
        mass = sum(log.get("smoothing_original", 0) for log in logging_outputs)
        metrics.log_scalar("smoothing_original", mass / positions, positions, round=4)
