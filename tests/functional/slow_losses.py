"""Each loss for one position at a time, over whole rows in float64, and calls of the tested functions.

Teachers are made from whole rows, so that everything about them is known.
"""

import math

import torch

from fairseq_bert_kd.functional import soft_targets
from fairseq_bert_kd.functional.distillation import Objective, distillation_sums, score_request
from fairseq_bert_kd.functional.student_scores import student_scores
from fairseq_bert_kd.functional.teacher_targets import TeacherTargets

DOUBLE = torch.float64
PAD = 1
LOSSES = ("paper", "renormalised", "conditional", "tail_bucket", "sampled", "full")


def objective_of(name="paper", temperature=10.0, weight=0.5, epsilon=0.1, **others):
    """An objective with the paper's values where a test does not set them."""
    return Objective(name=name, temperature=temperature, weight=weight, epsilon=epsilon, **others)


def rows_of(positions, vocab, seed=0, spread=2.0):
    """``(positions, vocab)`` float64 logits of a student."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(positions, vocab, generator=generator, dtype=DOUBLE) * spread


def teacher_rows_of(positions, vocab, seed=100, spread=2.0, excluded=()):
    """Rows with a few likely tokens and a long tail, best 0, as a teacher's: some sure, some not."""
    logits = rows_of(positions, vocab, seed, spread)
    for row in range(positions):
        for rank in range(3):
            logits[row, (7 * row + 5 * rank + 2) % vocab] += (row % 4) * 2.0 - rank
    logits[:, list(excluded)] = -math.inf
    return logits - logits.amax(dim=1, keepdim=True)


def targets_of(rows, k, temperatures=(1.0, 2.0), gold=None, gold_stored=False, samples=0, seed=0, **others):
    """`TeacherTargets` with all that follows from whole rows of a teacher; samples drawn outside the stored tokens."""
    logits, ids = rows.topk(k, dim=1)
    fields = {
        "present": torch.ones(len(rows), dtype=torch.bool),
        "log_normalisers": torch.stack([torch.logsumexp(rows / T, dim=1) for T in temperatures], dim=1)
        if temperatures
        else rows.new_empty(len(rows), 0),
        "temperatures": tuple(temperatures),
        "gold_stored": gold_stored,
    }
    if gold is not None:
        fields["gold_logit"] = rows.gather(1, gold[:, None]).squeeze(1)
    if samples:
        rest = rows.exp().scatter(1, ids, 0.0)
        if gold_stored:
            rest = rest.scatter(1, gold[:, None], 0.0)
        generator = torch.Generator().manual_seed(seed)
        fields["sample_ids"] = torch.multinomial(rest, samples, replacement=True, generator=generator)
        fields["sample_logits"] = rows.gather(1, fields["sample_ids"])
    return TeacherTargets(ids, logits, **(fields | others))


def to_type(targets, dtype):
    """The same with its numbers in another type."""
    return TeacherTargets(
        *(
            part.to(dtype) if isinstance(part, torch.Tensor) and part.is_floating_point() else part
            for part in targets
        )
    )


def log_q(student, temperature):
    """``(vocab,)`` log-probabilities of a student's row."""
    exps = (student / temperature - (student / temperature).max().detach()).exp()
    return student / temperature - (student / temperature).max().detach() - exps.sum().log()


def renormalised_probs(logits, temperature):
    powers = [math.exp(float(logit - max(logits)) / temperature) for logit in logits]
    return [power / sum(powers) for power in powers]


def slow_paper(student, ids, logits, temperature):
    q = log_q(student, 1.0)
    return -sum(p * q[w] for p, w in zip(renormalised_probs(logits, temperature), ids, strict=True) if p)


def slow_renormalised(student, ids, logits, temperature):
    q = log_q(student, temperature)
    return -sum(p * q[w] for p, w in zip(renormalised_probs(logits, temperature), ids, strict=True) if p)


def slow_conditional(student, ids, logits, temperature):
    p = renormalised_probs(logits, temperature)
    q = log_q(student[ids], temperature)  # no other token of the student matters
    return sum(p[i] * (math.log(p[i]) - q[i]) for i in range(len(ids)) if p[i])


def slow_tail_bucket(student, ids, logits, log_normaliser, temperature):
    p = [math.exp(float(logit) / temperature - float(log_normaliser)) for logit in logits]
    q = log_q(student, temperature)
    loss = sum(p[i] * (math.log(p[i]) - q[w]) for i, w in enumerate(ids) if p[i])
    others = [w for w in range(len(student)) if w not in ids.tolist()]
    tail = 1.0 - math.fsum(p)
    if others and tail > 1e-12:
        loss = loss + tail * (math.log(tail) - q[others].exp().sum().log())
    return loss


def slow_sampled(
    student, ids, logits, log_normaliser, drawn, drawn_logits, unit_log_normaliser, temperature, gold=None
):
    """``gold``: id and logit of a further stored token, or None."""
    stored = dict(zip(ids.tolist(), logits.tolist(), strict=True))
    if gold is not None:
        stored[int(gold[0])] = float(gold[1])
    q = log_q(student, temperature)
    loss, rest = torch.zeros((), dtype=DOUBLE), 1.0
    for w, logit in stored.items():
        log_p = logit / temperature - float(log_normaliser)
        loss = loss + math.exp(log_p) * (log_p - q[w])
        rest -= math.exp(logit - float(unit_log_normaliser))
    for w, logit in zip(drawn.tolist(), drawn_logits.tolist(), strict=True):
        log_p = logit / temperature - float(log_normaliser)
        share = rest * math.exp(log_p) / math.exp(logit - float(unit_log_normaliser))
        loss = loss + share / len(drawn) * (log_p - q[w])
    return loss


def slow_full(student, teacher, temperature):
    p, q = log_q(teacher, temperature), log_q(student, temperature)
    return sum(p[w].exp() * (p[w] - q[w]) for w in range(len(student)) if p[w] > -math.inf)


def slow_teacher_loss(student, gold, teacher: TeacherTargets, row, objective: Objective):
    """One position against one teacher."""
    T = objective.temperature
    ids, logits = teacher.topk_ids[row], teacher.topk_logits[row]

    def log_normaliser(temperature):
        return teacher.log_normalisers[row, teacher.temperatures.index(temperature)]

    if objective.name == "paper":
        return slow_paper(student, ids, logits, T)
    if objective.name == "renormalised":
        return slow_renormalised(student, ids, logits, T)
    if objective.name == "conditional":
        return slow_conditional(student, ids, logits, T)
    if objective.name == "tail-bucket":
        return slow_tail_bucket(student, ids, logits, log_normaliser(T), T)
    if objective.name == "full":
        return slow_full(student, teacher.full_logits[row], T)
    extra = (gold, teacher.gold_logit[row]) if teacher.gold_stored else None
    return slow_sampled(
        student, ids, logits, log_normaliser(T), teacher.sample_ids[row], teacher.sample_logits[row],
        log_normaliser(1.0), T, extra,
    )  # fmt: skip


def slow_total(student, target, kept, teachers, objective: Objective):
    """The sum over positions that is minimised, from whole rows of the student; differentiable.

    ``(1 - eps) nll + eps / (V - 2) sum_w -log q(w)`` for the labels; teachers weighted among those that are there.
    """
    total = torch.zeros((), dtype=DOUBLE)
    vocab = student.size(1)
    for row in range(len(target)):
        if not kept[row]:
            continue
        q = log_q(student[row], 1.0)
        label = -(1 - objective.epsilon) * q[target[row]] - objective.epsilon / (vocab - 2) * sum(q)
        there = [teacher for teacher in teachers if teacher.present[row]]
        if not there:
            total = total + label
            continue
        weights = [teacher.weight / sum(one.weight for one in there) for teacher in there]
        soft, own = torch.zeros((), dtype=DOUBLE), 0.0
        for share, teacher in zip(weights, there, strict=True):
            soft = soft + share * slow_teacher_loss(student[row], target[row], teacher, row, objective)
            own += share * slow_token_weight(teacher, row, objective.token_weight)
        if objective.square_temperature:
            soft = soft * objective.temperature**2
        own *= objective.weight
        total = total + (1 - own) * label + own * soft
    return total


def slow_token_weight(teacher, row, kind):
    if kind == "none":
        return 1.0
    unit = float(teacher.log_normalisers[row, teacher.temperatures.index(1.0)])
    probs = [math.exp(float(logit) - unit) for logit in teacher.topk_logits[row]]
    if kind == "confidence":
        return max(probs)
    buckets = [*probs, max(1.0 - math.fsum(probs), 0.0)]
    return 1.0 + sum(p * math.log(p) for p in buckets if p) / math.log(len(buckets))


def loss_of(
    name: str, student: torch.Tensor, teacher, temperature: float, whole: torch.Tensor | None = None
) -> torch.Tensor:
    """``(positions,)`` from whole rows of the student; ``whole`` rows of the teacher for ``full``."""
    if name == "full":
        return soft_targets.full(student, whole, temperature)
    at, log_normaliser = student.gather(1, teacher.topk_ids), torch.logsumexp(student / temperature, dim=1)
    if name == "paper":
        return soft_targets.paper(at, torch.logsumexp(student, dim=1), teacher.topk_logits, temperature)
    if name == "renormalised":
        return soft_targets.renormalised(at, log_normaliser, teacher.topk_logits, temperature)
    if name == "conditional":
        return soft_targets.conditional(at, teacher.topk_logits, temperature)
    stored = teacher.log_normalisers[:, teacher.temperatures.index(temperature)]
    if name == "tail_bucket":
        return soft_targets.tail_bucket(at, log_normaliser, teacher.topk_logits, stored, temperature)
    return soft_targets.sampled(
        at, log_normaliser, teacher.topk_logits, stored, student.gather(1, teacher.sample_ids), teacher.sample_logits,
        teacher.log_normalisers[:, teacher.temperatures.index(1.0)], temperature,
    )  # fmt: skip


def slow_loss_of(name, student, teacher, row, temperature, whole):
    """The same of one position."""
    ids, logits = teacher.topk_ids[row], teacher.topk_logits[row]
    if name == "full":
        return slow_full(student[row], whole[row], temperature)
    if name in ("paper", "renormalised", "conditional"):
        return {"paper": slow_paper, "renormalised": slow_renormalised, "conditional": slow_conditional}[
            name
        ](student[row], ids, logits, temperature)
    stored, unit = (teacher.log_normalisers[row, teacher.temperatures.index(T)] for T in (temperature, 1.0))
    if name == "tail_bucket":
        return slow_tail_bucket(student[row], ids, logits, stored, temperature)
    drawn = teacher.sample_ids[row], teacher.sample_logits[row]
    return slow_sampled(student[row], ids, logits, stored, *drawn, unit, temperature)


def sums_of(student, target, teachers, objective):
    kept = target.ne(PAD)
    losses = None
    if objective.name == "full":
        losses = [
            soft_targets.full(student, teacher.full_logits, objective.temperature) for teacher in teachers
        ]
    scores = student_scores(student, score_request(target, teachers, objective))
    return distillation_sums(scores, target, kept, teachers, objective, student.size(1), losses)


def slow_of(student, target, teachers, objective):
    return slow_total(student.double(), target, target.ne(PAD), teachers, objective)


def example(positions=12, vocab=11, teachers=1, temperatures=(1.0, 2.0)):
    """Student, gold ids with padding, teachers with different k, weight and missing rows."""
    target = torch.arange(positions) * 7 % (vocab - 2) + 2
    target[::5] = PAD
    found = []
    for i in range(teachers):
        whole = teacher_rows_of(positions, vocab, seed=7 + i)
        teacher = targets_of(
            whole, 4 - i, temperatures, gold=target, gold_stored=i != 1, samples=2 + i, seed=i, full_logits=whole,
            present=torch.arange(positions) % (4 + i) != 3 - i, weight=(1.0, 3.0, 0.5)[i],
        )  # fmt: skip
        found.append(teacher)
    return rows_of(positions, vocab), target, found
