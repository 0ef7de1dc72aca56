"""Sentences with vectors: each batch has those of its sentences, and sentences without one are left out."""

import numpy as np
import torch

from fairseq_bert_kd.batch import VECTORS, from_bits
from fairseq_bert_kd.data.sentence_dataset import SentenceDataset
from fairseq_bert_kd.data.sentence_vector_dataset import SentenceVectorDataset
from fairseq_bert_kd.storage.schema import NOT_FINITE
from tests.storage.test_vector_store import write


class Texts(list):
    @property
    def sizes(self):
        return np.array([len(text) for text in self])


def test_vectors_stand_beside_their_sentences_and_missing_ones_are_left_out(tmp_path):
    texts = Texts(np.array([*range(4, 4 + length), 2]) for length in (3, 1, 2, 5, 4))
    vectors = [[row, -row] for row in range(5)]
    reader = write(tmp_path / "a.vec", vectors, status=[0, 0, NOT_FINITE, 0, 0])
    dataset = SentenceVectorDataset(SentenceDataset([texts], None, pad=1, shuffle_seed=3), reader)
    dataset.set_epoch(1)
    order = dataset.ordered_indices()
    assert sorted(order.tolist()) == [0, 1, 3, 4]
    batches = dataset.batch_by_size(order, max_sentences=2)
    assert sorted(int(row) for batch in batches for row in batch) == [0, 1, 3, 4]
    for batch in batches:
        sample = dataset.collater([dataset[row] for row in batch])
        assert from_bits(sample[VECTORS]).tolist() == [vectors[row] for row in batch]
        assert sample[VECTORS].dtype == torch.int16
        assert sample["id"].tolist() == list(batch)
    assert dataset.collater([]) == {}
    assert not dataset.can_reuse_epoch_itr_across_epochs
