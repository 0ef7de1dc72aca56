"""Options of the distillation criterion, and which of them contradict each other."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Optional

from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterionConfig
from fairseq.dataclass import ChoiceEnum

from fairseq_bert_kd.functional.distillation import OBJECTIVES, TOKEN_WEIGHTS, Objective
from fairseq_bert_kd.functional.schedules import SHAPES


@dataclass
class DistillationConfig(LabelSmoothedCrossEntropyCriterionConfig):
    """Options of ``label_smoothed_cross_entropy`` and the teacher's side."""

    kd_weight: float = field(
        default=0.5,
        metadata={
            "help": "weight W of the teacher's side: loss = (1 - W) * label-smoothed cross-entropy + W * loss against the "
            "teacher; 0.5 for De-En in the paper, 0.1 for its other tasks; 0 is plain training"
        },
    )
    kd_temperature: float = field(
        default=10.0,
        metadata={
            "help": "T, divides the teacher's logits, and the student's too in all objectives but `paper`; 10 for De-En and "
            "Gigaword in the paper, else 5; with tail-bucket and sampled one of the store's temperatures"
        },
    )
    kd_topk: int = field(
        default=8,
        metadata={"help": "teacher tokens per position, at most what the store holds; 8 in the paper"},
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
    kd_approximate_tail: bool = field(
        default=False,
        metadata={
            "help": "let tail-bucket use a temperature between the store's: the teacher's log-normaliser is bounded from "
            "above by the chord between its neighbours in 1/T, so the tail is taken too heavy"
        },
    )
    kd_schedule: ChoiceEnum(SHAPES) = field(  # type: ignore[valid-type]
        default="constant",
        metadata={
            "help": "way of W and T from --kd-weight and --kd-temperature to their -end values; with x = min(u / "
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
            "help": "chunked: output projection and loss in chunks of positions, so that all logits are never in memory "
            "together; plain: logits from the student; auto: chunked where the student's output layer is a plain projection "
            "and there is more than one chunk"
        },
    )


def check_objective(
    objective: Objective, topk: int, warmup: int, ends: Sequence[float | None], projection: str
) -> None:
    """Refuse values that are out of range and options that contradict each other.

    Args:
        objective: at the start of training.
        topk: ``--kd-topk``.
        warmup: ``--kd-warmup-updates``.
        ends: of weight and temperature, or None.
        projection: ``--kd-projection``.

    Raises:
        ValueError: naming the options.
    """
    weights = {"--kd-weight": objective.weight, "--kd-weight-end": ends[0]}
    temperatures = {"--kd-temperature": objective.temperature, "--kd-temperature-end": ends[1]}
    for option, value in weights.items():
        if value is not None and not 0.0 <= value <= 1.0:
            raise ValueError(f"{option} must be in [0, 1], got {value}; the paper uses 0.5 and 0.1")
    for option, value in temperatures.items():
        if value is not None and not value > 0.0:
            raise ValueError(f"{option} must be positive, got {value}; the paper uses 10 and 5")
    if topk < 1:
        raise ValueError(f"--kd-topk must be at least 1, got {topk}; the paper uses 8")
    if warmup < 0:
        raise ValueError(f"--kd-warmup-updates must not be negative, got {warmup}; 0 is no warm-up")
    if objective.square_temperature and objective.name == "paper":
        raise ValueError(
            "--kd-square-temperature is for objectives that divide the student's logits by T; --kd-objective paper does not: "
            "leave it out, or choose another objective"
        )
    if objective.approximate_tail and objective.name != "tail-bucket":
        raise ValueError(
            f"--kd-approximate-tail is for --kd-objective tail-bucket, not {objective.name}; leave it out"
        )
    if objective.name == "full" and projection == "chunked":
        raise ValueError(
            "--kd-objective full compares whole distributions and cannot be chunked; leave out --kd-projection chunked"
        )


def check_schedule(shape: str, updates: int, ends: Sequence[float | None]) -> None:
    """Refuse a schedule without an end, and ends without a schedule.

    Args:
        shape: of `SHAPES`.
        updates: ``--kd-schedule-updates``.
        ends: of weight and temperature.

    Raises:
        ValueError: naming the options.
    """
    given = [value for value in ends if value is not None]
    if shape == "constant" and (given or updates):
        raise ValueError(
            "--kd-weight-end, --kd-temperature-end and --kd-schedule-updates have no effect with --kd-schedule constant; "
            "choose linear or cosine, or leave them out"
        )
    if shape != "constant" and (updates < 1 or not given):
        raise ValueError(
            f"--kd-schedule {shape} needs --kd-schedule-updates of at least 1, got {updates}, and --kd-weight-end or "
            "--kd-temperature-end"
        )


def check_changing_temperature(objective: Objective) -> None:
    """Refuse a changing temperature for an objective that needs one of the store's (`ValueError`)."""
    needs_tail = objective.name == "sampled" or (
        objective.name == "tail-bucket" and not objective.approximate_tail
    )
    if needs_tail:
        raise ValueError(
            f"--kd-temperature-end changes the temperature, and --kd-objective {objective.name} needs one of the store's: "
            "leave it out" + (", or add --kd-approximate-tail" if objective.name == "tail-bucket" else "")
        )
