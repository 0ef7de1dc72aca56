"""The policy's sampler against the distribution that it draws from."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fairseq_bert_kd.functional.sampling import (
    BLOCK,
    Symbols,
    _find,
    allowed_entropies,
    allowed_log_probs,
    allowed_token_log_probs,
    length_limits,
    sample_sequences,
    uniform_draws,
)

SYMBOLS = Symbols(pad=1, bos=0, eos=2)
SOURCES = 7


class Markov:
    """A policy whose next token depends on the one before; each row has a table of its own."""

    def __init__(self, tables):
        self.tables = tables  # (rows, vocab, vocab) logits
        self.rows = torch.arange(len(tables))
        self.calls = []

    def next_logits(self, prefix):
        self.calls.append(len(prefix))
        return self.tables[self.rows, prefix[:, -1]].clone()

    def keep(self, rows):
        self.rows = self.rows[rows]


def tables(rows, vocab, seed=0, eos=0.0):
    torch.manual_seed(seed)
    found = torch.randn(rows, vocab, vocab)
    found[:, :, SYMBOLS.eos] += eos
    return found


def allowed(logits):
    """Log-probabilities of a policy that never pads and never starts again."""
    logits = logits.clone()
    logits[..., [SYMBOLS.pad, SYMBOLS.bos]] = -math.inf
    return logits.log_softmax(-1)


def test_log_probabilities_and_entropies_are_the_policy_s():
    found = tables(6, 11)
    draws = uniform_draws(1, 0, list(range(6)), [1] * 6, 9)
    drawn = sample_sequences(Markov(found), torch.full((6,), 9), SYMBOLS, draws)
    for row in range(6):
        before = SYMBOLS.eos
        for place, token in enumerate(drawn.tokens[row].tolist()):
            if not drawn.sampled[row, place]:
                assert token == SYMBOLS.pad
                assert drawn.log_probs[row, place] == drawn.entropies[row, place] == 0
                continue
            expected = allowed(found[row, before])
            entropy = -sum(p * math.log(p) for p in expected.exp().tolist() if p)
            assert drawn.log_probs[row, place] == pytest.approx(float(expected[token]), abs=1e-4)
            assert drawn.entropies[row, place] == pytest.approx(entropy, abs=1e-4)
            before = token


@pytest.mark.parametrize("vocab", [5, BLOCK, 3 * BLOCK + 17])
def test_frequencies_are_the_probabilities(vocab):
    """20,000 draws of one token: each within five standard deviations, and three more, as counts of rare ones are skewed."""
    rows = 20_000
    logits = torch.randn(vocab, generator=torch.Generator().manual_seed(0)) * 2
    draws = uniform_draws(3, 0, [0], [rows], 1)
    policy = Markov(logits.expand(1, vocab, vocab).expand(rows, vocab, vocab))
    drawn = sample_sequences(policy, torch.ones(rows, dtype=torch.int64), SYMBOLS, draws)
    counts = torch.bincount(drawn.tokens[:, 0], minlength=vocab)
    expected = allowed(logits).exp()
    assert not counts[[SYMBOLS.pad, SYMBOLS.bos]].any()
    deviation = (rows * expected * (1 - expected)).sqrt()
    assert ((counts - rows * expected).abs() <= 5 * deviation + 3).all()


def test_no_impossible_token_at_the_ends_of_the_interval():
    logits = torch.tensor([5.0, 5.0, -math.inf, 0.0, 0.0, -math.inf]).expand(1, 6, 6)
    for draw, token in ((0.0, 3), (1 - 2**-24, 4)):
        drawn = sample_sequences(Markov(logits), torch.tensor([1]), SYMBOLS, torch.tensor([[draw]]))
        assert drawn.tokens.tolist() == [[token]]


def test_without_draws_the_best_token_is_taken():
    found = tables(4, 9)
    drawn = sample_sequences(Markov(found), torch.full((4,), 3), SYMBOLS, None)
    assert drawn.tokens[:, 0].tolist() == allowed(found[:, SYMBOLS.eos]).argmax(-1).tolist()


def test_finished_rows_leave_the_batch_and_change_nothing():
    found = tables(40, 8, eos=1.5)
    limits = torch.full((40,), 30)
    draws = uniform_draws(1, 0, list(range(40)), [1] * 40, 30)
    policy = Markov(found)
    together = sample_sequences(policy, limits, SYMBOLS, draws)
    assert policy.calls[0] == 40
    assert policy.calls[-1] < 20
    for row in range(40):
        alone = sample_sequences(Markov(found[row : row + 1]), limits[:1], SYMBOLS, draws[row : row + 1])
        length = int(alone.sampled.sum())
        assert together.tokens[row, :length].tolist() == alone.tokens[0, :length].tolist()
        assert not together.sampled[row, length:].any()


def test_the_device_is_waited_for_once_per_position():
    """A number that is read from a tensor is a wait of the CPU for the GPU."""
    read = []

    class Reads(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            read.extend([1] if func is torch.ops.aten._local_scalar_dense.default else [])
            return func(*args, **kwargs or {})

    policy = Markov(tables(40, 8, eos=1.5))
    draws = uniform_draws(1, 0, list(range(40)), [1] * 40, 30)
    with Reads():
        sample_sequences(policy, torch.full((40,), 30), SYMBOLS, draws)
    assert len(policy.calls) > 3
    assert len(read) == len(policy.calls) + 1  # the longest limit is read once


def test_a_likely_token_replaces_an_impossible_one():
    """As rounding may lead there: the value is beyond the last of the sums."""
    weights = torch.zeros(2, 3 * BLOCK)
    weights[0, 2 * BLOCK + 5] = weights[1, 7] = 2.0
    weights[0, 2 * BLOCK + 9] = weights[1, 8] = 1.0
    blocks = weights.view(2, 3, BLOCK).sum(dim=2)
    found = _find(weights, blocks, blocks.cumsum(dim=1), torch.tensor([3.0, 3.0]))
    assert found.tolist() == [2 * BLOCK + 5, 7]


def test_a_cut_sequence_has_no_end_and_says_so():
    found = tables(30, 8)
    limits = torch.arange(30) % 5 + 1
    drawn = sample_sequences(
        Markov(found), limits, SYMBOLS, uniform_draws(1, 0, list(range(30)), [1] * 30, 5)
    )
    lengths = drawn.sampled.sum(dim=1)
    ended = drawn.tokens.eq(SYMBOLS.eos).any(dim=1)
    assert torch.equal(drawn.cut, ~ended)
    assert (lengths[drawn.cut] == limits[drawn.cut]).all()
    assert (lengths <= limits).all()
    assert 0 < drawn.cut.sum() < 30


def test_a_prefix_is_given_and_not_drawn():
    found = tables(2, 9, eos=-5)
    prefixes = torch.tensor([[4, 5, 6], [7, SYMBOLS.pad, SYMBOLS.pad]])
    drawn = sample_sequences(
        Markov(found), torch.tensor([6, 6]), SYMBOLS, uniform_draws(1, 0, [0, 1], [1, 1], 6), prefixes
    )
    assert drawn.tokens[0, :3].tolist() == [4, 5, 6]
    assert drawn.tokens[1, 0] == 7
    assert drawn.sampled[:, :4].tolist() == [[False, False, False, True], [False, True, True, True]]
    assert drawn.log_probs[0, :3].tolist() == [0, 0, 0]


def test_draws_are_those_of_a_source_whatever_else_is_drawn():
    together = uniform_draws(1, 5, [10, 11, 12], [4, 4, 2], 6)
    assert torch.equal(together[4:8], uniform_draws(1, 5, [11], [4], 6))
    assert torch.equal(together[4:8, :4], uniform_draws(1, 5, [11], [4], 4))
    assert not torch.equal(together[:4], together[4:8])
    for other in (
        uniform_draws(2, 5, [11], [4], 6),
        uniform_draws(1, 6, [11], [4], 6),
        uniform_draws(1, 5, [11], [4], 6, 1),
    ):
        assert not torch.equal(together[4:8], other)
    assert uniform_draws(1, 0, [], [], 6).shape == (0, 6)


def test_limits():
    assert length_limits(torch.tensor([2, 10, 100]), 1.5, 5, 64).tolist() == [8, 20, 64]


def test_half_precision_and_a_negative_infinite_row_part():
    """A policy may forbid tokens itself."""
    logits = torch.full((1, 9, 9), -math.inf)
    logits[..., 4] = -3.0
    logits[..., 1] = 8.0  # padding, the best by far
    drawn = sample_sequences(Markov(logits.half()), torch.tensor([2]), SYMBOLS, torch.tensor([[0.5, 0.5]]))
    assert drawn.tokens.tolist() == [[4, 4]]
    assert drawn.log_probs.tolist() == drawn.entropies.tolist() == [[0.0, 0.0]]


def test_entropy_is_over_the_allowed_tokens():
    """Equal logits: the logarithm of the number of allowed tokens; all on one token: 0."""
    logits = torch.zeros(2, 3, 7)
    logits[..., SYMBOLS.pad] = 50.0
    logits[1, ..., SYMBOLS.eos] = 100.0
    found = allowed_entropies(logits, SYMBOLS)
    assert found[0].tolist() == pytest.approx([math.log(5)] * 3)
    assert found[1].tolist() == pytest.approx([0.0] * 3, abs=1e-6)


def test_two_ways_to_a_token_s_log_probability():
    logits, tokens = torch.randn(5, 11), torch.tensor([3, 2, 10, 4, 4])
    expected = allowed_log_probs(logits, SYMBOLS).gather(1, tokens[:, None]).squeeze(1)
    ids = torch.stack([tokens, torch.full((5,), SYMBOLS.pad), torch.full((5,), SYMBOLS.bos)], dim=1)
    found = allowed_token_log_probs(logits.gather(1, ids), logits.logsumexp(1))
    torch.testing.assert_close(found, expected)
