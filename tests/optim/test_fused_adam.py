"""Tests of ``fused_adam``: fairseq's Adam to rounding, whatever the state and the weights."""

import pytest
import torch
from fairseq.optim import OPTIMIZER_REGISTRY
from fairseq.optim.adam import Adam
from omegaconf import OmegaConf
from torch import nn

from fairseq_bert_kd.optim.fused_adam import FusedAdam, FusedAdamConfig, FusedAdamSteps

OPTIONS = {"lr": 0.01, "betas": (0.9, 0.98), "eps": 1e-4, "weight_decay": 0.1}
UPDATES = 6


def made_weights(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return [
        nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in [(5, 7), (3,), (1, 2, 3)]
    ]


def give_gradients(weights, update):
    """Some near epsilon, some zero, and none for the second weight in two of three updates."""
    generator = torch.Generator().manual_seed(update)
    for number, weight in enumerate(weights):
        gradient = torch.randn(weight.shape, generator=generator) * 10.0 ** (-2 * number)
        gradient[..., 0] = 0
        weight.grad = None if number == 1 and update % 3 else gradient.to(weight.dtype)


def trained(kind, weights, updates=range(UPDATES), optimizer=None):
    optimizer = optimizer or kind(weights, **OPTIONS)
    for update in updates:
        optimizer.param_groups[0]["lr"] = 0.01 * (update + 1)
        give_gradients(weights, update)
        optimizer.step()
    return optimizer


def test_the_first_step_by_hand():
    weight = nn.Parameter(torch.tensor([2.0]))
    weight.grad = torch.tensor([0.5])
    FusedAdamSteps([weight], **OPTIONS).step()
    # m = .05, v = .02 * .25; corrected by 1 - .9 and 1 - .98; epsilon before the correction of v
    root = (0.02 * 0.25) ** 0.5 + 1e-4
    expected = 2.0 * (1 - 0.01 * 0.1) - 0.01 * 0.02**0.5 / 0.1 * 0.05 / root
    assert weight.item() == pytest.approx(expected, rel=1e-6)


def test_is_fairseqs_adam():
    ours, theirs = made_weights(), made_weights()
    state = trained(FusedAdamSteps, ours).state_dict()
    expected = trained(Adam, theirs).state_dict()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    for number in state["state"]:
        assert state["state"][number]["step"] == expected["state"][number]["step"]
        for name in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(state["state"][number][name], expected["state"][number][name])
    assert state["state"][1]["step"] == UPDATES // 3


@pytest.mark.parametrize(("first", "then"), [(Adam, FusedAdamSteps), (FusedAdamSteps, Adam)])
def test_goes_on_from_the_others_state(first, then):
    whole, parts = made_weights(), made_weights()
    trained(first, whole)
    state = trained(first, parts, range(3)).state_dict()
    other = then(parts, **OPTIONS)
    other.load_state_dict(state)
    trained(then, parts, range(3, UPDATES), other)
    for one, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_takes_fairseqs_form(dtype):
    ours, theirs = made_weights(dtype), made_weights(dtype)
    trained(FusedAdamSteps, ours)
    trained(Adam, theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


def made_config(**values):
    cfg = OmegaConf.structured(FusedAdamConfig())
    cfg.tpu, cfg.lr = False, [0.25]
    for name, value in values.items():
        cfg[name] = value
    return cfg


def test_is_registered_and_keeps_fairseqs_options():
    assert OPTIMIZER_REGISTRY["fused_adam"] is FusedAdam
    weight = nn.Parameter(torch.ones(2))
    optimizer = FusedAdam(made_config(adam_betas="(0.5, 0.75)", weight_decay=0.5, adam_eps=1e-3), [weight])
    [group] = optimizer.param_groups
    assert (group["betas"], group["weight_decay"], group["eps"], group["lr"]) == (
        (0.5, 0.75),
        0.5,
        1e-3,
        0.25,
    )
    assert optimizer.supports_flat_params
    assert optimizer.supports_memory_efficient_fp16


def test_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="fused Adam does not know --fp16-adam-stats; take --optimizer adam"):
        FusedAdam(made_config(fp16_adam_stats=True), [nn.Parameter(torch.ones(2))])


def test_a_model_without_gradients_stays():
    weight = nn.Parameter(torch.ones(2))
    FusedAdamSteps([weight], **OPTIONS).step()
    assert torch.equal(weight, torch.ones(2))
