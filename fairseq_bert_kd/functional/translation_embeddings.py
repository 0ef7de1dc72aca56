"""TransE (Bordes et al. 2013): vectors of entities of which a relation is a translation, and their filtered ranking."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F


def distances(heads: Tensor, relations: Tensor, tails: Tensor, norm: int) -> Tensor:
    """``|h + r - t|`` of triples in the L1 or L2 norm, over the last dimension of three tensors that broadcast."""
    return (heads + relations - tails).norm(p=norm, dim=-1)


def margin_loss(true: Tensor, corrupted: Tensor, margin: float) -> Tensor:
    """Sum of ``max(0, margin + d - d')`` over corrupted triples.

    Args:
        true: ``(batch,)`` distances.
        corrupted: ``(batch, negatives)`` distances of corrupted triples.
        margin: by which they shall be longer.
    """
    return F.relu(margin + true[:, None] - corrupted).sum()


def corrupt(
    triples: Tensor, entities: int, negatives: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Heads and tails of corrupted triples: one of the two, drawn evenly, is a random entity.

    Args:
        triples: ``(batch, 3)`` int64 head, relation, tail.
        entities: number of entities.
        negatives: corrupted triples of each.
        generator: source of randomness.

    Returns:
        Two ``(batch, negatives)`` int64.
    """
    size = (len(triples), negatives)
    drawn = torch.randint(entities, size, generator=generator)
    head = torch.rand(size, generator=generator) < 0.5
    return torch.where(head, drawn, triples[:, :1]), torch.where(head, triples[:, 2:], drawn)


def into_unit_ball(vectors: Tensor, rows: Tensor) -> None:
    """Shorten vectors of these rows that are longer than 1, in place."""
    touched = vectors[rows]
    vectors[rows] = touched / touched.norm(dim=-1, keepdim=True).clamp(min=1.0)


def filtered_ranks(scores: Tensor, true: Tensor, known: Tensor) -> Tensor:
    """Rank of the true entity among those that make no other known triple; ties give the mean rank.

    Args:
        scores: ``(batch, entities)`` distances, smaller is better.
        true: ``(batch,)`` int64.
        known: ``(batch, entities)`` bool, entities that make a known triple; that of ``true`` has no effect.

    Returns:
        ``(batch,)`` float32, from 1.
    """
    own = scores.gather(1, true[:, None])
    counted = ~known
    counted.scatter_(1, true[:, None], False)
    better = ((scores < own) & counted).sum(1)
    equal = ((scores == own) & counted).sum(1)
    return 1 + better + equal / 2


def evaluate(
    triples: Tensor, entities: Tensor, relations: Tensor, known: Tensor, norm: int, batch: int = 64
) -> Tensor:
    """Filtered ranks of the head and the tail of each triple.

    Args:
        triples: ``(n, 3)`` int64 to rank.
        entities: ``(entities, dim)`` vectors.
        relations: ``(relations, dim)`` vectors.
        known: ``(m, 3)`` int64 all true triples, those to rank included.
        norm: 1 or 2.
        batch: triples ranked at once.

    Returns:
        ``(2 n,)`` float32.
    """
    tails, heads = KnownThirds(known, len(relations)), KnownThirds(known.flip(1), len(relations))
    return torch.cat(list(_ranks(triples, entities, relations, tails, heads, norm, batch)))


class KnownThirds:
    """The third entries of all triples that begin with the same two.

    Args:
        triples: ``(m, 3)`` int64.
        relations: number of relations, which are second.
    """

    def __init__(self, triples: Tensor, relations: int):
        self._relations = relations
        self._keys, order = self._key(triples[:, 0], triples[:, 1]).sort()
        self._thirds = triples[order, 2]

    def _key(self, first: Tensor, relation: Tensor) -> Tensor:
        return first * self._relations + relation

    def mask(self, first: Tensor, relation: Tensor, entities: int) -> Tensor:
        """``(batch, entities)`` bool, entities that make a known triple with ``(batch,)`` first entries and relations."""
        keys = self._key(first, relation)
        begins, ends = (torch.searchsorted(self._keys, keys, right=right) for right in (False, True))
        found = torch.zeros(len(first), entities, dtype=torch.bool)
        for row, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True)):
            found[row, self._thirds[begin:end]] = True
        return found


def _ranks(
    triples: Tensor,
    entities: Tensor,
    relations: Tensor,
    tails: KnownThirds,
    heads: KnownThirds,
    norm: int,
    batch: int,
) -> Iterator[Tensor]:
    def distance(places: Tensor) -> Tensor:
        # by matrix products it would lose the digits of short distances
        return torch.cdist(places, entities, p=norm, compute_mode="donot_use_mm_for_euclid_dist")

    for part in triples.split(batch):
        head, relation, tail = part.unbind(1)
        forward = distance(entities[head] + relations[relation])
        yield filtered_ranks(forward, tail, tails.mask(head, relation, len(entities)))
        backward = distance(entities[tail] - relations[relation])
        yield filtered_ranks(backward, head, heads.mask(tail, relation, len(entities)))
