import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_bert_kd.functional.left_to_right import (
    BIDIRECTIONAL,
    LEFT_TO_RIGHT,
    prefix_attention,
    teacher_input,
)
from fairseq_bert_kd.functional.pair_input import PairFormat, assemble_pairs

PAD, EOS = 1, 2  # of the student
BERT = PairFormat(prefix=(101,), middle=(102,), mask=103, pad=0)
ROBERTA = PairFormat(prefix=(70,), middle=(72, 72), mask=79, pad=71, target_segment=0)
SOURCE_IDS = torch.tensor([101, 0, 102, 100, 14, 15, 16, 17])
TARGET_IDS = torch.tensor([101, 0, 102, 100, 24, 25, 26, 27])
# sources "4 5 6" and "7", targets "5 </s>" and "6 7 </s>"
PAIRS = (
    torch.tensor([[4, 5, 6], [7, PAD, PAD]]),
    torch.tensor([3, 1]),
    torch.tensor([[5, EOS, PAD], [6, 7, EOS]]),
    torch.tensor([2, 3]),
)
ALL = torch.tensor([[True, True, False], [True, True, True]])


def lay_out(attention, predicted=ALL, pair_format=BERT):
    return teacher_input(attention, *PAIRS, predicted, SOURCE_IDS, TARGET_IDS, pair_format)


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
def test_mask_equals_the_rule_slot_by_slot(pairs):
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
    assert mask.any(dim=2).all()  # a slot without any would have no softmax


def test_nothing_is_masked_and_predictions_are_read_one_slot_earlier():
    laid_out = lay_out(LEFT_TO_RIGHT)
    assert laid_out.input_ids.tolist() == [[101, 14, 15, 16, 102, 25, 102], [101, 17, 102, 26, 27, 102, 0]]
    assert laid_out.token_type_ids.tolist() == [[0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1, 0]]
    # y_1 at the source's [SEP], </s> at the last word
    assert laid_out.prediction_columns[0, :2].tolist() == [4, 5]
    assert laid_out.prediction_columns[1].tolist() == [2, 3, 4]
    tokens = torch.tensor([[1] * 7, [1] * 6 + [0]])
    assert torch.equal(laid_out.attention_mask, prefix_attention(torch.tensor([5, 3]), tokens))


def test_which_positions_are_asked_for_does_not_change_what_is_shown():
    every, some = lay_out(LEFT_TO_RIGHT), lay_out(LEFT_TO_RIGHT, torch.zeros_like(ALL))
    assert all(torch.equal(one, other) for one, other in zip(every, some, strict=True))


def test_first_token_is_predicted_at_the_last_of_two_separators():
    laid_out = lay_out(LEFT_TO_RIGHT, pair_format=ROBERTA)
    # <s> 7 </s></s> 6 7 </s>
    assert laid_out.input_ids[1].tolist() == [70, 17, 72, 72, 26, 27, 102, 71]
    assert laid_out.prediction_columns[1].tolist() == [3, 4, 5]


def test_bidirectional_input_is_the_pair_with_its_masks():
    predicted = torch.tensor([[False, True, False], [True, False, False]])
    laid_out = lay_out(BIDIRECTIONAL, predicted)
    expected = assemble_pairs(*PAIRS, predicted, SOURCE_IDS, TARGET_IDS, BERT)
    assert all(torch.equal(one, other) for one, other in zip(laid_out, expected, strict=True))
    assert (laid_out.input_ids == BERT.mask).sum() == 2
    assert laid_out.attention_mask.dim() == 2


@pytest.mark.parametrize("attention", [BIDIRECTIONAL, LEFT_TO_RIGHT])
def test_given_tensors_are_not_modified(attention):
    before = [tensor.clone() for tensor in (*PAIRS, ALL)]
    lay_out(attention)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip((*PAIRS, ALL), before, strict=True))
