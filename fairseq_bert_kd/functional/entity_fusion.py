"""Entities beside tokens: their places in an encoder's input, and which entity a token names (ERNIE, Zhang et al. 2019)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fairseq_bert_kd.functional.text_input import TextInput

NO_ENTITY = 0  # row of the table of vectors, all zeros

PLAIN = "plain"
MIX = "mix"
FULL = "full"
KINDS = (PLAIN, MIX, FULL)

TRUE = "true"
SHUFFLED = "shuffled"
RANDOM = "random"
NONE = "none"
CONTROLS = (TRUE, SHUFFLED, RANDOM, NONE)


class EntityInput(NamedTuple):
    """The entity stream of a batch.

    Attributes:
        vectors: ``(batch, input_len, entity_dim)``, zeros where there is no entity.
        present: ``(batch, input_len)`` bool, True on entities and on the first position, so that no row is empty.
    """

    vectors: Tensor
    present: Tensor


def default_kinds(layers: int) -> tuple[str, ...]:
    """Kind of each layer: the lower half plain, but at most 5, then one mix, then full ones.

    For 12 layers 5 plain, 1 mix and 6 full; for 6 layers 3 plain, 1 mix and 2 full (ours); two layers that read entities where
    there are two, see `reach_others`.
    """
    plain = max(min(layers // 2, 5, layers - 2), 0)
    return (*[PLAIN] * plain, MIX, *[FULL] * (layers - plain - 1))


def reach_others(kinds: Sequence[str]) -> bool:
    """Whether entities reach the last states of tokens that name none, such as the first one and masked ones.

    A layer adds entities at the tokens that name them; only the attention of a later layer carries them on.

    Args:
        kinds: kind of each layer, at least one of them not plain.
    """
    return any(kind != PLAIN for kind in kinds[:-1])


def place_entities(entities: Sequence[Tensor], inputs: TextInput) -> Tensor:
    """Entities of each text at the input positions of their tokens.

    Args:
        entities: one ``(batch, text_len)`` int64 per text, rows of the table of vectors; 0 on padding and ends of sentence.
        inputs: layout of the same texts.

    Returns:
        ``(batch, input_len)`` int64.
    """
    placed = torch.zeros_like(inputs.input_ids)
    for text, positions in zip(entities, inputs.positions, strict=True):
        rows, columns = text.nonzero(as_tuple=True)
        placed[rows, positions[rows, columns]] = text[rows, columns]
    return placed


def states_of_arguments(states: Tensor, places: Tensor, arguments: int) -> Tensor:
    """States at the first pieces of a row's arguments, side by side.

    Args:
        states: ``(batch, input_len, d)``.
        places: ``(batch, input_len)`` int64, at the first piece of argument 1, 2 and so on its number, elsewhere 0.
        arguments: number of arguments.

    Returns:
        ``(batch, arguments * d)``, zeros for an argument that a row has not.
    """
    numbers = torch.arange(1, arguments + 1, device=places.device)
    chosen = (places[:, None] == numbers[:, None]).to(states)  # (batch, arguments, input_len)
    return (chosen @ states).flatten(1)


def look_up(placed: Tensor, table: Tensor) -> EntityInput:
    """Vectors of placed entities.

    Args:
        placed: ``(batch, input_len)`` int64.
        table: ``(entities + 1, entity_dim)``, row 0 zeros.
    """
    present = placed != NO_ENTITY
    present[:, 0] = True  # released code: a row without keys would give NaN
    return EntityInput(F.embedding(placed, table), present)


def controlled_table(table: Tensor, control: str, generator: torch.Generator) -> Tensor:
    """Vectors for a comparison in which entities have not their own.

    Args:
        table: ``(entities + 1, entity_dim)``, row 0 zeros.
        control: "shuffled" gives each entity the vector of another one (a permutation), "random" normal numbers of the table's
            mean and standard deviation; "true" and "none" leave the table as it is.
        generator: source of randomness.
    """
    if control in (TRUE, NONE):
        return table
    vectors = table[1:]
    if control == SHUFFLED:
        vectors = vectors[_without_fixed_points(torch.randperm(len(vectors), generator=generator))]
    else:
        vectors = torch.randn(vectors.shape, generator=generator) * vectors.std() + vectors.mean()
    return torch.cat([table[:1], vectors])


def _without_fixed_points(order: Tensor) -> Tensor:
    """A permutation with the places that stay changed among themselves, one alone with the next place."""
    places = torch.arange(len(order))
    fixed = places[order == places]
    if len(fixed) == 1:
        fixed = torch.cat([fixed, (fixed + 1) % len(order)])
    changed = order.clone()
    changed[fixed] = order[fixed.roll(1)]
    return changed


def unit_scale(table: Tensor) -> float:
    """Factor by which the numbers of all vectors, ``(entities + 1, entity_dim)`` without row 0, have standard deviation 1.

    Raises:
        ValueError: all numbers are the same.
    """
    deviation = float(table[1:].std(correction=0))
    if not deviation > 0:
        raise ValueError(
            "the entity vectors are all the same; train them with `fairseq-bert-kd entity-vectors`, or give --entity-scale none"
        )
    return 1 / deviation


def entity_scores(features: Tensor, candidates: Tensor) -> Tensor:
    """Scores of candidate entities by dot product (Zhang et al. 2019, Eq. 7).

    Args:
        features: ``(rows, entity_dim)`` of tokens.
        candidates: ``(candidates, entity_dim)`` vectors.

    Returns:
        ``(rows, candidates)``, whose softmax is p(entity | token).
    """
    return features @ candidates.t()


def entity_alignment_loss(features: Tensor, labels: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the negative log-probabilities of the true entities among the distinct entities of the batch.

    Args:
        features: ``(rows, entity_dim)`` of tokens that name an entity.
        labels: ``(rows,)`` int64 rows of the table, before any noise; may be none.
        table: ``(entities + 1, entity_dim)``.

    Returns:
        The sum in nats, and the number of rows whose best candidate is the true one.
    """
    if not len(labels):
        return features.float().sum(), labels.sum()  # zeros, the first with a gradient
    candidates, labels = labels.unique(return_inverse=True)
    scores = entity_scores(features, table[candidates].to(features)).float()
    return F.cross_entropy(scores, labels, reduction="sum"), (scores.argmax(-1) == labels).sum()
