"""Tests of `best_token`."""

import pytest
import torch

from fairseq_bert_kd.functional.best_token import BLOCK, best_token

WIDTHS = (3, BLOCK, 2 * BLOCK, 2 * BLOCK + 1, 3 * BLOCK - 1, 5 * BLOCK, 5 * BLOCK + 7)


@pytest.mark.parametrize("vocab", WIDTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_is_argmax_also_among_equal_logits(vocab, dtype):
    torch.manual_seed(vocab)
    logits = torch.randint(0, 9, (300, vocab)).to(dtype)  # many are equal
    logits[::3] = torch.randn(100, vocab).to(dtype)

    assert torch.equal(best_token(logits), logits.argmax(dim=1))


@pytest.mark.parametrize("vocab", WIDTHS)
def test_finds_a_best_token_at_every_place(vocab):
    assert best_token(torch.eye(vocab)).tolist() == list(range(vocab))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_rows_that_are_not_finite_come_out_as_of_argmax(value):
    logits = torch.randn(2, 4 * BLOCK + 5)
    logits[0, BLOCK + 3] = logits[0, 3 * BLOCK] = value
    logits[1] = value

    assert torch.equal(best_token(logits), logits.argmax(dim=1))


def test_columns_of_a_wider_tensor_and_no_rows():
    logits = torch.randn(20, 8 * BLOCK)

    assert torch.equal(best_token(logits[:, 5:-9]), logits[:, 5:-9].argmax(dim=1))
    assert best_token(logits[:0]).shape == (0,)
