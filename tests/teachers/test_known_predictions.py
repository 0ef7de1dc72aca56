"""A teacher's predictions by text: asked once, whatever the batch."""

import pytest
import torch
from torch import Tensor

from fairseq_bert_kd.teachers.known_predictions import KnownPredictions

PAD = 1


class Asked:
    """Predicts the sum of a row's tokens, and its length; counts the rows that it is asked for."""

    def __init__(self):
        self.rows = 0

    def __call__(self, net_input) -> Tensor:
        texts, lengths = net_input["texts"], net_input["lengths"]
        self.rows += len(texts[0])
        sums = sum(
            (text * (torch.arange(text.size(1)) < length[:, None])).sum(dim=1)
            for text, length in zip(texts, lengths, strict=True)
        )
        return torch.stack([sums, sum(lengths)], dim=1).to(torch.bfloat16)


def batch(*texts, **others):
    """Input of rows of one text, or of several given as one list of rows for each."""
    sides = [texts] if isinstance(texts[0][0], int) else texts
    return {
        "texts": tuple(
            torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(row) for row in side], batch_first=True, padding_value=PAD
            )
            for side in sides
        ),
        "lengths": tuple(torch.tensor([len(row) for row in side]) for side in sides),
        **others,
    }


def test_a_text_is_asked_for_once_and_keeps_its_place():
    ask = Asked()
    known = KnownPredictions(ask)
    first = known(batch([5, 2], [6, 7, 2]))
    assert ask.rows == 2
    assert first.dtype == torch.float32
    again = known(batch([6, 7, 2], [8, 9, 3, 2], [5, 2]))  # other places, another padding, one new row
    assert ask.rows == 3
    assert again.tolist() == [[15, 3], [22, 4], [7, 2]]
    assert torch.equal(again[[2, 0]], first)
    assert known(batch([8, 9, 3, 2])).tolist() == [[22, 4]]
    assert ask.rows == 3


def test_pairs_are_told_apart_by_where_the_first_text_ends():
    ask = Asked()
    known = KnownPredictions(ask)
    known(batch([[5, 6], [5, 2]], [[2], [6, 2]]))
    assert ask.rows == 2
    known(batch([[5]], [[6, 2]]))
    known(batch([[2]], [[5, 6]]))
    assert ask.rows == 4
    assert known(batch([[5], [5, 6]], [[6, 2], [2]])).tolist() == [[13, 3], [13, 3]]
    assert ask.rows == 4


def test_the_table_grows_and_ends_at_its_limit():
    ask = Asked()
    known = KnownPredictions(ask, limit=1500)
    rows = [[number, 2] for number in range(3, 1603)]
    for start in range(0, 1600, 400):
        known(batch(*rows[start : start + 400]))
    assert ask.rows == 1600
    expected = torch.tensor([[sum(row), 2] for row in rows]).bfloat16().float()
    assert torch.equal(known(batch(*rows)), expected)
    assert ask.rows == 1600  # the last batch went over the limit as a whole
    for _ in range(2):
        known(batch([1700, 2]))
    assert ask.rows == 1602


@pytest.mark.parametrize("others", [{"entities": None}, {"smoothed": ()}])
def test_what_reads_more_than_texts_is_asked_each_time(others):
    ask = Asked()
    known = KnownPredictions(ask)
    for _ in range(2):
        known(batch([5, 2], **others))
    assert ask.rows == 2
