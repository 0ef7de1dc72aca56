import math

import pytest

from fairseq_bert_kd.functional.schedules import SHAPES, Schedule


def test_constant():
    schedule = Schedule(0.5, 0.5)
    assert schedule.constant
    assert [schedule.value(update) for update in (0, 1, 10**6)] == [0.5] * 3


def test_linear_by_hand():
    schedule = Schedule(10.0, 2.0, "linear", 4)
    assert [schedule.value(update) for update in range(6)] == [10.0, 8.0, 6.0, 4.0, 2.0, 2.0]


def test_cosine_by_hand():
    # (1 - cos(pi x)) / 2 of 1 / 4 is (1 - sqrt(1 / 2)) / 2 = 0.146447
    schedule = Schedule(0.0, 1.0, "cosine", 4)
    expected = [0.0, 0.146447, 0.5, 0.853553, 1.0, 1.0]
    assert [schedule.value(update) for update in range(6)] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
@pytest.mark.parametrize(("start", "end"), [(0.9, 0.1), (0.1, 0.9), (10.0, 1.3), (0.3, 0.0), (0.1, 0.7)])
def test_ends_are_exact_and_nothing_lies_outside_them(shape, start, end):
    schedule = Schedule(start, end, shape, 77)
    values = [schedule.value(update) for update in range(80)]
    assert values[0] == start
    assert values[77:] == [end] * 3
    assert all(min(start, end) <= value <= max(start, end) for value in values)
    assert values[:78] == sorted(values[:78], reverse=start > end)
    assert len(set(values)) == 78


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_before_its_beginning_it_is_at_its_start(shape):
    # during the warm-up updates are negative
    assert Schedule(0.3, 0.9, shape, 5).value(-3) == 0.3


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_half_way_is_the_mean_and_the_shape_tells_the_rest(shape):
    schedule = Schedule(1.0, 3.0, shape, 1000)
    assert schedule.value(500) == pytest.approx(2.0)
    quarter = {"linear": 1.5, "cosine": 1.0 + (1 - math.sqrt(0.5))}[shape]
    assert schedule.value(250) == pytest.approx(quarter)


@pytest.mark.parametrize(
    ("schedule", "constant"),
    [
        (Schedule(0.5, 0.1), True),  # the end of a constant one is not looked at
        (Schedule(0.5, 0.5, "linear", 10), True),
        (Schedule(0.5, 0.1, "linear", 10), False),
        (Schedule(0.5, 0.6, "cosine", 10), False),
    ],
)
def test_constant_means_that_the_value_never_changes(schedule, constant):
    assert schedule.constant is constant
    assert (len({schedule.value(update) for update in range(12)}) == 1) is constant


def test_shapes():
    assert SHAPES == ("constant", "linear", "cosine")
