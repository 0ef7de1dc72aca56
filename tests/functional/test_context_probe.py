"""The probe on models of a few lines, each with one property that a teacher must not have."""

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from fairseq_bert_kd.functional.context_probe import (
    IGNORES_RIGHT,
    READS_BATCH,
    READS_PADDING,
    SEES_RIGHT,
    ProbeTexts,
    context_fault,
)

TEXTS = ProbeTexts(short=[1, 2, 3], neighbour=[4, 5, 6], longer=[7, 8, 9, 10, 11], changed=[1, 5, 6])
EMBEDDINGS = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))


def states(texts):
    """``(batch, longest, 4)`` and ``(batch, longest)``: embedded tokens, zeros on padding; True on tokens."""
    embedded = pad_sequence([EMBEDDINGS[text] for text in texts], batch_first=True)
    lengths = torch.tensor([len(text) for text in texts])
    return embedded, torch.arange(embedded.size(1)) < lengths[:, None]


def rows(values, inside):
    return [row[present] for row, present in zip(values, inside, strict=True)]


def both_sides(texts):
    """Each token and the mean of its text."""
    embedded, inside = states(texts)
    return rows(embedded + embedded.sum(1, keepdim=True) / inside.sum(1)[:, None, None], inside)


def from_the_left(texts):
    embedded, inside = states(texts)
    return rows(embedded.cumsum(1), inside)


def mean_with_padding(texts):
    embedded, inside = states(texts)
    return rows(embedded + embedded.mean(1, keepdim=True), inside)


def normed_over_the_batch(texts):
    """As batch normalisation in training mode does."""
    embedded, inside = states(texts)
    return rows(both_sides_of(embedded) / embedded[inside].std(), inside)


def both_sides_of(embedded):
    return embedded + embedded.sum(1, keepdim=True)


def rounded_by_the_batch(texts):
    """As dynamic quantisation does."""
    embedded, inside = states(texts)
    scale = embedded.abs().sum() / 80
    return rows((both_sides_of(embedded) / scale).round() * scale, inside)


def one_vector(texts):
    embedded, _ = states(texts)
    return list(embedded.sum(1, keepdim=True))


@pytest.mark.parametrize(
    ("outputs", "sees_right", "fault"),
    [
        (both_sides, True, None),
        (both_sides, None, None),
        (both_sides, False, SEES_RIGHT),
        (from_the_left, False, None),
        (from_the_left, None, None),
        (from_the_left, True, IGNORES_RIGHT),
        (mean_with_padding, True, READS_PADDING),
        (mean_with_padding, None, READS_PADDING),
        (normed_over_the_batch, True, READS_BATCH),
        (rounded_by_the_batch, None, READS_BATCH),
        (one_vector, None, None),
    ],
)
def test_what_a_model_depends_on_is_found(outputs, sees_right, fault):
    assert context_fault(outputs, TEXTS, sees_right) == fault


@pytest.mark.parametrize(("share", "fault"), [(1e-6, None), (1e-3, READS_PADDING)])
def test_rounding_is_no_fault(share, fault):
    def outputs(texts):
        embedded, inside = states(texts)
        noise = 1 + share * (embedded.size(1) > len(TEXTS.short))
        return rows(both_sides_of(embedded) * noise, inside)

    assert context_fault(outputs, TEXTS, True) == fault


def test_values_that_are_not_finite_are_left_to_whoever_uses_them():
    def outputs(texts):
        return [torch.full((len(text), 4), torch.nan) for text in texts]

    assert context_fault(outputs, TEXTS, True) is None


def test_values_that_padding_makes_infinite_are_a_fault():
    def outputs(texts):
        embedded, inside = states(texts)
        return rows(embedded / inside.all(), inside)

    assert context_fault(outputs, TEXTS, True) == READS_PADDING
