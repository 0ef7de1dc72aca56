"""Attention in bfloat16 on a CPU, forward and backward: separate products over torch's fused kernel, by length.

`--autocast bf16` takes the products for rows of up to `LONGEST_UNFUSED` tokens (`modules.autocast.fused_attention`). Below them
stands a whole step of a student whose sentences have the lengths of talks.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.table import Length, Row, at_most, spread
from benchmarks.timing import in_turns, processor_clock, ratios
from benchmarks.training_batches import Setting, make_batches, make_student, make_task
from benchmarks.training_losses import PLAIN, make_loss, training_step
from fairseq_bert_kd.modules.autocast import LONGEST_UNFUSED

PRODUCTS, FUSED = "products", "fused"
KERNELS = {FUSED: SDPBackend.FLASH_ATTENTION, PRODUCTS: SDPBackend.MATH}
HEADS, WIDTH = 4, 64
TOKENS = 4096  # of a batch, padding counted
LENGTHS = (16, 32, 64, 128, 256, 512)
GOAL = 1.0


def run(length: Length) -> list[Row]:
    """Rows by length and of a student; none on a GPU, where torch chooses."""
    if torch.cuda.is_available():
        return [Row("attention", "left to torch on a GPU", "-")]
    if length is Length.QUICK:
        return [
            *by_length(16, 64, rounds=1),
            *in_a_student(Setting("tiny", 100, 200, "cpu", "bf16"), rounds=1),
        ]
    rounds = 7 if length is Length.FULL else 3
    rows = [row for tokens in LENGTHS for row in by_length(tokens, TOKENS, rounds)]
    return [*rows, *in_a_student(Setting("small", 6_000, 4096, "cpu", "bf16"), rounds)]


def by_length(length: int, tokens: int, rounds: int) -> list[Row]:
    """Self-attention of sentences of one length. It counts half of a row, as a source or a target does."""
    torch.manual_seed(0)
    shape = (tokens // length, HEADS, length, WIDTH)
    query, key, value = (torch.randn(shape, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))

    def step() -> None:
        output = scaled_dot_product_attention(query, key, value)
        output.backward(torch.ones_like(output))

    goal = GOAL if 2 * length <= LONGEST_UNFUSED else None
    return rows_of(f"{length} tokens, {HEADS} heads of {WIDTH}", ways_of(step), rounds, goal)


def in_a_student(setting: Setting, rounds: int) -> list[Row]:
    """A student's training step with fairseq's plain loss."""
    task = make_task(setting.dictionary)
    student, batches = make_student(setting, task), make_batches(setting, task.target_dictionary)
    loss = make_loss(PLAIN, task)

    def step() -> None:
        for batch in batches:
            training_step(setting, loss, student, batch)

    what = f"training step, {setting.size}, dictionary {setting.dictionary:,}"
    return rows_of(what, ways_of(step), rounds, GOAL)


def ways_of(step: Callable[[], Any]) -> dict[str, Callable[[], Any]]:
    """A step with each way to compute attention."""

    def way(kernel: SDPBackend) -> Callable[[], Any]:
        def run_step() -> None:
            with sdpa_kernel(kernel):
                step()

        return run_step

    return {name: way(kernel) for name, kernel in KERNELS.items()}


def rows_of(what: str, ways: Mapping[str, Callable[[], Any]], rounds: int, goal: float | None) -> list[Row]:
    """Time of the fused kernel, and of the products over it."""
    times = in_turns(ways, rounds, processor_clock("cpu"))
    found, title = ratios(times[PRODUCTS], times[FUSED]), f"{what}, bf16, cpu: products over fused, time"
    compared = Row("attention", title, spread(found, ".2f"))
    if goal is not None:
        compared = at_most("attention", title, found, goal)
    alone = spread([1000 * value for value in times[FUSED]], ".1f")
    return [Row("attention", f"{what}, bf16, cpu: fused", f"{alone} ms"), compared]
