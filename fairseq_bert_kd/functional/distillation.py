"""Labels and teachers in one loss over the scores of a student (Chen et al. 2020, Eq. 5, and what others make of it)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fairseq_bert_kd.functional import soft_targets
from fairseq_bert_kd.functional.student_scores import StudentScores, Wanted
from fairseq_bert_kd.functional.teacher_targets import TeacherTargets

OBJECTIVES = ("paper", "renormalised", "conditional", "tail-bucket", "sampled", "full")
TOKEN_WEIGHTS = ("none", "confidence", "entropy")


@dataclass(frozen=True)
class Objective:
    """What is minimised, per position ``(1 - w) label + w * sum_i a_i teacher_i``.

    ``w`` is ``weight`` times the token's own weight where a teacher has a row, else 0; ``a_i`` are the weights of the
    teachers that have a row there, scaled to 1. The mean over teachers is of their *losses*: for cross-entropies that is
    the loss of their mixture, for divergences over the whole dictionary the same up to a constant.

    Attributes:
        name: of `OBJECTIVES`.
        temperature: positive.
        weight: of the teachers' side, in [0, 1].
        square_temperature: multiply the teachers' side by T^2 (Hinton et al. 2015), which keeps the size of its gradient.
        approximate_tail: allow a temperature outside a store's grid, see `soft_targets.log_normaliser_between`.
        token_weight: "confidence" is the teacher's probability of its best token at temperature 1; "entropy" is
            ``1 - H / log(k + 1)`` with the entropy H of its k tokens and the rest at temperature 1.
        epsilon: label smoothing.
        symbols_without_mass: of the dictionary, for ``approximate_tail``.
    """

    name: str = "paper"
    temperature: float = 10.0
    weight: float = 0.5
    square_temperature: bool = False
    approximate_tail: bool = False
    token_weight: str = "none"
    epsilon: float = 0.1
    symbols_without_mass: int = 2

    @property
    def student_temperature(self) -> float:
        """At which the student's whole dictionary is looked at."""
        return self.temperature if self.name in ("renormalised", "tail-bucket", "sampled") else 1.0


def wanted_scores(target: Tensor, teachers: Sequence[TeacherTargets], objective: Objective) -> Wanted:
    """The tokens whose student logits the loss needs, in the order that `distillation_sums` expects.

    Args:
        target: ``(positions,)`` gold ids.
        teachers: of the same positions.
        objective: as given to `distillation_sums`.
    """
    columns = [target[:, None]]
    for teacher in teachers:
        columns.append(teacher.topk_ids)
        if objective.name == "sampled" and teacher.sample_ids is not None:
            columns.append(teacher.sample_ids)
    return Wanted(torch.cat(columns, dim=1), objective.student_temperature, total=objective.epsilon > 0.0)


def distillation_sums(
    scores: StudentScores,
    target: Tensor,
    kept: Tensor,
    teachers: Sequence[TeacherTargets],
    objective: Objective,
    vocab: int,
    teacher_losses: Sequence[Tensor] | None = None,
) -> dict[str, Tensor]:
    """The loss and what to log of it, summed over positions, each a scalar.

    A position without a teacher row counts its label loss in full, so that it weighs as much as in plain training; the
    authors drop such sentences instead. The label side smooths as in the authors' distillation loss:
    ``(1 - eps) nll + eps / (V - 2) sum_w -log q(w)``, gold and padding ids included (fairseq's own has V - 1 and leaves
    out the gold token; they differ by about ``eps / V``).

    Args:
        scores: of the tokens of `wanted_scores`.
        target: ``(positions,)`` gold ids.
        kept: ``(positions,)`` bool, False on padding.
        teachers: of the same positions, at least one.
        objective: what to minimise.
        vocab: size of the dictionary.
        teacher_losses: ``(positions,)`` each, when they were computed elsewhere (`full`).

    Returns:
        ``loss`` (differentiable), and for logging ``label_loss``, ``nll_loss``, ``kd_loss``, ``kd_positions``, ``total`` (the
        kept positions), ``n_correct`` of them, and, of the
        first teacher and the positions where it has a row, ``kd_rows``, ``kd_agreement``, ``kd_student_tail`` and, where
        known, ``kd_captured`` (its mass on K at the temperature), ``kd_teacher_nll`` (on gold, at temperature 1) and
        ``kd_gold_nll`` (the student's there).
    """
    nll = scores.log_normaliser - scores.logits[:, 0]
    label = nll
    if objective.epsilon:
        assert scores.total is not None
        everything = vocab * scores.log_normaliser - scores.total
        label = (1.0 - objective.epsilon) * nll + objective.epsilon / (vocab - 2) * everything
    found = _teacher_logits(scores, teachers, objective)
    if teacher_losses is None:
        teacher_losses = [
            _teacher_loss(scores, target, at, teacher, objective, vocab)
            for at, teacher in zip(found, teachers, strict=True)
        ]
    shares = _shares(teachers)  # (positions,) each
    zero = torch.zeros_like(nll)
    soft, token_weights = zero, zero
    for share, loss, teacher in zip(shares, teacher_losses, teachers, strict=True):
        soft = soft + torch.where(share > 0, share * loss, zero)
        token_weights = token_weights + share * _token_weights(teacher, objective)
    if objective.square_temperature:
        soft = soft * objective.temperature**2
    covered = kept & (sum(shares) > 0)
    weights = objective.weight * token_weights
    total = torch.where(covered, (1.0 - weights) * label + weights * soft, label)
    sums = {
        "loss": torch.where(kept, total, zero).sum(),
        "label_loss": torch.where(kept, label, zero).detach().sum(),
        "nll_loss": torch.where(kept, nll, zero).detach().sum(),
        "kd_loss": torch.where(covered, soft, zero).detach().sum(),
        "kd_positions": covered.sum(),
        "total": kept.sum(),
        "n_correct": (kept & (scores.logits[:, 0] == 0)).sum(),  # the best token's logit is 0
    }
    with torch.no_grad():
        return sums | _compared(scores, found[0], kept, teachers[0], objective, nll)


def _teacher_logits(
    scores: StudentScores, teachers: Sequence[TeacherTargets], objective: Objective
) -> list[tuple[Tensor, Tensor]]:
    """The student's logits at each teacher's tokens and drawn tokens: ``(positions, k)``, ``(positions, r)``."""
    sizes = [1]
    for teacher in teachers:
        drawn = teacher.sample_ids if objective.name == "sampled" else None
        sizes += [teacher.topk_ids.size(1), 0 if drawn is None else drawn.size(1)]
    parts = scores.logits.split(sizes, dim=1)[1:]
    found = []
    for teacher, at, at_drawn in zip(teachers, parts[::2], parts[1::2], strict=True):
        # a row that is not there names token 0, which a student may rule out: minus infinity is nan going back
        absent = ~teacher.present[:, None]
        found.append((at.masked_fill(absent, 0), at_drawn.masked_fill(absent, 0)))
    return found


def _teacher_loss(
    scores: StudentScores,
    target: Tensor,
    at: tuple[Tensor, Tensor],
    teacher: TeacherTargets,
    objective: Objective,
    vocab: int,
) -> Tensor:
    """``(positions,)`` loss against one teacher."""
    name, temperature, tempered = objective.name, objective.temperature, scores.tempered_log_normaliser
    if name == "paper":
        return soft_targets.paper(at[0], scores.log_normaliser, teacher.topk_logits, temperature)
    if name == "renormalised":
        return soft_targets.renormalised(at[0], tempered, teacher.topk_logits, temperature)
    if name == "conditional":
        return soft_targets.conditional(at[0], teacher.topk_logits, temperature)
    if name == "tail-bucket":
        normaliser = _tail_normaliser(teacher, objective, vocab)
        return soft_targets.tail_bucket(at[0], tempered, teacher.topk_logits, normaliser, temperature)
    assert name == "sampled", name
    stored, student_stored = teacher.topk_logits, at[0]
    if teacher.gold_stored:  # one token more, unless it is among the k
        assert teacher.gold_logit is not None
        among = (teacher.topk_ids == target[:, None]).any(dim=1)
        gold = teacher.gold_logit.masked_fill(among, -math.inf)
        stored = torch.cat([stored, gold[:, None]], dim=1)
        student_stored = torch.cat([student_stored, scores.logits[:, :1]], dim=1)
    assert teacher.sample_logits is not None
    return soft_targets.sampled(
        student_stored, tempered, stored, log_normaliser_at(teacher, temperature, "--kd-objective sampled"), at[1],
        teacher.sample_logits, log_normaliser_at(teacher, 1.0, "--kd-objective sampled"), temperature,
    )  # fmt: skip


def log_normaliser_at(teacher: TeacherTargets, temperature: float, option: str) -> Tensor:
    """The teacher's stored log-normaliser at a temperature, ``(positions,)``.

    Args:
        teacher: its rows.
        temperature: one of its grid.
        option: that needs it, for the message.

    Raises:
        ValueError: the temperature is not stored.
    """
    column = soft_targets.column_of(teacher.temperatures, temperature)
    if column is None:
        raise ValueError(missing_temperature(option, temperature, teacher.temperatures))
    return teacher.log_normalisers[:, column]


def missing_temperature(option: str, temperature: float, stored: Sequence[float]) -> str:
    """Message for a temperature that a store does not have."""
    return (
        f"{option} needs the teacher's mass outside its stored tokens at temperature {temperature:g}; it is known at "
        f"{soft_targets.listed(stored)} only: choose one of these, or dump again with --temperatures {temperature:g}"
    )


def _tail_normaliser(teacher: TeacherTargets, objective: Objective, vocab: int) -> Tensor:
    """``(positions,)`` at the objective's temperature: stored, or an upper bound where that is allowed."""
    column = soft_targets.column_of(teacher.temperatures, objective.temperature)
    if column is not None or not objective.approximate_tail:
        return log_normaliser_at(teacher, objective.temperature, "--kd-objective tail-bucket")
    symbols = math.log(vocab - objective.symbols_without_mass)
    return soft_targets.log_normaliser_between(
        teacher.log_normalisers, teacher.temperatures, objective.temperature, symbols
    )


def _shares(teachers: Sequence[TeacherTargets]) -> list[Tensor]:
    """Each teacher's weight among those that have a row, ``(positions,)`` each; 0 where it has none."""
    weights = [teacher.present.to(teacher.topk_logits.dtype) * teacher.weight for teacher in teachers]
    if len(weights) == 1:
        return [teachers[0].present.to(teachers[0].topk_logits.dtype)]
    together = torch.stack(weights).sum(dim=0)
    return [weight / together.clamp(min=torch.finfo(together.dtype).tiny) for weight in weights]


def _token_weights(teacher: TeacherTargets, objective: Objective) -> Tensor | float:
    """``(positions,)`` in [0, 1], or 1."""
    if objective.token_weight == "none":
        return 1.0
    option = f"--kd-token-weight {objective.token_weight}"
    log_probs = teacher.topk_logits - log_normaliser_at(teacher, 1.0, option)[:, None]
    if objective.token_weight == "confidence":
        return log_probs[:, 0].exp()
    assert objective.token_weight == "entropy", objective.token_weight
    return 1.0 - soft_targets.bucket_entropy(log_probs) / math.log(log_probs.size(1) + 1)


def _compared(
    scores: StudentScores,
    at: tuple[Tensor, Tensor],
    kept: Tensor,
    teacher: TeacherTargets,
    objective: Objective,
    nll: Tensor,
) -> dict[str, Tensor]:
    """What to log of student and teacher side by side, summed over the positions where the teacher has a row."""
    rows = kept & teacher.present

    def summed(values: Tensor) -> Tensor:
        return values.masked_fill(~rows, 0).sum()

    student_logits = at[0] / objective.student_temperature
    sums = {
        "kd_rows": rows.sum(),
        # the best token's logit is 0
        "kd_agreement": summed((at[0][:, 0] == 0).to(nll.dtype)),
        "kd_student_tail": summed(
            soft_targets.tail_mass(student_logits - scores.tempered_log_normaliser[:, None])
        ),
    }
    column = soft_targets.column_of(teacher.temperatures, objective.temperature)
    if column is not None:
        log_probs = teacher.topk_logits / objective.temperature - teacher.log_normalisers[:, column, None]
        sums["kd_captured"] = summed(log_probs.exp().sum(dim=1))
    unit = soft_targets.column_of(teacher.temperatures, 1.0)
    if unit is not None and teacher.gold_logit is not None:
        sums["kd_teacher_nll"] = summed(teacher.log_normalisers[:, unit] - teacher.gold_logit)
        sums["kd_gold_nll"] = summed(nll)
    return sums
