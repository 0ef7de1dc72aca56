"""The device of these tests: a GPU, or with KD_GPU_TESTS_ON_CPU=1 the CPU, to rehearse their code."""

import os
from typing import NamedTuple

import pytest


class Device(NamedTuple):
    """Where to run.

    Attributes:
        name: "cuda" or "cpu".
        options: arguments that send fairseq's commands and ours there.
    """

    name: str
    options: tuple[str, ...]


@pytest.fixture(scope="session")
def device() -> Device:
    import torch

    if torch.cuda.is_available():
        return Device("cuda", ())
    if os.environ.get("KD_GPU_TESTS_ON_CPU") == "1":
        return Device("cpu", ("--cpu",))
    pytest.skip("needs a GPU; KD_GPU_TESTS_ON_CPU=1 rehearses it on the CPU")
