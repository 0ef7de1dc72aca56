"""Training of teacher, plain and distilled student in every precision, and the loss against the CPU's."""

import copy
import math

import pytest
import torch

from tests.test_chain import values
from tests.tiny_chain import PLUGIN, logged, train_student, train_teacher

PRECISIONS = {"fp32": [], "fp16": ["--fp16"], "bf16": ["--autocast", "bf16"], "amp": ["--amp"]}
SIZES = ["--encoder-embed-dim", 64, "--decoder-embed-dim", 64, "--encoder-ffn-embed-dim", 64,
         "--decoder-ffn-embed-dim", 64]  # fmt: skip
LOG = ["--log-interval", 1, "--log-format", "simple"]
UPDATES = 25
some_precisions = pytest.mark.parametrize("precision", PRECISIONS)


def options_of(precision, device):
    """On a CPU, where fairseq has float32 only, the rehearsal trains in that; autocast to bfloat16 is there too."""
    on_cpu = precision in ("fp32", "bf16")
    return [*(PRECISIONS[precision] if on_cpu or device.name == "cuda" else []), *LOG]


def check(messages, checkpoint):
    """The loss falls, and neither it nor a weight is other than finite."""
    losses, norms = values(messages, "loss"), values(messages, "gnorm")
    assert len(losses) >= UPDATES - 5  # updates whose gradients overflowed are left out
    assert all(map(math.isfinite, losses + norms))
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    weights = torch.load(checkpoint, weights_only=True, map_location="cpu")["model"]
    assert all(tensor.isfinite().all() for tensor in weights.values())


@some_precisions
def test_teacher(chain, device, tmp_path, precision):
    with logged("train_inner") as messages:
        checkpoint = train_teacher(chain.data, chain.bert, tmp_path / "teacher", *options_of(precision, device),
                                   "--lr", 3e-3, device=device.options, updates=UPDATES)  # fmt: skip
    check(messages, checkpoint)


@some_precisions
@pytest.mark.parametrize("weight", [0, 0.5], ids=["plain", "distilled"])
def test_student(chain, device, tmp_path, precision, weight):
    options = [*options_of(precision, device), *SIZES, "--kd-weight", weight, "--kd-temperature", 1]
    with logged("train_inner") as messages:
        checkpoint = train_student(
            chain.data, tmp_path / "student", *options, device=device.options, updates=UPDATES
        )
    check(messages, checkpoint)
    assert values(messages, "kd_coverage") == ([100.0] * len(values(messages, "loss")) if weight else [])


@pytest.mark.parametrize("projection", ["plain", "chunked"])
def test_loss_scaler_recovers_from_an_overflow(chain, device, tmp_path, projection):
    if device.name == "cpu":
        pytest.skip("fairseq scales losses on a GPU only")
    options = ["--fp16", "--fp16-init-scale", 2**24, *LOG, *SIZES, "--kd-projection", projection]
    with logged("train_inner") as messages, logged("fairseq.trainer") as trainer:
        train_student(chain.data, tmp_path / "student", *options, device=device.options, updates=UPDATES)
    assert any("gradient overflow detected" in message for message in trainer)
    scales = values(messages, "loss_scale")
    assert scales[-1] < 2**24
    assert all(map(math.isfinite, values(messages, "gnorm")))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_live_teacher(chain, device, tmp_path, precision):
    options = [
        *options_of(precision, device),
        *SIZES,
        "--kd-live-teacher",
        chain.teacher,
        "--kd-temperature",
        1,
    ]
    with logged("train_inner") as messages:
        checkpoint = train_student(
            chain.data, tmp_path / "student", *options, device=device.options, updates=UPDATES
        )
    check(messages, checkpoint)
    assert set(values(messages, "kd_coverage")) == {100.0}


def parts(chain, *arguments):
    """Student, criterion and a batch, as fairseq builds them from a command line."""
    from fairseq import options, tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    command = [chain.data, "--user-dir", PLUGIN, "--task", "translation_with_teacher", *SIZES, "--dropout", 0,
               "--arch", "distilled_transformer_small", "--encoder-layers", 1, "--decoder-layers", 1, "--label-smoothing",
               0.1, "--criterion", "label_smoothed_cross_entropy_with_distillation", *arguments]  # fmt: skip
    parsed = options.parse_args_and_arch(options.get_training_parser(), input_args=list(map(str, command)))
    config = convert_namespace_to_omegaconf(parsed)
    task = tasks.setup_task(config.task)
    torch.manual_seed(1)
    model, criterion = task.build_model(config.model), task.build_criterion(config.criterion)
    task.load_dataset("train")  # with the teacher rows that the criterion asks for
    dataset = task.dataset("train")
    return model.train(), criterion.train(), dataset.collater([dataset[index] for index in range(24)])


def loss_and_gradients(model, criterion, batch, device, dtype):
    from fairseq import utils

    model = copy.deepcopy(model).to(device=device, dtype=dtype)
    batch = utils.move_to_cuda(batch) if device == "cuda" else batch
    loss, size, _ = criterion(model, batch)
    (loss.float() / size).backward()  # as large as under fairseq's trainer
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return float(loss), {name: gradient.double().cpu() for name, gradient in found.items()}


@pytest.mark.parametrize("objective", ["paper", "renormalised", "tail-bucket"])
@pytest.mark.parametrize("projection", ["plain", "chunked"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.float16, 3e-2)], ids=str)
def test_loss_and_gradients_are_those_of_the_cpu(chain, device, objective, projection, dtype, tolerance):
    """The reference is the plain projection on the CPU in float32."""
    options = ["--kd-objective", objective, "--kd-temperature", 1]
    expected, gradients = loss_and_gradients(
        *parts(chain, *options, "--kd-projection", "plain"), "cpu", torch.float32
    )
    model, criterion, batch = parts(chain, *options, "--kd-projection", projection)
    loss, found = loss_and_gradients(model, criterion, batch, device.name, dtype)
    assert loss == pytest.approx(expected, rel=tolerance)
    assert found.keys() == gradients.keys()
    largest = max(float(gradient.norm()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        assert float((found[name] - gradient).norm()) <= tolerance * (
            float(gradient.norm()) + 1e-2 * largest
        ), name
