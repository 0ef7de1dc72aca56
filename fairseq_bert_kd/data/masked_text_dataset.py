"""Sentences, or pairs of them, with positions to predict: inputs for training a masked language model."""

from collections.abc import Callable, Sequence
from typing import Any, Optional

import numpy as np
import torch
from fairseq.data import FairseqDataset, data_utils
from numpy.typing import NDArray

from fairseq_bert_kd.data.masked_entities import ShowEntities, ShownEntities
from fairseq_bert_kd.data.token_sizes import TokenSizes
from fairseq_bert_kd.functional.entity_fusion import NO_ENTITY
from fairseq_bert_kd.functional.masking import MaskedTokens


class MaskedTextDataset(TokenSizes, FairseqDataset):
    """Texts in student ids, the last one (the target) with a mask that is a function of epoch and sentence.

    Args:
        texts: a target, or a source and a target: indexed datasets of ids, each item ending with end of sentence.
        mask: ``(tokens, epoch, index)`` to what is seen and predicted of a target.
        pad: padding index of the dictionaries.
        shuffle_seed: seed of the order of equally long items; None keeps corpus order.
        kept: ``(items,)`` bool, items that batches are made of; None for all.
        entities: what is shown of the entities that the texts name; None for a model without entities.
    """

    def __init__(
        self,
        texts: Sequence[Any],
        mask: Callable[[NDArray[np.int64], int, int], MaskedTokens],
        pad: int,
        shuffle_seed: Optional[int],
        kept: Optional[NDArray[np.bool_]] = None,
        entities: Optional[ShowEntities] = None,
    ):
        *others, target = texts
        for source in others:
            if len(source) != len(target):
                raise ValueError(
                    f"source and target differ: {len(source)} and {len(target)} sentences; "
                    "run fairseq-preprocess again on files with the same number of lines"
                )
        self.texts = tuple(texts)
        self.mask = mask
        self.pad = pad
        self.shuffle_seed = shuffle_seed
        self.kept = kept
        self.entities = entities
        # tokens of all texts; only the target keeps its end of sentence
        self.sizes: NDArray[np.int64] = np.sum(
            [np.asarray(text.sizes, np.int64) for text in texts], axis=0
        ) - len(others)
        # fairseq keeps its data-loading workers alive across epochs, each with its own copy of this
        # object: an ordinary attribute would stay at the first epoch there, and so would the masks.
        self._epoch = torch.ones((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch):
        self._epoch.fill_(epoch)

    def __getitem__(self, index):
        *others, target = (text[index] for text in self.texts)
        masked = self.mask(np.asarray(target), int(self._epoch), index)
        texts = (*(text[:-1] for text in others), torch.from_numpy(masked.tokens))
        item = {
            "id": index,
            "texts": texts,
            "predicted": torch.from_numpy(masked.predicted),
            "hidden": torch.from_numpy(masked.hidden),
            "target": target,
        }
        if self.entities is not None:
            lengths = [len(text) for text in texts]
            item["entities"] = self.entities(index, lengths, masked.predicted, int(self._epoch))
        return item

    def __len__(self):
        return len(self.texts[-1])

    def collater(self, samples):
        """Mini-batch of the model's inputs, right-padded to ``(batch, longest)``; empty for no samples.

        ``texts`` hold what is seen, without the mask token; ``predicted`` and ``hidden`` are False on padding. ``entities``
        of each text are there where the dataset shows them; ``aligned`` are target positions whose entity is predicted, and
        ``entity_labels`` these entities, where they are learned.
        ``target`` holds all target ids, and the criterion picks the predicted ones. ``ntokens`` counts the tokens of all
        texts.
        """
        if not samples:
            return {}
        texts = list(zip(*(sample["texts"] for sample in samples), strict=True))  # by side
        lengths = tuple(torch.tensor([len(text) for text in side]) for side in texts)
        batch = {
            "id": torch.tensor([sample["id"] for sample in samples]),
            "nsentences": len(samples),
            "ntokens": int(sum(side.sum() for side in lengths)),
            "net_input": {
                "texts": tuple(self._padded(side, self.pad) for side in texts),
                "lengths": lengths,
                "predicted": self._padded([sample["predicted"] for sample in samples], 0).bool(),
                "hidden": self._padded([sample["hidden"] for sample in samples], 0).bool(),
            },
            "target": self._padded([sample["target"] for sample in samples], self.pad),
        }
        if self.entities is not None:
            self._add_entities(batch, [sample["entities"] for sample in samples])
        return batch

    def _add_entities(self, batch: dict[str, Any], shown: Sequence[ShownEntities]) -> None:
        """Put entities into a mini-batch."""

        def padded(rows):
            return self._padded(list(map(torch.from_numpy, rows)), NO_ENTITY)

        columns = zip(*(row.seen for row in shown), strict=True)
        batch["net_input"]["entities"] = tuple(map(padded, columns))
        if shown[0].labels is not None:
            batch["entity_labels"] = padded([row.labels for row in shown])
            batch["net_input"]["aligned"] = batch["entity_labels"] != NO_ENTITY

    def _padded(self, values, padding):
        """``(batch, longest)`` int64, right-padded."""
        return data_utils.collate_tokens([value.long() for value in values], padding, left_pad=False)

    def ordered_indices(self):
        """Indices by length, equal lengths mixed.

        fairseq forms batches once and keeps them for all epochs. A seed of our own lets a resumed run form the
        same ones: fairseq's seed here is that of the epoch in which the run starts.
        """
        order = np.arange(len(self))
        if self.shuffle_seed is not None:
            order = np.random.default_rng(self.shuffle_seed).permutation(order)
        if self.kept is not None:
            order = order[self.kept[order]]
        return order[np.argsort(self.sizes[order], kind="mergesort")]

    @property
    def supports_prefetch(self):
        return False
