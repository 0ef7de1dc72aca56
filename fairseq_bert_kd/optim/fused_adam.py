"""fairseq optimizer ``fused_adam``: fairseq's Adam, with torch's fused kernel for its steps."""

import math
from dataclasses import dataclass

import torch
from fairseq.optim import FairseqOptimizer, register_optimizer
from fairseq.optim.adam import Adam, FairseqAdam, FairseqAdamConfig
from torch import Tensor, nn
from torch.optim.adamw import adamw

DEVICES = ("cpu", "cuda")  # for which every torch that we support has the kernel
STATE = ("exp_avg", "exp_avg_sq")


@dataclass
class FusedAdamConfig(FairseqAdamConfig):
    """Options of fairseq's Adam."""


@register_optimizer("fused_adam", dataclass=FusedAdamConfig)
class FusedAdam(FairseqAdam):
    """fairseq's Adam, the same to rounding, in one pass over all weights.

    fairseq's own makes some ten operations for each weight of a model (it has a fused form only where NVIDIA's apex is
    installed). On a GPU starting these takes a good part of a short step; on a CPU the root of numbers near zero does.

    Args:
        cfg: options.
        params: parameters, or groups of them.

    Raises:
        ValueError: options that this form does not know.
    """

    def __init__(self, cfg, params):
        FairseqOptimizer.__init__(self, cfg)
        for option in ("fp16_adam_stats", "tpu"):
            if getattr(cfg, option, False):
                name = option.replace("_", "-")
                raise ValueError(f"torch's fused Adam does not know --{name}; take --optimizer adam with it")
        self._optimizer = FusedAdamSteps(params, **self.optimizer_config)


class FusedAdamSteps(Adam):
    """Steps of fairseq's Adam; its state is theirs, name by name."""

    @torch.no_grad()
    def step(self, closure=None):
        """One update of all weights that have a gradient. float16 and bfloat16 weights take fairseq's own form.

        Raises:
            RuntimeError: sparse gradients, as fairseq's.
        """
        weights = [
            weight for group in self.param_groups for weight in group["params"] if weight.grad is not None
        ]
        if not all(_has_kernel(weight) for weight in weights):
            return super().step(closure)
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for step, members in self._by_step(group["params"]).items():
                self._update(group, members, step)
        return loss

    def _by_step(self, weights: list[nn.Parameter]) -> dict[int, list[nn.Parameter]]:
        """The weights that have a gradient, by the number of this update for them; makes missing state."""
        found: dict[int, list[nn.Parameter]] = {}
        for weight in weights:
            if weight.grad is None:
                continue
            state = self.state[weight]
            if not state:
                state["step"] = 0
                for name in STATE:
                    state[name] = torch.zeros_like(weight)
            state["step"] += 1
            found.setdefault(state["step"], []).append(weight)
        return found

    def _update(self, group: dict, weights: list[nn.Parameter], step: int) -> None:
        """Update weights of one group whose ``step``-th update this is.

        fairseq adds epsilon before the correction of the second mean, torch after it; so torch gets it corrected.
        """
        beta1, beta2 = group["betas"]
        means, squares = ([self.state[weight][name] for weight in weights] for name in STATE)
        adamw(
            list(weights),
            [weight.grad for weight in weights],  # type: ignore[misc]
            means,
            squares,
            [],
            _counters(weights, step - 1),
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"] / math.sqrt(1 - beta2**step),
            maximize=False,
        )


def _has_kernel(weight: nn.Parameter) -> bool:
    gradient = weight.grad
    return (
        weight.device.type in DEVICES
        and weight.dtype == torch.float32
        and gradient is not None
        and gradient.dtype == torch.float32
        and gradient.layout == torch.strided
    )


def _counters(weights: list[nn.Parameter], step: int) -> list[Tensor]:
    """A counter on each weight's device, which torch adds 1 to."""
    numbers = {
        device: iter(torch.full((len(weights),), float(step), device=device).unbind())
        for device in {weight.device for weight in weights}
    }
    return [next(numbers[weight.device]) for weight in weights]
