"""Two GPUs (nccl) learn as one does with twice ``--update-freq``; by the command itself, since these tests see one GPU."""

import os
import subprocess
import sys

import pytest

from examples.workflow.engine import visible_gpus
from tests.test_distributed_training import (  # noqa: F401  a fixture
    LIMIT,
    ODD,
    TIED,
    calm_bert,
    from_log,
    student,
    teacher,
    training,
)
from tests.tiny_chain import PLUGIN


@pytest.fixture(scope="module")
def gpus():
    """Names of two GPUs, of those that were visible when the tests began."""
    given = os.environ["KD_GIVEN_GPUS"]
    with pytest.MonkeyPatch.context() as patch:
        if given == "all":
            patch.delenv("CUDA_VISIBLE_DEVICES")
        else:
            patch.setenv("CUDA_VISIBLE_DEVICES", given)
        found = visible_gpus()
    if len(found) < 2:
        pytest.skip("needs two GPUs")
    return found[:2]


def losses(data, save_dir, gpus, *arguments):
    """What ``fairseq-train`` logs as the loss of each update."""
    words = [str(word) for word in training(data, save_dir, *arguments) if word != "--cpu"]
    child = subprocess.run(
        [sys.executable, "-m", "fairseq_cli.train", *words, "--distributed-world-size", str(len(gpus))],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(gpus), "PYTHONPATH": str(PLUGIN.parent)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=LIMIT,
    )  # fmt: skip
    assert child.returncode == 0, child.stdout[-3000:]
    return [float(entry["loss"]) for entry in from_log(child.stdout)["train_inner"]]


def compare(data, folder, gpus, *arguments, tolerance):
    one = losses(data, folder / "one", gpus[:1], *arguments, "--update-freq", 2)
    two = losses(data, folder / "two", gpus, *arguments)
    assert len(two) == 9  # an odd number of batches: the last update of each epoch has one
    assert two == pytest.approx(one, abs=tolerance)


@pytest.mark.parametrize("backend", ["pytorch_ddp", "legacy_ddp"])
@pytest.mark.parametrize(("precision", "tolerance"), [((), 0.02), (("--fp16",), 0.2)], ids=["fp32", "fp16"])
def test_student(chain, tmp_path, gpus, backend, precision, tolerance):
    arguments = student(ODD, *TIED, "--ddp-backend", backend, *precision)
    compare(chain.data, tmp_path, gpus, *arguments, tolerance=tolerance)


def test_teacher(chain, calm_bert, tmp_path, gpus):  # noqa: F811
    compare(chain.data, tmp_path, gpus, *teacher(calm_bert, ODD), tolerance=0.02)
