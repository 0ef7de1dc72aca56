import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_bert_kd.functional.pair_input import PairFormat, assemble_pairs

PAD, EOS = 1, 2  # of the student
BERT = PairFormat(prefix=(101,), middle=(102,), mask=103, pad=0)
ROBERTA = PairFormat(prefix=(70,), middle=(72, 72), mask=79, pad=71, source_segment=0, target_segment=0)
# Student ids 0 to 7; id 2 is the end of sentence and closes the pair. The two sides differ on purpose.
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


def assemble(sources, targets, masked, source_ids, target_ids, pair_format):
    masks = torch.zeros(pad_right(targets).shape, dtype=torch.bool)
    for row, positions in enumerate(masked):
        masks[row, positions] = True
    return assemble_pairs(
        pad_right(sources),
        lengths(sources),
        pad_right(targets),
        lengths(targets),
        masks,
        source_ids,
        target_ids,
        pair_format,
    )


UNEQUAL = ([[4, 5, 6], [7]], [[5, EOS], [6, 7, EOS]])


def test_bert_layout():
    pairs = assemble(*UNEQUAL, [[1], [0]], BERT_SOURCE, BERT_TARGET, BERT)
    assert pairs.input_ids.tolist() == [
        # [CLS] x   x   x  [SEP]  y  [MASK]: the end-of-sentence slot is masked
        [101, 14, 15, 16, 102, 25, 103],
        # [CLS] x [SEP] [MASK] y [SEP] [PAD]
        [101, 17, 102, 103, 27, 102, 0],
    ]
    assert pairs.attention_mask.tolist() == [[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0]]
    assert pairs.token_type_ids.tolist() == [[0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1, 0]]
    assert pairs.target_positions.shape == (2, 3)
    assert pairs.target_positions[0, :2].tolist() == [5, 6]
    assert pairs.target_positions[1].tolist() == [3, 4, 5]
    assert {tensor.dtype for tensor in pairs} == {torch.int64}


def test_roberta_layout():
    pairs = assemble(*UNEQUAL, [[1], [0]], ROBERTA_SOURCE, ROBERTA_TARGET, ROBERTA)
    assert pairs.input_ids.tolist() == [
        # <s> x   x   x </s></s>  y <mask>
        [70, 14, 15, 16, 72, 72, 25, 79],
        # <s> x </s></s> <mask> y </s> <pad>
        [70, 17, 72, 72, 79, 27, 72, 71],
    ]
    assert pairs.attention_mask.tolist() == [[1] * 8, [1] * 7 + [0]]
    assert pairs.token_type_ids.tolist() == [[0] * 8, [0] * 8]
    assert pairs.target_positions[0, :2].tolist() == [6, 7]
    assert pairs.target_positions[1].tolist() == [4, 5, 6]


def test_empty_source_beside_a_longer_one():
    pairs = assemble([[], [4]], [[5, EOS], [6, EOS]], [[0], [0]], BERT_SOURCE, BERT_TARGET, BERT)
    assert pairs.input_ids.tolist() == [[101, 102, 103, 102, 0], [101, 14, 102, 103, 102]]
    assert pairs.token_type_ids.tolist() == [[0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]
    assert pairs.attention_mask.tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert pairs.target_positions.tolist() == [[2, 3], [3, 4]]


def test_batch_of_empty_sources():
    pairs = assemble([[], []], [[EOS], [4, EOS]], [[0], []], BERT_SOURCE, BERT_TARGET, BERT)
    assert pairs.input_ids.tolist() == [[101, 102, 103, 0], [101, 102, 24, 102]]


def test_nothing_masked_shows_every_token():
    pairs = assemble([[4]], [[5, 6, EOS]], [[]], BERT_SOURCE, BERT_TARGET, BERT)
    assert pairs.input_ids.tolist() == [[101, 14, 102, 25, 26, 102]]


def test_format_without_prefix_and_middle():
    bare = PairFormat(prefix=(), middle=(), mask=103, pad=0)
    pairs = assemble([[4, 5]], [[6, EOS]], [[0]], BERT_SOURCE, BERT_TARGET, bare)
    assert pairs.input_ids.tolist() == [[14, 15, 103, 102]]
    assert bare.overhead == 0


def test_input_tensors_are_not_modified():
    tensors = [
        pad_right(UNEQUAL[0]), lengths(UNEQUAL[0]), pad_right(UNEQUAL[1]), lengths(UNEQUAL[1]),
        torch.tensor([[False, True, False], [True, False, False]]), BERT_SOURCE.clone(), BERT_TARGET.clone(),
    ]  # fmt: skip
    before = [tensor.clone() for tensor in tensors]
    assemble_pairs(*tensors, BERT)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, before, strict=True))


@pytest.mark.parametrize(("pair_format", "overhead"), [(BERT, 2), (ROBERTA, 3)])
def test_overhead_counts_prefix_and_middle(pair_format, overhead):
    assert pair_format.overhead == overhead
    pairs = assemble([[4, 5]], [[6, EOS]], [[]], ROBERTA_SOURCE, ROBERTA_TARGET, pair_format)
    assert pairs.input_ids.size(1) == 2 + 2 + overhead


@pytest.mark.parametrize("pair_format", [BERT, ROBERTA])
def test_format_survives_json(pair_format):
    assert PairFormat.from_dict(json.loads(json.dumps(pair_format.to_dict()))) == pair_format


def slow_pair(source, target, masked, source_ids, target_ids, pair_format):
    """Ids, segments and target columns of one pair, token by token."""
    ids = list(pair_format.prefix)
    ids += [int(source_ids[token]) for token in source]
    ids += pair_format.middle
    segments = [pair_format.source_segment] * len(ids)
    columns = []
    for position, token in enumerate(target):
        columns.append(len(ids))
        ids.append(pair_format.mask if masked[position] else int(target_ids[token]))
        segments.append(pair_format.target_segment)
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
    pair_format = tables[2]
    sources = [source for source, _, _ in batch]
    targets = [[*target, EOS] for _, target, _ in batch]
    tgt_tokens = pad_right(targets)
    # also True on padding, where it must have no effect
    masked = torch.tensor([mask for _, _, mask in batch])[:, : tgt_tokens.size(1)]
    pairs = assemble_pairs(
        pad_right(sources), lengths(sources), tgt_tokens, lengths(targets), masked, *tables
    )

    expected = [slow_pair(*row, *tables) for row in zip(sources, targets, masked.tolist(), strict=True)]
    width = max(len(ids) for ids, _, _ in expected)
    assert pairs.input_ids.shape == pairs.attention_mask.shape == pairs.token_type_ids.shape
    for row, (ids, segments, columns) in enumerate(expected):
        padding = width - len(ids)
        assert pairs.input_ids[row].tolist() == ids + [pair_format.pad] * padding
        assert pairs.attention_mask[row].tolist() == [1] * len(ids) + [0] * padding
        assert pairs.token_type_ids[row].tolist() == segments + [0] * padding
        assert pairs.target_positions[row, : len(columns)].tolist() == columns
