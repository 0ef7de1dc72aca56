"""Batches that cover every sentence, folders by epoch, and checks of a corpus before it is loaded."""

import argparse
import os

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary, LanguagePairDataset, ListDataset
from fairseq.data.indexed_dataset import MMapIndexedDatasetBuilder
from fairseq.tasks import FairseqTask
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_bert_kd import compat
from fairseq_bert_kd.data.corpus_parts import CorpusPart, check_parts, translation_parts
from fairseq_bert_kd.data.guarded_loading import GuardedLoading, GuardedTranslation


class Task(GuardedLoading, FairseqTask):
    pass


def pair_dataset(src_sizes, shuffle=False):
    """Pairs of sources of these lengths and targets of 4, end of sentence included."""
    dictionary = Dictionary()
    for token in range(10):
        dictionary.add_symbol(str(token))
    tgt_sizes = [4] * len(src_sizes)
    src, tgt = (
        ListDataset([torch.tensor([5] * (size - 1) + [dictionary.eos()]) for size in sizes], sizes)
        for sizes in (src_sizes, tgt_sizes)
    )
    return LanguagePairDataset(src, src_sizes, dictionary, tgt, tgt_sizes, dictionary, shuffle=shuffle)


def batches_of(task, pairs, **limits):
    """Batches of an epoch, as fairseq-train and fairseq-generate request them."""
    iterator = task.get_batch_iterator(pairs, required_batch_size_multiple=8, **limits)
    return list(iterator.next_epoch_itr(shuffle=False))


def sentences_in(batches):
    return [sentence for batch in batches for sentence in batch["id"].tolist()]


@pytest.mark.parametrize("sentences", [3, 8, 20])
def test_every_sentence_is_in_a_batch(sentences):
    pairs, cfg = pair_dataset([5] * sentences), argparse.Namespace()
    covered = sentences_in(batches_of(FairseqTask(cfg), pairs, max_tokens=40))
    assert len(covered) == sentences - sentences % 8  # fairseq's fault; once it is fixed, the method can go
    batches = batches_of(Task(cfg), pairs, max_tokens=40)
    assert sorted(sentences_in(batches)) == list(range(sentences))
    assert all(batch["target"].size(0) <= 8 for batch in batches)


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=60), max_tokens=st.integers(20, 120))
def test_all_once_within_the_token_limit(sizes, max_tokens):
    batches = batches_of(Task(argparse.Namespace()), pair_dataset(sizes), max_tokens=max_tokens)
    assert sorted(sentences_in(batches)) == list(range(len(sizes)))
    assert all(batch["net_input"]["src_tokens"].numel() <= max_tokens for batch in batches)


def test_batches_are_shuffled_after_the_curriculum():
    """fairseq-train asks for it from the epoch after the last one of ``--curriculum``."""
    compat.shuffle_after_curriculum()
    pairs, settings = pair_dataset([5] * 20), {"max_sentences": 3, "seed": 1}

    def epochs(first, *shuffled):
        iterator = Task(argparse.Namespace()).get_batch_iterator(pairs, epoch=first, **settings)
        return [
            [batch["id"].tolist() for batch in iterator.next_epoch_itr(shuffle=shuffle)]
            for shuffle in shuffled
        ]

    first, second, third = epochs(1, False, True, True)
    assert first == sorted(first) == sorted(second) == sorted(third)
    assert first != second != third != first
    assert epochs(2, True, True) == [second, third]  # a run that goes on after the curriculum


def test_a_run_that_goes_on_in_a_later_epoch_has_the_same_batches():
    """fairseq forms them with the seed of the epoch in which the run starts, and keeps them from then on."""
    pairs, settings = pair_dataset([5] * 20, shuffle=True), {"max_sentences": 3, "seed": 1}

    def epochs(task, first, **more):
        iterator = task(argparse.Namespace()).get_batch_iterator(pairs, epoch=first, **settings, **more)
        return [[batch["id"].tolist() for batch in iterator.next_epoch_itr()] for _ in range(first, 4)]

    unbroken = epochs(Task, 1)
    assert sorted(unbroken[1]) == sorted(unbroken[2]) != unbroken[2]  # kept, in another order
    assert epochs(Task, 3) == unbroken[2:]
    assert epochs(Task, 1) == epochs(FairseqTask, 1, required_batch_size_multiple=1)
    assert (
        epochs(FairseqTask, 3, required_batch_size_multiple=1) != unbroken[2:]
    )  # once they agree, ours can go
    # data folders in turn: each epoch forms its own
    own = {"disable_iterator_cache": True}
    assert epochs(Task, 3, **own) == epochs(FairseqTask, 3, required_batch_size_multiple=1, **own)


def test_number_of_sentences_stays_within_the_limit():
    batches = batches_of(Task(argparse.Namespace()), pair_dataset([5] * 20), max_sentences=8)
    assert sorted(batch["target"].size(0) for batch in batches) == [4, 8, 8]


def test_no_sentence_within_the_limit_gives_no_batch():
    limits = {"max_tokens": 40, "max_positions": (3, 3), "ignore_invalid_inputs": True}
    iterator = Task(argparse.Namespace()).get_batch_iterator(
        pair_dataset([5, 6]), required_batch_size_multiple=8, **limits
    )
    assert len(iterator) == 0


def test_training_takes_the_folders_in_turn():
    task = Task(argparse.Namespace(data=os.pathsep.join("abc"), train_subset="train"))
    assert [task.folder_of("train", epoch) for epoch in range(1, 6)] == ["a", "b", "c", "a", "b"]
    assert [task.folder_of("valid", epoch) for epoch in (1, 2)] == ["a", "a"]


def write_side(prefix, sentences):
    builder = MMapIndexedDatasetBuilder(f"{prefix}.bin", dtype=np.uint16)
    for sentence in range(sentences):
        builder.add_item(torch.tensor([4 + sentence, 2]))
    builder.finalize(f"{prefix}.idx")


def config(**options):
    return argparse.Namespace(
        **({"source_lang": "de", "target_lang": "en", "dataset_impl": "mmap"} | options)
    )


def test_parts_of_a_translation_corpus(tmp_path):
    for name in ("train.de-en", "train1.en-de", "train3.de-en", "valid.de-en"):
        for language in ("de", "en"):
            write_side(tmp_path / f"{name}.{language}", 2)
    parts = translation_parts(config(), str(tmp_path), "train", combine=True)
    assert [part.name for part in parts] == ["train", "train1"]  # fairseq stops at the first gap
    assert parts[1].prefixes == {
        "source": str(tmp_path / "train1.en-de.de"), "target": str(tmp_path / "train1.en-de.en"),
    }  # fmt: skip
    assert [part.name for part in translation_parts(config(), str(tmp_path), "train", combine=False)] == [
        "train"
    ]
    assert translation_parts(config(), str(tmp_path), "test", combine=True) == []


def test_sides_of_unequal_length_are_an_error_whatever_they_are_called(tmp_path):
    part = CorpusPart(str(tmp_path), "train", {"input0": str(tmp_path / "a"), "label": str(tmp_path / "b")})
    write_side(tmp_path / "a", 4)
    write_side(tmp_path / "b", 4)
    check_parts([part])
    write_side(tmp_path / "b", 5)
    with pytest.raises(
        ValueError, match=r"input0 and label of split `train` have different numbers of sentences \(4 and 5\)"
    ):
        check_parts([part])


def test_fairseqs_default_of_upsampling_repeats_nothing(tmp_path):
    class Stub:
        def __init__(self, cfg, src_dict, tgt_dict):
            self.cfg = cfg

    class Guarded(GuardedTranslation, Stub):
        pass

    for given_value, used in ((-1, 1), (3, 3)):
        cfg = config(data=str(tmp_path), upsample_primary=given_value)
        assert Guarded(cfg, Dictionary(), Dictionary()).cfg.upsample_primary == used
