"""Options of the criterion of layers, and checks of them."""

from dataclasses import dataclass, field
from typing import Optional

from fairseq.criterions.sentence_prediction import SentencePredictionConfig
from fairseq.dataclass import ChoiceEnum, FairseqDataclass

from fairseq_bert_kd.modules.layer_projections import PAPER, PROJECTIONS

GENERAL = "general"
INTERMEDIATE = "intermediate"
PREDICTION = "prediction"
STAGES = (GENERAL, INTERMEDIATE, PREDICTION)
VALID = "valid"
ALL = "all"
POSITIONS = (VALID, ALL)
SCORES = "scores"
RELATIONS = "relations"
ATTENTION_LOSSES = (SCORES, RELATIONS)
LAYER_TERMS = ("embedding", "hidden", "attention")
TERMS = (*LAYER_TERMS, "prediction", "label")


@dataclass
class LayerDistillationConfig(FairseqDataclass):
    """What a student learns from its teacher's layers and predictions, and with which weights."""

    classification_head_name: str = SentencePredictionConfig.classification_head_name
    layer_stage: ChoiceEnum(STAGES) = field(  # type: ignore[valid-type]
        default=INTERMEDIATE,
        metadata={
            "help": "stage of TinyBERT, which sets the weights: general and intermediate learn embeddings, hidden states and "
            "attention (weights 1), prediction learns the teacher's predictions (weight 1); labels have weight 0 in all, as "
            "in the paper"
        },
    )
    layer_embedding_weight: Optional[float] = field(
        default=None, metadata={"help": "weight of the embeddings' loss (default: of --layer-stage)"}
    )
    layer_hidden_weight: Optional[float] = field(
        default=None,
        metadata={"help": "weight of each layer's hidden-state loss (default: of --layer-stage)"},
    )
    layer_attention_weight: Optional[float] = field(
        default=None, metadata={"help": "weight of each layer's attention loss (default: of --layer-stage)"}
    )
    layer_prediction_weight: Optional[float] = field(
        default=None,
        metadata={"help": "weight of the loss against the teacher's predictions (default: of --layer-stage)"},
    )
    layer_label_weight: Optional[float] = field(
        default=None, metadata={"help": "weight of the loss against the labels (default: 0, as in the paper)"}
    )
    layer_map: str = field(
        default="uniform",
        metadata={
            "help": "the teacher's layer that each student layer learns from: uniform, every N/M-th (the paper's); top, the "
            "last ones; bottom, the first ones; or numbers from 0 (embeddings) to N, such as 0,2,4,6"
        },
    )
    layer_projection: ChoiceEnum(PROJECTIONS) = field(  # type: ignore[valid-type]
        default=PAPER,
        metadata={
            "help": "linear map from the student's width into the teacher's: paper, one for embeddings and one for all hidden "
            "states, without bias; shared, one for both, with bias, as in the released code; per-layer, one each, without "
            "bias; none, only where both widths are equal. Trained and saved with the student, left out of its export"
        },
    )
    layer_loss_positions: ChoiceEnum(POSITIONS) = field(  # type: ignore[valid-type]
        default=VALID,
        metadata={
            "help": "positions in the means: valid, tokens only, so that a sentence has the same loss in every batch; all, "
            "padding too, as in the released code"
        },
    )
    layer_attention_loss: ChoiceEnum(ATTENTION_LOSSES) = field(  # type: ignore[valid-type]
        default=SCORES,
        metadata={
            "help": "scores: mean squared difference of attention scores before softmax (TinyBERT; needs as many heads as the "
            "teacher); relations: KL divergence of the relations of queries, keys and values of the last layer (MiniLMv2; "
            "needs neither equal heads nor widths)"
        },
    )
    layer_relation_heads: int = field(
        default=12,
        metadata={"help": "relation heads of --layer-attention-loss relations; must divide both widths"},
    )
    layer_relation_layer: Optional[int] = field(
        default=None,
        metadata={
            "help": "teacher's layer of --layer-attention-loss relations, from 1 (default: its last one)"
        },
    )
    layer_temperature: float = field(
        default=1.0,
        metadata={
            "help": "t, divides both sides' logits in the prediction loss; 1 in the paper. There is no factor t^2"
        },
    )
    layer_mean_over_classes: bool = field(
        default=False,
        metadata={
            "help": "divide the prediction loss by the number of classes, as the released code does (learning rates that "
            "were found with it are too small by that factor without)"
        },
    )
    report_mcc: bool = field(
        default=False,
        metadata={"help": "log Matthews' correlation in validation, as sentence_prediction does"},
    )
    report_acc_and_f1: bool = field(
        default=False,
        metadata={
            "help": "log F1 of the second of two classes, and its mean with the accuracy, in validation"
        },
    )
    report_pearson_and_spearman: bool = field(
        default=False, metadata={"help": "log both correlations of numbers, and their mean, in validation"}
    )


def term_weights(cfg: LayerDistillationConfig) -> dict[str, float]:
    """Weight of each of ``TERMS``: the stage's, or what the user gave."""
    stage = {"prediction"} if str(cfg.layer_stage) == PREDICTION else {*LAYER_TERMS}
    given = {term: getattr(cfg, f"layer_{term}_weight") for term in TERMS}
    return {term: float(term in stage) if given[term] is None else given[term] for term in TERMS}


def check_options(cfg: LayerDistillationConfig) -> None:
    """Check ranges, and options that contradict each other.

    Raises:
        ValueError: names the options, their value and the next step.
    """
    weights = term_weights(cfg)
    for term, weight in weights.items():
        if not weight >= 0.0:
            raise ValueError(
                f"--layer-{term}-weight must not be negative, got {weight}; 0 leaves the term out"
            )
    if not any(weights.values()):
        raise ValueError(
            "all weights of --criterion layer_distillation are 0, so there is nothing to learn; leave out one of --layer-"
            f"*-weight, or choose another --layer-stage than {cfg.layer_stage}"
        )
    if str(cfg.layer_stage) == GENERAL and weights["label"]:
        raise ValueError(
            f"--layer-stage general reads unlabelled text, so --layer-label-weight {weights['label']} has nothing to learn "
            "from; leave it out, or choose --layer-stage intermediate"
        )
    if not cfg.layer_temperature > 0.0:
        raise ValueError(
            f"--layer-temperature must be positive, got {cfg.layer_temperature}; the paper uses 1"
        )
    if cfg.layer_relation_heads < 1:
        raise ValueError(f"--layer-relation-heads must be at least 1, got {cfg.layer_relation_heads}")
    relations = str(cfg.layer_attention_loss) == RELATIONS
    if relations and str(cfg.layer_loss_positions) == ALL:
        raise ValueError(
            "--layer-loss-positions all is the released code of TinyBERT, which knows no relations; leave it out, or give "
            "--layer-attention-loss scores"
        )
    if not relations and cfg.layer_relation_layer is not None:
        raise ValueError(
            f"--layer-relation-layer {cfg.layer_relation_layer} is for --layer-attention-loss relations; leave it out"
        )
