"""Tokens per second of C-MLM training as fairseq-train does it, and against bare steps on batches that lie ready.

The model has MiniLM-L6-H384's shape (or BERT-base's with ``python -m benchmarks.teacher_training --teacher bert-base``)
with random weights, which cost what trained ones cost, and sentences are as long as those of talks; fp32 on a CPU, fp16
autocast on a GPU. Tokens are those of source and target, without special ones. Reading, masking and collating batches,
clipping and logging are part of training and not of a bare step (forward, backward, Adam).
"""

import argparse
import contextlib
import logging
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.benchmark import Timer

from benchmarks.child import in_new_process
from benchmarks.memory import peak_growth
from benchmarks.table import Row, markdown, spread
from benchmarks.teacher_side import Setup, TeacherSide, write_data

NAME = "teacher training"
GOAL = 0.85  # of the bare steps' rate
# dense fp16 with fp32 sums, from the makers' data sheets; the first name that is part of the device's
PEAK_FLOPS = {
    "H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "V100": 125e12,
}  # fmt: skip


def make_side(folder: Path, setup: Setup) -> TeacherSide:
    write_data(folder, setup)
    return TeacherSide(folder, setup)


def seconds(epoch: Callable[[], None]) -> float:
    """Time of an epoch; the timer waits for a GPU."""
    return Timer("epoch()", globals={"epoch": epoch}, num_threads=torch.get_num_threads()).timeit(1).median


def measure(setup: Setup, rounds: int) -> list[Row]:
    """Rates, their ratio and, on a GPU, the utilisation; a ratio is of one round."""
    with tempfile.TemporaryDirectory() as folder:
        side = make_side(Path(folder), setup)
        tokens, rates, ratios = sum(side.tokens), [], []
        for _ in range(rounds):  # `Timer` runs each once before
            bare, trained = seconds(side.bare_epoch), seconds(side.train_epoch)
            rates.append(tokens / trained)
            ratios.append(bare / trained)
        flops = model_flops(side) * statistics.median(rates) / tokens
    what = describe(setup)
    return [
        Row(NAME, f"{what}: tokens/s", spread(rates, ",.0f"), "-", None),
        Row(NAME, f"{what}: over bare steps, tokens/s", spread(ratios, ".2f"), f"at least {GOAL}",
            statistics.median(ratios) >= GOAL),
        utilisation(what, setup.device, flops),
    ]  # fmt: skip


def model_flops(side: Any) -> float:
    """Floating point operations of an epoch, forward and backward: 6 for a weight and token, and attention.

    All layers are counted at all positions, though the last one runs at few; the head at masked positions.
    """
    config = side.model.encoder.config
    hidden, layers = config.hidden_size, config.num_hidden_layers
    lengths = (
        torch.from_numpy(side.trainer.task.datasets["train"].sizes) + side.model.text_format.pair_overhead
    )
    weights = layers * (4 * hidden**2 + 2 * hidden * config.intermediate_size)
    head = hidden**2 + hidden * side.setup.vocabulary
    attention = 12 * layers * hidden * float((lengths**2).sum())
    return 6 * weights * float(lengths.sum()) + attention + 6 * head * sum(side.masked)


def utilisation(what: str, device: torch.device, flops: float) -> Row:
    """Model FLOPs utilisation: the share of the device's peak that the model's arithmetic takes.

    Args:
        what: what is measured.
        device: device that it runs on.
        flops: floating point operations per second.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak = next((peak for part, peak in PEAK_FLOPS.items() if part in name), None)
    if device.type != "cuda":
        measured = "skipped: no GPU"
    elif peak is None:
        measured = f"{flops / 1e12:.0f} TFLOP/s; the peak of {name} is not listed here"
    else:
        measured = f"{flops / peak:.1%} ({flops / 1e12:.0f} of {peak / 1e12:.0f} TFLOP/s)"
    return Row(NAME, f"{what}: model FLOPs utilisation", measured, "-", None)


def peak_memory(setup: Setup, threads: int) -> float:
    """MiB that an epoch takes at most above model and data; to be called in a new process."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder, quiet():
        side = make_side(Path(folder), setup)
        side.trainer.cuda_env = None  # fairseq would reset the device's high-water mark at every step
        if setup.device.type == "cuda":
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            side.train_epoch()
            return (torch.cuda.max_memory_allocated() - before) / 2**20
        with peak_growth() as grown:
            side.train_epoch()
        return grown[0]


def describe(setup: Setup) -> str:
    precision = "fp16 autocast" if setup.amp else "fp32"
    device = f"cpu ({torch.get_num_threads()} threads)" if setup.device.type == "cpu" else setup.device.type
    return f"{setup.shape}, dictionary {setup.vocabulary:,}, batches of {setup.max_tokens:,}, {precision}, {device}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without fairseq's reports."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


def run(quick: bool, shape: str = "minilm") -> list[Row]:
    """All rows; small and few when ``quick``."""
    on_gpu = torch.cuda.is_available()
    if quick:
        setup, rounds = Setup("tiny", 1000, 100, 512, amp=on_gpu), 1
    elif on_gpu:  # --max-tokens of the README
        setup, rounds = Setup(shape, 30522, 60_000, 16384, amp=True, workers=2), 5
    else:
        setup, rounds = Setup(shape, 30522, 200, 4096), 5
    with quiet():
        rows = measure(setup, rounds)
        grown = in_new_process(peak_memory, setup, torch.get_num_threads())
    return [
        *rows,
        Row(NAME, f"{describe(setup)}: peak memory above model and data", f"{grown:,.0f} MiB", "-", None),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", choices=("minilm", "bert-base"), default="minilm")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    sys.stdout.write(markdown(run(options.quick, options.teacher)) + "\n")
