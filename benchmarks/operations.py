"""Operations that a loss dispatches, forward and backward: on a GPU each is a kernel to launch.

Views are left out, and allocations count. A GPU's form of our loss is counted without one: the plan of a GPU, on tensors of
a CPU, with each Triton kernel counted as one operation and not run. Counts do not depend on the number of positions, except
through the number of chunks, which is that of a batch of `TOKENS`.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.table import Length, Row
from benchmarks.training_batches import Setting, make_batches, make_student, make_task
from benchmarks.training_losses import AUTHORS, CHUNKED, DEFAULT, PLAIN, loss_step, make_features, make_loss
from fairseq_bert_kd.criterions import distillation_loss
from fairseq_bert_kd.functional import student_scores, triton_kernels
from fairseq_bert_kd.functional.projection_plan import ProjectionPlan, whole_batch_plan

DICTIONARIES = (6_000, 30_000, 119_547)
PRECISIONS = ("fp32", "fp16")
TOKENS = 6_144  # of the batch whose chunks are counted
COUNTED_TOKENS, CPU_TOKENS = 200, 800  # of the batches that are run
GPU_MEMORY = 80 << 30
ADDED = 80  # operations that ours may have above fairseq's plain loss
NO_WORK = ("aten::_unsafe_view",)  # as views


class Operations(TorchDispatchMode):
    """Counts operations that are dispatched within its block.

    Attributes:
        names: their names, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and func.name() not in NO_WORK:
            self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def run(length: Length) -> list[Row]:
    """Counts for each dictionary, precision, loss and form."""
    rows = []
    for dictionary in (100,) if length is Length.QUICK else DICTIONARIES:
        for precision in PRECISIONS:
            rows += measure(dictionary, precision)
        rows.append(_cpu_row(dictionary))
    return rows


def measure(dictionary: int, precision: str) -> list[Row]:
    """Rows for one dictionary and precision."""
    where = f"dictionary {dictionary:,}, {precision}"
    plain = count(PLAIN, dictionary, precision)
    rows = [
        _row(f"{where}: {PLAIN}", plain),
        _row(f"{where}: {AUTHORS}", count(AUTHORS, dictionary, precision)),
    ]
    for name in (DEFAULT, CHUNKED):
        for triton in (True, False):
            found = count(name, dictionary, precision, triton)
            with_triton = "with" if triton else "without"
            bound = plain + ADDED if name == DEFAULT or triton else None
            rows.append(_row(f"{where}: {name}, form of a GPU {with_triton} Triton", found, bound))
    return rows


def count(name: str, dictionary: int, precision: str, triton: bool = True) -> int:
    """Operations of a loss on a GPU, output projection included."""
    setting = Setting("tiny", dictionary, COUNTED_TOKENS, "cpu", precision, batches=1)
    with form_of_a_gpu(triton, setting) as operations:
        return _count(setting, name, operations)


@contextmanager
def form_of_a_gpu(triton: bool, setting: Setting) -> Iterator[Operations]:
    """Within the block our loss takes the form of a GPU on tensors of a CPU; a Triton kernel only counts."""
    operations = Operations()

    def plan(_device: Any, dtype: torch.dtype, small_chunks: bool) -> ProjectionPlan:
        found = whole_batch_plan("cuda", GPU_MEMORY, dtype, triton, small_chunks)
        chunks = -(-TOKENS // found.chunk(TOKENS, setting.dictionary))
        return found._replace(chunk_logits=-(-COUNTED_TOKENS // chunks) * setting.dictionary)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(distillation_loss, "projection_plan", plan))
        stack.enter_context(mock.patch.object(triton_kernels, "usable", return_value=triton))
        stack.enter_context(
            mock.patch.object(
                triton_kernels, "launch", lambda kernel, *_, **__: operations.names.append(kernel.__name__)
            )
        )
        stack.enter_context(mock.patch.dict(student_scores.BLOCK, clear=True))
        yield operations


def _count(setting: Setting, name: str, operations: Operations) -> int:
    task = make_task(setting.dictionary)
    student, loss = make_student(setting, task), make_loss(name, task)
    [batch] = make_batches(setting, task.target_dictionary)
    features = make_features(setting, student, batch)
    loss_step(setting, loss, student, batch, features)  # makes what is made once
    student.zero_grad(set_to_none=True)
    features.grad = None
    operations.names.clear()
    with operations:
        loss_step(setting, loss, student, batch, features)
    return len(operations.names)


def _cpu_row(dictionary: int) -> Row:
    setting = Setting("tiny", dictionary, CPU_TOKENS, "cpu", batches=1)
    found = _count(setting, DEFAULT, Operations())
    what = f"dictionary {dictionary:,}, fp32: {DEFAULT}, form of a CPU, batch of {CPU_TOKENS} tokens, in blocks that fit its cache"
    return _row(what, found)


def _row(what: str, found: int, bound: int | None = None) -> Row:
    goal = "-" if bound is None else f"at most {bound} (plain's and {ADDED})"
    return Row("operations", what, str(found), goal, None if bound is None else found <= bound)
