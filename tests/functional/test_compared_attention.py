"""Attention that is compared with a teacher's, against torch's attention beside the loss of scores."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from fairseq_bert_kd.functional import layer_matching
from fairseq_bert_kd.functional.compared_attention import (
    ReplacedAttention,
    _ComparedAttention,
    compared_attention,
)
from fairseq_bert_kd.functional.layer_matching import projected_score_mse

BATCH, HEADS, LENGTH, WIDTH, TEACHER_WIDTH = 5, 3, 7, 4, 6


def vectors(width, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, LENGTH, HEADS * width, generator=generator, requires_grad=width == WIDTH)


def by_head(values):
    return values.unflatten(2, (HEADS, -1)).transpose(1, 2)


@pytest.mark.parametrize("padded", [None, "bool", "numbers"])
@pytest.mark.parametrize("at_once", [1, 2 * HEADS * LENGTH**2, 10**6])
def test_attention_loss_and_gradients_are_those_of_both_apart(monkeypatch, padded, at_once):
    monkeypatch.setitem(layer_matching.NUMBERS_AT_ONCE, "cpu", at_once)
    own = [vectors(WIDTH, seed) for seed in range(3)]
    teacher = vectors(TEACHER_WIDTH, 3), vectors(TEACHER_WIDTH, 4)
    lengths = torch.tensor([7, 3, 1, 7, 5]) if padded else torch.full((BATCH,), LENGTH)
    valid = torch.arange(LENGTH) < lengths[:, None]
    mask = valid[:, None, None, :] if padded else None
    outer, factors = vectors(WIDTH, 5).detach().view(BATCH, LENGTH, HEADS, WIDTH), torch.rand(BATCH)

    def of(output, losses):
        total = (output.transpose(1, 2) * outer * valid[:, :, None, None]).sum() + (losses * factors).sum()
        return output.transpose(1, 2)[valid], losses, *torch.autograd.grad(total, own)

    if padded == "numbers":
        mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    found = of(*compared_attention(*map(by_head, own), teacher, valid, mask))
    attention = F.scaled_dot_product_attention(*map(by_head, own), attn_mask=mask)
    expected = of(attention, projected_score_mse(tuple(own[:2]), teacher, HEADS, valid))
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_gradients_with_dropout():
    """The same draws in every call: the gradient is that of finite differences."""
    generator = torch.Generator().manual_seed(0)
    own = [
        torch.randn(2, 2, 3, 2, dtype=torch.float64, generator=generator, requires_grad=True)
        for _ in range(3)
    ]
    others = [torch.randn(2, 2, 3, 4, dtype=torch.float64, generator=generator) for _ in range(2)]
    valid = torch.ones(2, 3, dtype=torch.bool)

    def attend(*vectors):
        torch.manual_seed(1)
        return _ComparedAttention.apply(*vectors, *others, valid, None, 0.4)

    assert torch.autograd.gradcheck(attend, own)


def test_dropout_leaves_out_its_share_and_keeps_the_mean():
    """Equal keys attend to all of 64 positions alike: with values of 1 the output is the share kept over its expectation."""
    torch.manual_seed(0)
    query = torch.zeros(8, 2, 64, 4)
    valid = torch.ones(8, 64, dtype=torch.bool)
    output, losses = compared_attention(
        query,
        query,
        torch.ones(8, 2, 64, 4),
        (torch.zeros(8, 64, 8), torch.zeros(8, 64, 8)),
        valid,
        None,
        0.25,
    )
    kept = (output * 64 * 0.75)[..., 0]
    assert_close(kept, kept.round(), rtol=0, atol=1e-3)  # a number of positions
    assert abs(kept.mean().item() / 64 - 0.75) < 0.01  # 65,536 draws: six standard deviations
    assert kept.std() > 1
    assert losses.tolist() == [0.0] * 8


def test_a_replaced_attention_gets_its_calls_by_number_inside_the_block_alone():
    seen = []

    def attend(number, query, key, value, **given):
        seen.append((number, given))
        return query + 1

    query = torch.zeros(1, 1, 2, 2)
    with ReplacedAttention(attend):
        for _ in range(2):
            output = F.scaled_dot_product_attention(query, query, query, dropout_p=0.1)
    assert output.tolist() == [[[[1, 1], [1, 1]]]]
    assert seen == [(1, {"dropout_p": 0.1}), (2, {"dropout_p": 0.1})]
    assert F.scaled_dot_product_attention(query, query, query).tolist() == query.tolist()
