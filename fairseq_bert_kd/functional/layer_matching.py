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

UNIFORM = "uniform"
TOP = "top"
BOTTOM = "bottom"
MASKED_SCORE = -100.0  # TinyBERT's released code takes scores up to this one for masked ones
# scores, or projected numbers, that are made together: they stay in a core's cache, or fill a GPU
NUMBERS_AT_ONCE = {"cpu": 2**17, "cuda": 2**26}

Projected = tuple[Tensor, Tensor]  # queries and keys


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
            f"`{name}` is not a map of layers; give {UNIFORM}, {TOP}, {BOTTOM} or numbers like 0,2,4,6"
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
    """Mean squared difference of hidden states or embeddings (TinyBERT, Section 3).

    Args:
        student: ``(B, L, d)``, in the teacher's width already.
        teacher: ``(B, L, d)``.
        valid: ``(B, L)`` bool, positions that count; None for all.

    Returns:
        ``(B,)``.
    """
    by_position = (student.float() - teacher.float()).square().mean(dim=2)  # (B, L)
    return _mean(by_position, valid)


def projected_hidden_mse(
    student: Tensor, weight: Tensor, bias: Tensor | None, teacher: Tensor, valid: Tensor | None
) -> Tensor:
    """`hidden_mse` of ``student W^T + b``, summed over sentences, without ever holding the projected states of a batch.

    They are made for some positions at a time, while these are in the processor's cache; what is kept for the backward pass
    is the gradient, in the student's width.

    Args:
        student: ``(B, L, d')``.
        weight: ``(d, d')``.
        bias: ``(d,)``, or None.
        teacher: ``(B, L, d)``; it gets no gradient.
        valid: as in `hidden_mse`.

    Returns:
        Scalar.
    """
    if valid is None:
        shares = teacher.new_full(teacher.shape[:2], 1 / teacher.size(1), dtype=torch.float32)
    else:
        shares = valid / valid.sum(dim=1, keepdim=True).clamp(min=1)
    return _HiddenMse.apply(student, weight, bias, teacher, shares)


class _HiddenMse(torch.autograd.Function):
    """`projected_hidden_mse`, each position weighed by its share, ``(B, L)``."""

    @staticmethod
    def forward(ctx, student, weight, bias, teacher, shares):
        teacher_width = teacher.size(2)
        matrix, offset = weight.float(), None if bias is None else bias.float()
        learns = any(ctx.needs_input_grad)
        states, others, factors = student.flatten(0, 1), teacher.flatten(0, 1), shares.flatten()
        gradient = torch.empty_like(states, dtype=torch.float32) if learns else states
        matrix_gradient, offset_gradient = torch.zeros_like(matrix), torch.zeros_like(matrix[:, 0])
        loss = factors.new_zeros(())
        rows = sentences_at_once(student.device, teacher_width)
        for start in range(0, len(states), rows):
            part = slice(start, start + rows)
            own = states[part].float()
            target = others[part].float() if offset is None else others[part].float() - offset
            difference = torch.addmm(target, own, matrix.t(), beta=-1.0)  # (rows, d)
            weighed = difference * (factors[part, None] / teacher_width)
            loss += torch.dot(weighed.flatten(), difference.flatten())
            if learns:
                gradient[part] = torch.mm(weighed.mul_(2), matrix)
                matrix_gradient.addmm_(weighed.t(), own)
                offset_gradient += weighed.sum(dim=0)
        if learns:
            ctx.save_for_backward(gradient.view_as(student), matrix_gradient, offset_gradient)
            ctx.dtypes = student.dtype, weight.dtype
        return loss

    @staticmethod
    def backward(ctx, grad):
        gradient, matrix_gradient, offset_gradient = ctx.saved_tensors
        dtype, weight_dtype = ctx.dtypes
        bias = (offset_gradient * grad).to(weight_dtype) if ctx.needs_input_grad[2] else None
        return (gradient * grad).to(dtype), (matrix_gradient * grad).to(weight_dtype), bias, None, None


def score_mse(student: Tensor, teacher: Tensor, tokens: Tensor) -> Tensor:
    """Mean squared difference of attention scores before softmax, over heads and pairs of positions (TinyBERT, Section 3).

    As in the released code padding counts too: scores of its keys, and others up to -100, are 0 on both sides.

    Args:
        student: ``(B, heads, L, L)``, by query and key.
        teacher: the same.
        tokens: ``(B, L)`` bool, False on padding.

    Returns:
        ``(B,)``.
    """
    padding = ~tokens[:, None, None, :]  # of keys
    student, teacher = (
        scores.masked_fill(padding | (scores <= MASKED_SCORE), 0.0)
        for scores in (student.float(), teacher.float())
    )
    return (student - teacher).square().mean(dim=(1, 2, 3))


def projected_score_mse(student: Projected, teacher: Projected, heads: int, valid: Tensor) -> Tensor:
    """`score_mse` of valid positions alone, from queries and keys, without ever holding the scores of a whole batch.

    Scores and their gradient are made for a few sentences at a time, while they are in the processor's cache; what is kept
    for the backward pass is the gradient of queries and keys, which is smaller than scores by length / width of a head.

    Args:
        student: queries and keys, ``(B, L, d')`` each, all heads side by side.
        teacher: the same, ``(B, L, d)`` each; they get no gradient.
        heads: attention heads of both.
        valid: ``(B, L)`` bool, positions that count as query and as key.

    Returns:
        ``(B,)``.
    """
    by_head = (vectors.unflatten(2, (heads, -1)).transpose(1, 2) for vectors in (*student, *teacher))
    return _ScoreMse.apply(*by_head, valid)


class _ScoreMse(torch.autograd.Function):
    """`projected_score_mse` of queries and keys by head, ``(B, heads, L, width of a head)``."""

    @staticmethod
    def forward(ctx, queries, keys, teacher_queries, teacher_keys, valid):
        batch, heads, length, width = queries.shape
        scale, teacher_scale = width**-0.5, teacher_queries.size(3) ** -0.5
        learns = any(ctx.needs_input_grad)
        sums = queries.new_empty(batch, dtype=torch.float32)
        # in float32: they are not divided by the number of scores yet
        by_query, by_key = (
            torch.empty_like(each if learns else sums, dtype=torch.float32) for each in (queries, keys)
        )
        rows = sentences_at_once(queries.device, heads * length**2)
        for start in range(0, batch, rows):
            part = slice(start, start + rows)
            padding = ~valid[part, None, :, None]
            # (rows * heads, L, width); zeros in the place of padding: its scores are then 0 on both sides
            query, key, other_query, other_key = (
                vectors[part].float().masked_fill(padding, 0.0).flatten(0, 1)
                for vectors in (queries, keys, teacher_queries, teacher_keys)
            )
            query.mul_(scale)
            scores = torch.bmm(other_query.mul_(teacher_scale), other_key.mT)  # (rows * heads, L, L)
            difference = torch.baddbmm(scores, query, key.mT, beta=-1.0)
            by_sentence = difference.view(-1, heads * length**2)
            sums[part] = torch.linalg.vecdot(by_sentence, by_sentence)
            if learns:
                by_query[part] = torch.bmm(difference, key).mul_(2 * scale).view(-1, heads, length, width)
                by_key[part] = torch.bmm(difference.mT, query).mul_(2).view(-1, heads, length, width)
        numbers = heads * valid.sum(dim=1).square().clamp(min=1)  # (B,) scores of a sentence
        ctx.save_for_backward(numbers, by_query, by_key)
        ctx.dtype = queries.dtype
        return sums / numbers

    @staticmethod
    def backward(ctx, grad):
        numbers, *gradients = ctx.saved_tensors
        factor = (grad / numbers)[:, None, None, None]
        return (*((gradient * factor).to(ctx.dtype) for gradient in gradients), None, None, None)


def sentences_at_once(device: torch.device, numbers: int) -> int:
    """How many sentences, or positions, of so many numbers each are worked on together."""
    return max(1, NUMBERS_AT_ONCE[device.type] // numbers)


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
    """Cross-entropy of the student against the teacher's classes (TinyBERT, Section 3).

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
