"""Criterion ``smoothed_sentence_prediction``: fairseq's sentence prediction on smoothed inputs (Wu et al. 2020)."""

from dataclasses import dataclass

from fairseq.criterions import register_criterion
from fairseq.criterions.sentence_prediction import SentencePredictionConfig, SentencePredictionCriterion

from fairseq_bert_kd.criterions.smoothed_inputs import SmoothedInputs
from fairseq_bert_kd.modules.smoothing_options import SmoothingOptions


@dataclass
class SmoothedSentencePredictionConfig(SmoothingOptions, SentencePredictionConfig):
    """Options of fairseq's criterion and of text smoothing."""


@register_criterion("smoothed_sentence_prediction", dataclass=SmoothedSentencePredictionConfig)
class SmoothedSentencePredictionCriterion(SmoothedInputs, SentencePredictionCriterion):
    """fairseq's loss with gold labels on smoothed words, see `SmoothedInputs`.

    The loss is summed over sentences, and ``sample_size`` counts them. Accuracy in training is over plain and smoothed ones.
    """
