"""Items prepared by another thread: their order, their number, and errors on the way."""

import threading

import pytest

from fairseq_bert_kd.teachers.chunk_scorer import prefetched


class Counter:
    """Counts up to ``end``, then stops or raises ``error``; remembers what it gave and in which thread."""

    def __init__(self, end, error=None):
        self.end, self.error, self.given, self.threads = end, error, 0, set()

    def __iter__(self):
        return self

    def __next__(self):
        self.threads.add(threading.get_ident())
        if self.given == self.end:
            raise self.error or StopIteration
        self.given += 1
        return self.given - 1


@pytest.mark.parametrize("length", [0, 1, 3, 20])
def test_all_items_in_order_from_one_other_thread(length):
    items = Counter(length)
    assert list(prefetched(items, ahead=4)) == list(range(length))
    assert len(items.threads) == 1
    assert threading.get_ident() not in items.threads


def test_items_may_be_none_or_false():
    assert list(prefetched(iter([None, False, 0, None]), ahead=2)) == [None, False, 0, None]


def test_error_is_raised_as_it_is_after_the_items_before_it():
    error, seen = ValueError("sentence 3 is damaged"), []
    with pytest.raises(ValueError, match="sentence 3 is damaged") as raised:
        seen.extend(prefetched(Counter(3, error), ahead=4))
    assert raised.value is error
    assert seen == [0, 1, 2]


def test_no_more_than_the_given_number_is_taken_ahead():
    items = Counter(100)
    found = prefetched(items, ahead=4)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    found.close()  # waits for the thread
    assert items.given <= 3 + 4


def test_thread_ends_when_the_caller_stops_early():
    before = set(threading.enumerate())
    for item in prefetched(Counter(100), ahead=4):
        if item == 2:
            break
    del item
    assert {thread for thread in threading.enumerate() if thread.is_alive()} <= before
