"""The criterion in every form of projection and loss: a GPU's are taken on a CPU."""

import argparse
import contextlib
import importlib
import os
import socket
import tempfile
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from fairseq.models.transformer import TransformerModel
from fairseq.models.transformer.transformer_legacy import tiny_architecture
from torch.nn.parallel import DistributedDataParallel

from fairseq_bert_kd.batch import TEACHER
from fairseq_bert_kd.criterions import distillation_loss
from fairseq_bert_kd.functional.projection_plan import ProjectionPlan
from fairseq_bert_kd.modules.student_projection import Projection
from tests.criterions.test_distillation_loss import (
    PAD,
    VOCAB,
    Task,
    criterion,
    loss_and_gradients,
    rich_sample,  # noqa: F401
    sample,  # noqa: F401
)
from tests.tiny_chain import logged

OBJECTIVES = ("paper", "renormalised", "conditional", "tail-bucket", "sampled")
# logits per chunk of the form in which the loss runs once; None for the form in which it runs by chunk
FORMS = {"by chunk": None, "once, one chunk": 10**9, "once, chunks of two positions": 2 * VOCAB}
all_forms = pytest.mark.parametrize("form", FORMS)
once = pytest.mark.parametrize("form", [form for form in FORMS if "once" in form])


@contextlib.contextmanager
def taken(form):
    """Within the block the criterion takes a form; `by chunk` has chunks of two positions too."""
    chunk = FORMS[form]
    plan = ProjectionPlan(chunk is None, chunk or 2 * VOCAB, None, "as the test has it")
    with mock.patch.object(distillation_loss, "projection_plan", return_value=plan):
        yield


def student(**options):
    """A transformer of two layers each without dropout, in training mode."""
    sizes = {
        f"{side}_{name}": size
        for side in ("encoder", "decoder")
        for name, size in {"embed_dim": 8, "ffn_embed_dim": 8, "attention_heads": 2, "layers": 2}.items()
    }
    args = argparse.Namespace(
        **sizes, dropout=0.0, max_source_positions=16, max_target_positions=16, **options
    )
    tiny_architecture(args)
    torch.manual_seed(0)
    return TransformerModel.build_model(args, Task()).train()


@pytest.fixture
def model():
    return student(share_all_embeddings=True)


def assert_same(found, expected, **tolerance):
    """Losses, logged sums and gradients."""
    (loss, size, log, gradients), (loss_2, size_2, log_2, gradients_2) = found, expected
    torch.testing.assert_close(loss, loss_2, **tolerance)
    assert size == size_2
    assert log.keys() == log_2.keys()
    for key, value in log_2.items():
        torch.testing.assert_close(torch.as_tensor(log[key]), torch.as_tensor(value), rtol=1e-4, atol=1e-3)
    assert gradients.keys() == gradients_2.keys()
    for name, gradient in gradients_2.items():
        torch.testing.assert_close(
            gradients[name], gradient, **(tolerance or {"rtol": 1e-4, "atol": 1e-6}), msg=name
        )


@all_forms
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("prefix", [0, 1])
def test_every_form_is_the_plain_one(model, rich_sample, form, objective, prefix):  # noqa: F811
    options = {
        "kd_objective": objective, "kd_temperature": 5.0, "kd_weight": 0.7, "ignore_prefix_size": prefix,
        "report_accuracy": True, "kd_token_weight": "confidence" if objective == "sampled" else "none",
    }  # fmt: skip
    with taken(form):
        found = loss_and_gradients(criterion(**options), model, rich_sample)
    assert_same(found, loss_and_gradients(criterion(**options, kd_projection="plain"), model, rich_sample))
    assert found[2]["total"] == (7 if prefix == 0 else 5)


@all_forms
def test_several_teachers(model, rich_sample, form):  # noqa: F811
    second = {**rich_sample[TEACHER][0], "present": ~rich_sample[TEACHER][0]["present"], "weight": 3.0}
    rich_sample[TEACHER].append(second)
    with taken(form):
        found = loss_and_gradients(
            criterion(kd_objective="tail-bucket", kd_temperature=5.0), model, rich_sample
        )
    options = {"kd_objective": "tail-bucket", "kd_temperature": 5.0, "kd_projection": "plain"}
    assert_same(found, loss_and_gradients(criterion(**options), model, rich_sample))


@all_forms
def test_gradient_checkpointing(rich_sample, form):  # noqa: F811
    with taken(form):
        found, expected = (
            loss_and_gradients(criterion(), student(**options), rich_sample)
            for options in ({"checkpoint_activations": True}, {})
        )
    assert_same(found, expected)


@all_forms
def test_automatic_mixed_precision(model, rich_sample, form):  # noqa: F811
    def found(projection):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss, size, log = criterion(kd_projection=projection)(model, rich_sample)
        loss.backward()
        return loss, size, log, {name: p.grad.clone() for name, p in model.named_parameters()}

    with taken(form):
        ours = found("auto")
    eps = torch.finfo(torch.bfloat16).eps
    assert_same(ours, found("plain"), rtol=4 * eps, atol=4 * eps)


@once
@pytest.mark.parametrize("scale", [1.0, 2.0**12])
def test_float16_and_its_loss_scale(model, rich_sample, form, scale):  # noqa: F811
    model.half()

    def found(projection):
        model.zero_grad()
        loss, size, log = criterion(kd_projection=projection)(model, rich_sample)
        (loss * scale).backward()
        return loss, size, log, {name: p.grad.float() / scale for name, p in model.named_parameters()}

    with taken(form):
        ours = found("auto")
    assert ours[0].dtype == torch.float32
    assert_same(ours, found("plain"), rtol=0.02, atol=0.02)


@all_forms
def test_two_batches_before_an_update(model, rich_sample, form):  # noqa: F811
    """As ``--update-freq 2``: the gradients of both add up."""
    with taken(form):
        gradients = loss_and_gradients(criterion(), model, rich_sample)[3]
        loss, _, _ = criterion()(model, rich_sample)
        loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, 2 * gradients[name], msg=name)


@all_forms
@pytest.mark.parametrize("empty", ["only padding", "all in the prefix", "no sentence"])
def test_a_batch_without_tokens(model, rich_sample, form, empty, monkeypatch):  # noqa: F811
    options = {}
    if empty == "only padding":
        rich_sample["target"].fill_(PAD)
        rich_sample["ntokens"] = 0
    elif empty == "all in the prefix":
        options = {"ignore_prefix_size": 4}
    else:
        rich_sample["target"] = rich_sample["target"][:0]
        inputs = rich_sample["net_input"]
        rich_sample["net_input"] = {name: part[:0] for name, part in inputs.items()}
        rich_sample[TEACHER] = [
            {
                name: part[:0] if torch.is_tensor(part) else part
                for name, part in rich_sample[TEACHER][0].items()
            }
        ]
    with taken(form):
        if empty == "no sentence":  # fairseq's encoder takes none; the projection does
            features = torch.zeros(0, 4, 8, requires_grad=True)
            monkeypatch.setattr(type(model), "forward", lambda *_, **__: (features, {}))
            projection = Projection(model.decoder.output_projection.weight, None)
            monkeypatch.setattr(distillation_loss, "projection_of", lambda _: projection)
        loss, _, log = criterion(**options)(model, rich_sample)
    loss.backward()
    assert loss.item() == 0.0
    assert log["kd_positions"] == 0
    assert not model.decoder.output_projection.weight.grad.any()


@pytest.mark.parametrize("projection", ["auto", "chunked"])
def test_the_form_is_in_the_log_once(model, sample, projection):  # noqa: F811
    ours = criterion(kd_projection=projection)
    with logged("fairseq_bert_kd.criterions.distillation_loss") as messages:
        for _ in range(2):
            ours(model, sample)
    [message] = messages
    assert message.startswith(
        "output projection and loss in one: loss chunk by chunk on the CPU, at most 16,777,216 logits"
    )


def test_parts_that_no_objective_needs_are_not_decoded(model, rich_sample):  # noqa: F811
    del rich_sample[TEACHER][0]["sample_ids"]  # its other half would be decoded to no use
    rich_sample[TEACHER][0]["full_logits"] = None
    criterion()(model, rich_sample)


# --- two processes


def worker(rank, port, batch, results):
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "localhost", str(port)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.set_num_threads(1)
    found = {}
    for form in FORMS:
        wrapped = DistributedDataParallel(student(share_all_embeddings=True))
        with taken(form):
            loss, _, log = criterion()(wrapped, batch(rank))
        loss.backward()
        gradients = {name: parameter.grad for name, parameter in wrapped.module.named_parameters()}
        found[form] = gradients, sorted(log)
    torch.save(found, f"{results}/{rank}.pt")
    dist.barrier()  # neither leaves while the other one needs it
    os._exit(0)  # the destructor of gloo joins, with the GIL, a thread that may wait for the GIL


def test_two_processes_learn_as_one(rich_sample):  # noqa: F811
    importlib.import_module("torch._dynamo")  # or each process does, for a second and more

    def half(rank):
        one = slice(rank, rank + 1)
        teacher = {
            name: part[one] if torch.is_tensor(part) else part
            for name, part in rich_sample[TEACHER][0].items()
        }
        inputs = {name: part[one] for name, part in rich_sample["net_input"].items()}
        target = rich_sample["target"][one]
        return {
            "net_input": inputs,
            "target": target,
            "ntokens": int(target.ne(PAD).sum()),
            TEACHER: [teacher],
        }

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as results:
        mp.start_processes(worker, (port, half, results), nprocs=2, start_method="fork")
        first, second = (torch.load(f"{results}/{rank}.pt") for rank in range(2))
    for form in FORMS:
        (gradients, keys), (gradients_2, keys_2) = first[form], second[form]
        assert keys == keys_2  # fairseq sums by key
        with taken(form):
            alone = loss_and_gradients(criterion(), student(share_all_embeddings=True), rich_sample)[3]
        for name, gradient in alone.items():
            assert torch.equal(gradients[name], gradients_2[name])
            # a mean of two
            torch.testing.assert_close(
                2 * gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=f"{form}: {name}"
            )


def test_the_sums_of_workers_and_batches_come_over_together():
    """One transfer per type, however many batches."""
    logs = [
        {"kd_loss": torch.tensor(1.5), "kd_rows": torch.tensor(2), "ntokens": 3, "loss": torch.tensor(9.0)}
    ] * 3
    with mock.patch.object(torch, "stack", side_effect=torch.stack) as stack:
        sums = distillation_loss._sums(logs)
    assert sums == {"kd_loss": 4.5, "kd_rows": 6, "ntokens": 9}
    assert stack.call_count == 2
