"""Probabilities of stored rows, computed by hand."""

import math

import numpy as np
import pytest

from fairseq_bert_kd.storage.probabilities import (
    bucket_entropy,
    default_temperature,
    gold_log_probs,
    gold_probs,
    percent,
    token_probs,
)
from fairseq_bert_kd.storage.schema import empty_records
from tests.storage.small_stores import make_info

ROUNDING = 1e-3  # logits are float16
STORED = (1.0, 10.0)


def rows(**changes):
    """Two rows: 1/2, 1/4, 1/8 for tokens 4, 5, 6 at temperature 1; the gold tokens are 5, and 9 of 1/32."""
    info = make_info(**changes)
    records = empty_records(2, info)
    records["topk_ids"], records["topk_logits"] = (4, 5, 6), (0, -math.log(2), -math.log(4))
    if info.temperatures:
        records["log_normalisers"] = (math.log(2), math.log(8))
    if info.gold:
        records["gold_id"], records["gold_logit"] = (5, 9), (-math.log(2), -math.log(16))
    return records


def test_token_probs_are_those_of_the_whole_dictionary():
    assert token_probs(rows(), STORED, 1.0) == pytest.approx(
        np.array([[1 / 2, 1 / 4, 1 / 8]] * 2), rel=ROUNDING
    )
    expected = np.array([1, 2**-0.1, 2**-0.2]) / 8
    assert token_probs(rows(), STORED, 10.0)[1] == pytest.approx(expected, rel=ROUNDING)
    with pytest.raises(ValueError, match="not in tuple"):
        token_probs(rows(), STORED, 5.0)


def test_without_normalisers_the_stored_tokens_share_all():
    probs = token_probs(rows(temperatures=()), (), 1.0)
    assert probs[0] == pytest.approx([4 / 7, 2 / 7, 1 / 7], rel=ROUNDING)
    assert probs.sum(axis=1) == pytest.approx([1, 1])


def test_gold_probs_from_their_logits():
    records = rows(gold=True)
    assert gold_probs(records, STORED, 1.0) == pytest.approx([1 / 4, 1 / 32], rel=ROUNDING)
    assert gold_log_probs(records, STORED, 1.0) == pytest.approx(np.log([1 / 4, 1 / 32]), rel=ROUNDING)


def test_gold_probs_among_the_stored_tokens():
    assert gold_probs(rows(), STORED, 1.0, np.array([6, 9])) == pytest.approx(
        [1 / 8, np.nan], rel=ROUNDING, nan_ok=True
    )
    no_normalisers = rows(gold=True, temperatures=())
    assert gold_probs(no_normalisers, (), 1.0) == pytest.approx([2 / 7, np.nan], rel=ROUNDING, nan_ok=True)
    assert np.isnan(gold_probs(rows(), STORED, 1.0)).all()


def test_bucket_entropy():
    probs = np.array([[1 / 2, 1 / 4, 1 / 8], [1.0, 0.0, 0.0], [0.5, 0.5 + 1e-9, 0.0]])
    assert bucket_entropy(probs) == pytest.approx([1.75, 0, 1])  # the first with a rest of 1/8
    assert bucket_entropy(probs, rest=False) == pytest.approx([1.375, 0, 1])


@pytest.mark.parametrize(("stored", "expected"), [((), 1.0), ((0.5, 1.0), 1.0), ((2.0, 5.0), 2.0)])
def test_default_temperature(stored, expected):
    assert default_temperature(stored) == expected


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0.0 %"),
        (1, "100.0 %"),
        (0.912, "91.2 %"),
        (0.0005, "0.1 %"),
        (0.00049, "<0.1 %"),
        (1e-30, "<0.1 %"),
    ],
)
def test_percent(share, text):
    assert percent(share) == text
