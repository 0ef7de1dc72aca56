"""Pairs as bidirectional and left-to-right teachers read them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_bert_kd.functional.text_format import TextFormat
from fairseq_bert_kd.functional.text_input import (
    BIDIRECTIONAL,
    LEFT_TO_RIGHT,
    TextLayout,
    assemble_texts,
    prefix_attention,
)

PAD, EOS = 1, 2  # of the student
BERT = TextFormat(prefix=(101,), middle=(102,), mask=103, pad=0)
ROBERTA = TextFormat(prefix=(70,), middle=(72, 72), mask=79, pad=71, segments=(0, 0))
SOURCE_TO_TEACHER = torch.tensor([101, 0, 102, 100, 14, 15, 16, 17])
TARGET_TO_TEACHER = torch.tensor([101, 0, 102, 100, 24, 25, 26, 27])
# sources "4 5 6" and "7", targets "5 </s>" and "6 7 </s>"
PAIRS = (torch.tensor([[4, 5, 6], [7, PAD, PAD]]), torch.tensor([[5, EOS, PAD], [6, 7, EOS]]))
LENGTHS = (torch.tensor([3, 1]), torch.tensor([2, 3]))
ALL = torch.tensor([[True, True, False], [True, True, True]])


def lay_out(attention, predicted=ALL, text_format=BERT):
    layout = TextLayout(attention, (SOURCE_TO_TEACHER, TARGET_TO_TEACHER), text_format)
    return layout.lay_out(PAIRS, LENGTHS, predicted)


def test_mask_of_a_short_and_a_long_target_by_hand():
    tokens = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
    first, second = prefix_attention(torch.tensor([2, 3]), tokens).int().tolist()
    assert first == [  # [CLS] [SEP] | y1 y2 y3
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]
    assert second == [  # [CLS] x [SEP] | y1 [PAD]
        [1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 0],
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4))
def test_mask_equals_the_rule_position_by_position(pairs):
    starts, lengths = (torch.tensor(side) for side in ([s for s, _ in pairs], [s + t for s, t in pairs]))
    width = int(lengths.max())
    tokens = (torch.arange(width) < lengths[:, None]).long()
    mask = prefix_attention(starts, tokens)
    assert mask.shape == (len(pairs), width, width)
    for row, (source, target) in enumerate(pairs):
        for i in range(width):
            for j in range(width):
                seen = j < source if i < source else j <= i
                assert bool(mask[row, i, j]) == (seen and j < source + target), (row, i, j)
    assert mask.any(dim=2).all()  # a position without any would have no softmax


def test_nothing_is_masked_and_predictions_are_read_one_position_earlier():
    inputs, predicted_at = lay_out(LEFT_TO_RIGHT)
    assert inputs.input_ids.tolist() == [[101, 14, 15, 16, 102, 25, 102], [101, 17, 102, 26, 27, 102, 0]]
    assert inputs.token_type_ids.tolist() == [[0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1, 0]]
    # y_1 at the source's [SEP], </s> at the last word
    assert predicted_at[0, :2].tolist() == [4, 5]
    assert predicted_at[1].tolist() == [2, 3, 4]
    tokens = torch.tensor([[1] * 7, [1] * 6 + [0]])
    assert torch.equal(inputs.attention_mask, prefix_attention(torch.tensor([5, 3]), tokens))


def test_which_positions_are_requested_does_not_change_what_is_shown():
    (every, at), (some, same) = lay_out(LEFT_TO_RIGHT), lay_out(LEFT_TO_RIGHT, torch.zeros_like(ALL))
    assert all(torch.equal(one, other) for one, other in zip(every[:3], some[:3], strict=True))
    assert torch.equal(at, same)


def test_first_token_is_predicted_at_the_last_of_two_separators():
    inputs, predicted_at = lay_out(LEFT_TO_RIGHT, text_format=ROBERTA)
    # <s> 7 </s></s> 6 7 </s>
    assert inputs.input_ids[1].tolist() == [70, 17, 72, 72, 26, 27, 102, 71]
    assert predicted_at[1].tolist() == [3, 4, 5]


def test_bidirectional_input_is_the_pair_with_its_masks():
    predicted = torch.tensor([[False, True, False], [True, False, False]])
    inputs, predicted_at = lay_out(BIDIRECTIONAL, predicted)
    (source, target), (source_lengths, target_lengths) = PAIRS, LENGTHS
    shown = TARGET_TO_TEACHER[target].masked_fill(predicted, BERT.mask)
    expected = assemble_texts([SOURCE_TO_TEACHER[source], shown], [source_lengths, target_lengths], BERT)
    assert all(torch.equal(one, other) for one, other in zip(inputs[:3], expected[:3], strict=True))
    assert torch.equal(predicted_at, expected.positions[1])
    assert (inputs.input_ids == BERT.mask).sum() == 2
    assert inputs.attention_mask.dim() == 2


@pytest.mark.parametrize("attention", [BIDIRECTIONAL, LEFT_TO_RIGHT])
def test_given_tensors_are_not_modified(attention):
    before = [tensor.clone() for tensor in (*PAIRS, ALL)]
    lay_out(attention)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip((*PAIRS, ALL), before, strict=True))
