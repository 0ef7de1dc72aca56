"""Operations per loss: what a GPU has to launch must not grow with the dictionary."""

import pytest
import torch

from benchmarks import operations
from benchmarks.operations import ADDED, DICTIONARIES, PRECISIONS, Operations, count, measure
from benchmarks.training_losses import AUTHORS, CHUNKED, DEFAULT, OURS, PLAIN


@pytest.fixture(scope="module")
def plain():
    return {precision: count(PLAIN, 100, precision) for precision in PRECISIONS}


def test_views_are_left_out_and_allocations_count():
    with Operations() as found:
        numbers = torch.zeros(4)
        numbers.view(2, 2).t()[0].add_(1.0).sum()
    assert found.names == ["aten::zeros", "aten::add_.Tensor", "aten::sum"]


@pytest.mark.parametrize("dictionary", DICTIONARIES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("name", "triton"), [(DEFAULT, True), (DEFAULT, False), (CHUNKED, True)])
def test_ours_is_at_most_80_above_the_plain_loss(plain, dictionary, precision, name, triton):
    assert count(name, dictionary, precision, triton) <= plain[precision] + ADDED


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("triton", [True, False])
def test_no_objective_grows_with_the_dictionary(name, triton):
    small = count(name, 100, "fp16", triton)
    assert count(name, 30_000, "fp16", triton) == small  # one chunk
    assert small <= 2 * ADDED


def test_chunks_are_those_of_a_real_batch():
    few, many = (count(CHUNKED, dictionary, "fp32") for dictionary in (30_000, 119_547))
    assert few < many <= few + 4 * 6  # 2 chunks and 6: four products, statistics and gradient for each


def test_a_dispatch_that_is_added_is_counted(monkeypatch):
    before = count(DEFAULT, 100, "fp32")
    row_statistics = operations.student_scores.row_statistics
    monkeypatch.setattr(
        "fairseq_bert_kd.functional.projected_scores.row_statistics",
        lambda logits, *others: row_statistics(logits.clone(), *others),
    )
    assert count(DEFAULT, 100, "fp32") == before + 1


def test_rows_have_a_bound_where_there_is_a_goal():
    rows = measure(100, "fp32")
    assert [row.goal == "-" for row in rows] == [True, True, False, False, False, True]
    assert [
        name in rows[place].what for place, name in ((0, PLAIN), (1, AUTHORS), (2, DEFAULT), (4, CHUNKED))
    ] == [True] * 4
    assert all(row.met for row in rows if row.goal != "-")
