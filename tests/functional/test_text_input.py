"""One text and two as an encoder's input, by hand and token by token."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_bert_kd.functional.text_format import TextFormat
from fairseq_bert_kd.functional.text_input import BIDIRECTIONAL, TextLayout, assemble_texts

PAD, EOS = 1, 2  # of the student
BERT = TextFormat(prefix=(101,), middle=(102,), mask=103, pad=0)
ROBERTA = TextFormat(prefix=(70,), middle=(72, 72), mask=79, pad=71, segments=(0, 0))
# Student ids 0 to 7; id 2 is the end of sentence and closes the input. The two sides differ on purpose.
BERT_SOURCE = torch.tensor([101, 0, 102, 100, 14, 15, 16, 17])
BERT_TARGET = torch.tensor([101, 0, 102, 100, 24, 25, 26, 27])
ROBERTA_SOURCE = torch.tensor([70, 71, 72, 73, 14, 15, 16, 17])
ROBERTA_TARGET = torch.tensor([70, 71, 72, 73, 24, 25, 26, 27])


def pad_right(rows):
    """``(batch, longest)`` int64 with the student's padding."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows], dtype=torch.int64).view(
        len(rows), longest
    )


def lengths(rows):
    return torch.tensor([len(row) for row in rows])


def assemble(sources, targets, masked, source_to_teacher, target_to_teacher, text_format):
    """Pairs as a bidirectional teacher reads them, and the input positions of the target's tokens."""
    masks = torch.zeros(pad_right(targets).shape, dtype=torch.bool)
    for row, positions in enumerate(masked):
        masks[row, positions] = True
    layout = TextLayout(BIDIRECTIONAL, (source_to_teacher, target_to_teacher), text_format)
    return layout.lay_out(
        (pad_right(sources), pad_right(targets)), (lengths(sources), lengths(targets)), masks
    )


UNEQUAL = ([[4, 5, 6], [7]], [[5, EOS], [6, 7, EOS]])


SENTENCES = [[4, 5, EOS], [EOS], [6, EOS]]


def test_one_bert_text():
    texts = assemble_texts([BERT_SOURCE[pad_right(SENTENCES)]], [lengths(SENTENCES)], BERT)
    # [CLS] x x [SEP]; nothing but [CLS] [SEP]; [CLS] x [SEP]
    assert texts.input_ids.tolist() == [[101, 14, 15, 102], [101, 102, 0, 0], [101, 16, 102, 0]]
    assert texts.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert texts.token_type_ids.tolist() == [[0, 0, 0, 0]] * 3
    (positions,) = texts.positions
    assert positions.tolist() == [[1, 2, 3]] * 3


def test_one_roberta_text():
    texts = assemble_texts([ROBERTA_SOURCE[pad_right(SENTENCES)]], [lengths(SENTENCES)], ROBERTA)
    # <s> x x </s>; <s> </s>; <s> x </s>
    assert texts.input_ids.tolist() == [[70, 14, 15, 72], [70, 72, 71, 71], [70, 16, 72, 71]]
    assert texts.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert texts.token_type_ids.tolist() == [[0, 0, 0, 0]] * 3


def test_segment_of_the_only_text_is_the_first_one():
    other = TextFormat(prefix=(101,), middle=(102,), mask=103, pad=0, segments=(2, 3))
    texts = assemble_texts([BERT_SOURCE[pad_right(SENTENCES)]], [lengths(SENTENCES)], other)
    assert texts.token_type_ids.tolist() == [[2, 2, 2, 2], [2, 2, 0, 0], [2, 2, 2, 0]]


def test_positions_of_both_texts():
    texts = [torch.tensor([[14, 15], [16, 0]]), torch.tensor([[24, 102], [25, 102]])]
    pairs = assemble_texts(texts, [torch.tensor([2, 1]), torch.tensor([2, 2])], BERT)
    # [CLS] x x [SEP] y [SEP]; [CLS] x [SEP] y [SEP] [PAD]
    assert pairs.input_ids.tolist() == [[101, 14, 15, 102, 24, 102], [101, 16, 102, 25, 102, 0]]
    first, second = pairs.positions
    assert first[0].tolist() == [1, 2]
    assert first[1, 0].item() == 1
    assert second.tolist() == [[4, 5], [3, 4]]


def test_bert_layout():
    pairs, target_positions = assemble(*UNEQUAL, [[1], [0]], BERT_SOURCE, BERT_TARGET, BERT)
    assert pairs.input_ids.tolist() == [
        # [CLS] x   x   x  [SEP]  y  [MASK]: the end of sentence is masked
        [101, 14, 15, 16, 102, 25, 103],
        # [CLS] x [SEP] [MASK] y [SEP] [PAD]
        [101, 17, 102, 103, 27, 102, 0],
    ]
    assert pairs.attention_mask.tolist() == [[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0]]
    assert pairs.token_type_ids.tolist() == [[0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1, 0]]
    assert target_positions.shape == (2, 3)
    assert target_positions[0, :2].tolist() == [5, 6]
    assert target_positions[1].tolist() == [3, 4, 5]
    assert {tensor.dtype for tensor in (*pairs[:3], target_positions)} == {torch.int64}


def test_roberta_layout():
    pairs, target_positions = assemble(*UNEQUAL, [[1], [0]], ROBERTA_SOURCE, ROBERTA_TARGET, ROBERTA)
    assert pairs.input_ids.tolist() == [
        # <s> x   x   x </s></s>  y <mask>
        [70, 14, 15, 16, 72, 72, 25, 79],
        # <s> x </s></s> <mask> y </s> <pad>
        [70, 17, 72, 72, 79, 27, 72, 71],
    ]
    assert pairs.attention_mask.tolist() == [[1] * 8, [1] * 7 + [0]]
    assert pairs.token_type_ids.tolist() == [[0] * 8, [0] * 8]
    assert target_positions[0, :2].tolist() == [6, 7]
    assert target_positions[1].tolist() == [4, 5, 6]


def test_empty_source_beside_a_longer_one():
    pairs, target_positions = assemble(
        [[], [4]], [[5, EOS], [6, EOS]], [[0], [0]], BERT_SOURCE, BERT_TARGET, BERT
    )
    assert pairs.input_ids.tolist() == [[101, 102, 103, 102, 0], [101, 14, 102, 103, 102]]
    assert pairs.token_type_ids.tolist() == [[0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]
    assert pairs.attention_mask.tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert target_positions.tolist() == [[2, 3], [3, 4]]


def test_batch_of_empty_sources():
    pairs, _ = assemble([[], []], [[EOS], [4, EOS]], [[0], []], BERT_SOURCE, BERT_TARGET, BERT)
    assert pairs.input_ids.tolist() == [[101, 102, 103, 0], [101, 102, 24, 102]]


def test_nothing_masked_shows_every_token():
    pairs, _ = assemble([[4]], [[5, 6, EOS]], [[]], BERT_SOURCE, BERT_TARGET, BERT)
    assert pairs.input_ids.tolist() == [[101, 14, 102, 25, 26, 102]]


def test_format_without_prefix_and_middle():
    bare = TextFormat(prefix=(), middle=(), mask=103, pad=0)
    pairs, _ = assemble([[4, 5]], [[6, EOS]], [[0]], BERT_SOURCE, BERT_TARGET, bare)
    assert pairs.input_ids.tolist() == [[14, 15, 103, 102]]
    assert bare.overhead(2) == 0


@pytest.mark.parametrize(("text_format", "overhead"), [(BERT, 2), (ROBERTA, 3)])
def test_overhead_counts_prefix_and_middle(text_format, overhead):
    assert text_format.overhead(2) == overhead
    assert text_format.overhead(1) == 1
    pairs, _ = assemble([[4, 5]], [[6, EOS]], [[]], ROBERTA_SOURCE, ROBERTA_TARGET, text_format)
    assert pairs.input_ids.size(1) == 2 + 2 + overhead


@pytest.mark.parametrize("text_format", [BERT, ROBERTA])
def test_format_survives_json(text_format):
    assert TextFormat.from_dict(json.loads(json.dumps(text_format.to_dict()))) == text_format


def test_format_of_a_checkpoint_before_one_text_was_known():
    older = {
        "prefix": [70],
        "middle": [72, 72],
        "mask": 79,
        "pad": 71,
        "source_segment": 0,
        "target_segment": 0,
    }
    assert TextFormat.from_dict(older) == ROBERTA
    assert TextFormat.from_dict(older | {"target_segment": 1}).segments == (0, 1)


def slow_pair(source, target, masked, source_to_teacher, target_to_teacher, text_format):
    """Ids, segments and target columns of one pair, token by token."""
    ids = list(text_format.prefix)
    ids += [int(source_to_teacher[token]) for token in source]
    ids += text_format.middle
    segments = [text_format.segments[0]] * len(ids)
    columns = []
    for position, token in enumerate(target):
        columns.append(len(ids))
        ids.append(text_format.mask if masked[position] else int(target_to_teacher[token]))
        segments.append(text_format.segments[1])
    return ids, segments, columns


pair_batches = st.lists(
    st.tuples(
        st.lists(st.integers(3, 7), max_size=5),
        st.lists(st.integers(3, 7), max_size=5),
        st.lists(st.booleans(), min_size=6, max_size=6),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(batch=pair_batches, roberta=st.booleans())
def test_equals_pairs_put_together_one_by_one(batch, roberta):
    tables = (ROBERTA_SOURCE, ROBERTA_TARGET, ROBERTA) if roberta else (BERT_SOURCE, BERT_TARGET, BERT)
    text_format = tables[2]
    sources = [source for source, _, _ in batch]
    targets = [[*target, EOS] for _, target, _ in batch]
    tgt_tokens = pad_right(targets)
    # also True on padding, where it must have no effect
    masked = torch.tensor([mask for _, _, mask in batch])[:, : tgt_tokens.size(1)]
    layout = TextLayout(BIDIRECTIONAL, tables[:2], text_format)
    pairs, target_positions = layout.lay_out(
        (pad_right(sources), tgt_tokens), (lengths(sources), lengths(targets)), masked
    )

    expected = [slow_pair(*row, *tables) for row in zip(sources, targets, masked.tolist(), strict=True)]
    width = max(len(ids) for ids, _, _ in expected)
    assert pairs.input_ids.shape == pairs.attention_mask.shape == pairs.token_type_ids.shape
    for row, (ids, segments, columns) in enumerate(expected):
        padding = width - len(ids)
        assert pairs.input_ids[row].tolist() == ids + [text_format.pad] * padding
        assert pairs.attention_mask[row].tolist() == [1] * len(ids) + [0] * padding
        assert pairs.token_type_ids[row].tolist() == segments + [0] * padding
        assert target_positions[row, : len(columns)].tolist() == columns


@pytest.mark.parametrize("text_format", [BERT, ROBERTA])
def test_sentences_alone_with_hidden_tokens(text_format):
    ids = BERT_TARGET if text_format is BERT else ROBERTA_TARGET
    hidden = torch.tensor([[False, True, False], [True, True, True], [False, False, False]])
    layout = TextLayout(BIDIRECTIONAL, (ids,), text_format)
    inputs, predicted_at = layout.lay_out([pad_right(SENTENCES)], [lengths(SENTENCES)], hidden)
    (start,), close, mask = text_format.prefix, int(ids[EOS]), text_format.mask
    pad = text_format.pad
    expected = [[start, 24, mask, close], [start, mask, pad, pad], [start, 26, close, pad]]
    assert inputs.input_ids.tolist() == expected
    assert predicted_at.tolist() == [[1, 2, 3]] * 3
    assert inputs.token_type_ids.tolist() == [[0] * 4] * 3
