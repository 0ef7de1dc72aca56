import math

import numpy as np
import pytest
import torch

from fairseq_bert_kd.functional.entity_fusion import (
    FULL,
    MIX,
    NONE,
    PLAIN,
    RANDOM,
    SHUFFLED,
    TRUE,
    controlled_table,
    default_kinds,
    entity_alignment_loss,
    entity_scores,
    look_up,
    place_entities,
    reach_others,
    states_of_arguments,
    unit_scale,
)
from fairseq_bert_kd.functional.entity_noise import noisy_entities, without_masked_mentions
from fairseq_bert_kd.functional.text_format import TextFormat
from fairseq_bert_kd.functional.text_input import assemble_texts


def test_states_of_arguments():
    """The tail stands before the head; the second row has a head alone."""
    states = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[7.0, 8.0], [9.0, 1.0], [2.0, 3.0]]])
    places = torch.tensor([[0, 2, 1], [1, 0, 0]])
    found = states_of_arguments(states, places, 2)
    assert found.tolist() == [[5.0, 6.0, 3.0, 4.0], [7.0, 8.0, 0.0, 0.0]]


def test_unit_scale():
    """Numbers 1 and 3 have mean 2 and deviation 1; row 0 does not count."""
    table = torch.tensor([[0.0, 0.0], [2.0, 6.0], [6.0, 2.0]])
    assert unit_scale(table) == 0.5
    with pytest.raises(ValueError, match="all the same"):
        unit_scale(torch.ones(3, 2))


def test_alignment_by_hand():
    """Section 5.5 of the specification: h = (1, 0) against (1, 0), (0, 1), (1, 1)."""
    candidates = torch.tensor([[1.0, 0], [0, 1], [1, 1]])
    scores = entity_scores(torch.tensor([[1.0, 0]]), candidates)
    torch.testing.assert_close(
        scores.softmax(-1), torch.tensor([[0.4223, 0.1554, 0.4223]]), atol=5e-5, rtol=0
    )
    table = torch.cat([torch.zeros(1, 2), candidates])
    labels = torch.tensor([1, 2, 3])
    loss, correct = entity_alignment_loss(torch.tensor([[1.0, 0], [0, 9], [9, 9]]), labels, table)
    by_hand = 0.8620 + math.log(1 + 1 + math.exp(-9)) + math.log(1 + 2 * math.exp(-9))
    torch.testing.assert_close(loss, torch.tensor(by_hand), atol=1e-4, rtol=0)
    assert correct >= 1


def test_candidates_are_the_distinct_entities_of_the_batch():
    table = torch.randn(50, 3)
    features = torch.randn(4, 3)
    loss, _ = entity_alignment_loss(features, torch.tensor([7, 7, 30, 7]), table)
    scores = features @ table[[7, 30]].t()
    by_hand = -scores.log_softmax(-1)[range(4), [0, 0, 1, 0]].sum()
    torch.testing.assert_close(loss, by_hand)


def test_places_of_a_pair():
    text_format = TextFormat(prefix=(101,), middle=(102,), mask=103, pad=0, segments=(0, 1))
    texts = (torch.tensor([[5, 6, 102], [7, 102, 0]]), torch.tensor([[8, 102], [9, 102]]))
    inputs = assemble_texts(texts, [torch.tensor([2, 1]), torch.tensor([2, 2])], text_format)
    entities = (torch.tensor([[0, 3, 0], [4, 0, 0]]), torch.tensor([[1, 0], [2, 0]]))
    placed = place_entities(entities, inputs)
    assert placed.tolist() == [[0, 0, 3, 0, 1, 0], [0, 4, 0, 2, 0, 0]]
    stream = look_up(placed, torch.tensor([[0.0], [1], [2], [3], [4]]))
    assert stream.vectors[..., 0].tolist() == placed.float().tolist()
    assert stream.present.tolist() == [[True, False, True, False, True, False], [True, True, False, True, False, False]]  # fmt: skip


def test_default_kinds():
    assert default_kinds(12) == (*[PLAIN] * 5, MIX, *[FULL] * 6)
    assert default_kinds(6) == (*[PLAIN] * 3, MIX, *[FULL] * 2)
    assert default_kinds(3) == (PLAIN, MIX, FULL)
    assert default_kinds(2) == (MIX, FULL)
    assert default_kinds(1) == (MIX,)
    assert all(reach_others(default_kinds(layers)) == (layers > 1) for layers in range(1, 25))


def test_entities_of_the_last_layer_alone_reach_no_other_token():
    assert reach_others((MIX, PLAIN))
    assert reach_others((PLAIN, MIX, FULL))
    assert not reach_others((PLAIN, MIX))
    assert not reach_others((FULL,))


def test_noise_has_its_rates_and_leaves_others_alone():
    entities = np.where(np.arange(40000) % 2, 7, 0)
    noisy = noisy_entities(entities, 1000, np.random.default_rng(1))
    assert not noisy[::2].any()
    changed = noisy[1::2]
    for share, rate in (((changed == 0).mean(), 0.15), (((changed != 0) & (changed != 7)).mean(), 0.05)):
        assert abs(share - rate) < 5 * math.sqrt(rate * (1 - rate) / 20000)


def test_no_entity_of_a_masked_mention_is_left():
    """For every masked position: no mention that covers it keeps its entity; the others keep theirs."""
    rng = np.random.default_rng(1)
    for _ in range(200):
        length = int(rng.integers(1, 12))
        edges = np.sort(rng.integers(0, length + 1, size=(4, 2)), axis=1)
        spans = [(int(b), int(e), 1 + i) for i, (b, e) in enumerate(edges) if e > b]
        hidden = rng.random(length) < 0.3
        left = without_masked_mentions(spans, hidden)
        for position in np.flatnonzero(hidden):
            assert not any(begin <= position < end for begin, end, _ in left)
        assert all(span in left for span in spans if not hidden[span[0] : span[1]].any())


def test_controls_keep_the_row_of_no_entity_and_the_spread():
    generator = torch.Generator().manual_seed(1)
    table = torch.cat([torch.zeros(1, 4), torch.randn(500, 4, generator=generator) * 3 + 1])
    tables = {kind: controlled_table(table, kind, generator) for kind in (TRUE, NONE, SHUFFLED, RANDOM)}
    assert all(not one[0].any() for one in tables.values())
    for kind in (TRUE, NONE):
        assert torch.equal(tables[kind], table)
    rows = [set(map(tuple, tables[kind].tolist())) for kind in (TRUE, SHUFFLED, RANDOM)]
    assert rows[0] == rows[1]
    assert rows[0] & rows[2] == {(0.0,) * 4}
    assert (tables[SHUFFLED] == table).all(1).sum() < 10
    torch.testing.assert_close(tables[RANDOM][1:].std(), table[1:].std(), atol=0.3, rtol=0)
    torch.testing.assert_close(tables[RANDOM][1:].mean(), table[1:].mean(), atol=0.3, rtol=0)


@pytest.mark.parametrize("entities", [2, 3, 500])
def test_shuffled_leaves_no_entity_its_own_vector(entities):
    """A plain permutation of two is the identity half of the time, and one of many leaves one of them, on average."""
    table = torch.arange(entities + 1.0)[:, None]
    for seed in range(20):
        shuffled = controlled_table(table, SHUFFLED, torch.Generator().manual_seed(seed))
        assert not shuffled[0].any()
        assert (shuffled[1:] != table[1:]).all()
        assert shuffled.sort(0).values.equal(table)
        plain = 1 + torch.randperm(entities, generator=torch.Generator().manual_seed(seed))
        assert (shuffled[1:, 0] != plain).sum() <= max(2, (plain == table[1:, 0]).sum())
