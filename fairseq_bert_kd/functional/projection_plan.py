"""Which form of projection and loss fits a device, and how large its chunks are.

On a CPU the loss runs chunk by chunk, while a chunk's logits are in the cache (`chunked_projection`). On other devices, where
every operation is a launch, it runs once for the whole batch (`projected_scores`), and all positions are one chunk unless
their logits would take more than an eighth of the device's memory. The rule depends on the type of the device only, not on
what is free at the moment, so the same run takes the same form every time.
"""

from typing import NamedTuple

import torch

from fairseq_bert_kd.functional import triton_kernels
from fairseq_bert_kd.functional.student_scores import accumulate_dtype

CPU_CHUNK = 1 << 24  # logits: 64 MiB in float32
SMALL_CHUNK_BYTES = 1 << 29  # of logits on other devices, with --kd-projection chunked
MOST_CHUNKS = 16  # each adds a pass over the gradient of the projection
MEMORY_SHARE = 8
UNKNOWN_MEMORY = 16 << 30  # bytes of a device that does not tell


class ProjectionPlan(NamedTuple):
    """How projection and loss are computed.

    Attributes:
        loss_by_chunk: whether the loss runs per chunk (`chunked_projection`), not once (`projected_scores`).
        chunk_logits: logits of a chunk, at most.
        most_chunks: chunks of a batch, at most; None for no limit.
        reason: form and chunk in words.
    """

    loss_by_chunk: bool
    chunk_logits: int
    most_chunks: int | None
    reason: str

    def chunk(self, positions: int, vocab: int) -> int:
        """Positions per chunk, in chunks of about the same size; 1 at least."""
        chunks = -(-positions * vocab // self.chunk_logits)
        if self.most_chunks is not None:
            chunks = min(chunks, self.most_chunks)
        return -(-positions // max(chunks, 1)) or 1


def projection_plan(device: torch.device, dtype: torch.dtype, small_chunks: bool) -> ProjectionPlan:
    """The plan for a device.

    Args:
        device: device of the student.
        dtype: type of the logits.
        small_chunks: whether memory matters more than time (``--kd-projection chunked``).
    """
    if device.type == "cpu" and dtype != torch.float16:
        reason = f"loss chunk by chunk on the CPU, at most {CPU_CHUNK:,} logits or 1/{MOST_CHUNKS} of the batch per chunk"
        return ProjectionPlan(True, CPU_CHUNK, MOST_CHUNKS, reason)
    triton = dtype in triton_kernels.DTYPES and triton_kernels.works(device)
    return whole_batch_plan(device.type, device_memory(device), dtype, triton, small_chunks)


def whole_batch_plan(
    device: str, memory: int, dtype: torch.dtype, triton: bool, small_chunks: bool
) -> ProjectionPlan:
    """The plan for a device on which the loss runs once for the whole batch.

    Args:
        device: type of the device.
        memory: its bytes.
        dtype: type of the logits.
        triton: whether the Triton kernels are used.
        small_chunks: whether memory matters more than time, as given to `projection_plan`.
    """
    # without the kernels two buffers in the type of the sums are beside the logits, for temperatures 1 and T
    bytes_per_logit = dtype.itemsize + (0 if triton else 2 * accumulate_dtype(dtype).itemsize)
    largest = max(memory // MEMORY_SHARE // bytes_per_logit, 1)
    limit = f"1/{MEMORY_SHARE} of {memory / 2**30:.0f} GiB"
    if small_chunks and largest > SMALL_CHUNK_BYTES // dtype.itemsize:
        largest, limit = SMALL_CHUNK_BYTES // dtype.itemsize, "--kd-projection chunked"
    kernels = "Triton kernels" if triton else "PyTorch operations, no Triton,"
    return ProjectionPlan(
        False, largest, None, f"{kernels} on {device}, at most {largest:,} logits per chunk ({limit})"
    )


def device_memory(device: torch.device) -> int:
    """Bytes of memory of a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return UNKNOWN_MEMORY
