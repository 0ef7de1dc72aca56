"""The loss on a GPU: forms, precisions, memory and what the log says."""

import pytest
import torch

from benchmarks.training_batches import Setting, make_batches, make_student, make_task
from benchmarks.training_losses import (
    AUTHORS,
    DEFAULT,
    OURS,
    PLAIN,
    check_same_work,
    loss_step,
    make_features,
    make_loss,
    training_step,
)
from fairseq_bert_kd.criterions import distillation_loss
from fairseq_bert_kd.functional import triton_kernels
from fairseq_bert_kd.functional.projection_plan import ProjectionPlan, projection_plan
from fairseq_bert_kd.functional.student_scores import ScoreRequest, student_scores
from tests.tiny_chain import logged

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
VOCAB = 5_003
all_precisions = pytest.mark.parametrize(
    "precision",
    ["fp32", "fp16", pytest.param("bf16", marks=pytest.mark.skipif("not torch.cuda.is_bf16_supported()"))],
)
kernels = pytest.mark.parametrize("triton", [True, False], ids=["Triton", "PyTorch"])


@pytest.fixture(autouse=True)
def with_or_without_triton(request, monkeypatch):
    """The kernels where they are; PyTorch's operations where a test sets ``triton`` to False."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if not parameters.get("triton", True):
        monkeypatch.setattr(triton_kernels, "works", lambda _: False)
    elif not triton_kernels.works(torch.device("cuda", 0)):
        pytest.skip("Triton is not installed, or does not work here")


def parts_of(precision, vocab=VOCAB, tokens=1500):
    setting = Setting("tiny", vocab, tokens, "cuda", precision, batches=1)
    task = make_task(vocab)
    student = make_student(setting, task)
    [batch] = make_batches(setting, task.target_dictionary)
    return setting, task, student, batch


@all_precisions
@kernels
@pytest.mark.parametrize("chunk", [None, 300], ids=["as planned", "chunks of 300"])
def test_losses_and_gradients_are_the_authors(monkeypatch, precision, triton, chunk):
    if chunk:
        plan = ProjectionPlan(False, chunk * VOCAB, None, "as the test has it")
        monkeypatch.setattr(distillation_loss, "projection_plan", lambda *_, **__: plan)
    setting, task, student, batch = parts_of(precision)
    check_same_work(setting, task, student, batch)


@all_precisions
@kernels
@pytest.mark.parametrize("name", OURS)
def test_every_form_is_that_of_a_cpu(precision, triton, name):
    setting, task, student, batch = parts_of(precision)
    features = make_features(setting, student, batch)
    loss = loss_step(setting, make_loss(name, task), student, batch, features)
    found = [loss, features.grad, student.decoder.output_projection.weight.grad]
    here = Setting("tiny", VOCAB, 1500, "cpu", "fp32", batches=1)
    exact = make_student(here, task)
    exact.load_state_dict({key: value.float().cpu() for key, value in student.state_dict().items()})
    [batch] = make_batches(here, task.target_dictionary)
    leaf = features.detach().float().cpu().requires_grad_()
    loss = loss_step(here, make_loss(name, task), exact, batch, leaf)
    tolerance = 1e-4 if precision == "fp32" else 3e-2
    for one, other in zip(found, [loss, leaf.grad, exact.decoder.output_projection.weight.grad], strict=True):
        assert torch.isfinite(one).all()
        assert (one.float().cpu() - other).norm() <= tolerance * other.norm()


@pytest.mark.parametrize("dtype", triton_kernels.DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("vocab", [1, 1000, 30_000, 119_547])
def test_kernels_are_the_operations(monkeypatch, dtype, temperature, vocab):
    generator = torch.Generator("cuda").manual_seed(1)
    logits = (4 * torch.randn(70, vocab, generator=generator, device="cuda")).to(dtype)
    ids = torch.randint(vocab, (70, 17), generator=generator, device="cuda")
    ids[:, 3] = ids[:, 8]
    request, results = ScoreRequest(ids, temperature, True), []
    for usable in (triton_kernels.usable, lambda _: False):
        monkeypatch.setattr(triton_kernels, "usable", usable)
        leaf = logits.clone().requires_grad_()
        token_logits, log_normaliser, tempered, total = student_scores(leaf, request)
        loss = ((log_normaliser[:, None] - token_logits) ** 2).sum() + tempered.sum()
        loss = loss + (vocab * log_normaliser - total).sum() / vocab
        loss.backward()
        results.append((token_logits, log_normaliser, tempered, total / vocab, leaf.grad))
    for one, other in zip(*results, strict=True):
        tolerance = 1.1 * torch.finfo(one.dtype).eps + 1e-5
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_more_than_two_to_the_31_logits():
    if torch.cuda.mem_get_info()[0] < 12 << 30:
        pytest.skip("needs 12 GiB")
    vocab = 1 << 15
    logits = torch.zeros((1 << 16) + 8, vocab, dtype=torch.float16, device="cuda")
    logits[-1, -1] = 1.0
    logits.requires_grad_()
    ids = torch.full((len(logits), 1), vocab - 1, device="cuda")
    scores = student_scores(logits, ScoreRequest(ids, 1.0, False))
    assert scores.logits[-1].item() == scores.logits[0].item() == 0.0
    expected = torch.tensor([vocab, vocab - 1 + torch.e]).log() - torch.tensor([0.0, 1.0])
    torch.testing.assert_close(scores.log_normaliser[[0, -1]].cpu(), expected)
    (-scores.logits[:, 0]).sum().backward()
    assert logits.grad[-1, -1] == logits.grad[0, -1] == -1.0
    assert not logits.grad[-1, :-1].any()


@all_precisions
@kernels
@pytest.mark.parametrize("vocab", [6_000, 60_000])
def test_default_needs_no_more_memory_than_the_plain_loss(precision, triton, vocab):
    setting, task, student, batch = parts_of(precision, vocab)
    peaks = {}
    for name in (PLAIN, DEFAULT, AUTHORS):
        loss = make_loss(name, task)
        for _ in range(2):
            student.zero_grad(set_to_none=True)
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            training_step(setting, loss, student, batch)
        peaks[name] = torch.cuda.max_memory_allocated()
    assert peaks[DEFAULT] <= peaks[PLAIN]


@kernels
def test_the_log_names_kernels_and_chunks(triton):
    setting, task, student, batch = parts_of("fp16")
    with logged("fairseq_bert_kd.criterions.distillation_loss") as messages:
        loss = make_loss(DEFAULT, task)
        for _ in range(2):
            training_step(setting, loss, student, batch)
    [message] = messages
    assert ("Triton kernels on cuda" in message) == triton
    assert projection_plan(torch.device("cuda"), torch.float16, small_chunks=False).reason in message


def test_nothing_waits_for_the_device():
    """A loss that reads a number from the device stops the host until all kernels before it are done."""
    setting, task, student, batch = parts_of("fp32")
    loss = make_loss(DEFAULT, task)
    features = make_features(setting, student, batch)
    loss_step(setting, loss, student, batch, features)
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss_step(setting, loss, student, batch, features)
    finally:
        torch.cuda.set_sync_debug_mode("default")
