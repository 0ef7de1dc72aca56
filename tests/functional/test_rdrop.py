import math

import pytest
import torch

from fairseq_bert_kd.functional.rdrop import regularised, symmetric_divergence


def test_divergence_by_hand():
    """p = (1/2, 1/2), q = (1/4, 3/4): KL(p||q) = ln(2/sqrt 3), KL(q||p) = 3/4 ln 3 - ln 2; their mean is ln 3 / 8."""
    p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    there = math.log(2 / math.sqrt(3))
    back = 0.75 * math.log(3) - math.log(2)
    assert (there + back) / 2 == pytest.approx(math.log(3) / 8)
    assert symmetric_divergence(p, q).item() == pytest.approx(math.log(3) / 8, rel=1e-5)
    assert symmetric_divergence(q + 7, p - 3).item() == pytest.approx(math.log(3) / 8, rel=1e-5)  # logits


def test_half_of_the_papers_loss():
    # Eq. 4: nll_1 + nll_2 + 5 * divergence = 3 + 4 + 5 * 0.2 = 8
    assert regularised(torch.tensor(7.0), torch.tensor(0.2), 5.0).item() == pytest.approx(4.0)


def test_gradients():
    generator = torch.Generator().manual_seed(1)
    one, other = (
        torch.randn(3, 5, dtype=torch.double, generator=generator, requires_grad=True) for _ in range(2)
    )
    assert torch.autograd.gradcheck(symmetric_divergence, (one, other))


def test_tokens_that_cannot_be_count_nothing():
    one = torch.tensor([[0.0, 0.0, -math.inf]], requires_grad=True)
    other = torch.tensor([[0.0, math.log(3), -math.inf]], requires_grad=True)
    divergence = symmetric_divergence(one, other)
    assert divergence.item() == pytest.approx(math.log(3) / 8, rel=1e-5)
    divergence.sum().backward()
    assert torch.isfinite(one.grad).all()
    assert torch.isfinite(other.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    one, other = torch.tensor([[4.0, 2.0, -1.0]]).to(dtype), torch.tensor([[4.0, 2.5, -1.0]]).to(dtype)
    divergence = symmetric_divergence(one, other)
    assert divergence.dtype == torch.float32
    expected = symmetric_divergence(one.double(), other.double()).item()
    assert divergence.item() == pytest.approx(expected, rel=1e-4)
