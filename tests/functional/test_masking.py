import itertools
import math

import numpy as np
import pytest

from fairseq_bert_kd.functional import masking
from fairseq_bert_kd.functional.masking import (
    Replacement,
    draw_mask,
    mask_tokens,
    replayable_draws,
    strided_masks,
)


def replayable_mask(length, mask_prob, seed, epoch, index):
    return draw_mask(length, mask_prob, replayable_draws(seed, epoch, index))


def masks(count, length, mask_prob, seed=1):
    return np.stack([replayable_mask(length, mask_prob, seed, 1, index) for index in range(count)])


def assert_rate(masked, expected, sigmas=4.5):
    """``masked`` is a bool array of independent draws with probability ``expected``."""
    deviation = math.sqrt(expected * (1 - expected) / masked.size)
    assert abs(masked.mean() - expected) < sigmas * deviation, (masked.mean(), expected, deviation)


def test_rate():
    # 0.85 ** 100 = 9e-8: drawing again has no influence on so long a target
    assert_rate(masks(count=1000, length=100, mask_prob=0.15), 0.15)


def test_end_of_sentence_is_masked_at_the_same_rate_as_any_other_position():
    # conditioned on at least one of 6: 0.15 / (1 - 0.85 ** 6) = 0.2409
    expected = 0.15 / (1 - 0.85**6)
    drawn = masks(count=6000, length=6, mask_prob=0.15)
    for position in range(6):
        assert_rate(drawn[:, position], expected)


def test_at_least_one_is_masked():
    for length in (1, 2, 3):
        assert masks(count=300, length=length, mask_prob=0.05).any(axis=1).all()


def test_single_position_is_always_masked():
    assert replayable_mask(1, 0.01, seed=1, epoch=1, index=0).tolist() == [True]


def test_probability_one_masks_all():
    assert replayable_mask(4, 1.0, seed=1, epoch=1, index=0).tolist() == [True] * 4


def test_distribution_is_bernoulli_given_at_least_one():
    # length 2, p = 0.3: 0.3 * 0.7 / 0.51, 0.7 * 0.3 / 0.51, 0.3 * 0.3 / 0.51. Forcing a random position
    # when none is drawn would give (0.455, 0.455, 0.09).
    drawn = masks(count=20_000, length=2, mask_prob=0.3)
    expected = {(True, False): 0.411765, (False, True): 0.411765, (True, True): 0.176471}
    for outcome, probability in expected.items():
        assert_rate((drawn == outcome).all(axis=1), probability)


@pytest.mark.parametrize("draws", [0, 3, masking.DRAWS])
def test_however_many_draws_came_first_the_distribution_is_the_same(draws, monkeypatch):
    monkeypatch.setattr(masking, "DRAWS", draws)
    drawn = masks(count=20_000, length=3, mask_prob=0.2)
    for outcome in itertools.product([False, True], repeat=3):
        found = (drawn == outcome).all(axis=1)
        if any(outcome):
            assert_rate(found, 0.2 ** sum(outcome) * 0.8 ** (3 - sum(outcome)) / (1 - 0.8**3))
        else:
            assert not found.any()


@pytest.mark.parametrize("mask_prob", [1e-9, 1e-17, 1e-300])
def test_a_probability_near_zero_masks_one_position_anywhere(mask_prob, monkeypatch):
    monkeypatch.setattr(masking, "DRAWS", 2)  # the result of more is the same
    drawn = masks(count=5000, length=5, mask_prob=mask_prob)
    assert (drawn.sum(axis=1) == 1).all()
    for position in range(5):
        assert_rate(drawn[:, position], 0.2)


def test_a_probability_near_zero_comes_to_an_end():
    assert draw_mask(4, 1e-9, np.random.default_rng(0)).sum() == 1


def test_masks_of_earlier_versions_are_the_same():
    """They drew until something was masked."""
    for index in range(300):
        rng = np.random.default_rng([1, 1, index])
        while not (expected := rng.random(1 + index % 5) < 0.05).any():
            pass
        np.testing.assert_array_equal(replayable_mask(1 + index % 5, 0.05, 1, 1, index), expected)


def test_same_seed_epoch_and_index_give_the_same_mask():
    first = replayable_mask(64, 0.15, seed=3, epoch=7, index=11)
    np.random.seed(99)  # neither the global generator nor other masks have a say
    replayable_mask(64, 0.15, seed=3, epoch=7, index=12)
    assert first.dtype == np.bool_
    assert first.shape == (64,)
    np.testing.assert_array_equal(replayable_mask(64, 0.15, seed=3, epoch=7, index=11), first)


def test_stream_is_numpys_default_generator_of_seed_epoch_and_index():
    expected = np.random.default_rng([3, 7, 11]).random(64) < 0.15
    assert expected.any()
    np.testing.assert_array_equal(replayable_mask(64, 0.15, seed=3, epoch=7, index=11), expected)


def test_global_random_state_is_left_alone():
    np.random.seed(5)
    expected = np.random.random(3)
    np.random.seed(5)
    replayable_mask(10, 0.15, seed=1, epoch=1, index=1)
    np.testing.assert_array_equal(np.random.random(3), expected)


@pytest.mark.parametrize("name", ["seed", "epoch", "index"])
def test_streams_are_distinct(name):
    others = {"seed": 1, "epoch": 1, "index": 1}
    streams = {replayable_mask(64, 0.5, **(others | {name: value})).tobytes() for value in range(2000)}
    assert len(streams) == 2000


def test_seed_epoch_and_index_do_not_stand_for_each_other():
    orders = [(1, 2, 3), (1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2), (3, 2, 1)]
    assert len({replayable_mask(64, 0.5, *order).tobytes() for order in orders}) == 6


def all_passes(length, passes):
    return strided_masks(length, passes, np.arange(min(length, passes)))


def test_seven_passes_over_ten_positions():
    expected = [
        [1, 0, 0, 0, 0, 0, 0, 1, 0, 0],
        [0, 1, 0, 0, 0, 0, 0, 0, 1, 0],
        [0, 0, 1, 0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
    ]
    assert all_passes(10, 7).dtype == np.bool_
    assert all_passes(10, 7).astype(int).tolist() == expected


@pytest.mark.parametrize("passes", range(1, 11))
def test_passes_mask_every_position_once(passes):
    for length in range(1, 41):
        drawn = all_passes(length, passes)
        assert drawn.shape == (min(length, passes), length)
        assert drawn.sum(axis=0).tolist() == [1] * length
        assert drawn.any(axis=1).all()
        # slow: pass of a position is its remainder
        for position in range(length):
            assert drawn[position % passes, position]


@pytest.mark.parametrize("length", range(1, 8))
def test_short_target_has_one_position_a_pass(length):
    np.testing.assert_array_equal(all_passes(length, 7), np.eye(length, dtype=bool))


def test_passes_come_in_the_order_they_are_asked_for():
    assert strided_masks(4, 3, np.array([2, 0, 2])).astype(int).tolist() == [
        [0, 0, 1, 0],
        [1, 0, 0, 1],
        [0, 0, 1, 0],
    ]


def test_one_pass_masks_everything():
    assert all_passes(3, 1).tolist() == [[True, True, True]]


@pytest.mark.parametrize("mask_prob", [0.0, -0.1, 1.1, math.nan])
def test_mask_probability_outside_its_range_is_refused(mask_prob):
    with pytest.raises(
        ValueError, match=r"mask probability must be in \(0, 1\], got .*; the paper uses 0.15"
    ):
        draw_mask(5, mask_prob, np.random.default_rng(0))


@pytest.mark.parametrize("length", [0, -1])
def test_target_without_any_position_is_refused(length):
    with pytest.raises(ValueError, match=f"at least its end of sentence, got length {length}"):
        draw_mask(length, 0.15, np.random.default_rng(0))


# --- what is seen at predicted positions

PIECES = np.array([50, 51, 52, 53])
TOKENS = np.arange(100, 110)
BERT = Replacement(keep=0.1, random=0.1)


def masked(count=1, length=10, replacement=BERT, mask_prob=0.15, seed=1):
    tokens = np.arange(100, 100 + length)
    return [
        mask_tokens(tokens, mask_prob, replacement, PIECES, replayable_draws(seed, 1, index))
        for index in range(count)
    ]


def test_positions_do_not_depend_on_what_is_seen_there():
    for index in range(50):
        alone = replayable_mask(10, 0.15, seed=1, epoch=1, index=index)
        for replacement in (Replacement(), BERT, Replacement(random=1.0)):
            text = mask_tokens(TOKENS, 0.15, replacement, PIECES, replayable_draws(1, 1, index))
            np.testing.assert_array_equal(text.predicted, alone)


def test_always_masked_by_default():
    assert Replacement().always_masked
    assert not BERT.always_masked
    assert not Replacement(random=0.1).always_masked
    (text,) = masked(replacement=Replacement())
    np.testing.assert_array_equal(text.hidden, text.predicted)
    np.testing.assert_array_equal(text.tokens, TOKENS)


def test_second_draw_by_hand():
    """The numbers are those of the stream after the positions; nothing else decides."""
    rng = np.random.default_rng([1, 1, 3])
    predicted = rng.random(10) < 0.5
    assert predicted.any()
    shares, drawn = rng.random(10), PIECES[rng.integers(4, size=10)]
    text = mask_tokens(TOKENS, 0.5, Replacement(keep=0.3, random=0.3), PIECES, replayable_draws(1, 1, 3))
    seen = []
    for position in range(10):
        random = predicted[position] and 0.3 <= shares[position] < 0.6
        assert text.hidden[position] == (predicted[position] and shares[position] >= 0.6)
        seen.append(drawn[position] if random else TOKENS[position])
    assert text.tokens.tolist() == seen
    kinds = {(bool(h), bool(t != o)) for h, t, o in zip(text.hidden, text.tokens, TOKENS, strict=True)}
    assert kinds == {(True, False), (False, True), (False, False)}  # or this test shows nothing


def test_shares_of_kept_random_and_hidden():
    texts = masked(count=500, length=100)
    predicted = np.concatenate([text.predicted for text in texts])
    hidden = np.concatenate([text.hidden for text in texts])
    replaced = np.concatenate([text.tokens != np.arange(100, 200) for text in texts])
    assert not (hidden & ~predicted).any()
    assert not (replaced & (hidden | ~predicted)).any()
    assert_rate(hidden[predicted], 0.8)
    assert_rate(replaced[predicted], 0.1)  # no piece is equal to a token here
    drawn = np.concatenate([text.tokens for text in texts])[replaced]
    for piece in PIECES:
        assert_rate(drawn == piece, 0.25)


@pytest.mark.parametrize(
    ("keep", "random"), [(-0.1, 0.0), (0.0, -0.1), (0.6, 0.5), (math.nan, 0.0), (0.0, 1.1)]
)
def test_shares_outside_their_range_are_refused(keep, random):
    with pytest.raises(
        ValueError, match=r"at least 0 and together at most 1, got .*; BERT's are 0\.1 and 0\.1"
    ):
        Replacement(keep, random)
