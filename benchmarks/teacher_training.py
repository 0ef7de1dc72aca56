"""Tokens per second of C-MLM training against transformers' Trainer on the same model and the same batches.

All sides train a model of MiniLM-L6-H384's shape (or BERT-base's with ``--teacher bert-base``) with random weights,
which costs what trained ones cost, on sentences as long as those of talks: the same sentences in each batch, the same
masks, the same Adam, weight decay and clipping, in fp32 on a CPU and with fp16 autocast on a GPU. Tokens are those of
source and target, without special ones. Reading, masking and collating the batches is timed too.

``BertForMaskedLM`` computes logits at every position. The second opponent computes them at masked positions only, as
we do, and shows what is left when that is taken away. Before anything is timed, a tiny model without dropout takes
the same steps on every side, and its losses must agree; so must the loss of the timed models' first batch.
"""

import argparse
import contextlib
import importlib.util
import itertools
import logging
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.child import in_new_process
from benchmarks.memory import peak_growth
from benchmarks.table import Row

if TYPE_CHECKING:
    from benchmarks.fairseq_side import Setup

NAME = "teacher training"
OURS, TRAINER, MASKED = "ours", "transformers' Trainer", "the Trainer with its head at masked positions only"
GOAL = 1.1
STEP_TOLERANCE = 1e-3  # of a tiny model's loss after some steps in fp32, relative
# dense fp16 with fp32 sums, from the makers' data sheets; the first name that is part of the device's
PEAK_FLOPS = {
    "H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "V100": 125e12,
}  # fmt: skip


def make_sides(folder: Path, setup: "Setup") -> dict[str, Any]:
    """All sides by name, with equal weights."""
    from benchmarks.fairseq_side import OurSide, write_data
    from benchmarks.trainer_side import TrainerSide

    write_data(folder, setup)
    ours = OurSide(folder, setup)
    return {OURS: ours, TRAINER: TrainerSide(ours, folder, False), MASKED: TrainerSide(ours, folder, True)}


def step_difference() -> float:
    """Largest relative difference of the losses of every step of an epoch, from a tiny model without dropout.

    Raises:
        AssertionError: sides differ in losses, or in the number of masked positions.
    """
    from benchmarks.fairseq_side import Clock, Setup

    setup, losses, masked = Setup("tiny", 1000, 200, 512, dropout=0.0), {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, side in make_sides(Path(folder), setup).items():
            seen: list[tuple[float, int]] = []
            side.watch(lambda loss, count, seen=seen: seen.append((loss, count)))
            side.train_epoch(Clock(1, len(side.indices), setup.device))
            losses[name], masked[name] = zip(*seen, strict=True)
    assert masked[OURS] == masked[TRAINER] == masked[MASKED], masked
    differences = [
        abs(a - b) / a for name in (TRAINER, MASKED) for a, b in zip(losses[OURS], losses[name], strict=True)
    ]
    assert max(differences) < STEP_TOLERANCE, losses
    return max(differences)


def check_same_start(sides: dict[str, Any]) -> None:
    """The sides score the same positions, and the first batch gives the same loss."""
    ours = sides[OURS]
    for name in (TRAINER, MASKED):
        assert sides[name].masked == ours.masked, (name, sides[name].masked, ours.masked)
        expected, loss = ours.first_loss(), sides[name].first_loss()
        assert abs(loss - expected) < 1e-3 * expected, (name, loss, expected)


def measure(setup: "Setup", rounds: int, warm_up: int) -> list[Row]:
    """Rates, ratios and, on a GPU, the utilisation.

    Args:
        setup: what is trained.
        rounds: epochs of each side, which take turns; a ratio is of one round.
        warm_up: steps at the start of every epoch that are not timed.
    """
    from benchmarks.fairseq_side import Clock

    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        sides = make_sides(Path(folder), setup)
        check_same_start(sides)
        ours = sides[OURS]
        tokens = sum(ours.tokens[warm_up:])
        for round_number in range(-1, rounds):  # the first is paid for what is made once
            names = itertools.islice(itertools.cycle(sides), round_number + 1, round_number + 1 + len(sides))
            for name in names:
                clock = Clock(warm_up, len(ours.indices), setup.device)
                sides[name].train_epoch(clock)
                if round_number >= 0:
                    rates.setdefault(name, []).append(tokens / clock.seconds)
        flops_of_token = model_flops(ours) / sum(ours.tokens)
    what = describe(setup)
    rows = [Row(NAME, f"{what}: tokens/s, {name}", spread(rates[name], ",.0f"), "-", None) for name in sides]
    for name, goal in ((TRAINER, GOAL), (MASKED, None)):
        ratios = [a / b for a, b in zip(rates[OURS], rates[name], strict=True)]
        met = None if goal is None else statistics.median(ratios) >= goal
        limit = "-" if goal is None else f"at least {goal}"
        rows.append(Row(NAME, f"{what}: ours over {name}, tokens/s", spread(ratios, ".2f"), limit, met))
    return [*rows, utilisation(what, setup.device, statistics.median(rates[OURS]) * flops_of_token)]


def model_flops(ours: Any) -> float:
    """Floating point operations that an epoch needs, forward and backward: 6 for a weight and token, and attention.

    All layers are counted at all positions, though the last one runs at few; the head at masked positions.
    """
    config = ours.model.encoder.config
    hidden, layers = config.hidden_size, config.num_hidden_layers
    lengths = (
        torch.from_numpy(ours.trainer.task.datasets["train"].sizes) + ours.model.text_format.pair_overhead
    )
    weights = layers * (4 * hidden**2 + 2 * hidden * config.intermediate_size)
    head = hidden**2 + hidden * ours.setup.vocabulary
    attention = 12 * layers * hidden * float((lengths**2).sum())
    return 6 * weights * float(lengths.sum()) + attention + 6 * head * sum(ours.masked)


def utilisation(what: str, device: torch.device, flops: float) -> Row:
    """The share of the device's peak that the model's arithmetic takes.

    Args:
        what: is measured.
        device: it runs on.
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
    return Row(NAME, f"{what}: model FLOPs utilisation of ours", measured, "-", None)


def peak_memory(setup: "Setup", name: str, threads: int) -> float:
    """MiB that an epoch of one side takes at most above models and data; to be called in a new process."""
    from benchmarks.fairseq_side import Clock

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder, quiet():
        sides = make_sides(Path(folder), setup)
        side, clock = sides[name], Clock(1, len(sides[OURS].indices), setup.device)
        sides[
            OURS
        ].trainer.cuda_env = None  # fairseq would set the device's high-water mark back at every step
        if setup.device.type == "cuda":
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            side.train_epoch(clock)
            return (torch.cuda.max_memory_allocated() - before) / 2**20
        with peak_growth() as grown:
            side.train_epoch(clock)
        return grown[0]


def memory_rows(setup: "Setup", names: tuple[str, ...]) -> Iterator[Row]:
    """A row for each side, measured in a process of its own."""
    for name in names:
        grown = in_new_process(peak_memory, setup, name, torch.get_num_threads())
        what = f"{describe(setup)}: peak memory above models and data, {name}"
        yield Row(NAME, what, f"{grown:,.0f} MiB", "-", None)


def describe(setup: "Setup") -> str:
    precision = "fp16 autocast" if setup.amp else "fp32"
    device = f"cpu ({torch.get_num_threads()} threads)" if setup.device.type == "cpu" else setup.device.type
    return f"{setup.shape}, dictionary {setup.vocabulary:,}, batches of {setup.max_tokens:,}, {precision}, {device}"


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} (median of {len(values)}, {min(values):{form}} to {max(values):{form}})"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without fairseq's and the Trainer's reports."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


def run(quick: bool, shape: str = "minilm") -> list[Row]:
    """All rows; small and few when ``quick``."""
    if importlib.util.find_spec("accelerate") is None:
        return [Row(NAME, "all", "skipped: the Trainer needs accelerate (pip install accelerate)", "-", None)]
    from benchmarks.fairseq_side import Setup

    on_gpu = torch.cuda.is_available()
    if quick:
        setup, rounds, warm_up = Setup("tiny", 1000, 100, 512, amp=on_gpu), 1, 1
    elif on_gpu:  # max_tokens of the README
        setup, rounds, warm_up = Setup(shape, 30522, 60_000, 16384, amp=True, workers=2), 5, 10
    else:
        setup, rounds, warm_up = Setup(shape, 30522, 200, 4096), 5, 1
    with quiet():
        difference = step_difference()
        what = "losses of the sides at every step, tiny model without dropout: largest relative difference"
        rows = [Row(NAME, what, f"{difference:.0e}", f"below {STEP_TOLERANCE:g}", True)]
        names = (OURS, TRAINER) if quick else (OURS, TRAINER, MASKED)
        return [*rows, *measure(setup, rounds, warm_up), *memory_rows(setup, names)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", choices=("minilm", "bert-base"), default="minilm")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    for row in run(options.quick, options.teacher):
        sys.stdout.write(f"{row.what}: {row.measured} (goal {row.goal})\n")
