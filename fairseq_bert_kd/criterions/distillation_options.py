"""Options of the distillation criterion, and checks of them."""

import math
from dataclasses import dataclass, field
from typing import Optional

from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterionConfig
from fairseq.dataclass import ChoiceEnum

from fairseq_bert_kd.functional.distillation import OBJECTIVES, TOKEN_WEIGHTS
from fairseq_bert_kd.functional.schedules import SHAPES

# objectives that need the teacher's log-normaliser at the temperature itself
NEEDS_TAIL = ("tail-bucket", "sampled")


@dataclass
class DistillationConfig(LabelSmoothedCrossEntropyCriterionConfig):
    """Options of ``label_smoothed_cross_entropy``, and of the teacher's side."""

    kd_weight: float = field(
        default=0.5,
        metadata={
            "help": "weight W of the teacher's side: loss = (1 - W) * label-smoothed cross-entropy + W * loss against the "
            "teacher; 0.5 for De-En in the paper, 0.1 for its other tasks; 0 is plain training"
        },
    )
    kd_temperature: float = field(
        default=1.0,
        metadata={
            "help": "T, divides the teacher's logits, and the student's too in all objectives but `paper`; the paper uses 10 "
            "for De-En and Gigaword and 5 for other pairs; with tail-bucket and sampled one of the store's temperatures"
        },
    )
    kd_topk: int = field(
        default=8,
        metadata={"help": "teacher tokens per position, at most as many as the store has; 8 in the paper"},
    )
    kd_objective: ChoiceEnum(OBJECTIVES) = field(  # type: ignore[valid-type]
        default="paper",
        metadata={
            "help": "loss against the teacher; t, z: logits of teacher and student, K: the k tokens, V: the dictionary. "
            "paper: -sum_K softmax_K(t/T) log softmax_V(z); renormalised: the same with z/T; conditional: "
            "KL(softmax_K(t/T) || softmax_K(z/T)); tail-bucket: KL of K and one bucket for all other tokens, true "
            "probabilities; sampled: unbiased estimate of the full KL from K and drawn tokens (dump --samples); full: KL over "
            "V (--kd-live-teacher)"
        },
    )
    kd_square_temperature: bool = field(
        default=False,
        metadata={
            "help": "multiply the teacher's side by T^2, so that its gradient keeps its size (Hinton et al. 2015); for "
            "objectives that divide the student's logits too"
        },
    )
    kd_schedule: ChoiceEnum(SHAPES) = field(  # type: ignore[valid-type]
        default="constant",
        metadata={
            "help": "how W and T go from --kd-weight and --kd-temperature to their -end values; with x = min(u / "
            "UPDATES, 1) at update u after the warm-up: linear start + (end - start) x; cosine start + (end - start) (1 - "
            "cos(pi x)) / 2"
        },
    )
    kd_schedule_updates: int = field(default=0, metadata={"help": "UPDATES of --kd-schedule"})
    kd_weight_end: Optional[float] = field(
        default=None, metadata={"help": "W at the end of --kd-schedule (default: no change)"}
    )
    kd_temperature_end: Optional[float] = field(
        default=None, metadata={"help": "T at the end of --kd-schedule (default: no change)"}
    )
    kd_warmup_updates: int = field(
        default=0, metadata={"help": "first updates, trained without the teacher exactly as with W = 0"}
    )
    kd_token_weight: ChoiceEnum(TOKEN_WEIGHTS) = field(  # type: ignore[valid-type]
        default="none",
        metadata={
            "help": "weight of each position, W_t = W * c_t in loss_t = (1 - W_t) label_t + W_t teacher_t; confidence: c_t = "
            "teacher's probability of its best token at temperature 1; entropy: c_t = 1 - H_t / log(k + 1), H_t the "
            "entropy of its k tokens and the rest at temperature 1"
        },
    )
    kd_projection: ChoiceEnum(["auto", "chunked", "plain"]) = field(  # type: ignore[valid-type]
        default="auto",
        metadata={
            "help": "auto: output projection and loss in one where the student is a Transformer with a plain projection, in "
            "chunks of positions where all logits are too large for a cache (CPU) or for an eighth of the memory (GPU); "
            "chunked: the same in small chunks, so that all logits are never in memory together; plain: logits from the student"
        },
    )
    rdrop_weight: float = field(
        default=0.0,
        metadata={
            "help": "A of R-Drop (Liang et al. 2021), for distilled and plain training (--kd-weight 0): each batch goes through "
            "the student twice with different dropout; loss = mean of both losses + A / 2 * mean of the two KL divergences "
            "between them, half of the paper's sum; 5 for translation in the paper; 0 is one pass, without it"
        },
    )


def check_options(cfg: DistillationConfig) -> None:
    """Check ranges, and options that contradict each other.

    Raises:
        ValueError: names the options, their value and the next step.
    """
    for option, value in {"--kd-weight": cfg.kd_weight, "--kd-weight-end": cfg.kd_weight_end}.items():
        if value is not None and not 0.0 <= value <= 1.0:
            raise ValueError(f"{option} must be in [0, 1], got {value}; the paper uses 0.5 and 0.1")
    for option, value in {
        "--kd-temperature": cfg.kd_temperature,
        "--kd-temperature-end": cfg.kd_temperature_end,
    }.items():
        if value is not None and not value > 0.0:
            raise ValueError(f"{option} must be positive, got {value}; the paper uses 10 and 5")
    if cfg.kd_topk < 1:
        raise ValueError(f"--kd-topk must be at least 1, got {cfg.kd_topk}; the paper uses 8")
    if cfg.kd_warmup_updates < 0:
        raise ValueError(
            f"--kd-warmup-updates must not be negative, got {cfg.kd_warmup_updates}; 0 is no warm-up"
        )
    if cfg.kd_square_temperature and str(cfg.kd_objective) == "paper":
        raise ValueError(
            "--kd-square-temperature is for objectives that divide the student's logits by T; --kd-objective paper does not. "
            "Leave it out, or choose another objective"
        )
    if not 0.0 <= cfg.rdrop_weight < math.inf:
        raise ValueError(
            f"--rdrop-weight must not be negative, got {cfg.rdrop_weight}; the paper uses 5 for translation"
        )
    if cfg.rdrop_weight and str(cfg.kd_projection) == "chunked":
        raise ValueError(
            "--rdrop-weight compares whole distributions and cannot be chunked; leave out --kd-projection chunked"
        )
    if str(cfg.kd_objective) == "full" and str(cfg.kd_projection) == "chunked":
        raise ValueError(
            "--kd-objective full compares whole distributions and cannot be chunked; leave out --kd-projection chunked"
        )
    _check_schedule(cfg)


def _check_schedule(cfg: DistillationConfig) -> None:
    """Check that a schedule has an end, ends have a schedule, and the objective allows the temperatures in between."""
    shape, updates = str(cfg.kd_schedule), cfg.kd_schedule_updates
    has_end = cfg.kd_weight_end is not None or cfg.kd_temperature_end is not None
    if shape == "constant" and (has_end or updates):
        raise ValueError(
            "--kd-weight-end, --kd-temperature-end and --kd-schedule-updates have no effect with --kd-schedule constant; "
            "choose linear or cosine, or leave them out"
        )
    if shape != "constant" and (updates < 1 or not has_end):
        raise ValueError(
            f"--kd-schedule {shape} needs --kd-schedule-updates of at least 1, got {updates}, and --kd-weight-end or "
            "--kd-temperature-end"
        )
    if str(cfg.kd_objective) in NEEDS_TAIL and cfg.kd_temperature_end not in (None, cfg.kd_temperature):
        raise ValueError(
            f"--kd-temperature-end changes the temperature, but --kd-objective {cfg.kd_objective} needs one of the store's. "
            "Leave it out"
        )
