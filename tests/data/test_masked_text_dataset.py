import functools
import multiprocessing

import numpy as np
import pytest
import torch
from fairseq.data import ListDataset
from torch.utils.data import DataLoader

from fairseq_bert_kd.data.masked_text_dataset import MaskedTextDataset
from fairseq_bert_kd.functional.masking import MaskedTokens, draw_mask, replayable_draws

PAD, EOS = 1, 2
SOURCES = [[11, 12, 13, EOS], [14, EOS], [15, 16, EOS]]
TARGETS = [[21, 22, EOS], [23, 24, 25, 26, EOS], [EOS]]


def list_dataset(rows):
    return ListDataset([torch.tensor(row) for row in rows], np.array([len(row) for row in rows]))


def at(predicted, tokens):
    """The mask token at predicted positions."""
    return MaskedTokens(tokens, predicted, predicted)


def mask_from(mask_prob, seed, tokens, epoch, index):
    return at(draw_mask(len(tokens), mask_prob, replayable_draws(seed, epoch, index)), tokens)


def last_is_masked(tokens, epoch, index):
    return at(np.arange(len(tokens)) == len(tokens) - 1, tokens)


def epoch_and_index_in_binary(tokens, epoch, index):
    """Bits of ``16 * epoch + index``, lowest first, so that a test can read them."""
    return at((16 * epoch + index) >> np.arange(len(tokens)) & 1 == 1, tokens)


def dataset(sources=SOURCES, targets=TARGETS, mask=last_is_masked, shuffle_seed=None):
    return MaskedTextDataset((list_dataset(sources), list_dataset(targets)), mask, PAD, shuffle_seed)


def constant_lengths(src_lengths, tgt_lengths, **settings):
    """Pairs of these lengths, source without and target with end of sentence."""
    sources = [[11] * length + [EOS] for length in src_lengths]
    targets = [[21] * (length - 1) + [EOS] for length in tgt_lengths]
    return dataset(sources, targets, **settings)


def test_source_loses_its_end_of_sentence_and_target_keeps_it():
    item = dataset()[1]
    assert item["id"] == 1
    assert [text.tolist() for text in item["texts"]] == [[14], [23, 24, 25, 26, EOS]]
    assert item["target"].tolist() == [23, 24, 25, 26, EOS]
    assert item["predicted"].tolist() == [False, False, False, False, True]


def test_batch_by_hand():
    pairs = dataset()
    batch = pairs.collater([pairs[2], pairs[0], pairs[1]])
    assert batch["id"].tolist() == [2, 0, 1]
    assert batch["nsentences"] == 3
    assert batch["ntokens"] == (2 + 1) + (3 + 3) + (1 + 5)
    inputs = batch["net_input"]
    source, target = inputs["texts"]
    assert source.tolist() == [[15, 16, PAD], [11, 12, 13], [14, PAD, PAD]]
    assert [lengths.tolist() for lengths in inputs["lengths"]] == [[2, 3, 1], [1, 3, 5]]
    assert batch["target"].tolist() == [
        [EOS, PAD, PAD, PAD, PAD],
        [21, 22, EOS, PAD, PAD],
        [23, 24, 25, 26, EOS],
    ]
    assert torch.equal(target, batch["target"])
    assert inputs["predicted"].int().tolist() == [[1, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]
    assert torch.equal(inputs["hidden"], inputs["predicted"])
    assert {inputs[name].dtype for name in ("predicted", "hidden")} == {torch.bool}
    assert {tensor.dtype for tensor in (*inputs["texts"], *inputs["lengths"])} == {torch.int64}


def test_batch_of_single_sentences_with_a_kept_and_a_random_token_by_hand():
    def mask(tokens, epoch, index):
        predicted = np.arange(len(tokens)) < 2
        return MaskedTokens(np.where(predicted, 99, tokens), predicted, np.arange(len(tokens)) == 1)

    sentences = MaskedTextDataset((list_dataset(TARGETS),), mask, PAD, None)
    assert sentences.sizes.tolist() == [3, 5, 1]  # end of sentence included
    batch = sentences.collater([sentences[0], sentences[2]])
    inputs = batch["net_input"]
    assert [text.tolist() for text in inputs["texts"]] == [[[99, 99, EOS], [99, PAD, PAD]]]
    assert [lengths.tolist() for lengths in inputs["lengths"]] == [[3, 1]]
    assert inputs["predicted"].int().tolist() == [[1, 1, 0], [1, 0, 0]]
    assert inputs["hidden"].int().tolist() == [[0, 1, 0], [0, 0, 0]]
    assert batch["target"].tolist() == [[21, 22, EOS], [EOS, PAD, PAD]]
    assert batch["ntokens"] == 4


def test_no_samples_give_an_empty_batch():
    assert dataset().collater([]) == {}


def test_mask_is_false_on_padding():
    pairs = dataset(mask=lambda tokens, epoch, index: at(np.ones(len(tokens), dtype=bool), tokens))
    batch = pairs.collater([pairs[index] for index in range(3)])
    assert torch.equal(batch["net_input"]["predicted"], batch["target"] != PAD)


def test_mask_is_drawn_for_the_target_the_epoch_and_the_sentence():
    calls = []

    def record(tokens, epoch, index):
        calls.append((tokens.tolist(), epoch, index))
        return at(np.ones(len(tokens), dtype=bool), tokens)

    pairs = dataset(mask=record)
    pairs[2]
    pairs.set_epoch(5)
    pairs[1]
    assert calls == [([EOS], 1, 2), ([23, 24, 25, 26, EOS], 5, 1)]  # the first epoch is 1


def test_masks_change_with_the_epoch_and_return_with_it():
    pairs = constant_lengths([3] * 4, [30] * 4, mask=functools.partial(mask_from, 0.3, 1))

    def masks(epoch):
        pairs.set_epoch(epoch)
        return np.stack([pairs[index]["predicted"].numpy() for index in range(4)])

    first, second = masks(1), masks(2)
    assert (first != second).any(axis=1).all()
    np.testing.assert_array_equal(masks(1), first)


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_epoch_reaches_workers_that_stay_alive(start):
    pairs = constant_lengths([1, 1], [8, 8], mask=epoch_and_index_in_binary)
    loader = DataLoader(
        pairs,
        batch_size=1,
        collate_fn=pairs.collater,
        num_workers=1,
        persistent_workers=True,
        multiprocessing_context=multiprocessing.get_context(start),
    )

    def seen():
        bits = torch.cat([batch["net_input"]["predicted"] for batch in loader])
        return (bits.int() * 2 ** torch.arange(8)).sum(1).tolist()

    pairs.set_epoch(3)
    assert seen() == [48, 49]
    worker = loader._iterator._workers[0].pid
    pairs.set_epoch(4)
    assert seen() == [64, 65]
    assert loader._iterator._workers[0].pid == worker  # the same one, or this test shows nothing


def test_sizes_are_tokens_of_source_without_and_target_with_end_of_sentence():
    pairs = dataset()
    assert pairs.sizes.tolist() == [3 + 3, 1 + 5, 2 + 1]
    assert [pairs.num_tokens(index) for index in range(3)] == [6, 6, 3]
    assert [pairs.size(index) for index in range(3)] == [6, 6, 3]
    assert pairs.num_tokens_vec(np.array([2, 0])).tolist() == [3, 6]
    assert len(pairs) == 3


def test_order_is_by_pair_length_then_corpus_order():
    pairs = constant_lengths([5, 1, 2, 3, 1], [2, 2, 5, 1, 2])  # together 7, 3, 7, 4, 3
    assert pairs.ordered_indices().tolist() == [1, 4, 3, 0, 2]


def test_shuffling_mixes_equal_lengths_only_and_can_be_repeated():
    src_lengths = [index % 3 for index in range(60)]
    order = constant_lengths(src_lengths, [2] * 60, shuffle_seed=7).ordered_indices()
    assert sorted(order) == list(range(60))
    assert [src_lengths[index] for index in order] == [0] * 20 + [1] * 20 + [2] * 20
    assert order[:20].tolist() != sorted(order[:20])
    np.random.seed(3)  # fairseq's seed of the epoch has no effect
    again = constant_lengths(src_lengths, [2] * 60, shuffle_seed=7).ordered_indices()
    other = constant_lengths(src_lengths, [2] * 60, shuffle_seed=8).ordered_indices()
    assert again.tolist() == order.tolist()
    assert other.tolist() != order.tolist()


@pytest.mark.parametrize("seed", [None, *range(5)])
def test_kept_items_are_those_whatever_the_order(seed):
    """Of twenty equally long ones the multiples of three, which a teacher of the other fold must not see."""
    texts = list_dataset([[21, 22, EOS]] * 20)
    kept = np.arange(20) % 3 != 0
    sentences = MaskedTextDataset((texts,), lambda *_: None, PAD, seed, kept)
    order = sentences.ordered_indices().tolist()
    assert sorted(order) == [i for i in range(20) if i % 3]
    assert (order == sorted(order)) == (seed is None)


def test_pairs_over_the_limit_are_left_out_and_named():
    kept, ignored = dataset().filter_indices_by_size(np.array([2, 0, 1]), 5)
    assert list(kept) == [2]
    assert sorted(ignored) == [0, 1]


def test_empty_source():
    pairs = dataset([[EOS], [11, EOS]], [[21, EOS], [22, EOS]])
    assert pairs.sizes.tolist() == [2, 3]
    inputs = pairs.collater([pairs[0], pairs[1]])["net_input"]
    assert inputs["texts"][0].tolist() == [[PAD], [11]]
    assert inputs["lengths"][0].tolist() == [0, 1]


def test_batch_of_empty_sources():
    pairs = dataset([[EOS], [EOS]], [[21, EOS], [EOS]])
    batch = pairs.collater([pairs[0], pairs[1]])
    assert batch["net_input"]["texts"][0].shape == (2, 0)
    assert batch["net_input"]["lengths"][0].tolist() == [0, 0]
    assert batch["ntokens"] == 3


def test_corpora_of_unequal_length_are_an_error():
    with pytest.raises(
        ValueError, match=r"source and target differ: 3 and 2 sentences; run fairseq-preprocess"
    ):
        dataset(SOURCES, TARGETS[:2])


def test_corpus_is_not_modified():
    pairs = dataset()
    pairs.collater([pairs[index] for index in range(3)])["net_input"]["texts"][1].fill_(99)
    assert [[row.tolist() for row in text] for text in pairs.texts] == [SOURCES, TARGETS]
