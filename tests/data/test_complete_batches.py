import numpy as np
import pytest
import torch
from fairseq.data import Dictionary, LanguagePairDataset, ListDataset
from fairseq.data.data_utils import batch_by_size
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_bert_kd.data.complete_batches import CompleteBatchesDataset, complete_batches


def host_batches(indices, sizes, max_tokens, multiple):
    return batch_by_size(
        indices, None, num_tokens_vec=sizes, max_tokens=max_tokens, required_batch_size_multiple=multiple
    )


def as_lists(batches):
    return [batch.tolist() for batch in batches]


def test_host_drops_the_last_four_of_twenty_sentences():
    # when this fails, the host is mended and complete_batches can go
    batches = host_batches(np.arange(20), np.full(20, 5), max_tokens=40, multiple=8)
    assert as_lists(batches) == [list(range(8)), list(range(8, 16))]


def test_last_four_of_twenty_sentences_are_put_back():
    indices = np.arange(20)
    batches = complete_batches(host_batches(indices, np.full(20, 5), max_tokens=40, multiple=8), indices)
    assert as_lists(batches) == [list(range(8)), list(range(8, 16)), [16, 17, 18, 19]]


def test_corpus_below_the_multiple_is_one_batch():
    indices = np.array([2, 0, 1])
    assert host_batches(indices, np.full(3, 5), max_tokens=40, multiple=8) == []
    assert as_lists(complete_batches([], indices)) == [[2, 0, 1]]


def test_complete_batches_stay_as_they_are():
    indices = np.arange(16)
    host = host_batches(indices, np.full(16, 5), max_tokens=40, multiple=8)
    assert as_lists(complete_batches(host, indices)) == [list(range(8)), list(range(8, 16))]


def test_hosts_list_is_not_modified():
    host = [np.arange(8)]
    complete_batches(host, np.arange(10))
    assert len(host) == 1


def test_no_sentences_give_no_batches():
    assert complete_batches([], np.arange(0)) == []


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=60),
    max_tokens=st.integers(20, 120),
    multiple=st.sampled_from([1, 2, 3, 8]),
)
def test_all_once_in_order_within_the_token_limit(sizes, max_tokens, multiple):
    sizes = np.array(sizes)
    indices = np.argsort(sizes, kind="stable")
    batches = complete_batches(host_batches(indices, sizes[indices], max_tokens, multiple), indices)
    assert np.concatenate(batches).tolist() == indices.tolist()
    assert all(len(batch) * sizes[batch].max() <= max_tokens for batch in batches)


def pair_dataset(sentences):
    """Pairs of sources of 3 to 6 tokens and targets of 4, end of sentence included."""
    dictionary = Dictionary()
    for token in range(10):
        dictionary.add_symbol(str(token))
    src_sizes = [3 + index % 4 for index in range(sentences)]
    tgt_sizes = [4] * sentences
    src, tgt = (
        ListDataset([torch.tensor([5] * (size - 1) + [dictionary.eos()]) for size in sizes], sizes)
        for sizes in (src_sizes, tgt_sizes)
    )
    return LanguagePairDataset(src, src_sizes, dictionary, tgt, tgt_sizes, dictionary, shuffle=False)


@pytest.mark.parametrize("sentences", [3, 8, 20, 23])
def test_language_pairs_are_all_batched(sentences):
    pairs = pair_dataset(sentences)
    wrapped = CompleteBatchesDataset(pairs)
    indices = wrapped.ordered_indices()
    limits = {"max_tokens": 48, "required_batch_size_multiple": 8}
    covered_by_host = sum(map(len, pairs.batch_by_size(indices, **limits)))
    assert covered_by_host == sentences - sentences % 8  # the fault that this is for

    batches = wrapped.batch_by_size(indices, **limits)
    assert np.concatenate(batches).tolist() == indices.tolist()
    for batch in batches:
        sample = wrapped.collater([wrapped[index] for index in batch])
        assert sorted(sample["id"].tolist()) == sorted(batch)
        assert sample["target"].numel() <= 48
        assert sample["net_input"]["src_tokens"].numel() <= 48


def test_number_of_sentences_stays_within_the_limit():
    wrapped = CompleteBatchesDataset(pair_dataset(20))
    batches = wrapped.batch_by_size(
        wrapped.ordered_indices(), max_sentences=8, required_batch_size_multiple=8
    )
    assert [len(batch) for batch in batches] == [8, 8, 4]


def test_the_pairs_show_through():
    pairs = pair_dataset(5)
    wrapped = CompleteBatchesDataset(pairs)
    assert wrapped.src is pairs.src
    assert wrapped.tgt is pairs.tgt
    assert wrapped.src_sizes.tolist() == [3, 4, 5, 6, 3]
    assert wrapped.tgt_sizes.tolist() == [4] * 5
    assert wrapped.size(2) == (5, 4)
    assert wrapped.num_tokens(2) == 5
    assert len(wrapped) == 5
