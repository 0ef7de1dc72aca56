"""One vector of a sequence's hidden states, by hand."""

import math

import pytest
import torch

from fairseq_bert_kd.functional.pooling import (
    final_states,
    first_token,
    max_over_tokens,
    mean_over_tokens,
    weighted_over_tokens,
)

# two sequences of two and three tokens; padding holds what no pooling may see
HIDDEN = torch.tensor([[[-1.0, -2.0], [-3.0, -1.0], [9.0, 9.0]], [[1.0, 0.0], [2.0, 4.0], [3.0, 2.0]]])
TOKENS = torch.tensor([[1, 1, 0], [1, 1, 1]])


def test_by_hand():
    assert first_token(HIDDEN).tolist() == [[-1, -2], [1, 0]]
    assert mean_over_tokens(HIDDEN, TOKENS).tolist() == [[-2, -1.5], [2, 2]]
    assert max_over_tokens(HIDDEN, TOKENS).tolist() == [[-1, -1], [3, 4]]
    # forward half at the last token, backward half at the first one
    assert final_states(HIDDEN, TOKENS).tolist() == [[-3, -2], [3, 0]]


def test_weights_are_the_softmax_of_the_scores_of_tokens():
    scores = torch.tensor([[0.0, math.log(3), 50.0], [0.0, 0.0, -math.inf]])
    found = weighted_over_tokens(HIDDEN, scores, TOKENS)
    assert found[0].tolist() == pytest.approx([-2.5, -1.25])
    assert found[1].tolist() == pytest.approx([1.5, 2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    hidden = HIDDEN.to(dtype)
    for pooled in (
        max_over_tokens(hidden, TOKENS),
        mean_over_tokens(hidden, TOKENS),
        final_states(hidden, TOKENS),
    ):
        assert pooled.dtype == dtype
        assert torch.isfinite(pooled).all()
