"""The losses that are compared: fairseq's plain one, ours with its options, and the authors'.

Ours and fairseq's are the criterions themselves, with what they gather for the log. The authors' is the bare arithmetic
by autograd, on rows that are decoded already, which is to its advantage: one log-softmax over the dictionary, the
teacher's tokens and the label gathered from it (Chen et al. 2020, OpenNMT's ``kd_loss``; label smoothing over V - 2
with gold and padding ids included).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from torch import Tensor

from benchmarks.training_batches import PAD, K, Setting
from fairseq_bert_kd.batch import TEACHER, unpack
from fairseq_bert_kd.criterions.distillation_loss import LabelSmoothedCrossEntropyWithDistillationCriterion
from fairseq_bert_kd.criterions.distillation_options import DistillationConfig

EPSILON, WEIGHT, TEMPERATURE = 0.1, 0.5, 10.0
PLAIN, DEFAULT, CHUNKED = "fairseq's plain loss", "ours, default", "ours, chunked"
OURS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "ours, plain projection": {"kd_projection": "plain"},
    CHUNKED: {"kd_projection": "chunked"},
    "ours, renormalised (T=2)": {"kd_objective": "renormalised", "kd_temperature": 2.0},
    "ours, conditional (T=2)": {"kd_objective": "conditional", "kd_temperature": 2.0},
    "ours, tail-bucket (T=5)": {"kd_objective": "tail-bucket", "kd_temperature": 5.0},
    "ours, sampled (T=1)": {"kd_objective": "sampled", "kd_temperature": 1.0},
}
AUTHORS = "authors' loss"
SAME_WORK = [name for name in OURS if "T=" not in name]  # the same function as the authors' loss

Loss = Callable[[Any, dict[str, Any]], Tensor]


def make_loss(name: str, task: Any) -> Loss:
    """A function of a student and a batch: the loss, summed over target tokens."""
    common = {"sentence_avg": False, "label_smoothing": EPSILON}
    if name == PLAIN:
        plain = LabelSmoothedCrossEntropyCriterion(task, **common).train()
        return lambda model, batch: plain(model, batch)[0]
    if name in OURS:
        settings = {"kd_weight": WEIGHT, "kd_topk": K, "kd_temperature": TEMPERATURE} | OURS[name]
        config = DistillationConfig(**common, **settings)
        ours = LabelSmoothedCrossEntropyWithDistillationCriterion(config, task).train()
        return lambda model, batch: ours(model, batch)[0]
    return authors_loss


def authors_loss(model: Any, batch: dict[str, Any]) -> Tensor:
    """Label side and teacher side from one log-softmax."""
    logits = model(**batch["net_input"])[0].flatten(0, 1)  # (positions, vocab), padding included
    log_probs = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
    target = batch["target"].flatten()
    nll = -log_probs.gather(1, target[:, None]).squeeze(1)
    share = EPSILON / (log_probs.size(1) - 2)
    labels = ((1 - EPSILON) * nll - share * log_probs.sum(dim=1))[target.ne(PAD)].sum()
    fields = unpack(batch[TEACHER][0])
    # (positions, k), (positions,)
    ids, present = fields["topk_ids"].flatten(0, 1), fields["present"].flatten()
    probs = torch.softmax(fields["topk_logits"].flatten(0, 1) / TEMPERATURE, dim=-1)
    soft = -(probs * log_probs.gather(1, ids)).sum(dim=1)[present].sum()
    return (1 - WEIGHT) * labels + WEIGHT * soft


@contextmanager
def projection_and_loss_only(student: Any, features: Tensor) -> Iterator[None]:
    """Within the block the student returns its output layer on given features, ``(batch, tgt_len, dim)``.

    The criterions see the same model, and may take its projection apart as ever.
    """
    assert "forward" not in vars(student)
    vars(student)["forward"] = lambda features_only=False, **_: (
        features if features_only else student.decoder.output_layer(features), {},
    )  # fmt: skip
    try:
        yield
    finally:
        del vars(student)["forward"]


def make_features(setting: Setting, student: Any, batch: dict[str, Any]) -> Tensor:
    """Input of the output layer for a batch, ``(batch, tgt_len, dim)``, as a leaf that requires a gradient."""
    with torch.no_grad(), setting.autocast():
        return student(**batch["net_input"], features_only=True)[0].detach().requires_grad_()


def training_step(setting: Setting, loss: Loss, student: Any, batch: dict[str, Any]) -> Tensor:
    """Forward, loss and backward, with gradients made anew as fairseq's optimisers do; the loss."""
    student.zero_grad(set_to_none=True)
    with setting.autocast():
        value = loss(student, batch)
    value.backward()
    return value.detach()


def loss_step(setting: Setting, loss: Loss, student: Any, batch: dict[str, Any], features: Tensor) -> Tensor:
    """The same for output projection and loss alone."""
    features.grad = None
    with projection_and_loss_only(student, features):
        return training_step(setting, loss, student, batch)


def check_same_work(setting: Setting, task: Any, student: Any, batch: dict[str, Any]) -> None:
    """Raise an AssertionError unless value and gradients of our ``paper`` are the authors'.

    In half precision gradients are rounded at different places.
    """
    features, exact = make_features(setting, student, batch), setting.precision == "fp32"

    def found(name: str) -> list[Tensor]:
        """Loss, its gradient with respect to features, and with respect to the projection."""
        value = loss_step(setting, make_loss(name, task), student, batch, features)
        results = [value, features.grad, student.decoder.output_projection.weight.grad]
        assert all(result is not None for result in results)
        return results

    theirs = found(AUTHORS)
    for name in SAME_WORK:
        for ours, expected in zip(found(name), theirs, strict=True):
            _assert_close(name, ours, expected, tolerance=1e-4 if exact else 5e-2)


def _assert_close(name: str, found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Compare whole tensors, relative to the norm of what is expected."""
    error = (found.double() - expected.double()).norm() / expected.double().norm()
    assert error <= tolerance, f"{name} differs from what it is compared with by {float(error):.2g}"
