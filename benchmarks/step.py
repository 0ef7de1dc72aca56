"""One training step with each loss over one with fairseq's plain loss: time and peak memory.

A step is forward, loss and backward of the same student on the same batches; the optimiser, which is the same for all,
is left out. "Loss part" is output projection and loss alone, forward and backward. Every step of a loss is run next to
one of the plain loss on the same batch, before or after it in turn, and a ratio is of these two, so that a drift of the
machine cancels. Nothing is compared before our losses and gradients are found to be the authors'.

Memory is above parameters and batch, for the loss part above features too, see `benchmarks.training_memory`. Both
sides need the gradient of the projection; figures "without it" have it taken off on both.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from benchmarks.child import in_new_process
from benchmarks.table import Row, spread
from benchmarks.training_batches import Setting, make_batches, make_student, make_task
from benchmarks.training_losses import (
    CHUNKED,
    DEFAULT,
    NAMES,
    PLAIN,
    check_same_work,
    loss_step,
    make_features,
    make_loss,
    training_step,
)
from benchmarks.training_memory import Peaks, peaks, peaks_in_child

DICTIONARIES = (6_000, 30_000, 119_547)  # the last is multilingual BERT's own
LARGEST = max(DICTIONARIES)
REPEATS = {6_000: 12, 30_000: 4, LARGEST: 4}  # each batch in both orders at least
GOAL_TIME, GOAL_MEMORY = 1.02, 1.02  # of the default
GOAL_CHUNKED_TIME, GOAL_CHUNKED_MEMORY = 1.05, 4.0  # with the largest dictionary
GPU_STEPS = 5  # between two readings of the clock

Step = Callable[[int], Any]  # takes a batch's number


class Times(NamedTuple):
    """Times of one loss.

    Attributes:
        ratios: ratio over the plain loss of each pair of runs.
        plain: seconds of the plain loss's runs.
    """

    ratios: list[float]
    plain: list[float]


def run(quick: bool) -> list[Row]:
    """All rows for this machine's device."""
    if quick:
        return measure(Setting("tiny", 1000, 200, "cpu", batches=2), repeats=2, child=False)
    rows = []
    for setting in settings():
        rows += measure(setting, REPEATS[setting.dictionary] if setting.device == "cpu" else 24)
    return rows


def settings() -> Iterator[Setting]:
    """The paper's student on a GPU in three precisions, a small one on a CPU."""
    for dictionary in DICTIONARIES:
        if torch.cuda.is_available():
            for precision in ("fp32", "bf16", "fp16"):
                yield Setting("base", dictionary, 6144, "cuda", precision)
        else:
            yield Setting("small", dictionary, 800, "cpu", batches=2)


def names_for(setting: Setting) -> list[str]:
    """The losses to compare; on a CPU the largest dictionary goes without the other objectives, to save time."""
    if setting.device == "cpu" and setting.dictionary == LARGEST:
        return [name for name in NAMES if "(T=" not in name]
    return NAMES


def measure(setting: Setting, repeats: int, child: bool = True) -> list[Row]:
    """Rows for one setting.

    Args:
        setting: device, student, batches.
        repeats: pairs of runs for each loss; twice as many for those that have a goal.
        child: measure memory in a new process for each loss; otherwise figures are rough.
    """
    memory = {
        name: in_new_process(peaks_in_child, setting, name) if child else peaks(setting, name)
        for name in names_for(setting)
    }
    times = measure_times(setting, repeats)
    where = f"{setting.size}, dictionary {setting.dictionary:,}, {setting.precision}, {setting.device}"
    step = [seconds for part, _ in times.values() for seconds in part.plain]
    alone = [seconds for _, part in times.values() for seconds in part.plain]
    plain = memory[PLAIN]
    rows = [
        _row(
            f"{where}: {PLAIN}, step; loss part; peak memory of step; of loss part",
            f"{statistics.median(step) * 1000:,.0f} ms; {statistics.median(alone) * 1000:,.0f} ms; {plain.step:,.0f} MiB; "
            f"{plain.loss:,.0f} MiB ({plain.projection_gradient:,.0f} the projection's gradient)",
        )
    ]
    rows += goals(where, setting, times, memory)
    for name, (whole, part) in times.items():
        measured = (
            f"{spread(whole.ratios, '.3f')}; {spread(part.ratios, '.3f')}; {_memory(memory[name], plain)}"
        )
        rows.append(_row(f"{where}: {name} over plain: step; loss part; peak memory of both", measured))
    if setting.device == "cpu":
        shares = [found.loss_resident / found.loss for found in memory.values()]
        rows.append(
            _row(
                f"{where}: check of memory: resident over counted, loss part",
                f"{min(shares):.2f} to {max(shares):.2f}",
            )
        )
    return rows


def measure_times(setting: Setting, repeats: int) -> dict[str, tuple[Times, Times]]:
    """Times of the whole step and of the loss part, by loss except the plain one."""
    task = make_task(setting.dictionary)
    student, batches = make_student(setting, task), make_batches(setting, task.target_dictionary)
    check_same_work(setting, task, student, batches[0])
    features = [make_features(setting, student, batch) for batch in batches]

    def ways(name: str) -> tuple[Step, Step]:
        loss = make_loss(name, task)
        return (
            lambda index: training_step(setting, loss, student, batches[index]),
            lambda index: loss_step(setting, loss, student, batches[index], features[index]),
        )

    plain_step, plain_loss = ways(PLAIN)
    found = {}
    for name in names_for(setting)[1:]:
        step, loss = ways(name)
        count = repeats * (2 if name in (DEFAULT, CHUNKED) else 1)
        found[name] = (
            paired_times(setting, plain_step, step, count),
            paired_times(setting, plain_loss, loss, count),
        )
    return found


def paired_times(setting: Setting, plain: Step, other: Step, pairs: int) -> Times:
    """Times of both on each batch in turn, side by side."""
    for step in (plain, other):
        step(0)  # what is paid once
    result = Times([], [])
    for turn in range(pairs):
        index = turn % setting.batches
        # all batches in one order, then in the other
        plain_first = turn // setting.batches % 2 == 0
        order = (plain, other) if plain_first else (other, plain)
        seconds = [_seconds(setting, step, index) for step in order]
        base, compared = seconds if plain_first else reversed(seconds)
        result.plain.append(base)
        result.ratios.append(compared / base)
    return result


def _seconds(setting: Setting, step: Step, index: int) -> float:
    """Seconds of one step; on a GPU the mean of some in a row, as it works asynchronously."""
    if setting.device == "cpu":
        started = time.perf_counter()
        step(index)
        return time.perf_counter() - started
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(GPU_STEPS):
        step(index)
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000 / GPU_STEPS


def goals(
    where: str, setting: Setting, times: dict[str, tuple[Times, Times]], memory: dict[str, Peaks]
) -> list[Row]:
    """A row for each figure that has a goal."""
    plain, default, chunked = (memory[name] for name in (PLAIN, DEFAULT, CHUNKED))
    step = times[DEFAULT][0].ratios
    rows = [
        _at_most(f"{where}: {DEFAULT}, time of a step over plain", step, GOAL_TIME),
        _at_most(
            f"{where}: {DEFAULT}, peak memory of a step over plain", [default.step / plain.step], GOAL_MEMORY
        ),
        _at_most(
            f"{where}: {DEFAULT}, peak memory of the loss part over plain",
            [default.loss / plain.loss],
            GOAL_MEMORY,
        ),
    ]
    if setting.dictionary == LARGEST:
        step, less = times[CHUNKED][0].ratios, plain.loss / chunked.loss
        rows += [
            _at_most(f"{where}: {CHUNKED}, time of a step over plain", step, GOAL_CHUNKED_TIME),
            Row(
                "step", f"{where}: {CHUNKED}, peak memory of the loss part, plain's over it", f"{less:.2f} times",
                f"at least {GOAL_CHUNKED_MEMORY:g}", less >= GOAL_CHUNKED_MEMORY,
            ),
        ]  # fmt: skip
    return rows


def _at_most(what: str, ratios: list[float], goal: float) -> Row:
    return Row("step", what, spread(ratios, ".3f"), f"at most {goal:.2f}", statistics.median(ratios) <= goal)


def _row(what: str, measured: str) -> Row:
    return Row("step", what, measured, "-", None)


def _memory(found: Peaks, plain: Peaks) -> str:
    shared = plain.projection_gradient
    without = (found.loss - shared) / (plain.loss - shared)
    return f"{found.step / plain.step:.2f}; {found.loss / plain.loss:.2f} ({without:.2f} without the projection's gradient)"
