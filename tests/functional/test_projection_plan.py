"""Which form and chunks a device gets; a GPU's are computed without one."""

import pytest
import torch

from fairseq_bert_kd.functional.projection_plan import projection_plan, whole_batch_plan

CPU = torch.device("cpu")
GIB = 1 << 30


@pytest.mark.parametrize(
    ("positions", "vocab", "expected"),
    [
        (0, 30_000, 1),
        (1, 30_000, 1),
        (500, 30_000, 500),  # 15 million logits: one chunk
        (600, 30_000, 300),
        (4096, 32_768, 512),  # 8 chunks of 2 ** 24
        (100_000, 32_768, 6250),  # would be 196 chunks: 16
        (3, 1 << 24, 1),
    ],
)
@pytest.mark.parametrize("small", [False, True])
def test_chunks_of_a_cpu(positions, vocab, expected, small):
    plan = projection_plan(CPU, torch.float32, small)
    assert plan.loss_by_chunk
    assert plan.chunk(positions, vocab) == expected


def test_float16_on_a_cpu_takes_the_form_that_knows_the_loss_scale():
    assert not projection_plan(CPU, torch.float16, False).loss_by_chunk
    assert projection_plan(CPU, torch.bfloat16, False).loss_by_chunk


@pytest.mark.parametrize(
    ("memory", "dtype", "triton", "chunks"),
    [
        (80 * GIB, torch.float32, True, 1),
        (80 * GIB, torch.float32, False, 1),
        (16 * GIB, torch.float16, True, 1),  # 1.4 GiB of logits in 2 GiB
        (16 * GIB, torch.float32, True, 2),  # 2.7 GiB
        (16 * GIB, torch.float16, False, 4),  # and two buffers of 2.7 GiB
        (18 * GIB, torch.float64, False, 8),  # 5.5 GiB three times
    ],
)
def test_chunks_of_a_gpu_where_logits_are_over_an_eighth_of_its_memory(memory, dtype, triton, chunks):
    plan = whole_batch_plan("cuda", memory, dtype, triton, small_chunks=False)
    assert not plan.loss_by_chunk
    assert plan.chunk(6144, 119_547) == 6144 // chunks
    assert f"1/8 of {memory // GIB} GiB" in plan.reason
    assert ("no Triton" in plan.reason) != triton


@pytest.mark.parametrize(("dtype", "chunks"), [(torch.float32, 6), (torch.bfloat16, 3)])
def test_small_chunks_of_a_gpu_have_half_a_gibibyte_of_logits(dtype, chunks):
    plan = whole_batch_plan("cuda", 80 * GIB, dtype, True, small_chunks=True)
    assert plan.chunk(6144, 119_547) == 6144 // chunks
    assert "--kd-projection chunked" in plan.reason


def test_small_chunks_are_never_larger_than_what_the_memory_allows():
    for small in (False, True):
        plan = whole_batch_plan("cuda", 2 * GIB, torch.float32, True, small)
        assert plan.chunk_logits == GIB // 16
        assert plan.chunk(6144, 119_547) == 559  # 11 chunks


def test_a_chunk_has_a_position_at_least():
    plan = whole_batch_plan("cuda", 8, torch.float32, True, small_chunks=False)
    assert plan.chunk(5, 100) == 1
    assert plan.chunk(0, 100) == 1


def test_another_device_is_planned_for_without_its_memory():
    plan = projection_plan(torch.device("xpu"), torch.float32, False)
    assert not plan.loss_by_chunk
    assert "PyTorch operations, no Triton, on xpu" in plan.reason
