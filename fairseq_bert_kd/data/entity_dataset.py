"""Rows of a sentence task with the entities that their tokens name."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.data.sentence_dataset import SentenceDataset, padded
from fairseq_bert_kd.functional.entity_fusion import NO_ENTITY
from fairseq_bert_kd.functional.entity_noise import entities_of_pieces
from fairseq_bert_kd.storage.entity_mentions import Mentions, MentionsByRow


class EntitySentenceDataset(SentenceDataset):
    """`SentenceDataset` whose batches have ``net_input["entities"]``: one ``(batch, text_len)`` int64 per text.

    ``net_input["arguments"]`` is alike: at the first piece of argument 1 (head, or mention to type) and 2 (tail) its number,
    elsewhere 0. A mention that begins at or behind the cut of a text is left out, as is what of it lies behind.

    Args:
        texts: see `SentenceDataset`.
        targets: see `SentenceDataset`.
        pad: see `SentenceDataset`.
        shuffle_seed: see `SentenceDataset`.
        mentions: of the same rows.
    """

    def __init__(
        self,
        texts: Sequence[Any],
        targets: NDArray[Any] | None,
        pad: int,
        shuffle_seed: int | None,
        mentions: Mentions,
    ):
        super().__init__(texts, targets, pad, shuffle_seed)
        self.mentions = MentionsByRow(mentions, len(self), len(texts))

    def __getitem__(self, index):
        item = super().__getitem__(index)
        texts = zip(self.mentions.spans(index), item["texts"], strict=True)
        entities = [
            # never the end of sentence
            np.append(entities_of_pieces(spans, len(text) - 1, self.mentions.every_piece), NO_ENTITY)
            for spans, text in texts
        ]
        arguments = [np.zeros(len(text), np.int64) for text in item["texts"]]
        for places, named in zip(arguments, self.mentions.arguments(index), strict=True):
            for begin, number in named:
                places[begin : len(places) - 1][:1] = number
        return item | {"entities": entities, "arguments": arguments}

    def rows_without(self, arguments: int) -> int:
        """Number of rows that have not all of the first arguments, or of which the cut has taken one's first piece."""
        return int((self.mentions.arguments_within(self.lengths - 1, arguments) < arguments).sum())

    def collater(self, samples):
        batch = super().collater(samples)
        if batch:
            for key in ("entities", "arguments"):
                columns = zip(*(sample[key] for sample in samples), strict=True)
                batch["net_input"][key] = tuple(padded(column, 0) for column in columns)
        return batch
