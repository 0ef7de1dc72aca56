import numpy as np
import pytest

from fairseq_bert_kd.storage.fairseq_data import sentence_hash
from fairseq_bert_kd.storage.folds import Fold, fold_numbers, fold_path, in_fold, parse_fold, store_of_fold


class Side(list):
    """Sentences of ids."""


def test_the_fold_is_the_targets_hash_modulo_the_count():
    hashes = {"source": np.array([13, 7], np.uint64), "target": np.array([6, 2**64 - 1], np.uint64)}
    assert fold_numbers(hashes, 4).tolist() == [6 % 4 + 1, 3 + 1]
    assert fold_numbers(hashes, 10).tolist() == [7, 5 + 1]  # 2^64 - 1 ends in 5


def test_folds_partition_a_corpus_and_keep_equal_targets_together():
    rng = np.random.default_rng(0)
    texts = [rng.integers(4, 99, rng.integers(2, 9)) for _ in range(400)]
    pairs = {
        "source": Side(texts + texts[::-1]),
        "target": Side(texts + texts),
    }  # each target with two sources
    masks = np.stack([in_fold(pairs, Fold(number, 4)) for number in range(1, 5)])
    assert (masks.sum(axis=0) == 1).all()
    assert (masks[:, :400] == masks[:, 400:]).all()
    # four folds of 200 of 800: beyond 120 to 280 lies less than one draw in a million
    assert ((masks.sum(axis=1) > 120) & (masks.sum(axis=1) < 280)).all()
    one = {"target": np.array([sentence_hash(texts[5])], np.uint64)}
    assert masks[fold_numbers(one, 4)[0] - 1, 5]


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "1/1", "a/b", "-1/4", "1/4/2"])
def test_what_is_no_fold(text):
    with pytest.raises(ValueError, match="a fold must be I/N"):
        parse_fold(text)


def test_names_of_files():
    assert parse_fold("2/4") == Fold(2, 4)
    assert fold_path("a/train.topk", Fold(2, 4)).name == "train.topk.fold-2-of-4"
    assert fold_path("a/train.topk", None).name == "train.topk"
    assert store_of_fold("a/train.topk.fold-2-of-4").name == "train.topk"
    with pytest.raises(ValueError, match="not named like a fold"):
        store_of_fold("a/train.topk")
