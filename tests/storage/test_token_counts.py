"""Counts over a side, against counts by hand and by the slow way."""

import math
from collections import Counter

import numpy as np
import pytest

from fairseq_bert_kd.storage.fairseq_data import IndexedTokens
from fairseq_bert_kd.storage.token_counts import frequency_nll, sampled_tokens, unknown_share
from tests.storage.small_stores import write_index

UNKNOWN, END = 3, 2
EMPTY_INDEX = b"MMIDIDX\x00\x00" + bytes([1, 0, 0, 0, 0, 0, 0, 0, 8]) + bytes(8)


def side(tmp_path, sentences):
    write_index(tmp_path / "x", sentences)
    return IndexedTokens(tmp_path / "x")


def test_by_hand(tmp_path):
    tokens = side(tmp_path, [[5, UNKNOWN, 5, END], [END], [UNKNOWN, 6, END]])
    assert unknown_share(tokens, UNKNOWN) == pytest.approx(
        2 / 5
    )  # of the five that are not an end of sentence
    # 5, 3 twice, 6 once, 2 three times, of eight
    expected = -(2 * 2 / 8 * math.log(2 / 8) + 1 / 8 * math.log(1 / 8) + 3 / 8 * math.log(3 / 8))
    assert frequency_nll(tokens, symbols=10) == pytest.approx(expected)


def test_only_ends_of_sentences(tmp_path):
    tokens = side(tmp_path, [[END], [END]])
    assert unknown_share(tokens, UNKNOWN) == 0
    assert frequency_nll(tokens, symbols=10) == pytest.approx(0)


def test_nothing_at_all(tmp_path):
    for suffix in (".idx", ".bin"):
        (tmp_path / f"x{suffix}").write_bytes(EMPTY_INDEX if suffix == ".idx" else b"")
    tokens = IndexedTokens(tmp_path / "x")
    assert unknown_share(tokens, UNKNOWN) == 0
    assert frequency_nll(tokens, symbols=10) is None


def test_a_long_side_is_sampled_from_beginning_to_end(tmp_path):
    rng = np.random.default_rng(0)
    sentences = [[*rng.integers(3, 40, size=9).tolist(), END] for _ in range(3000)]
    tokens = side(tmp_path, sentences)
    blocks = sampled_tokens(tokens, most=8000)
    assert sum(map(len, blocks)) == 8000
    assert blocks[0][:10].tolist() == sentences[0]
    assert blocks[-1][-10:].tolist() == sentences[-1]
    flat = [token for sentence in sentences for token in sentence]
    counts = Counter(flat)
    exact = -sum(count / len(flat) * math.log(count / len(flat)) for count in counts.values())
    assert frequency_nll(tokens, 40) == pytest.approx(exact)
    assert frequency_nll(tokens, 40, most=8000) == pytest.approx(exact, rel=0.02)
    assert unknown_share(tokens, UNKNOWN) == pytest.approx(counts[UNKNOWN] / (len(flat) - counts[END]))
    assert unknown_share(tokens, UNKNOWN, most=8000) == pytest.approx(1 / 37, rel=0.3)
