import numpy as np

from fairseq_bert_kd.data.length_buckets import rows_per_bucket, shuffled, sorted_in_buckets


def test_buckets_by_hand():
    sizes = np.array([9, 1, 5, 7, 3, 2, 8])
    order = np.array([0, 1, 2, 3, 4, 5, 6])
    assert sorted_in_buckets(order, sizes, 3).tolist() == [1, 2, 0, 5, 4, 3, 6]
    assert sorted_in_buckets(order[::-1], sizes, 7).tolist() == [1, 5, 4, 2, 3, 6, 0]


def test_equal_sizes_keep_the_drawn_order():
    order = np.array([4, 2, 3, 0, 1])
    assert sorted_in_buckets(order, np.ones(5, np.int64), 5).tolist() == order.tolist()


def test_a_bucket_has_a_hundred_batches():
    sizes = np.full(10_000, 10)
    assert rows_per_bucket(sizes, None, 8) == 800
    assert rows_per_bucket(sizes, 80, None) == 800
    assert rows_per_bucket(sizes, 80, 4) == 400
    assert rows_per_bucket(np.array([1000]), 10, None) == 1


def test_an_epoch_is_a_function_of_seed_and_epoch():
    first = shuffled(50, seed=1, epoch=1)
    assert sorted(first) == list(range(50))
    assert first.tolist() == shuffled(50, 1, 1).tolist()
    assert first.tolist() != shuffled(50, 1, 2).tolist()
    assert first.tolist() != shuffled(50, 2, 1).tolist()
