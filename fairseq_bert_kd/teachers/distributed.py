"""Several processes that share the work: one per GPU, started here or by torchrun."""

import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

# a process may wait this long for another one's shard
PATIENCE = timedelta(days=30)
USER_ERRORS = (ValueError, OSError, ImportError)


def launch(work: Callable[..., None], args: Any, cpu: bool, world_size: int | None = None) -> None:
    """Call ``work(args, rank, world_size)`` in every process.

    Under torchrun, this process is one of its processes. Otherwise one process is started per visible GPU; with one GPU
    or none, ``work`` runs in this process.

    Args:
        work: defined at the top of a module, since it may run in a new process.
        args: passed on.
        cpu: do not use GPUs.
        world_size: number of processes; by default that of torchrun, else the number of GPUs.

    Raises:
        ValueError, OSError, ImportError: a user error in ``work``, also one in a process that was started here.
    """
    launched = all(name in os.environ for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK"))
    gpus = 0 if cpu else torch.cuda.device_count()
    if world_size is None:
        world_size = int(os.environ["WORLD_SIZE"]) if launched else max(gpus, 1)
    if world_size == 1:
        work(args, 0, 1)
    elif launched:
        _work(int(os.environ["RANK"]), work, args, world_size, gpus, "env://")
    else:
        _spawn(work, args, world_size, gpus)


def wait_for_all(world_size: int) -> None:
    """A barrier; nothing with one process."""
    if world_size > 1:
        distributed.barrier()


def gathered(value: Any, world_size: int) -> list[Any]:
    """What each process gives, by rank."""
    values = [value] * world_size
    if world_size > 1:
        distributed.all_gather_object(values, value)
    return values


def _spawn(work: Callable[..., None], args: Any, world_size: int, gpus: int) -> None:
    """Run all processes from here; the first one that fails ends the others."""
    errors = multiprocessing.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        address = (Path(folder) / "rendezvous").as_uri()
        try:
            multiprocessing.spawn(_work, (work, args, world_size, gpus, address, errors), nprocs=world_size)
        except (multiprocessing.ProcessRaisedException, multiprocessing.ProcessExitedException):
            if errors.empty():
                raise
            raise errors.get() from None  # the error itself, in the place of its traceback


def _work(
    rank: int,
    work: Callable[..., None],
    args: Any,
    world_size: int,
    gpus: int,
    address: str,
    errors: Any = None,
) -> None:
    """Join the group, call ``work``, leave the group. Processes only wait for each other, so gloo does on GPUs too."""
    if gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)) % gpus)
    distributed.init_process_group(
        "gloo", init_method=address, rank=rank, world_size=world_size, timeout=PATIENCE
    )
    try:
        work(args, rank, world_size)
    except USER_ERRORS as error:
        if errors is not None:
            errors.put(error)
        raise
    finally:
        distributed.destroy_process_group()
