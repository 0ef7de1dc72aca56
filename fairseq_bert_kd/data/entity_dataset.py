"""Rows of a sentence task with the entities that their tokens name."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.data.sentence_dataset import SentenceDataset, padded
from fairseq_bert_kd.functional.entity_fusion import NO_ENTITY
from fairseq_bert_kd.storage.entity_mentions import ALL, Mentions


class EntitySentenceDataset(SentenceDataset):
    """`SentenceDataset` whose batches have ``net_input["entities"]``: one ``(batch, text_len)`` int64 per text.

    A mention that begins at or behind the cut of a text is left out, as is what of it lies behind.

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
        self.mentions = mentions
        self._starts = np.searchsorted(mentions.rows[:, 0], np.arange(len(self) + 1))

    def __getitem__(self, index):
        item = super().__getitem__(index)
        entities = [np.full(len(text), NO_ENTITY, np.int64) for text in item["texts"]]
        for _, text, begin, end, entity in self.mentions.rows[self._starts[index] : self._starts[index + 1]]:
            marked = entities[text][:-1]  # never the end of sentence
            marked[begin : end if self.mentions.span == ALL else begin + 1] = entity
        return item | {"entities": entities}

    def collater(self, samples):
        batch = super().collater(samples)
        if batch:
            columns = zip(*(sample["entities"] for sample in samples), strict=True)
            batch["net_input"]["entities"] = tuple(padded(column, NO_ENTITY) for column in columns)
        return batch
