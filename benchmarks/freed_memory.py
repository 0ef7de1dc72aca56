"""A training step on a CPU whose process keeps what it frees, as with ``--user-dir``, over one that gives it back, as fairseq's own.

Kept are also few of oneDNN's compiled products (`compat.keep_freed_memory`, `compat.limit_matrix_programs`).

Every way is a process of its own, and they take turns. A step is forward, fairseq's plain loss, backward and Adam, in
processor time. Peak memory is the process's resident set.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.table import Length, Row, at_most, spread
from benchmarks.timing import ratios, seconds
from benchmarks.training_batches import Setting, make_batches, make_student, make_task
from benchmarks.training_losses import PLAIN, make_loss, training_step
from fairseq_bert_kd import compat

ROOT = Path(__file__).parents[1]
GOAL = 1.0
EPOCHS = 7  # the first two are not timed
KEPT, GIVEN_BACK = "kept", "given-back"


def run(length: Length) -> list[Row]:
    """Rows of a small student with two dictionaries; none on a GPU, where the process is left alone."""
    if torch.cuda.is_available():
        return [Row("freed-memory", "left alone on a GPU, whose memory torch pools", "-")]
    if length is Length.QUICK:
        return measure(Setting("tiny", 1000, 200, "cpu", batches=2), rounds=1)
    precisions = ("fp32", "bf16") if compat.cpu_has_bfloat16() else ("fp32",)
    settings = [
        Setting("small", dictionary, 800, "cpu", precision, batches=2)
        for dictionary in (6_000, 30_000)
        for precision in precisions
    ]
    rounds = 7 if length is Length.FULL else 3
    # memory falls into pieces where the shapes differ, so one long training beside the short ones
    many_shapes = Setting("small", 6_000, 800, "cpu", precisions[-1], batches=40)
    return [row for setting in settings for row in measure(setting, rounds)] + measure(many_shapes, rounds=1)


def measure(setting: Setting, rounds: int) -> list[Row]:
    """Time of a step and peak memory, of one way over the other."""
    found = [{way: in_own_process(way, setting) for way in (KEPT, GIVEN_BACK)} for _ in range(rounds)]
    steps, peaks = ({way: [one[way][i] for one in found] for way in (KEPT, GIVEN_BACK)} for i in range(2))
    steps_of_all = EPOCHS * setting.batches
    where = (
        f"{setting.size}, dictionary {setting.dictionary:,}, {setting.precision}, {setting.device}, "
        f"{steps_of_all} steps of {setting.batches} shapes"
    )
    plain = f"{spread([1000 * value for value in steps[GIVEN_BACK]], ',.0f')} ms; {statistics.median(peaks[GIVEN_BACK]):,.0f} MiB"
    return [
        Row("freed-memory", f"{where}: given back, a plain step; peak memory of the process", plain),
        at_most(
            "freed-memory", f"{where}: kept, time of a step over it", ratios(steps[KEPT], steps[GIVEN_BACK]), GOAL
        ),
        Row(
            "freed-memory",
            f"{where}: kept, peak memory of the process over it",
            spread(ratios(peaks[KEPT], peaks[GIVEN_BACK]), ".2f"),
        ),
    ]  # fmt: skip


def in_own_process(way: str, setting: Setting) -> tuple[float, float]:
    """Processor seconds of a step, and the process's peak memory in MiB."""
    unset = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MALLOC_") and name != "GLIBC_TUNABLES"
    }
    words = [setting.size, setting.dictionary, setting.max_tokens, setting.precision, setting.batches]
    command = [sys.executable, "-m", "benchmarks.freed_memory", way, *map(str, words)]
    environment = unset | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    step, peak = json.loads(said)
    return step, peak


def main(way: str, size: str, dictionary: str, max_tokens: str, precision: str, batches: str) -> None:
    """Print both figures of this process, as JSON."""
    if way == KEPT:
        compat.limit_matrix_programs()
        if not compat.keep_freed_memory():
            raise RuntimeError("this C library gives freed memory back: there is nothing to compare")
    setting = Setting(size, int(dictionary), int(max_tokens), "cpu", precision, batches=int(batches))
    task = make_task(setting.dictionary)
    student, found = make_student(setting, task), make_batches(setting, task.target_dictionary)
    loss, optimizer = make_loss(PLAIN, task), torch.optim.Adam(student.parameters())

    def step(batch) -> None:
        training_step(setting, loss, student, batch)
        optimizer.step()

    times = [seconds(lambda: [step(batch) for batch in found], time.process_time) for _ in range(EPOCHS)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([statistics.median(times[2:]) / len(found), peak]))


if __name__ == "__main__":
    main(*sys.argv[1:])
