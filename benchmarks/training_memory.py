"""Peak memory of a training step, in a process of its own.

On a CPU every byte that torch's allocator hands out or takes back is counted by its profiler, which gives the same
figure each time; that is the figure to trust. Resident memory is a check: glibc is set to map every larger buffer,
so that a freed one goes back to the system at once. It lacks what was never written to, as most of an embedding's
gradient, and has what torch's allocator does not know of. On a GPU it is ``torch.cuda.max_memory_allocated``.
"""

import ctypes
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from benchmarks.memory import peak_growth
from benchmarks.training_batches import Setting, make_batches, make_student, make_task
from benchmarks.training_losses import loss_step, make_features, make_loss, training_step

MIB = 2**20
_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_MAPPED_BYTES = 1 << 16


class Peaks(NamedTuple):
    """MiB above what was there before: parameters and batch, and for the loss alone the features.

    Attributes:
        step: forward, loss and backward.
        loss: output projection and loss alone, forward and backward.
        step_resident: growth of resident memory, CPU only, else that of ``step``.
        loss_resident: the same of ``loss``.
        projection_gradient: part of ``loss`` that is the gradient of the projection.
    """

    step: float
    loss: float
    step_resident: float
    loss_resident: float
    projection_gradient: float


def peaks_in_child(setting: Setting, name: str) -> Peaks:
    """`peaks`, to be run in a new process, whose allocator and profiler are set."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler logs every start and stop
    if setting.device == "cpu":
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
    return peaks(setting, name)


def peaks(setting: Setting, name: str) -> Peaks:
    """Peaks of one loss on the middle batch, after a step that allocates what is allocated once."""
    task = make_task(setting.dictionary)
    student, loss = make_student(setting, task), make_loss(name, task)
    batches = make_batches(setting, task.target_dictionary)
    batch = batches[len(batches) // 2]
    features = make_features(setting, student, batch)

    def forget() -> None:
        student.zero_grad(set_to_none=True)
        features.grad = None

    def peak(step: Callable[[], Any]) -> tuple[float, float]:
        step()
        forget()
        counted = _counted(setting.device, step)
        forget()
        if setting.device != "cpu":
            return counted, counted
        with peak_growth() as grown:
            step()
        forget()
        return counted, grown[0]

    whole = peak(lambda: training_step(setting, loss, student, batch))
    alone = peak(lambda: loss_step(setting, loss, student, batch, features))
    weight = student.decoder.output_projection.weight
    return Peaks(whole[0], alone[0], whole[1], alone[1], weight.numel() * weight.element_size() / MIB)


def _counted(device: str, step: Callable[[], Any]) -> float:
    """Peak of what torch's allocator has given out during a step, MiB above its start."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
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
