"""Criterion ``sentence_representation`` on two-number vectors."""

import math
from types import SimpleNamespace

import pytest
import torch
from fairseq.logging import metrics

from fairseq_bert_kd.batch import VECTORS, as_bits, from_bits
from fairseq_bert_kd.criterions.sentence_representation import SentenceRepresentationCriterion as Criterion

STUDENT = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
TEACHER = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float16)
COSINES = [1 - math.sqrt(0.5), 0.0]
SQUARES = [0.5, 0.5]


def model(vectors):
    return lambda **_: (None, {"vectors": (vectors,)})


def sample(teacher=TEACHER):
    return {"net_input": {}, VECTORS: as_bits(teacher), "ntokens": 7}


def criterion(loss="auto", weight=0.0, similarity="cosine"):
    return Criterion(SimpleNamespace(similarity=similarity), loss, weight)


@pytest.mark.parametrize(
    ("loss", "similarity", "expected"),
    [
        ("auto", "cosine", COSINES), ("auto", "", SQUARES), ("cosine", "", COSINES), ("mse", "cosine", SQUARES),
        ("both", "", [a + b for a, b in zip(COSINES, SQUARES, strict=True)]),
    ],
)  # fmt: skip
def test_losses_are_summed_over_sentences(loss, similarity, expected):
    made = criterion(loss, similarity=similarity)
    found, size, _ = made(model(STUDENT), sample())
    assert found.item() == pytest.approx(sum(expected))
    assert size == 2
    rows, _, _ = made(model(STUDENT), sample(), reduce=False)
    assert rows.tolist() == pytest.approx(expected)


def test_relations_count_once_for_each_sentence():
    """The student's vectors are at a right angle, the teacher's at 45 degrees: a squared difference of one half."""
    found, _, log = criterion("mse", 0.2)(model(STUDENT), sample())
    assert found.item() == pytest.approx(sum(SQUARES) + 2 * 0.2 * 0.5)
    assert log["relational_loss"].item() == pytest.approx(2 * 0.5)


def test_every_batch_logs_the_same_types():
    """fairseq's workers add up tensors and numbers apart, and hang where one has a number and the other a tensor."""
    both = [criterion(weight=0.1)(model(STUDENT[:n]), sample(TEACHER[:n]))[2] for n in (1, 2)]
    one, two = ({name: type(value) for name, value in log.items()} for log in both)
    assert one == two
    assert both[0]["random_cosine"].item() == 0


def test_what_is_logged():
    logs = [criterion()(model(STUDENT), sample())[2], criterion()(model(STUDENT[:1]), sample(TEACHER[:1]))[2]]
    with metrics.aggregate(new_root=True) as aggregated:
        Criterion.reduce_metrics(logs)
    found = {name: aggregated[name].avg for name in aggregated}
    assert found["loss"] == found["cosine_loss"] == pytest.approx((2 * COSINES[0]) / 3)
    assert found["mse_loss"] == pytest.approx(0.5)
    assert found["student_length"] == pytest.approx(4 / 3)
    assert found["teacher_length"] == pytest.approx((1 + 2 * math.sqrt(2)) / 3, rel=1e-3)
    assert found["true_cosine"] == pytest.approx(1 - found["cosine_loss"])
    # of the pair of sentences in the first batch: (1, 0) with (0, 1), and (0, 2) with (1, 1)
    assert found["random_cosine"] == pytest.approx(math.sqrt(0.5) / 2, rel=1e-3)
    assert "relational_loss" not in found


def test_vectors_travel_as_bits():
    for dtype, bits in ((torch.float16, torch.int16), (torch.float32, torch.int32)):
        values = torch.tensor([[1.5, -0.25]], dtype=dtype)
        assert as_bits(values).dtype == bits
        assert torch.equal(from_bits(as_bits(values)), values.float())


def test_what_it_refuses():
    with pytest.raises(ValueError, match="--relational-weight must not be negative, got -1"):
        criterion(weight=-1)
    with pytest.raises(ValueError, match="needs --task sentence_vectors"):
        criterion()(model(STUDENT), {"net_input": {}})
    with pytest.raises(ValueError, match="needs a model of sentence vectors, such as --arch sentence_lstm"):
        criterion()(lambda **_: (None, {}), sample())
