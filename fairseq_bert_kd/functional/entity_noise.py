"""Noise of aligned entities in pre-training, and entities that a masked token must not see."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.functional.entity_fusion import NO_ENTITY

RANDOM_SHARE = 0.05  # Zhang et al. 2019, section 3.4
HIDDEN_SHARE = 0.15


def noisy_entities(
    entities: NDArray[np.int64], table_size: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Aligned entities, 5 % of them replaced by random ones, 15 % hidden, the others kept.

    Random ones are drawn from the whole table (ours; the released code draws from the batch).

    Args:
        entities: ``(length,)`` rows of the table; 0 for none.
        table_size: rows of the table, row 0 included.
        rng: only source of randomness.
    """
    shares = rng.random(len(entities))
    drawn = rng.integers(1, table_size, size=len(entities))
    noisy = np.where(shares < RANDOM_SHARE, drawn, entities)
    noisy = np.where((shares >= RANDOM_SHARE) & (shares < RANDOM_SHARE + HIDDEN_SHARE), NO_ENTITY, noisy)
    return np.where(entities == NO_ENTITY, NO_ENTITY, noisy)


def without_masked_mentions(
    spans: Sequence[tuple[int, int, int]], hidden: NDArray[np.bool_]
) -> list[tuple[int, int, int]]:
    """Mentions none of whose pieces is masked; the entity of another one would name the answer.

    Args:
        spans: first piece, piece after the last, and entity of each mention.
        hidden: ``(length,)`` masked pieces.
    """
    return [(begin, end, entity) for begin, end, entity in spans if not hidden[begin:end].any()]


def entities_of_pieces(
    spans: Iterable[tuple[int, int, int]], length: int, every_piece: bool
) -> NDArray[np.int64]:
    """``(length,)`` entity of each piece of a text; what lies behind its end is left out.

    Args:
        spans: first piece, piece after the last, and entity of each mention.
        length: pieces of the text.
        every_piece: whether all pieces of a mention carry its entity, or the first one alone (Zhang et al. 2019).
    """
    entities = np.full(length, NO_ENTITY, np.int64)
    for begin, end, entity in spans:
        entities[begin : end if every_piece else begin + 1] = entity
    return entities


def seen_entities(
    spans: Sequence[Sequence[tuple[int, int, int]]],
    lengths: Sequence[int],
    predicted: NDArray[np.bool_],
    every_piece: bool,
) -> list[NDArray[np.int64]]:
    """Entities that a masked language model may see: all of a source, and of the target those that name no predicted piece.

    Args:
        spans: of each text, the target last; see `entities_of_pieces`.
        lengths: pieces of each text.
        predicted: ``(target length,)`` pieces to predict.
        every_piece: see `entities_of_pieces`.

    Returns:
        ``(length,)`` of each text.
    """
    *others, target = spans
    shown = (*others, without_masked_mentions(target, predicted))
    return [
        entities_of_pieces(mentions, length, every_piece)
        for mentions, length in zip(shown, lengths, strict=True)
    ]
