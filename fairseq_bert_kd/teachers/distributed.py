"""Several processes as fairseq starts them: one a GPU, under torchrun or Slurm or started here."""

import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

PATIENCE = timedelta(days=30)  # a process may wait for another one's shard; NCCL would give up after minutes
_patient_group: list[Any] = []


def launch(work: Callable[..., None], args: Any, cpu: bool, world_size: int | None = None) -> None:
    """Call ``work(args, rank, world_size)`` in every process.

    Without a launcher, one process is started for each visible GPU; on a CPU ``work`` runs right here. Under
    torchrun, this process is one of its.

    Args:
        work: defined at the top of a module, since it may run in a new process.
        args: passed on.
        cpu: do not use GPUs.
        world_size: processes; by default as many as there are GPUs, or as the launcher says.

    Raises:
        ValueError: what ``work`` raises for a mistake of the user's (ValueError, OSError or ImportError), in one process or
            in another one that was started here.
    """
    from fairseq.dataclass.configs import DistributedTrainingConfig
    from fairseq.distributed import utils as distributed_utils

    launched = all(name in os.environ for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK"))
    gpus = 0 if cpu else torch.cuda.device_count()
    if world_size is None:
        world_size = int(os.environ["WORLD_SIZE"]) if launched else max(gpus, 1)
    if world_size == 1:
        work(args, 0, 1)
        return
    cfg = OmegaConf.create(
        {
            "common": {"cpu": cpu, "tpu": False, "model_parallel_size": 1},
            "distributed_training": OmegaConf.structured(
                DistributedTrainingConfig(distributed_world_size=world_size)
            ),
        }
    )
    settings = cfg.distributed_training
    settings.distributed_backend = "nccl" if gpus else "gloo"
    if launched and not gpus:  # the host divides by the number of GPUs here
        settings.distributed_init_method = "env://"
        settings.distributed_rank = int(os.environ["RANK"])
        settings.distributed_no_spawn = True
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "mistake"  # another process's error reaches this one as a traceback only
        try:
            distributed_utils.call_main(cfg, _work_in_process, work=partial(telling, work, told), args=args)
        except Exception:
            if told.exists():
                raise ValueError(told.read_text(encoding="utf-8")) from None
            raise


def telling(work: Callable[..., None], told: Path, args: Any, rank: int, world_size: int) -> None:
    """Call ``work(args, rank, world_size)``; what a mistake of the user's says is also written to ``told``."""
    try:
        work(args, rank, world_size)
    except (ValueError, OSError, ImportError) as error:
        told.write_text(str(error), encoding="utf-8", errors="backslashreplace")
        raise


def wait_for_all(world_size: int) -> None:
    """A barrier; nothing with one process."""
    if world_size > 1:
        torch.distributed.barrier(_patient_group[0])


def _work_in_process(cfg: Any, work: Callable[..., None], args: Any) -> None:
    _patient_group.append(torch.distributed.new_group(backend="gloo", timeout=PATIENCE))
    work(args, cfg.distributed_training.distributed_rank, cfg.distributed_training.distributed_world_size)
