"""Smoothed words: values by hand, sparse against dense, gradients."""

import math

import pytest
import torch

from fairseq_bert_kd.functional.text_smoothing import (
    check_settings,
    common_text,
    moved_mass,
    original_mass,
    replaced_text,
    smooth_embeddings,
    sparse_text,
)

EMBEDDING = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
LOGITS = torch.tensor([0.5, 0.25, 0.25]).log()
TOKENS = torch.tensor([[0]])
HERE = torch.tensor([[True]])


def stored(logits, k, temperature=1.0):
    """``(ids, logits, log-normaliser)`` of a text of one row each."""
    best, ids = logits.topk(k, dim=-1)
    return ids, best, torch.logsumexp(logits / temperature, dim=-1)


def sparse(k, weight, temperature=1.0):
    return sparse_text(*stored(LOGITS[None, None], k, temperature), HERE, weight, temperature)


def smoothed(embedding, text, tokens, to_rows=None):
    """``(smoothed positions, d)`` what a model reads in the places of the smoothed tokens."""
    rows = tokens if to_rows is None else to_rows[tokens]
    return smooth_embeddings(embedding, rows, text, tokens, to_rows=to_rows)[text.smoothed]


def slow_mixtures(embedding, text, tokens, to_rows=None):
    """The same as a sum over words."""
    words = embedding if to_rows is None else embedding[to_rows]  # (dictionary, d)
    weights, at = text.weights[text.smoothed], text.smoothed
    mixed = (weights[:, :, None] * words[text.ids[at]]).sum(dim=1)
    if text.common is not None:
        mixed = mixed + text.common_weight * (text.common @ words)
    return mixed + (1 - text.common_weight - weights.sum(dim=1))[:, None] * words[tokens[at]]


def dense_mixtures(embedding, tokens, logits, weight, temperature):
    """Mixtures over the whole dictionary, as the equation is written."""
    probs = (logits / temperature).softmax(dim=-1)
    return weight * (probs @ embedding) + (1.0 - weight) * embedding[tokens]


@pytest.mark.parametrize(
    ("weight", "temperature", "expected"),
    [(1.0, 1.0, (0.75, 0.5)), (0.5, 1.0, (0.875, 0.25)), (0.0, 1.0, (1.0, 0.0)), (1.0, 1e9, (2 / 3, 2 / 3))],
)
def test_values_by_hand(weight, temperature, expected):
    dense = dense_mixtures(EMBEDDING, TOKENS[0], LOGITS[None], weight, temperature)
    torch.testing.assert_close(dense, torch.tensor([expected]))
    torch.testing.assert_close(smoothed(EMBEDDING, sparse(3, weight, temperature), TOKENS), dense)


def test_the_mass_outside_stays_on_the_original_token():
    assert smoothed(EMBEDDING, sparse(1, 1.0), TOKENS).tolist() == [[1.0, 0.0]]
    torch.testing.assert_close(
        smoothed(EMBEDDING, sparse(1, 1.0), torch.tensor([[1]])), torch.tensor([[0.5, 0.5]])
    )


def test_without_weight_nothing_changes():
    assert torch.equal(smoothed(EMBEDDING, sparse(2, 0.0), TOKENS), EMBEDDING[TOKENS[0]])


def test_all_tokens_are_the_dense_form():
    torch.manual_seed(1)
    embedding, logits = torch.randn(50, 8), torch.randn(2, 3, 50)
    tokens = torch.randint(50, (2, 3))
    text = sparse_text(*stored(logits, 50, 2.0), torch.ones(2, 3, dtype=torch.bool), 0.7, 2.0)
    dense = dense_mixtures(embedding, tokens.flatten(), logits.flatten(0, 1), 0.7, 2.0)
    torch.testing.assert_close(smoothed(embedding, text, tokens), dense, atol=1e-6, rtol=0)


def test_gradients():
    embedding = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(1, 4, 5, dtype=torch.float64)
    tokens = torch.tensor([[0, 1, 4, 2]])
    at = torch.tensor([[True, True, False, True]])
    assert torch.autograd.gradcheck(
        lambda e: smoothed(e, sparse_text(*stored(logits, 3), at, 0.4), tokens), (embedding,)
    )
    whole = sparse_text(*stored(logits, 5), torch.ones_like(at), 0.4)
    smoothed(embedding, whole, tokens).sum().backward()
    expected = 0.4 * torch.softmax(logits[0], dim=-1).sum(dim=0) + 0.6 * torch.bincount(
        tokens[0], minlength=5
    )
    torch.testing.assert_close(embedding.grad, expected[:, None].expand(5, 3))


def test_other_positions_keep_their_embedding():
    embedding = torch.randn(3, 2)
    rows = torch.tensor([[2, 1, 0, 2], [1, 1, 0, 2]])
    plain, tokens = embedding[rows], torch.tensor([[0], [2]])
    ids, logits, normaliser = (part.expand(2, *part.shape[1:]) for part in stored(LOGITS[None, None], 2))
    for text in (
        sparse_text(ids, logits, normaliser, torch.tensor([[True], [False]]), 0.5),
        common_text(torch.tensor([0.2, 0.3, 0.5]), torch.tensor([[True], [False]]), 0.5),
    ):
        found = smooth_embeddings(embedding, rows, text, tokens, columns=torch.tensor([[2], [3]]))
        assert torch.equal(found[:, [0, 1, 3]], plain[:, [0, 1, 3]])
        assert torch.equal(found[1], plain[1])
        torch.testing.assert_close(found[0, 2], slow_mixtures(embedding, text, tokens)[0])
        nowhere = text._replace(smoothed=torch.tensor([[False], [False]]))
        assert torch.equal(smooth_embeddings(embedding, rows, nowhere, tokens), plain)


@pytest.mark.parametrize("to_rows", [None, torch.tensor([2, 0, 1, 4, 3])])
def test_one_lookup_has_the_gradients_of_two(to_rows):
    """Those of the plain embedding of all other positions, and of the mixtures."""
    torch.manual_seed(2)
    embedding = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    tokens = torch.tensor([[0, 1, 4, 2], [3, 3, 1, 1]])
    at = torch.tensor([[True, True, False, True], [False, True, False, False]])
    rows = tokens if to_rows is None else to_rows[tokens]
    text = sparse_text(*stored(torch.randn(2, 4, 5, dtype=torch.float64), 3), at, 0.4)
    weight = torch.randn(2, 4, 3, dtype=torch.float64)

    def two_lookups(e):
        plain = torch.nn.functional.embedding(rows, e)
        return plain.index_put(at.nonzero(as_tuple=True), slow_mixtures(e, text, tokens, to_rows))

    found, expected = (
        torch.autograd.grad((embed(embedding) * weight).sum(), embedding)[0]
        for embed in (lambda e: smooth_embeddings(e, rows, text, tokens, to_rows=to_rows), two_lookups)
    )
    torch.testing.assert_close(found, expected)


def test_controls():
    uniform = torch.full((3,), 1 / 3)
    text = common_text(uniform, HERE, 1.0)
    torch.testing.assert_close(smoothed(EMBEDDING, text, TOKENS), torch.full((1, 2), 2 / 3))
    assert original_mass(text, TOKENS, 1.0).item() == pytest.approx(1 / 3)


def test_rows_of_another_vocabulary():
    to_rows = torch.tensor([2, 0, 1])
    text = sparse(3, 0.5)
    torch.testing.assert_close(
        smoothed(EMBEDDING, text, TOKENS, to_rows), smoothed(EMBEDDING[to_rows], text, TOKENS)
    )


def test_a_common_distribution_over_another_vocabulary():
    """Its mean is that of the embedding's rows, two symbols of one row and one row of no symbol among them."""
    to_rows = torch.tensor([3, 0, 0])
    embedding = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    text = common_text(torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64), HERE, 0.5)
    found = smoothed(embedding, text, TOKENS, to_rows)
    torch.testing.assert_close(found[0], 0.75 * embedding[3] + 0.25 * embedding[0])
    found.sum().backward()
    assert embedding.grad[:, 0].tolist() == [0.25, 0.0, 0.0, 0.75]


def test_probability_of_the_original_token():
    assert original_mass(sparse(3, 0.5), TOKENS, 0.5).item() == pytest.approx(0.5)
    assert original_mass(sparse(1, 0.5), torch.tensor([[2]]), 0.5).item() == 0.0


def test_weight_that_is_moved():
    assert moved_mass(sparse(3, 0.5), TOKENS).item() == pytest.approx(0.5 * 0.5)
    assert moved_mass(sparse(1, 1.0), TOKENS).item() == 0.0
    assert moved_mass(sparse(2, 1.0), torch.tensor([[2]])).item() == pytest.approx(
        0.75
    )  # of 0 and one of 1, 2
    text = common_text(torch.tensor([0.2, 0.3, 0.5]), HERE, 0.5)
    assert moved_mass(text, TOKENS).item() == pytest.approx(0.5 * 0.8)


def test_what_is_not_smoothed_has_no_mass():
    tokens, at = torch.tensor([[0, 0], [2, 1]]), torch.tensor([[True, False], [False, True]])
    row = tuple(part.expand(2, 2, *part.shape[2:]) for part in stored(LOGITS[None, None], 3))
    text = sparse_text(*row, at, 0.5)
    assert moved_mass(text, tokens).tolist() == [[0.25, 0.0], [0.0, 0.375]]
    assert original_mass(text, tokens, 0.5).tolist() == [[0.5, 0.0], [0.0, 0.25]]
    text = common_text(torch.tensor([0.25, 0.25, 0.5]), at, 0.5)
    assert moved_mass(text, tokens).tolist() == [[0.375, 0.0], [0.0, 0.375]]
    assert original_mass(text, tokens, 0.5).tolist() == [[0.25, 0.0], [0.0, 0.25]]


def test_replaced_tokens():
    tokens, everywhere = torch.tensor([[0, 1]]), torch.tensor([[True, True]])
    text = replaced_text(torch.tensor([[True, False]]), 2, everywhere)
    assert smoothed(EMBEDDING, text, tokens).tolist() == [[1.0, 1.0], [0.0, 1.0]]
    assert moved_mass(text, tokens).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    "settings", [(1.1, 1.0, 1), (-0.1, 1.0, 1), (0.5, 0.0, 1), (0.5, math.inf, 1), (0.5, 1.0, -1)]
)
def test_refused_settings(settings):
    with pytest.raises(ValueError, match="--smoothing-.* must be"):
        check_settings(*settings)


@pytest.mark.parametrize("settings", [(0.0, 1.0, 1), (1.0, 0.1, 0)])
def test_settings_at_the_limits(settings):
    """Weight 0 is plain training; 0 words are all of them."""
    check_settings(*settings)
