"""Option ``--autocast``: training with torch's autocast to bfloat16, on CPUs as well as GPUs."""

import functools
import importlib.util
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from omegaconf import II
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fairseq_bert_kd import compat

logger = logging.getLogger(__name__)

DTYPES = {"none": None, "bf16": torch.bfloat16}
PRECISION = ("fp16", "bf16", "tpu", "memory_efficient_fp16", "fp16_no_flatten_grads")  # fairseq's
TEXTS = ("src_tokens", "prev_output_tokens")
LONGEST_UNFUSED = 256  # tokens of a row, source and target together: `python -m benchmarks attention`


@dataclass
class AutocastOptions(FairseqDataclass):
    """The precision of training, beside fairseq's own options."""

    autocast: ChoiceEnum(list(DTYPES)) = field(  # type: ignore[valid-type]
        default="none",
        metadata={
            "help": "bf16: matrix products of training in bfloat16 (torch.autocast); weights, optimizer and validation stay in "
            "float32. For CPUs and GPUs with instructions for it, in place of --fp16 and --amp; other GPUs are refused, other "
            "CPUs emulate it slowly"
        },
    )
    fp16: bool = II("common.fp16")
    bf16: bool = II("common.bf16")
    amp: bool = II("common.amp")
    tpu: bool = II("common.tpu")
    memory_efficient_fp16: bool = II("common.memory_efficient_fp16")
    fp16_no_flatten_grads: bool = II("common.fp16_no_flatten_grads")


class AutocastTraining:
    """Mixin for tasks with `AutocastOptions`; name it before fairseq's own class.

    The forward pass and the loss run under ``torch.autocast``, the backward pass then has the same types. bfloat16 has
    float32's range, so that no loss is scaled. Validation and decoding are in float32, as with fairseq's ``--amp``.
    """

    cfg: Any

    def build_model(self, cfg, from_checkpoint=False):
        if not from_checkpoint:
            self._check_autocast(cfg)
            self._check_precision()
        return super().build_model(cfg, from_checkpoint)  # type: ignore[misc]

    def begin_epoch(self, epoch, model):
        if self._autocast_dtype is not None:
            check_device(next(model.parameters()).device.type)
        super().begin_epoch(epoch, model)  # type: ignore[misc]

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        dtype = self._autocast_dtype
        if dtype is not None:
            device = next(model.parameters()).device.type
            cached = not (device == "cpu" and has_recurrence(model))
            criterion = under_autocast(
                criterion, device, dtype, cached, fused=fused_attention(sample, device)
            )
        return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)  # type: ignore[misc]

    def precision(self, optimizer: Any, device: torch.device) -> AbstractContextManager[Any]:
        """Context for what a task runs before fairseq's own step, in the precision that the model has in it.

        Args:
            optimizer: fairseq's, which tells ``--amp``.
            device: the model's.
        """
        if self._autocast_dtype is not None:
            return torch.autocast(device.type, self._autocast_dtype)
        if type(optimizer).__name__ == "AMPOptimizer" and device.type == "cuda":
            return torch.autocast("cuda")
        return nullcontext()

    @property
    def _autocast_dtype(self) -> torch.dtype | None:
        return DTYPES[str(self.cfg.autocast)]

    def _check_autocast(self, cfg: Any) -> None:
        if self._autocast_dtype is None:
            return
        for option in ("fp16", "bf16", "amp"):
            if self.cfg[option]:
                raise ValueError(
                    f"--{option} and --autocast bf16 are two ways to train in half precision; leave one of them out"
                )
        if getattr(cfg, "checkpoint_activations", False):
            raise ValueError(
                "--checkpoint-activations computes layers again without --autocast's types; leave one of them out"
            )

    def _check_precision(self) -> None:
        """Check for fairseq's half precision where it would end in an error of torch's.

        Raises:
            ValueError: names the option and what to take instead.
        """
        # a task that is made by hand has fairseq's own names in these places, and no values
        fp16, bf16, tpu, *plain = (getattr(self.cfg, name) is True for name in PRECISION)
        if bf16 and tpu and importlib.util.find_spec("torch_xla") is None:
            raise ValueError(
                "--bf16 is for TPUs in fairseq, and torch_xla is not installed; --autocast bf16 trains in bfloat16 on GPUs and CPUs"
            )
        if fp16 and not any(plain) and not torch.cuda.is_available():
            raise ValueError(
                "--fp16 needs a GPU, and torch finds none; leave it out, or take --autocast bf16 where the CPU has instructions for it"
            )


def has_recurrence(model: nn.Module) -> bool:
    """Whether a model multiplies the same weights at every token, as LSTMs do.

    With autocast's cache all tokens share one copy of such a weight, and autograd adds up their gradients in bfloat16, in which a
    sum of many loses several per cent. So the cache is left out on CPUs: each token has a copy of its own, for a little time and
    for memory, and the sum is float32's (ours). cuDNN's LSTMs add up by themselves.
    """
    return any(isinstance(module, (nn.RNNBase, nn.RNNCellBase)) for module in model.modules())


def fused_attention(sample: Mapping[str, Any], device: str) -> bool:
    """Whether attention is to be torch's fused kernel where it can be, and not separate products, which are in float32.

    On CPUs forward and backward pass in bfloat16 take longer by it than by the products for up to 128 tokens, up to four times as
    long for the shortest, and less from 256 on (torch 2.13). Layers with dropout of attention weights have the products anyway.

    Args:
        sample: batch of any task of ours.
        device: the model's.
    """
    if device != "cpu":
        return True
    inputs = sample.get("net_input", {})
    # (batch, tokens) each
    texts = [*inputs.get("texts", ()), *(inputs[name] for name in TEXTS if name in inputs)]
    return sum(text.size(1) for text in texts) > LONGEST_UNFUSED


def under_autocast(
    criterion: Callable[..., Any], device: str, dtype: torch.dtype, cached: bool = True, fused: bool = True
) -> Callable[..., Any]:
    """The criterion, computed under ``torch.autocast``.

    Args:
        criterion: or any other function.
        device: type of autocast's device.
        dtype: of products.
        cached: whether autocast keeps a weight's copy, see `has_recurrence`.
        fused: whether attention may be fused, see `fused_attention`.
    """

    def forward(*arguments: Any, **settings: Any) -> Any:
        attention = nullcontext() if fused else sdpa_kernel(SDPBackend.MATH)
        with torch.autocast(device, dtype, cache_enabled=cached), attention:
            return criterion(*arguments, **settings)

    return forward


@functools.cache  # the warning stands in the log once
def check_device(device: str) -> None:
    """Check that a device computes in bfloat16; warn where it only emulates it.

    Raises:
        ValueError: a GPU without bfloat16.
    """
    if device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError(
            "--autocast bf16 needs a GPU with bfloat16 (NVIDIA: compute capability 8.0 or higher), and "
            f"{torch.cuda.get_device_name()} has none; take --amp instead"
        )
    if device == "cpu" and compat.cpu_has_bfloat16() is False:
        logger.warning(
            "this CPU has no instructions for bfloat16: --autocast bf16 will probably be slower than training without it"
        )
