"""Peak memory of a training step.

On a CPU every byte that torch's allocator hands out or takes back is counted by its profiler, which gives the same figure
each time. On a GPU it is ``torch.cuda.max_memory_allocated``.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from benchmarks.training_batches import Setting, make_batches, make_student, make_task
from benchmarks.training_losses import loss_step, make_features, make_loss, training_step

MIB = 2**20
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler logs every start and stop


class Peaks(NamedTuple):
    """MiB above what was there before: parameters and batch, and for the loss alone the features.

    Attributes:
        step: forward, loss and backward.
        loss: output projection and loss alone, forward and backward.
    """

    step: float
    loss: float


def peaks(setting: Setting, name: str) -> Peaks:
    """Peaks of one loss on the middle batch, after a step that allocates what is allocated once."""
    task = make_task(setting.dictionary)
    student, loss = make_student(setting, task), make_loss(name, task)
    batches = make_batches(setting, task.target_dictionary)
    batch = batches[len(batches) // 2]
    features = make_features(setting, student, batch)

    def peak(step: Callable[[], Any]) -> float:
        step()
        student.zero_grad(set_to_none=True)
        features.grad = None
        return peak_during(setting.device, step)

    return Peaks(
        step=peak(lambda: training_step(setting, loss, student, batch)),
        loss=peak(lambda: loss_step(setting, loss, student, batch, features)),
    )


def peak_during(device: str, step: Callable[[], Any]) -> float:
    """Peak of what torch's allocator has given out during a step, MiB above its start."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step()
    results: Any = profile.profiler
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    assert events, "the profiler has seen no memory"
    now = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        highest = max(highest, now)
    return highest / MIB
