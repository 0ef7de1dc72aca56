"""Losses between the layers of two encoders (TinyBERT, Jiao et al. 2020; MiniLMv2, Wang et al. 2021), and maps of layers.

All losses are means over what one sentence has (positions, heads, dimensions), one number per sentence, in float32. With
``valid`` a mask of positions, padding counts nowhere and a sentence has the same loss in every batch (our choice). With
None padding counts, as in TinyBERT's released code, whose mean over a whole batch is the mean of these numbers.

Shapes: B sentences, L positions, d and d' widths of teacher and student.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

UNIFORM, TOP, BOTTOM = "uniform", "top", "bottom"
MASKED_SCORE = -100.0  # TinyBERT's released code takes scores up to this one for masked ones


def layer_map(name: str, student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    """The teacher's layer g(m) that each student layer m learns from, for m = 0 (embeddings) to M.

    Args:
        name: ``uniform``, g(m) = m N / M; ``top``, g(m) = m + N - M for m > 0; ``bottom``, g(m) = m (all three are
            compared in the paper); or numbers, ``0,2,4,6``, that rise from 0 to N.
        student_layers: M.
        teacher_layers: N.

    Raises:
        ValueError: the map does not fit the two numbers of layers, or is none.
    """
    if not 1 <= student_layers <= teacher_layers:
        raise ValueError(
            f"a student learns from a teacher with at least as many layers; it has {student_layers} and the teacher "
            f"{teacher_layers}. Give it at most {teacher_layers} layers, or another teacher"
        )
    if name == UNIFORM:
        return _uniform(student_layers, teacher_layers)
    if name == TOP:
        return (0, *range(teacher_layers - student_layers + 1, teacher_layers + 1))
    if name == BOTTOM:
        return tuple(range(student_layers + 1))
    try:
        layers = tuple(int(number) for number in name.split(","))
    except ValueError:
        raise ValueError(
            f"`{name}` is no map of layers; give {UNIFORM}, {TOP}, {BOTTOM} or numbers like 0,2,4,6"
        ) from None
    if fault := _fault(layers, student_layers, teacher_layers):
        raise ValueError(f"the map of layers `{name}` {fault}")
    return layers


def _uniform(student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    step, rest = divmod(teacher_layers, student_layers)
    if rest:
        fitting = ", ".join(
            str(number) for number in range(1, teacher_layers + 1) if not teacher_layers % number
        )
        spread = (round(m * teacher_layers / student_layers) for m in range(student_layers + 1))
        raise ValueError(
            f"the {UNIFORM} map of layers needs a student whose number of layers divides the teacher's {teacher_layers} "
            f"({fitting}), it has {student_layers}. Give {TOP}, {BOTTOM} or numbers, such as {','.join(map(str, spread))}"
        )
    return tuple(range(0, teacher_layers + 1, step))


def _fault(layers: Sequence[int], student_layers: int, teacher_layers: int) -> str:
    """What is wrong with a map of numbers; empty if nothing is."""
    if len(layers) != student_layers + 1:
        return (
            f"has {len(layers)} numbers and must have {student_layers + 1}: one for the embeddings and one for each of the "
            "student's layers"
        )
    if layers[0] != 0:
        return f"begins with {layers[0]} and must begin with 0: embeddings learn from embeddings"
    if any(later <= earlier for earlier, later in itertools.pairwise(layers)):
        return "does not rise: each layer must learn from a later one than the layer before it"
    if layers[-1] != teacher_layers:
        return f"ends with {layers[-1]} and must end with {teacher_layers}, the teacher's last layer"
    return ""


def hidden_mse(student: Tensor, teacher: Tensor, valid: Tensor | None) -> Tensor:
    """Mean squared difference of hidden states or embeddings (TinyBERT, Eq. 8 and 9).

    Args:
        student: ``(B, L, d)``, in the teacher's width already.
        teacher: ``(B, L, d)``.
        valid: ``(B, L)`` bool, positions that count; None for all.

    Returns:
        ``(B,)``.
    """
    by_position = (student.float() - teacher.float()).square().mean(dim=2)  # (B, L)
    return _mean(by_position, valid)


def score_mse(student: Tensor, teacher: Tensor, valid: Tensor | None, tokens: Tensor) -> Tensor:
    """Mean squared difference of attention scores before softmax, over heads and pairs of positions (TinyBERT, Eq. 7).

    Args:
        student: ``(B, heads, L, L)``, by query and key.
        teacher: the same.
        valid: ``(B, L)`` bool, positions that count as query and as key; None for all, and then scores of keys outside
            ``tokens``, and others up to -100, are 0 on both sides, as in the released code.
        tokens: ``(B, L)`` bool, False on padding.

    Returns:
        ``(B,)``.
    """
    student, teacher = student.float(), teacher.float()
    if valid is None:
        keys = tokens[:, None, None, :]
        student, teacher = (
            scores.masked_fill(~keys | (scores <= MASKED_SCORE), 0.0) for scores in (student, teacher)
        )
        return (student - teacher).square().mean(dim=(1, 2, 3))
    by_query = _mean((student - teacher).square().mean(dim=1), valid[:, None, :])  # (B, L)
    return _mean(by_query, valid)


def relation_divergence(student: Tensor, teacher: Tensor, heads: int, valid: Tensor) -> Tensor:
    """KL divergence of the student's relations from the teacher's, mean over relation heads and positions (MiniLMv2).

    Relations of X (queries, keys or values) are softmax(X X^T / sqrt(width of a head)); each side's vectors are cut into
    the same number of relation heads, so neither widths nor attention heads must be equal.

    Args:
        student: ``(B, L, d')`` queries, keys or values, all heads side by side.
        teacher: ``(B, L, d)`` the same.
        heads: number of relation heads; divides both widths.
        valid: ``(B, L)`` bool, False on padding.

    Returns:
        ``(B,)``.
    """
    scores = (_relation_scores(vectors, heads, valid) for vectors in (student, teacher))
    return _mean(row_divergence(*scores).mean(dim=1), valid)


def _relation_scores(vectors: Tensor, heads: int, valid: Tensor) -> Tensor:
    """``(B, heads, L, L)`` scores before softmax, those of padded keys as small as they can be."""
    by_head = vectors.float().unflatten(2, (heads, -1)).transpose(1, 2)  # (B, heads, L, d / heads)
    scores = by_head @ by_head.transpose(2, 3) / by_head.size(3) ** 0.5
    return scores.masked_fill(~valid[:, None, None, :], torch.finfo(scores.dtype).min)


def row_divergence(student_scores: Tensor, teacher_scores: Tensor) -> Tensor:
    """KL(teacher || student) of the distributions that rows of scores have, ``(..., keys)`` to ``(...)``."""
    student, teacher = (scores.log_softmax(dim=-1) for scores in (student_scores, teacher_scores))
    # a key that the teacher gives nothing adds nothing, however little the student gives it
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=-1)


def soft_cross_entropy(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0, mean_over_classes: bool = False
) -> Tensor:
    """Cross-entropy of the student against the teacher's classes (TinyBERT, Eq. 10).

    Args:
        student_logits: ``(B, classes)``.
        teacher_logits: the same.
        temperature: divides both logits; there is no factor T^2.
        mean_over_classes: divide by the number of classes, as the released code does.

    Returns:
        ``(B,)``.
    """
    probs = (teacher_logits.float() / temperature).softmax(dim=1)
    by_class = -probs * (student_logits.float() / temperature).log_softmax(dim=1)
    return by_class.mean(dim=1) if mean_over_classes else by_class.sum(dim=1)


def number_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of predicted numbers, ``(B, 1)`` to ``(B,)``: regression has no classes to compare (ours)."""
    return (student.float() - teacher.float()).square().sum(dim=1)


def _mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean over the last dimension where valid; 0 where nothing is."""
    if valid is None:
        return values.mean(dim=-1)
    return (values * valid).sum(dim=-1) / valid.sum(dim=-1).clamp(min=1)
