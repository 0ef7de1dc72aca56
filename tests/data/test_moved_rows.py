"""Rows for smoothing stand beside their tokens where a batch is padded on the left."""

import torch

from fairseq_bert_kd.data.smoothed_dataset import moved


def rows():
    """Of texts of three and of two tokens, padded on the right."""
    return {
        "present": torch.tensor([[True, True, False], [True, True, False]]),
        "topk_ids": torch.tensor([[[11], [12], [0]], [[21], [22], [0]]]),
        "temperatures": (1.0,),
    }


def test_by_hand():
    found = moved(rows(), torch.tensor([0, 1]))
    # nothing stands on padding, on neither side; a token without a row has none either
    assert found["present"].tolist() == [[True, True, False], [False, True, True]]
    assert found["topk_ids"][found["present"]].flatten().tolist() == [11, 12, 21, 22]
    assert found["temperatures"] == (1.0,)


def test_padding_on_the_right_leaves_everything():
    given = rows()
    assert moved(given, torch.tensor([0, 0])) is given
