import math

import pytest
import torch

from fairseq_bert_kd.functional import rdrop
from fairseq_bert_kd.functional.rdrop import regularised, symmetric_divergence


def divergence_of(one, other):
    """Of one sentence, ``(positions, vocab)`` each."""
    return symmetric_divergence(torch.stack([one, other])[None])[0]


def by_autograd(one, other):
    """The paper's formula as it stands."""
    log_p, log_q = one.log_softmax(-1), other.log_softmax(-1)
    there, back = (p.exp() * (p - q) for p, q in ((log_p, log_q), (log_q, log_p)))
    return (there + back).sum(-1) / 2


def test_divergence_by_hand():
    """p = (1/2, 1/2), q = (1/4, 3/4): KL(p||q) = ln(2/sqrt 3), KL(q||p) = 3/4 ln 3 - ln 2; their mean is ln 3 / 8."""
    p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    there = math.log(2 / math.sqrt(3))
    back = 0.75 * math.log(3) - math.log(2)
    assert (there + back) / 2 == pytest.approx(math.log(3) / 8)
    assert divergence_of(p, q).item() == pytest.approx(math.log(3) / 8, rel=1e-5)
    assert divergence_of(q + 7, p - 3).item() == pytest.approx(math.log(3) / 8, rel=1e-5)  # logits


def test_half_of_the_papers_loss():
    # Eq. 4: nll_1 + nll_2 + 5 * divergence = 3 + 4 + 5 * 0.2 = 8
    assert regularised(torch.tensor(7.0), torch.tensor(0.2), 5.0).item() == pytest.approx(4.0)


@pytest.mark.parametrize("block", [1, 40, 1 << 20])
def test_gradients_of_both_passes_are_the_formulas(block, monkeypatch):
    monkeypatch.setitem(rdrop.BLOCK, "cpu", block)  # 30 logits a sentence
    generator = torch.Generator().manual_seed(1)
    passes = torch.randn(4, 2, 3, 5, dtype=torch.double, generator=generator, requires_grad=True)
    weights = torch.randn(4, 3, dtype=torch.double, generator=generator)
    ours, slow = symmetric_divergence(passes), by_autograd(passes[:, 0], passes[:, 1])
    torch.testing.assert_close(ours, slow)
    gradients = [torch.autograd.grad((weights * found).sum(), passes)[0] for found in (ours, slow)]
    torch.testing.assert_close(*gradients)
    assert (gradients[0].abs().sum(dim=(0, 2, 3)) > 0.1).all()  # neither pass is a constant for the other
    assert torch.autograd.gradcheck(symmetric_divergence, passes)


def test_nothing_of_vocabulary_size_is_kept_but_the_logits():
    passes = torch.randn(2, 2, 3, 1000, requires_grad=True) * 1
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor
    ):
        symmetric_divergence(passes)
    large = [tensor for tensor in kept if tensor.numel() >= 1000]
    assert [tensor.data_ptr() for tensor in large] == [passes.data_ptr()]


def test_views_of_a_larger_batch():
    logits = torch.randn(4, 6, 7, requires_grad=True)
    inner = logits[:, 2:]  # an ignored prefix
    divergence = symmetric_divergence(inner.unflatten(0, (-1, 2)))
    torch.testing.assert_close(divergence, by_autograd(inner[::2], inner[1::2]))
    divergence.sum().backward()
    assert (logits.grad[:, :2] == 0).all()
    assert (logits.grad[:, 2:] != 0).any()


def test_tokens_that_cannot_be_count_nothing():
    one = torch.tensor([[0.0, 0.0, -math.inf]], requires_grad=True)
    other = torch.tensor([[0.0, math.log(3), -math.inf]], requires_grad=True)
    divergence = divergence_of(one, other)
    assert divergence.item() == pytest.approx(math.log(3) / 8, rel=1e-5)
    divergence.sum().backward()
    assert torch.isfinite(one.grad).all()
    assert torch.isfinite(other.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    one, other = torch.tensor([[4.0, 2.0, -1.0]]).to(dtype), torch.tensor([[4.0, 2.5, -1.0]]).to(dtype)
    divergence = divergence_of(one, other)
    assert divergence.dtype == torch.float32
    expected = divergence_of(one.double(), other.double()).item()
    assert divergence.item() == pytest.approx(expected, rel=1e-4)
