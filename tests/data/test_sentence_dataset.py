import itertools
import pickle

import numpy as np
import pytest
import torch

from fairseq_bert_kd.data.sentence_dataset import SentenceDataset

PAD, EOS = 1, 2


class Side:
    """Texts in memory."""

    def __init__(self, *texts):
        self.texts = [np.array(text, np.uint16) for text in texts]
        self.sizes = np.array([len(text) for text in self.texts], np.int32)

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, row):
        return self.texts[row]


FIRST = Side([5, 6, EOS], [7, EOS])
SECOND = Side([8, EOS], [5, 6, 7, EOS])


def test_a_batch_of_pairs_by_hand():
    dataset = SentenceDataset([FIRST, SECOND], np.array([1, 0]), PAD)
    batch = dataset.collater([dataset[1], dataset[0]])
    assert batch["id"].tolist() == [1, 0]
    assert (batch["nsentences"], batch["ntokens"]) == (2, 11)
    first, second = batch["net_input"]["texts"]
    assert first.tolist() == [[7, EOS, PAD], [5, 6, EOS]]
    assert second.tolist() == [[5, 6, 7, EOS], [8, EOS, PAD, PAD]]
    assert [lengths.tolist() for lengths in batch["net_input"]["lengths"]] == [[2, 3], [4, 2]]
    assert batch["target"].tolist() == [0, 1]
    assert {tensor.dtype for tensor in (first, second, batch["target"], batch["id"])} == {torch.int64}
    assert dataset.collater([]) == {}


def test_numbers_are_float64_which_fp16_leaves_alone():
    dataset = SentenceDataset([FIRST], np.array([3.667, 0.1]), PAD)
    target = dataset.collater([dataset[0]])["target"]
    assert target.dtype == torch.float64
    assert target.tolist() == [3.667]


def test_unlabelled_rows_have_no_target():
    dataset = SentenceDataset([FIRST], None, PAD)
    assert "target" not in dataset.collater([dataset[0]])


def test_truncation_keeps_the_end_of_sentence():
    dataset = SentenceDataset([FIRST, SECOND], None, PAD)
    assert dataset.truncate(6) == 0
    assert dataset.truncate(4) == 2
    assert dataset.sizes.tolist() == [4, 4]
    assert [text.tolist() for text in dataset[0]["texts"]] == [[5, EOS], [8, EOS]]
    assert [text.tolist() for text in dataset[1]["texts"]] == [[7, EOS], [5, EOS]]
    assert dataset.num_tokens_vec(np.array([1])).tolist() == [4]


def many(rows=400, seed=0):
    rng = np.random.default_rng(seed)
    return Side(*([5] * (length - 1) + [EOS] for length in rng.integers(2, 30, rows)))


def batches(dataset, epoch, **limits):
    dataset.set_epoch(epoch)
    found = dataset.batch_by_size(dataset.ordered_indices(), **(limits or {"max_sentences": 8}))
    return [list(map(int, batch)) for batch in found]


@pytest.mark.parametrize("limits", [{"max_sentences": 8}, {"max_tokens": 120}])
def test_an_epoch_has_every_row_once_and_others_are_other_batches(limits):
    dataset = SentenceDataset([many()], None, PAD, shuffle_seed=1)
    first, again, second = (batches(dataset, epoch, **limits) for epoch in (1, 1, 2))
    assert sorted(itertools.chain(*first)) == sorted(itertools.chain(*second)) == list(range(400))
    assert first == again
    common = {frozenset(batch) for batch in first} & {frozenset(batch) for batch in second}
    assert len(common) < len(first) / 4
    assert not dataset.can_reuse_epoch_itr_across_epochs


def padding(dataset, found):
    sizes = dataset.sizes
    cells = sum(len(batch) * sizes[batch].max() for batch in found)
    return 1 - sizes.sum() / cells


def test_buckets_leave_little_padding():
    dataset = SentenceDataset([many()], None, PAD, shuffle_seed=1)
    order = np.arange(400)
    as_it_comes = [order[start : start + 8] for start in range(0, 400, 8)]
    assert padding(dataset, batches(dataset, 1)) < 0.05 < 0.3 < padding(dataset, as_it_comes)


def test_evaluation_goes_by_length_and_keeps_its_batches():
    dataset = SentenceDataset([many()], None, PAD)
    order = dataset.ordered_indices()
    assert (np.diff(dataset.sizes[order]) >= 0).all()
    assert batches(dataset, 1) == batches(dataset, 2)
    assert dataset.can_reuse_epoch_itr_across_epochs


def test_it_travels_to_a_loading_process():
    dataset = pickle.loads(pickle.dumps(SentenceDataset([FIRST, SECOND], np.array([1, 0]), PAD)))
    assert dataset[1]["texts"][1].tolist() == [5, 6, 7, EOS]
