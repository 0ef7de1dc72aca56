import torch

from fairseq_bert_kd.functional.translation_embeddings import (
    KnownThirds,
    corrupt,
    distances,
    evaluate,
    filtered_ranks,
    into_unit_ball,
    margin_loss,
)


def test_distance_and_loss_by_hand():
    head, relation, tail = torch.tensor([[0.0, 0]]), torch.tensor([[1.0, 0]]), torch.tensor([[1.0, 0]])
    true = distances(head, relation, tail, norm=1)
    assert true.item() == 0
    other = distances(head, relation, torch.tensor([[0.5, 0]]), norm=2)
    assert margin_loss(true, other[:, None], margin=1).item() == 0.5
    assert margin_loss(true, torch.tensor([[2.0]]), margin=1).item() == 0
    assert (
        margin_loss(torch.tensor([0.25]), torch.tensor([[0.5, 1.0, 3.0]]), margin=1).item() == 1
    )  # .75 + .25 + 0


def test_ranks_leave_out_known_competitors_and_share_ties():
    scores = torch.tensor([[0.1, 0.2, 0.3, 0.3, 0.4]])
    true = torch.tensor([2])
    nothing = torch.zeros(1, 5, dtype=torch.bool)
    assert filtered_ranks(scores, true, nothing).tolist() == [3.5]
    known = torch.tensor([[True, False, True, False, False]])  # the first one, and the true one itself
    assert filtered_ranks(scores, true, known).tolist() == [2.5]


def test_both_sides_are_ranked():
    """On a line: entity i at i, the relation is + 1."""
    entities, relations = torch.arange(5.0)[:, None], torch.tensor([[1.0]])
    triples = torch.tensor([[0, 0, 1], [3, 0, 4]])
    assert evaluate(triples, entities, relations, triples, norm=1).tolist() == [1, 1, 1, 1]
    wrong = torch.tensor(
        [[0, 0, 2]]
    )  # head + 1 is 1, at distance 1 from entities 0 and 2; 2 - 1 is 1, likewise
    assert evaluate(wrong, entities, relations, wrong, norm=1).tolist() == [2.5, 2.5]
    also = torch.tensor([[0, 0, 2], [0, 0, 1], [1, 0, 2]])
    assert evaluate(wrong, entities, relations, also, norm=1).tolist() == [1.5, 1.5]


def test_known_thirds_are_those_of_all_triples():
    """Against a loop, with pairs that no triple has and numbers that are larger than those of the triples."""
    generator = torch.Generator().manual_seed(1)
    triples = torch.randint(6, (40, 3), generator=generator)
    first, relation = torch.cartesian_prod(torch.arange(9), torch.arange(6)).unbind(1)
    found = KnownThirds(triples, 6).mask(first, relation, 9)
    expected = torch.zeros(54, 9, dtype=torch.bool)
    for a, r, b in triples.tolist():
        expected[a * 6 + r, b] = True
    assert found.equal(expected)
    assert not KnownThirds(triples[:0], 6).mask(first, relation, 9).any()


def test_one_side_is_corrupted():
    triples = torch.tensor([[1, 0, 2]]).repeat(2000, 1)
    heads, tails = corrupt(triples, 1000, 1, torch.Generator().manual_seed(1))
    assert ((heads == 1) | (tails == 2)).all()
    assert 0.4 < (heads == 1).float().mean() < 0.6


def test_only_long_vectors_are_shortened():
    vectors = torch.tensor([[3.0, 4], [0.3, 0.4], [6, 8]])
    into_unit_ball(vectors, torch.tensor([0, 1]))
    torch.testing.assert_close(vectors, torch.tensor([[0.6, 0.8], [0.3, 0.4], [6, 8]]))
