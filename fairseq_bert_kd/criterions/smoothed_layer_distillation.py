"""Criterion ``smoothed_layer_distillation``: TinyBERT's losses of a student that reads smoothed words, our own combination."""

from dataclasses import dataclass

from fairseq.criterions import register_criterion

from fairseq_bert_kd.criterions.layer_distillation import LayerDistillationCriterion
from fairseq_bert_kd.criterions.layer_distillation_options import LayerDistillationConfig
from fairseq_bert_kd.criterions.smoothed_inputs import SmoothedInputs
from fairseq_bert_kd.modules.smoothing_options import SmoothingOptions


@dataclass
class SmoothedLayerDistillationConfig(SmoothingOptions, LayerDistillationConfig):
    """Options of layer distillation and of text smoothing."""


@register_criterion("smoothed_layer_distillation", dataclass=SmoothedLayerDistillationConfig)
class SmoothedLayerDistillationCriterion(SmoothedInputs, LayerDistillationCriterion):
    """Losses against a teacher that reads plain words, of a student that reads smoothed ones, see `SmoothedInputs`."""
