"""The head of sentence vectors, written out with small numbers."""

import math

import pytest
import torch
from torch import nn

from fairseq_bert_kd.modules.sentence_head import SentenceHead


class Doubling(nn.Module):
    """In the place of dropout, to see where it stands."""

    def forward(self, states):
        return 2 * states


def head_of_ones(texts):
    """All weights 0.1, the first bias 0.3, the second one 0.5."""
    head = SentenceHead(width=2, texts=texts, classes=1, inner_dim=1, dropout=0.4)
    assert head.dropout.p == 0.4
    head.dropout = Doubling()
    for layer, bias in ((head.dense, 0.3), (head.output, 0.5)):
        nn.init.constant_(layer.weight, 0.1)
        nn.init.constant_(layer.bias, bias)
    return head


def test_one_vector_by_hand():
    found = head_of_ones(texts=1)((torch.tensor([[1.0, 4.0]]),))
    assert found.item() == pytest.approx(0.5 + 0.1 * 2 * math.tanh(0.3 + 0.1 * 2 * (1 + 4)))


def test_two_vectors_by_hand():
    """(1, 4) and (3, 1): differences 2 and 3, products 3 and 4."""
    found = head_of_ones(texts=2)((torch.tensor([[1.0, 4.0]]), torch.tensor([[3.0, 1.0]])))
    features = 1 + 4 + 3 + 1 + 2 + 3 + 3 + 4
    assert found.item() == pytest.approx(0.5 + 0.1 * 2 * math.tanh(0.3 + 0.1 * 2 * features))
