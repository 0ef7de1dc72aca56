"""Losses between two encoders' vectors of the same sentences.

Wu et al. (AACL 2020) approximate a teacher's sentence vectors; their loss is in no public text, so these are our own
choice, all in float32.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-8  # least length of a vector in a cosine


def cosine_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``1 - cos`` of each row, ``(batch,)`` from ``(batch, d)``; 1 where a vector is zero."""
    return 1 - F.cosine_similarity(student.float(), teacher.float(), dim=1, eps=EPSILON)


def squared_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference over the d numbers of each row, ``(batch,)`` from ``(batch, d)``."""
    return (student.float() - teacher.float()).pow(2).mean(dim=1)


def relational_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the cosines between different sentences of a batch, from ``(batch, d)``.

    Widths may differ. 0 with a single sentence.
    """
    batch = student.size(0)
    if batch < 2:
        return student.float().sum() * 0
    differences = _cosines(student) - _cosines(teacher)
    differences = differences - torch.diag(differences.diagonal())  # of a sentence with itself
    return differences.pow(2).sum() / (batch * (batch - 1))


def _cosines(vectors: Tensor) -> Tensor:
    """``(batch, batch)`` cosines of ``(batch, d)`` vectors."""
    unit = F.normalize(vectors.float(), dim=1, eps=EPSILON)
    with torch.autocast(unit.device.type, enabled=False):  # differences of cosines are small
        return unit @ unit.T


def neighbour_cosines(student: Tensor, teacher: Tensor) -> Tensor:
    """``(batch,)`` cosine of each row of the student with the *next* row of the teacher, a pair by chance."""
    return F.cosine_similarity(student.float(), teacher.float().roll(-1, dims=0), dim=1, eps=EPSILON)


def pair_features(one: Tensor, other: Tensor) -> Tensor:
    """``[u; v; |u - v|; u * v]`` of two sentences' vectors, ``(batch, 4 d)`` from ``(batch, d)``.

    Conneau et al. (EMNLP 2017) classify pairs by these features; only the first two depend on the order.
    """
    return torch.cat([one, other, (one - other).abs(), one * other], dim=1)
