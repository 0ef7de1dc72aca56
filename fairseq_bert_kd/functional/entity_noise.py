"""Noise of aligned entities in pre-training, and entities that a masked token must not see."""

from collections.abc import Sequence

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
