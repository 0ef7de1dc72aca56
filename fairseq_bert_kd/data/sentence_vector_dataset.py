"""Sentences with a teacher's vectors from a store."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from fairseq.data import BaseWrapperDataset

from fairseq_bert_kd.batch import VECTORS, as_bits
from fairseq_bert_kd.data.sentence_dataset import SentenceDataset
from fairseq_bert_kd.storage.alignment import check_sentences
from fairseq_bert_kd.storage.vector_store import SIDE, VectorReader

logger = logging.getLogger(__name__)


class SentenceVectorDataset(BaseWrapperDataset):
    """Wraps a `SentenceDataset`; its collater adds ``batch.VECTORS``, and sentences without a vector are left out.

    Args:
        dataset: dataset of single sentences.
        reader: store of their vectors, see `open_vectors`.
    """

    def __init__(self, dataset: SentenceDataset, reader: VectorReader):
        super().__init__(dataset)
        assert len(reader) == len(dataset), (len(reader), len(dataset))
        self.reader = reader
        self._scored = reader.scored

    def collater(self, samples):
        batch = self.dataset.collater(samples)
        if batch:
            vectors, _ = self.reader.vectors(batch["id"].numpy())
            batch[VECTORS] = as_bits(torch.from_numpy(np.ascontiguousarray(vectors)))
        return batch

    def ordered_indices(self):
        order = self.dataset.ordered_indices()
        return order[self._scored[order]]

    def batch_by_size(self, *args, **kwargs):
        return self.dataset.batch_by_size(*args, **kwargs)


def open_vectors(
    path: Any, split: str, digests: Mapping[str, str], sides: Mapping[str, Any], everything: bool
) -> VectorReader:
    """Open a store and check that it belongs to the data.

    Args:
        path: path of the store.
        split: split of the data.
        digests: digests of the data's ``tokenizer`` and ``dictionary``.
        sides: the data by side.
        everything: compare the ids of all sentences, not of a sample.

    Raises:
        FileNotFoundError: no such store.
        ValueError: it is of another split, tokenizer, dictionary or text.
    """
    reader = VectorReader(path)
    info, rebuild = reader.info, reader.info.rebuild_command(reader.path)
    if info.split != split:
        raise ValueError(f"store {path} was made for split `{info.split}`, not `{split}`; {rebuild}")
    for what, own in (("tokenizer", info.tokenizer_digest), ("dictionary", info.dictionary_digest)):
        if own != digests[what]:
            raise ValueError(
                f"store {path} was made with another {what} than the data (digest {own[:12]}, the data's is "
                f"{digests[what][:12]}); {rebuild}"
            )
    compared = check_sentences(reader, {SIDE: sides[SIDE]}, everything)
    logger.info(
        "%s: %d sentences, %d without a vector, %d compared by hash; teacher %s, vector %s, %d numbers in %s",
        path,
        len(reader),
        reader.missing_sentences,
        compared,
        info.teacher,
        info.vector,
        info.width,
        info.dtype,
    )
    return reader
