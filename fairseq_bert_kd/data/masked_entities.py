"""What a masked language model in training sees of the entities that its texts name."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.functional.entity_noise import entities_of_pieces, noisy_entities, seen_entities
from fairseq_bert_kd.storage.entity_mentions import MentionsByRow

NOISE = 1  # tells the draws of the noise from those of the masks


class ShownEntities(NamedTuple):
    """Entities of a row.

    Attributes:
        seen: ``(length,)`` int64 of each text, rows of the table of vectors, 0 for none.
        labels: ``(length,)`` int64 of the target before any noise, for the entity head; None where it does not learn.
    """

    seen: list[NDArray[np.int64]]
    labels: NDArray[np.int64] | None = None


# row, pieces of each text, predicted pieces of the target, and epoch
ShowEntities = Callable[[int, Sequence[int], NDArray[np.bool_], int], ShownEntities]


def withheld(mentions: MentionsByRow) -> ShowEntities:
    """For teachers of pairs: no entity of a target's mention with a predicted piece, see `seen_entities`."""

    def show(row: int, lengths: Sequence[int], predicted: NDArray[np.bool_], epoch: int) -> ShownEntities:
        return ShownEntities(seen_entities(mentions.spans(row), lengths, predicted, mentions.every_piece))

    return show


def noisy(mentions: MentionsByRow, table_size: int, seed: int, training: bool) -> ShowEntities:
    """For pre-training on sentences (Zhang et al. 2019): noisy entities, and the true ones to predict.

    Args:
        mentions: of the sentences.
        table_size: rows of the table of vectors, row 0 included.
        seed: of the noise, which depends on epoch and sentence; in validation on the sentence alone.
        training: whether it depends on the epoch.
    """

    def show(row: int, lengths: Sequence[int], predicted: NDArray[np.bool_], epoch: int) -> ShownEntities:
        [spans], [length] = mentions.spans(row), lengths
        labels = entities_of_pieces(spans, length, mentions.every_piece)
        rng = np.random.default_rng([seed, epoch if training else 0, row, NOISE])
        return ShownEntities([noisy_entities(labels, table_size, rng)], labels)

    return show
