"""One training step with each loss over one with fairseq's plain loss: time and peak memory.

A step is forward, loss and backward of the same student on the same batches; the optimiser, which is the same for all, is
left out. On a CPU the time is the processor's, which other work moves little. Memory is above parameters and batch. "Loss
part" is output projection and loss alone, forward and backward; its memory is above features too.
"""

import statistics
from collections.abc import Callable, Iterator

import torch

from benchmarks.table import Length, Row, at_least, at_most, spread
from benchmarks.timing import in_turns, processor_clock, ratios
from benchmarks.training_batches import Setting, make_batches, make_student, make_task
from benchmarks.training_losses import (
    AUTHORS,
    CHUNKED,
    DEFAULT,
    OURS,
    PLAIN,
    check_same_work,
    make_loss,
    training_step,
)
from benchmarks.training_memory import peaks
from fairseq_bert_kd import compat

DICTIONARIES = (6_000, 30_000, 119_547)  # the last is multilingual BERT's own
LARGEST = max(DICTIONARIES)
TIME, STEP_MEMORY, LOSS_MEMORY = "time of a step", "peak memory of a step", "peak memory of the loss part"
GOAL_TIME, GOAL_MEMORY = 1.02, 1.00  # of the default
# with the largest dictionary: time over plain, and how many times less memory its loss part needs
GOAL_CHUNKED = {"cpu": (1.05, 4.0), "cuda": (1.00, 8.0)}


def run(length: Length) -> list[Row]:
    """Rows for this machine's device; those of every loss if the length is full."""
    if length is Length.QUICK:
        return measure(Setting("tiny", 1000, 200, "cpu", batches=2), rounds=2, every_loss=True)
    full = length is Length.FULL
    return [
        row for setting in settings() for row in measure(setting, rounds=8 if full else 3, every_loss=full)
    ]


def settings() -> Iterator[Setting]:
    """The paper's student on a GPU in three precisions, a small one on a CPU, in bfloat16 too where it has instructions for it."""
    on_cpu = ("fp32", "bf16") if compat.cpu_has_bfloat16() else ("fp32",)
    for dictionary in DICTIONARIES:
        if torch.cuda.is_available():
            for precision in ("fp32", "bf16", "fp16"):
                yield Setting("base", dictionary, 6144, "cuda", precision)
        else:
            for precision in on_cpu:
                yield Setting("small", dictionary, 800, "cpu", precision, batches=2)


def measure(setting: Setting, rounds: int, every_loss: bool) -> list[Row]:
    """Rows for one setting; with the largest dictionary only losses that have a goal, to save time."""
    largest = setting.dictionary == LARGEST
    names = [PLAIN, *OURS, AUTHORS] if every_loss and not largest else [PLAIN, DEFAULT, CHUNKED]
    chunked_time, chunked_memory = GOAL_CHUNKED[setting.device]
    times = measure_times(setting, names, rounds)
    memory = {name: peaks(setting, name) for name in names}
    plain = memory[PLAIN]
    where = f"{setting.size}, dictionary {setting.dictionary:,}, {setting.precision}, {setting.device}"
    rows = [
        Row(
            "step",
            f"{where}: {PLAIN}, step; peak memory of step; of loss part",
            f"{statistics.median(times[PLAIN]) * 1000:,.0f} ms; {plain.step:,.0f} MiB; {plain.loss:,.0f} MiB",
        )
    ]
    goals = {
        (DEFAULT, TIME): GOAL_TIME,
        (DEFAULT, STEP_MEMORY): GOAL_MEMORY,
        (DEFAULT, LOSS_MEMORY): GOAL_MEMORY,
    } | ({(CHUNKED, TIME): chunked_time} if largest else {})
    for name in names[1:]:
        figures = {
            TIME: ratios(times[name], times[PLAIN]),
            STEP_MEMORY: [memory[name].step / plain.step],
            LOSS_MEMORY: [memory[name].loss / plain.loss],
        }
        for figure, values in figures.items():
            what, goal = f"{where}: {name}, {figure} over plain", goals.get((name, figure))
            rows.append(
                Row("step", what, spread(values, ".3f"))
                if goal is None
                else at_most("step", what, values, goal, ".3f")
            )
    if largest:
        less = [plain.loss / memory[CHUNKED].loss]
        what = f"{where}: {CHUNKED}, peak memory of the loss part, plain's over it"
        rows.append(at_least("step", what, less, chunked_memory))
    return rows


def measure_times(setting: Setting, names: list[str], rounds: int) -> dict[str, list[float]]:
    """Seconds of a step on each of the batches, by loss; on a CPU of the processor."""
    task = make_task(setting.dictionary)
    student, batches = make_student(setting, task), make_batches(setting, task.target_dictionary)
    check_same_work(setting, task, student, batches[0])

    def epoch(name: str) -> Callable[[], object]:
        loss = make_loss(name, task)
        return lambda: [training_step(setting, loss, student, batch) for batch in batches]

    times = in_turns({name: epoch(name) for name in names}, rounds, processor_clock(setting.device))
    return {name: [one / len(batches) for one in found] for name, found in times.items()}
