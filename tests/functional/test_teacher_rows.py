"""What the store keeps of a teacher's logits, against slow and obvious versions in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_bert_kd.functional.teacher_rows import _smallest_ids, best_tokens, teacher_rows

VOCAB = 50


def random_logits(rows=20, vocab=VOCAB, spread=3.0, seed=0):
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * spread + 7.0


def make(logits, k=4, temperatures=(1.0, 5.0, 10.0), excluded=(), gold=None, **options):
    gold = torch.full((len(logits),), logits.size(1) - 1) if gold is None else gold
    return teacher_rows(
        logits.clone(), gold, torch.tensor(list(excluded), dtype=torch.int64), k, temperatures, **options
    )


def test_by_hand():
    logits = torch.tensor([[1.0, 3.0, 2.0, -math.log(2)]])
    rows = make(logits, k=2, temperatures=(1.0, 2.0), gold=torch.tensor([2]))
    assert rows.topk_ids.tolist() == [[1, 2]]
    assert rows.topk_logits.tolist() == [[0.0, -1.0]]
    at_1 = math.log(1 + math.exp(-1) + math.exp(-2) + 0.5 * math.exp(-3))
    at_2 = math.log(1 + math.exp(-0.5) + math.exp(-1) + math.sqrt(0.5) * math.exp(-1.5))
    assert rows.log_normalisers[0].tolist() == pytest.approx([at_1, at_2], abs=1e-6)
    assert rows.gold_logit.tolist() == [-1.0]
    assert rows.gold_nll.item() == pytest.approx(at_1 + 1.0, abs=1e-6)
    assert rows.finite.tolist() == [True]


@pytest.mark.parametrize("temperature", [1.0, 5.0, 10.0])
@pytest.mark.parametrize("keep_gold", [False, True])
def test_mass_outside_the_stored_tokens_is_exact(temperature, keep_gold):
    logits, excluded = random_logits(spread=4.0), [1, 7]
    gold = torch.arange(20) + 10
    rows = make(logits, k=4, excluded=excluded, gold=gold, keep_gold=keep_gold)
    column = [1.0, 5.0, 10.0].index(temperature)
    for row in range(len(logits)):
        exact = logits[row].double()
        exact[excluded] = -math.inf
        exact = torch.exp((exact - exact.max()) / temperature)
        stored = torch.zeros(VOCAB, dtype=torch.bool)
        stored[rows.topk_ids[row]] = True
        probs = torch.exp(
            rows.topk_logits[row].double() / temperature - rows.log_normalisers[row, column].double()
        )
        kept = probs.sum()
        if keep_gold and not stored[gold[row]]:
            stored[gold[row]] = True
            kept += torch.exp(
                rows.gold_logit[row].double() / temperature - rows.log_normalisers[row, column].double()
            )
        rest = exact[~stored].sum()  # unrounded
        total = torch.exp(rows.log_normalisers[row, column].double())
        assert (1 - kept).item() == pytest.approx((rest / total).item(), abs=3e-7)


def test_a_tail_smaller_than_the_rounding_of_the_logits_survives():
    logits = torch.full((1, 1000), -12.0)
    logits[0, :3] = torch.tensor([0.0, -0.7301, -1.1007])  # rounding them shifts the sum by about 1e-4
    rows = make(logits, k=3, temperatures=(1.0,))
    kept = torch.exp(rows.topk_logits.double() - rows.log_normalisers.double()).sum().item()
    exact = torch.exp(logits[0].double())
    rounding = (torch.exp(rows.topk_logits.double()).sum() - exact[:3].sum()).abs().item()
    tail = exact[3:].sum().item() / exact.sum().item()
    assert rounding > tail / 50  # what a plain normaliser would be wrong by
    assert 1 - kept == pytest.approx(tail, rel=1e-3)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.floats(0.1, 8.0),
    st.sampled_from([1, 8, 64, 300]),
    st.sampled_from([0.0, 20.0, -300.0]),
)
def test_probabilities_from_1e_5_on_are_within_half_a_percent(seed, spread, k, offset):
    logits = random_logits(rows=8, vocab=300, spread=spread, seed=seed) + offset
    rows = make(logits, k=k, temperatures=(1.0,))
    exact = torch.softmax(logits.double(), dim=1).gather(1, rows.topk_ids)
    stored = torch.exp(rows.topk_logits.double() - rows.log_normalisers.double())
    big = exact >= 1e-5
    assert ((stored - exact).abs() / exact)[big].max() < 0.005


def test_whole_dictionary_leaves_nothing_outside():
    rows = make(random_logits(), k=VOCAB)
    for column, temperature in enumerate((1.0, 5.0, 10.0)):
        probs = torch.exp(
            rows.topk_logits.double() / temperature - rows.log_normalisers[:, column : column + 1]
        )
        np.testing.assert_allclose(probs.sum(1), 1.0, atol=1e-6)


def test_barred_symbols_get_no_mass():
    logits = random_logits()
    logits[:, 3] = 100.0
    rows = make(logits, k=VOCAB - 1, excluded=[3])
    assert not (rows.topk_ids == 3).any()
    free = torch.cat([logits[:, :3], logits[:, 4:]], dim=1)
    expected = torch.logsumexp(free - free.max(1, keepdim=True).values, dim=1)
    np.testing.assert_allclose(rows.log_normalisers[:, 0], expected, atol=1e-3)


def test_logits_are_left_relative_to_the_best_without_barred_symbols():
    logits = random_logits(rows=3)
    logits[:, 3] = 100.0
    expected = logits.clone()
    expected[:, 3] = -math.inf
    expected -= expected.max(dim=1, keepdim=True).values
    uniforms = torch.rand(3, 2, dtype=torch.float64)
    teacher_rows(logits, torch.zeros(3, dtype=torch.int64), torch.tensor([3]), 4, (1.0, 5.0), uniforms)
    assert torch.equal(logits, expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_row_that_is_not_finite_is_marked_and_zero(bad):
    logits = random_logits(rows=3)
    logits[1, 5] = bad
    rows = make(logits, uniforms=torch.rand(3, 2, dtype=torch.float64))
    assert rows.finite.tolist() == [True, False, True]
    for part in rows:
        assert not part[1].any()
        assert torch.isfinite(part.double()).all()


def test_extreme_logits_and_ties_stay_finite():
    logits = torch.zeros(3, 6)
    logits[1, 2], logits[2, 4] = 60000.0, -1e30
    rows = make(logits, k=3, gold=torch.tensor([0, 1, 4]))
    for part in rows:
        assert torch.isfinite(part.double()).all()
    assert rows.topk_logits[0].tolist() == [0.0, 0.0, 0.0]
    assert sorted(set(rows.topk_ids[0].tolist())) == sorted(rows.topk_ids[0].tolist())
    assert rows.gold_logit[2].item() == -65504.0


@pytest.mark.parametrize("values", [2, 3, 5, 40])
def test_ties_have_one_order_whatever_k_is(values):
    """Half-precision teachers give many equal logits; of these the smaller id comes first."""
    generator = torch.Generator().manual_seed(values)
    logits = torch.randint(values, (30, VOCAB), generator=generator).float()
    expected = logits.sort(dim=1, descending=True, stable=True).indices
    for k in (1, 2, 7, 8, 9, VOCAB):
        best, ids = best_tokens(logits.clone(), k)
        assert torch.equal(ids, expected[:, :k])
        assert torch.equal(best, logits.gather(1, ids))
        assert torch.equal(make(logits, k=k).topk_ids, ids)


def test_ties_are_of_what_targets_can_hold():
    rows = make(torch.zeros(2, 6), k=3, excluded=[0, 2])
    assert rows.topk_ids.tolist() == [[1, 3, 4]] * 2


def test_ids_stay_in_the_dictionary_where_a_row_is_not_finite():
    logits = torch.full((1, 6), math.nan)
    logits[0, :2] = 0.0
    assert (make(logits, k=4).topk_ids < 6).all()
    assert (_smallest_ids(logits, logits[:, :1], 4) < 6).all()


def test_both_ways_through_ties_agree():
    """The one for a GPU takes every row, the one for a CPU those with a tie at the end."""
    logits = torch.randint(6, (40, VOCAB), generator=torch.Generator().manual_seed(0)).float()
    last = logits.topk(5, dim=1).values[:, -1:]
    ids = _smallest_ids(logits, last, 5).sort(dim=1).values
    assert torch.equal(ids, best_tokens(logits, 5)[1].sort(dim=1).values)


def test_samples_lie_outside_the_stored_tokens_and_are_unbiased():
    logits = random_logits(rows=1, vocab=12, spread=2.0).repeat(4000, 1)
    uniforms = torch.from_numpy(np.random.default_rng(0).random((4000, 5)))
    fifth = int(logits[0].argsort(descending=True)[4])  # outside the top 3
    gold = torch.full((4000,), fifth)
    rows = make(logits, k=3, uniforms=uniforms, gold=gold, keep_gold=True)
    stored = {*rows.topk_ids[0].tolist(), fifth}
    assert len(stored) == 4
    drawn = rows.sample_ids.flatten()
    assert not stored & set(drawn.tolist())
    probs = torch.softmax(logits[0].double(), 0)
    rest = torch.tensor([0.0 if i in stored else float(p) for i, p in enumerate(probs)], dtype=torch.float64)
    share = torch.bincount(drawn, minlength=12) / len(drawn)
    expected = rest / rest.sum()
    spread = torch.sqrt(expected * (1 - expected) / len(drawn))
    assert ((share - expected).abs() <= 4.5 * spread + 1e-9).all()
    exact = logits[0] - logits[0].max()
    np.testing.assert_allclose(rows.sample_logits.float(), exact[rows.sample_ids], atol=8e-3)
    # importance weights to another temperature, from what is stored alone
    column = 1
    weights = torch.exp(rows.sample_logits.double() / 5 - rows.sample_logits.double())
    tail = 1 - torch.exp(rows.topk_logits.double() - rows.log_normalisers[:, :1].double()).sum(1)
    tail -= torch.exp(rows.gold_logit.double() - rows.log_normalisers[:, 0].double())
    scale = tail * torch.exp(rows.log_normalisers[:, 0].double() - rows.log_normalisers[:, column].double())
    estimate = (weights.mean(1) * scale).mean().item()
    tempered = torch.softmax(logits[0].double() / 5, 0)
    assert estimate == pytest.approx(sum(float(tempered[i]) for i in range(12) if i not in stored), rel=0.01)


def test_draws_at_the_ends_of_the_unit_interval_have_mass():
    logits = torch.tensor([[5.0, -200.0, 1.0, -200.0, -201.0]])
    uniforms = torch.tensor([[0.0, math.nextafter(1.0, 0.0)]], dtype=torch.float64)
    rows = make(logits, k=2, uniforms=uniforms, gold=torch.tensor([0]))
    assert rows.sample_ids.tolist() == [[1, 4]]


def test_draws_find_a_token_whose_mass_float32_loses_in_a_sum():
    """Outside token 0 the others have 1, 2e-9 and 2e-9 parts: in float32 their sum stays at 1."""
    logits = torch.tensor([[5.0, 1.0, -19.0, -19.0]])
    uniforms = torch.tensor([[0.5, 1 - 3e-9, 1 - 1e-9]], dtype=torch.float64)
    rows = make(logits, k=1, uniforms=uniforms, gold=torch.tensor([0]))
    assert rows.sample_ids.tolist() == [[1, 2, 3]]


def test_no_temperature_is_allowed():
    rows = make(random_logits(), temperatures=())
    assert rows.log_normalisers.shape == (20, 0)


def test_too_many_tokens_are_refused():
    with pytest.raises(ValueError, match="k=50 needs 50 tokens with mass, the dictionary has 49"):
        make(random_logits(), k=50, excluded=[0])
    with pytest.raises(ValueError, match="k=49 needs 51 tokens with mass, the dictionary has 50"):
        make(random_logits(), k=49, keep_gold=True, uniforms=torch.rand(20, 1, dtype=torch.float64))
