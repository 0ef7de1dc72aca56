"""Decomposable attention by hand, and against loops over positions."""

import math

import torch

from fairseq_bert_kd.functional.decomposable import (
    attend,
    attention_scores,
    pair_vector,
    sinusoidal_positions,
)


def test_weights_by_hand():
    """F the identity, a = (1, 0), b = {(1, 0), (0, 1)}: softmax(1, 0) = (.7311, .2689)."""
    first, second = torch.tensor([[[1.0, 0.0]]]), torch.eye(2)[None]
    found = attend(attention_scores(first, second), second, torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(found, torch.tensor([[[0.7311, 0.2689]]]), rtol=0, atol=5e-5)


def networks(dim=6, hidden=5):
    torch.manual_seed(0)
    weight, other = torch.randn(dim, dim), torch.randn(2 * dim, hidden)
    return lambda words: torch.relu(words @ weight), lambda words: torch.relu(words @ other)


def texts(lengths, dim=6, seed=0):
    torch.manual_seed(seed)
    words = torch.randn(len(lengths), max(lengths), dim)
    return words, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def slow_pair_vector(first, second, attend_network, compare_network):
    """Parikh's equations, one position after the other, for one pair without padding."""

    def side(words, others):
        total = 0
        for word in words:
            scores = [float(attend_network(word) @ attend_network(other)) for other in others]
            exps = [math.exp(score - max(scores)) for score in scores]
            attended = sum(e / sum(exps) * other for e, other in zip(exps, others, strict=True))
            total = total + compare_network(torch.cat([word, attended]))
        return total

    return torch.cat([side(first, second), side(second, first)])


def test_against_a_loop_over_positions():
    f, g = networks()
    (first, first_valid), (second, second_valid) = texts([3, 5, 1]), texts([4, 2, 2], seed=1)
    found = pair_vector(first, second, (first_valid, second_valid), f, g)
    for row in range(3):
        expected = slow_pair_vector(first[row][first_valid[row]], second[row][second_valid[row]], f, g)
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-4)


def test_padding_on_either_side_changes_nothing():
    f, g = networks()
    (first, first_valid), (second, second_valid) = texts([3]), texts([4], seed=1)
    alone = pair_vector(first, second, (first_valid, second_valid), f, g)
    junk, no = torch.full((1, 2, 6), 9.0), torch.zeros(1, 2, dtype=torch.bool)
    padded = pair_vector(
        torch.cat([first, junk], 1), torch.cat([second, junk], 1),
        (torch.cat([first_valid, no], 1), torch.cat([second_valid, no], 1)), f, g,
    )  # fmt: skip
    torch.testing.assert_close(padded, alone)


def test_order_is_seen_with_positions_only():
    f, g = networks()
    (first, first_valid), (second, second_valid) = texts([4]), texts([4], seed=1)
    valid = (first_valid, second_valid)
    plain = pair_vector(first, second, valid, f, g)
    torch.testing.assert_close(pair_vector(first.flip(1), second, valid, f, g), plain, rtol=1e-4, atol=1e-4)
    positions = sinusoidal_positions(4, 6)
    placed = pair_vector(first + positions, second + positions, valid, f, g)
    turned = pair_vector(first.flip(1) + positions, second + positions, valid, f, g)
    assert (placed - turned).abs().max() > 0.1


def test_positions_by_hand():
    found = sinusoidal_positions(2, 4)
    expected = [[0.0, 1.0, 0.0, 1.0], [math.sin(1), math.cos(1), math.sin(0.01), math.cos(0.01)]]
    torch.testing.assert_close(found, torch.tensor(expected))
