"""The Triton kernels on a CPU: by Triton's interpreter, and as far as a GPU's code. Both run in processes of their own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


def run(*words, **environment):
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )  # fmt: skip


@needs_triton
def test_kernels_by_the_interpreter():
    child = run(
        "-m", "pytest", "-q", "--no-cov", "-p", "no:cacheprovider", "tests/functional/interpreted_triton.py", TRITON_INTERPRET="1"
    )  # fmt: skip
    assert child.returncode == 0, child.stdout + child.stderr


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fairseq_bert_kd.functional import triton_kernels

sizes = {"VOCAB_BLOCK": 4096, "TOKENS": 16, "SPARSE_BLOCK": 16}
for kernel in (triton_kernels._statistics_kernel, triton_kernels._gradient_kernel):
    for logits in ("*fp16", "*bf16", "*fp32"):
        compiled = triton_kernels.compiled(kernel)
        types, constants = {}, {}
        for place, name in enumerate(compiled.arg_names):
            if name.isupper():
                types[name], constants[(place,)] = "constexpr", sizes.get(name, True)
            elif name.endswith("_ptr"):
                types[name] = {"logits_ptr": logits, "out_ptr": logits, "ids_ptr": "*i64"}.get(name, "*fp32")
            else:
                types[name] = "fp32" if name == "inverse_temperature" else "i32"
        target = GPUTarget("cuda", 80, 32)
        found = triton.compile(ASTSource(compiled, types, constants), target=target, options={"num_warps": 8})
        assert ".target sm_80" in found.asm["ptx"]
"""


@needs_triton
def test_kernels_compile_for_a_gpu(tmp_path):
    child = run("-c", COMPILE, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    assert child.returncode == 0, child.stderr


FAIL = """
import logging

import torch

from fairseq_bert_kd.functional import triton_kernels
from fairseq_bert_kd.functional.student_scores import ScoreRequest, student_scores

logging.basicConfig(format="%(message)s")

def compiled(kernel):
    raise RuntimeError("no C compiler\\nand more")

triton_kernels.compiled = compiled
logits = torch.zeros(2, 3)
for _ in range(2):
    scores = student_scores(logits, ScoreRequest(torch.zeros(2, 1).long(), 1.0, False))
    assert torch.equal(scores.log_normaliser, torch.tensor(3.0).log().expand(2))
"""


@needs_triton
def test_where_triton_does_not_work_the_log_says_so_once():
    child = run("-c", FAIL, TRITON_INTERPRET="1")
    assert child.returncode == 0, child.stderr
    message = "Triton does not work on cpu, PyTorch's operations are used: RuntimeError: no C compiler"
    assert child.stderr.splitlines() == [message]


def test_the_kernels_file_needs_no_triton():
    code = (
        "import sys; import fairseq_bert_kd.functional.student_scores as s; sys.exit('triton' in sys.modules)"
    )
    assert run("-c", code).returncode == 0
