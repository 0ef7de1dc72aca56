"""Labels and teachers in one loss over the scores of a student (Chen et al. 2020, Eq. 5, and its relatives)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fairseq_bert_kd.functional import soft_targets
from fairseq_bert_kd.functional.student_scores import ScoreRequest, StudentScores
from fairseq_bert_kd.functional.teacher_targets import TeacherTargets

OBJECTIVES = ("paper", "renormalised", "conditional", "tail-bucket", "sampled", "full")
TEMPERED_STUDENT = ("renormalised", "tail-bucket", "sampled")  # over V; conditional and full do it themselves
TOKEN_WEIGHTS = ("none", "confidence", "entropy")


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is minimised: per position ``(1 - w) label + w * sum_i a_i teacher_i``.

    ``w`` is ``weight`` times the token's own weight where a teacher has a row, else 0. ``a_i`` are the weights of the
    teachers that have a row there, scaled to 1. The mean over teachers is of their *losses*: for cross-entropies that is
    the loss of their mixture, for divergences over the whole dictionary the same up to a constant.

    Attributes:
        name: one of `OBJECTIVES`.
        temperature: positive.
        weight: weight of the teachers' side, in [0, 1].
        square_temperature: multiply the teachers' side by T^2 (Hinton et al. 2015), which keeps the size of its gradient.
        token_weight: "confidence" is the teacher's probability of its best token at temperature 1; "entropy" is
            ``1 - H / log(k + 1)`` with the entropy H of its k tokens and the rest at temperature 1.
        epsilon: label smoothing.
    """

    name: str
    temperature: float
    weight: float
    square_temperature: bool = False
    token_weight: str = "none"
    epsilon: float

    @property
    def student_temperature(self) -> float:
        """Temperature of the student's distribution over the whole dictionary."""
        return self.temperature if self.name in TEMPERED_STUDENT else 1.0


class TeacherTokenLogits(NamedTuple):
    """The student's logits at one teacher's tokens; 0 where the teacher has no row.

    Attributes:
        topk: ``(positions, k)`` at its stored tokens.
        samples: ``(positions, r)`` at its drawn tokens; no columns unless the objective is ``sampled``.
    """

    topk: Tensor
    samples: Tensor


def score_request(target: Tensor, teachers: Sequence[TeacherTargets], objective: Objective) -> ScoreRequest:
    """The student's scores that the loss needs, tokens in the order that `distillation_sums` expects.

    Args:
        target: ``(positions,)`` gold ids.
        teachers: teachers of the same positions.
        objective: settings, as given to `distillation_sums`.
    """
    columns = [target[:, None]]  # (positions, 1), then (positions, k) and (positions, r) per teacher
    for teacher in teachers:
        columns.append(teacher.topk_ids)
        if objective.name == "sampled" and teacher.sample_ids is not None:
            columns.append(teacher.sample_ids)
    ids = torch.cat(columns, dim=1)
    return ScoreRequest(ids, objective.student_temperature, logit_sum=objective.epsilon > 0.0)


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
    authors drop such sentences instead. The label side is smoothed as in the authors' distillation loss:
    ``(1 - eps) nll + eps / (V - 2) sum_w -log q(w)``, gold and padding ids included. fairseq's own has V - 1 and leaves
    out the gold token; they differ by about ``eps / V``.

    Args:
        scores: scores of the tokens of `score_request`.
        target: ``(positions,)`` gold ids.
        kept: ``(positions,)`` bool, False on padding.
        teachers: teachers of the same positions, at least one.
        objective: what to minimise.
        vocab: size of the dictionary.
        teacher_losses: ``(positions,)`` per teacher, if they were computed elsewhere (`soft_targets.full`).

    Returns:
        ``loss`` (differentiable), and for logging ``label_loss``, ``nll_loss``, ``kd_loss``, ``kd_positions``, ``total``
        (the kept positions) and ``n_correct`` of them. Of the first teacher, over the positions where it has a row:
        ``kd_rows``, ``kd_agreement``, ``kd_student_tail`` and, where known, ``kd_captured`` (its mass on K at the
        temperature), ``kd_teacher_nll`` (on gold, at temperature 1) and ``kd_gold_nll`` (the student's there).

    Raises:
        ValueError: a teacher does not know its log-normaliser at a temperature that the objective needs.
    """
    gold_logits, token_logits = _split_by_teacher(scores, teachers, objective)
    label = _smoothed_nll(scores, gold_logits, objective.epsilon, vocab)
    if teacher_losses is None:
        teacher_losses = [
            _teacher_loss(scores, target, student, teacher, objective)
            for student, teacher in zip(token_logits, teachers, strict=True)
        ]
    else:  # where a row is missing, these may be infinite
        teacher_losses = [
            loss.masked_fill(~teacher.present, 0)
            for loss, teacher in zip(teacher_losses, teachers, strict=True)
        ]
    soft, present, weights = _mixed(teacher_losses, teachers, objective)
    covered = kept & present
    total = torch.addcmul(label, covered.to(label.dtype) * weights, soft - label)
    loss = total.masked_fill(~kept, 0).sum()
    with torch.no_grad():
        first, topk = teachers[0], token_logits[0].topk
        nll = scores.log_normaliser - gold_logits
        rows = kept & first.present
        values = {"nll_loss": (nll, kept), "label_loss": (label, kept), "kd_loss": (soft, covered)}
        for name, value in _comparison(scores, topk, first, objective, nll).items():
            values[name] = (value, rows)
        # the best token's logit is 0
        counts = {"n_correct": kept & (gold_logits == 0), "kd_agreement": rows & (topk[:, 0] == 0)}
        counts |= {"total": kept, "kd_positions": covered, "kd_rows": rows}
        return {"loss": loss} | _masked_sums(values, counts)


def _smoothed_nll(scores: StudentScores, gold_logits: Tensor, epsilon: float, vocab: int) -> Tensor:
    """``(positions,)`` label loss, smoothed as in the authors' code: ``(1 - eps) nll + share * sum_V -log q``."""
    if not epsilon:
        return scores.log_normaliser - gold_logits
    assert scores.logit_sum is not None
    share = epsilon / (vocab - 2)
    label = scores.log_normaliser * (1.0 - epsilon + vocab * share)
    return label.add(gold_logits, alpha=epsilon - 1.0).sub(scores.logit_sum, alpha=share)


def _split_by_teacher(
    scores: StudentScores, teachers: Sequence[TeacherTargets], objective: Objective
) -> tuple[Tensor, list[TeacherTokenLogits]]:
    """The columns of `score_request`: ``(positions,)`` of the gold token, ``(positions, k)`` and ``(positions, r)`` per teacher."""
    sizes = [1]
    for teacher in teachers:
        sizes.append(teacher.topk_ids.size(1))
        if objective.name == "sampled" and teacher.sample_ids is not None:
            sizes.append(teacher.sample_ids.size(1))
    gold, *rest = scores.logits.split(sizes, dim=1)
    parts, result = iter(rest), []
    for teacher in teachers:
        # an absent row names token 0, whose logit may be minus infinity: that is nan in the backward pass
        absent = ~teacher.present[:, None]
        topk = next(parts).masked_fill(absent, 0)
        samples = topk[:, :0]
        if objective.name == "sampled" and teacher.sample_ids is not None:
            samples = next(parts).masked_fill(absent, 0)
        result.append(TeacherTokenLogits(topk, samples))
    return gold.squeeze(1), result


def _teacher_loss(
    scores: StudentScores,
    target: Tensor,
    student: TeacherTokenLogits,
    teacher: TeacherTargets,
    objective: Objective,
) -> Tensor:
    """``(positions,)`` loss against one teacher."""
    name, temperature, tempered = objective.name, objective.temperature, scores.tempered_log_normaliser
    if name == "paper":
        return soft_targets.paper(student.topk, scores.log_normaliser, teacher.topk_logits, temperature)
    if name == "renormalised":
        return soft_targets.renormalised(student.topk, tempered, teacher.topk_logits, temperature)
    if name == "conditional":
        return soft_targets.conditional(student.topk, teacher.topk_logits, temperature)
    log_normaliser = log_normaliser_at(teacher, temperature)
    if name == "tail-bucket":
        return soft_targets.tail_bucket(
            student.topk, tempered, teacher.topk_logits, log_normaliser, temperature
        )
    assert name == "sampled", name
    stored_logits, student_stored_logits = teacher.topk_logits, student.topk  # (positions, k)
    if teacher.gold_stored:  # one stored token more, unless it is among the k
        assert teacher.gold_logit is not None
        among = (teacher.topk_ids == target[:, None]).any(dim=1)
        gold = teacher.gold_logit.masked_fill(among, -math.inf)
        stored_logits = torch.cat([stored_logits, gold[:, None]], dim=1)  # (positions, k + 1)
        student_stored_logits = torch.cat([student_stored_logits, scores.logits[:, :1]], dim=1)
    assert teacher.sample_logits is not None
    return soft_targets.sampled(
        student_logits=student_stored_logits,
        student_log_normaliser=tempered,
        logits=stored_logits,
        log_normaliser=log_normaliser,
        student_sample_logits=student.samples,
        sample_logits=teacher.sample_logits,
        unit_log_normaliser=log_normaliser_at(teacher, 1.0),
        temperature=temperature,
    )


def log_normaliser_at(teacher: TeacherTargets, temperature: float) -> Tensor:
    """The teacher's log-normaliser at a temperature, ``(positions,)``.

    Args:
        teacher: its rows.
        temperature: one of the temperatures at which it is known.

    Raises:
        ValueError: the log-normaliser is not known at this temperature.
    """
    column = soft_targets.column_of(teacher.temperatures, temperature)
    if column is None:
        known = ", ".join(f"{value:g}" for value in teacher.temperatures) or "no temperature"
        raise ValueError(
            f"the teacher's log-normaliser at temperature {temperature:g} is not known; it is known at {known}"
        )
    return teacher.log_normalisers[:, column]


def _mixed(
    losses: Sequence[Tensor], teachers: Sequence[TeacherTargets], objective: Objective
) -> tuple[Tensor, Tensor, Tensor | float]:
    """Loss against all teachers, where any has a row, and the weight of this side; ``(positions,)`` or a number."""
    if len(teachers) == 1:
        present = teachers[0].present
        soft, token_weights = losses[0], _token_weights(teachers[0], objective)
    else:
        shares = _shares(teachers)
        present = torch.stack([teacher.present for teacher in teachers]).any(dim=0)
        soft, token_weights = torch.zeros_like(losses[0]), 0.0
        for share, loss, teacher in zip(shares, losses, teachers, strict=True):
            soft = soft + share * loss
            token_weights = token_weights + share * _token_weights(teacher, objective)
    if objective.square_temperature:
        soft = soft * objective.temperature**2
    return soft, present, objective.weight * token_weights


def _shares(teachers: Sequence[TeacherTargets]) -> list[Tensor]:
    """Each teacher's weight among those that have a row, ``(positions,)`` per teacher; 0 where it has none."""
    weights = [teacher.present.to(teacher.topk_logits.dtype) * teacher.weight for teacher in teachers]
    together = torch.stack(weights).sum(dim=0)
    return [weight / together.clamp(min=torch.finfo(together.dtype).tiny) for weight in weights]


def _token_weights(teacher: TeacherTargets, objective: Objective) -> Tensor | float:
    """``(positions,)`` in [0, 1], or 1."""
    if objective.token_weight == "none":
        return 1.0
    log_probs = teacher.topk_logits - log_normaliser_at(teacher, 1.0)[:, None]  # (positions, k)
    if objective.token_weight == "confidence":
        return log_probs[:, 0].exp()
    assert objective.token_weight == "entropy", objective.token_weight
    return 1.0 - soft_targets.bucket_entropy(log_probs) / math.log(log_probs.size(1) + 1)


def _comparison(
    scores: StudentScores,
    student_topk_logits: Tensor,
    teacher: TeacherTargets,
    objective: Objective,
    nll: Tensor,
) -> dict[str, Tensor]:
    """``(positions,)`` values of student and teacher side by side, for the positions where the teacher has a row."""
    student_log_probs = (
        _divided(student_topk_logits, objective.student_temperature) - scores.tempered_log_normaliser[:, None]
    )
    values = {"kd_student_tail": soft_targets.tail_mass(student_log_probs)}
    column = soft_targets.column_of(teacher.temperatures, objective.temperature)
    if column is not None:
        log_probs = (
            _divided(teacher.topk_logits, objective.temperature) - teacher.log_normalisers[:, column, None]
        )
        values["kd_captured"] = log_probs.exp().sum(dim=1)
    unit = soft_targets.column_of(teacher.temperatures, 1.0)
    if unit is not None and teacher.gold_logit is not None:
        values["kd_teacher_nll"] = teacher.log_normalisers[:, unit] - teacher.gold_logit
        values["kd_gold_nll"] = nll
    return values


def _masked_sums(values: dict[str, tuple[Tensor, Tensor]], counts: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sums over positions, as few operations for all.

    Args:
        values: ``(positions,)`` values, and where they count.
        counts: ``(positions,)`` bool, to be counted.
    """
    masks = torch.stack([mask for _, mask in values.values()])  # (values, positions)
    sums = torch.where(masks, torch.stack([value.detach() for value, _ in values.values()]), 0).sum(dim=1)
    counted = torch.stack(list(counts.values())).sum(dim=1)
    return dict(zip([*values, *counts], [*sums.unbind(), *counted.unbind()], strict=True))


def _divided(logits: Tensor, temperature: float) -> Tensor:
    return logits if temperature == 1.0 else logits / temperature
