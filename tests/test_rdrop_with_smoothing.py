"""R-Drop and smoothed sources together: both passes read the same smoothed text, row by row."""

import pytest
import torch

from fairseq_bert_kd.batch import TEACHER, twice
from fairseq_bert_kd.functional.text_smoothing import SmoothedText, repeated
from fairseq_bert_kd.modules.source_smoothing import SourceSmoothing
from tests.criterions.test_distillation_loss import criterion, loss_and_gradients, model, sample
from tests.tiny_chain import train_student

__all__ = ["model", "sample"]  # fixtures


def test_every_row_comes_twice_at_once():
    batch = {
        "id": torch.tensor([7, 9]),
        "nsentences": 2,
        "ntokens": 5,
        "net_input": {"src_lengths": torch.tensor([3, 2]), "scale": torch.tensor(0.5)},
        TEACHER: [{"present": torch.tensor([[True], [False]]), "temperatures": (1.0, 5.0)}],
    }
    found = twice(batch)
    assert found["id"].tolist() == [7, 7, 9, 9]
    assert found["net_input"]["src_lengths"].tolist() == [3, 3, 2, 2]  # sorted ones stay sorted
    assert found["net_input"]["scale"] == 0.5
    assert found[TEACHER][0]["present"].flatten().tolist() == [True, True, False, False]
    assert (found[TEACHER][0]["temperatures"], found["nsentences"], found["ntokens"]) == ((1.0, 5.0), 4, 10)


def text_of(tokens):
    """Of every source the first word alone is smoothed, half of it to symbol 10 or 11."""
    smoothed = torch.zeros(tokens.shape, dtype=torch.bool)
    smoothed[:, 1] = True
    ids = torch.tensor([10, 11])[:, None, None].expand(*tokens.shape, 1)
    return SmoothedText(smoothed, ids, torch.full((*tokens.shape, 1), 0.5))


def test_rows_are_repeated_behind_each_other():
    text = repeated(text_of(torch.zeros(2, 3, dtype=torch.int64)), 6)
    assert text.ids[:, 0, 0].tolist() == [10, 10, 10, 11, 11, 11]
    assert text.smoothed.shape == (6, 3)
    assert text.weights.shape == (6, 3, 1)


@pytest.mark.parametrize("kd_weight", [0.0, 0.5])
def test_without_dropout_the_loss_is_that_of_one_smoothed_pass(model, sample, kd_weight):
    smoothing, text = SourceSmoothing(model), text_of(sample["net_input"]["src_tokens"])
    one, both = criterion(kd_weight=kd_weight), criterion(kd_weight=kd_weight, rdrop_weight=5.0)
    plain = one(model, sample)[0]
    with smoothing.reading(text):
        expected = loss_and_gradients(one, model, sample)
        found = loss_and_gradients(both, model, sample)
    assert not torch.allclose(expected[0], plain)
    torch.testing.assert_close(found[0], expected[0])
    for name, gradient in expected[3].items():
        torch.testing.assert_close(found[3][name], gradient, msg=name, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("schedule", ["both", "only"])
def test_training_with_both(chain, tmp_path, schedule):
    smoothing = ("--smoothing-weight", 0.5, "--smoothing-source", "unigram", "--smoothing-schedule", schedule)
    options = (*smoothing, "--rdrop-weight", 1, "--kd-weight", 0)
    assert train_student(chain.data, tmp_path, *options, updates=1).exists()
