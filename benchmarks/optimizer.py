"""A step of ``--optimizer fused_adam`` against fairseq's Adam: operations dispatched, and time.

On a GPU each operation of fairseq's is a kernel to launch; the fused one launches a few for all weights. Gradients are random
numbers, and some steps come before, since the first ones are of roots of zeros, which are slow on a CPU.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from fairseq.optim.adam import Adam

from benchmarks.operations import Operations
from benchmarks.table import Length, Row, at_most, spread
from benchmarks.timing import in_turns, processor_clock, ratios
from benchmarks.training_batches import Setting, make_student, make_task
from fairseq_bert_kd.optim.fused_adam import FusedAdamSteps

PLAIN, FUSED = "fairseq's Adam", "fused_adam"
OPTIONS: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.98), "weight_decay": 0.01}
STEPS_BEFORE = 3


def run(length: Length) -> list[Row]:
    """Rows for each student."""
    quick = length is Length.QUICK
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = ("tiny",) if quick else ("small", "base")
    rounds = {Length.QUICK: 2, Length.SHORT: 5, Length.FULL: 9}[length]
    return [
        row for size in sizes for row in measure(Setting(size, 100 if quick else 30_000, 0, device), rounds)
    ]


def measure(setting: Setting, rounds: int) -> list[Row]:
    """Rows for one student."""
    steps = make_steps(setting)
    counts = {name: count(step) for name, step in steps.items()}
    times = in_turns(steps, rounds, processor_clock(setting.device))
    where = f"{setting.size}, dictionary {setting.dictionary:,}, {setting.device}"
    return [
        *(Row("optimizer", f"{where}: operations of {name}", str(found)) for name, found in counts.items()),
        Row(
            "optimizer",
            f"{where}: {PLAIN}; {FUSED}",
            "; ".join(f"{spread([1000 * value for value in times[name]], '.1f')} ms" for name in steps),
        ),
        at_most("optimizer", f"{where}: {FUSED} over {PLAIN}, time", ratios(times[FUSED], times[PLAIN]), 1.0),
    ]


def make_steps(setting: Setting) -> dict[str, Callable[[], Any]]:
    """A step of each optimizer, on weights of its own."""
    torch.manual_seed(1)
    student = make_student(setting, make_task(setting.dictionary))
    for weight in student.parameters():
        weight.grad = 1e-3 * torch.randn_like(weight)
    found: dict[str, Callable[[], Any]] = {}
    for name, kind in ((PLAIN, Adam), (FUSED, FusedAdamSteps)):
        own = copy.deepcopy(student)
        for weight, other in zip(own.parameters(), student.parameters(), strict=True):
            weight.grad = other.grad.clone()  # type: ignore[union-attr]
        found[name] = kind(list(own.parameters()), **OPTIONS).step
    for step in found.values():
        for _ in range(STEPS_BEFORE):
            step()
    return found


def count(step: Callable[[], Any]) -> int:
    """Operations that one step dispatches, views left out."""
    with Operations() as operations:
        step()
    return len(operations.names)
