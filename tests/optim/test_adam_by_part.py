"""Adam with learning rates by part: values by hand, and fairseq's Adam where no factor is given."""

import pytest
import torch
from fairseq.optim.adam import FairseqAdam
from omegaconf import OmegaConf
from torch import nn

from fairseq_bert_kd.optim.adam_by_part import AdamByPart, AdamByPartConfig, name_parts, read_scales


def made_model():
    torch.manual_seed(1)
    model = nn.ModuleDict({"encoder": nn.Linear(3, 2), "head": nn.Linear(2, 2), "entities": nn.Linear(2, 1)})
    name_parts(model)
    return model


def made_optimizer(model, scales, kind=AdamByPart):
    cfg = OmegaConf.structured(AdamByPartConfig(lr_scales=scales))
    cfg.tpu, cfg.lr, cfg.weight_decay = False, [0.25], 0.01
    return kind(cfg, list(model.parameters()))


def trained(model, optimizer, updates=2):
    for update in range(updates):
        optimizer.set_lr(0.5 / (update + 1))
        optimizer.zero_grad()
        output = model["entities"](model["head"](model["encoder"](torch.ones(1, 3))))
        optimizer.backward(output.square().sum())
        optimizer.step()
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def test_each_part_has_its_rate():
    model = made_model()
    optimizer = made_optimizer(model, "entities=10,head=0.5")
    assert optimizer.get_lr() == 0.25
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.125, 2.5]
    optimizer.set_lr(0.02)
    assert optimizer.get_lr() == 0.02
    rates = {id(weight): group["lr"] for group in optimizer.param_groups for weight in group["params"]}
    by_name = {name: rates[id(weight)] for name, weight in model.named_parameters()}
    assert by_name == {
        "encoder.weight": 0.02, "encoder.bias": 0.02, "head.weight": 0.01, "head.bias": 0.01, "entities.weight": 0.2,
        "entities.bias": 0.2,
    }  # fmt: skip


def test_the_first_step_is_the_rate_times_the_sign():
    model = made_model()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer = made_optimizer(model, "entities=10")
    optimizer.optimizer.param_groups[0]["weight_decay"] = optimizer.optimizer.param_groups[1][
        "weight_decay"
    ] = 0
    after = trained(model, optimizer, updates=1)
    moved = {name: (after[name] - before[name]).abs().max().item() for name in before}
    assert moved["encoder.bias"] == pytest.approx(0.5, rel=1e-3)
    assert moved["entities.bias"] == pytest.approx(5.0, rel=1e-3)


def test_without_factors_it_is_fairseqs_adam():
    weights = []
    for kind in (AdamByPart, FairseqAdam):
        model = made_model()
        weights.append(trained(model, made_optimizer(model, "", kind)))
    for ours, theirs in zip(*(found.values() for found in weights), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_resumed_training_goes_on_as_if_never_stopped():
    whole = made_model()
    weights = trained(whole, made_optimizer(whole, "head=3"), updates=2)
    model = made_model()
    first = made_optimizer(model, "head=3")
    trained(model, first, updates=1)
    second = made_optimizer(model, "head=3")
    second.load_state_dict(first.state_dict(), {"lr": 0.1})
    assert [group["lr"] for group in second.param_groups] == [0.25, 0.75]  # until the schedule sets it
    second.set_lr(0.25)
    second.zero_grad()
    output = model["entities"](model["head"](model["encoder"](torch.ones(1, 3))))
    second.backward(output.square().sum())
    second.step()
    assert all(torch.equal(weights[name], weight) for name, weight in model.named_parameters())


def test_a_checkpoint_with_factors_of_other_parts_is_refused():
    """As many weights of the same sizes in each group: torch would give them each other's means."""
    model = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("encoder", "head", "entities")})
    name_parts(model)
    state = made_optimizer(model, "head=3").state_dict()
    with pytest.raises(
        ValueError,
        match="one learning rate for encoder, entities, --lr-scales now has one for encoder, head; give factors of the same",
    ):
        made_optimizer(model, "entities=3").load_state_dict(state)
    made_optimizer(model, "head=5").load_state_dict(state)
    for group in state["param_groups"]:
        del group["parts"]  # of a checkpoint from before they were written
    made_optimizer(model, "head=5").load_state_dict(state)


@pytest.mark.parametrize(
    "text", ["entities", "entities=", "entities=fast", "entities=0", "head=1,entities=-2", "head=inf"]
)
def test_factors_that_are_none(text):
    with pytest.raises(ValueError, match="must be PART=FACTOR with positive factors"):
        read_scales(text)


def test_parts_that_are_not_there():
    with pytest.raises(
        ValueError, match="names `stream`, the parts of this model are encoder, entities, head"
    ):
        made_optimizer(made_model(), "stream=2")
    flat = nn.ParameterList([nn.Parameter(torch.zeros(4))])
    with pytest.raises(ValueError, match="give --fp16-no-flatten-grads"):
        made_optimizer(flat, "head=2")
