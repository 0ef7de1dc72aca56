"""Values by hand, and a bandit: what policy gradient learns from a reward, and what from none."""

import math

import pytest
import torch

from fairseq_bert_kd.functional.policy_gradient import (
    ADVANTAGES,
    advantages,
    check_advantage,
    curriculum_probabilities,
    interpolated,
    kl_to_reference,
    policy_gradient_loss,
    ranking_margin,
    ranks,
    rollout_places,
    token_advantages,
)
from fairseq_bert_kd.functional.sampling import Symbols, sample_sequences, uniform_draws


def close(found, expected, tolerance=5e-5):
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=tolerance)


def test_ranks_average_ties():
    close(ranks(torch.tensor([[0.5, 0.9, 0.5, 0.1], [1.0, 1, 1, 1]])), [[2.5, 1, 2.5, 4], [2.5] * 4])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("rank", [0.4526, 0.0, -0.4526, -0.4975]),
        ("rank-centred", [0.4890, 0.3176, -0.3176, -0.4890]),
        ("mean", [0.3, 0.8 - 1.9 / 3, 0.6 - 2.1 / 3, 0.4 - 2.3 / 3]),
        ("none", [0.9, 0.8, 0.6, 0.4]),
        ("greedy", [0.2, 0.1, -0.1, -0.3]),
    ],
)
def test_advantages_by_hand(kind, expected):
    rewards = torch.tensor([[0.9, 0.8, 0.6, 0.4]])
    close(advantages(rewards, kind, 12.0, torch.tensor([0.7]))[0], expected)


def test_centred_ranks_sum_to_0_and_the_paper_s_do_not():
    rewards = torch.rand(5, 6)
    assert advantages(rewards, "rank-centred").sum(dim=1).abs().max() < 1e-5
    assert advantages(rewards[:, :4], "rank").mean() == pytest.approx(-0.1244, abs=1e-4)


def test_of_two_samples_the_paper_s_best_gets_nothing():
    close(advantages(torch.tensor([[0.2, 0.7]]), "rank", 12.0)[0], [-0.4975, 0.0])


def test_leave_one_out_is_the_mean_of_the_others():
    rewards = torch.rand(3, 4)
    for d in range(4):
        others = rewards[:, [i for i in range(4) if i != d]].mean(dim=1)
        torch.testing.assert_close(advantages(rewards, "mean")[:, d], rewards[:, d] - others)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("best", 4), "`best` is not an advantage; the advantages are rank, "),
        (("rank", 1), "`rank` compares the samples of a source with each other and needs at least 2, got 1"),
        (("rank-centred", 1), "needs at least 2, got 1"),
        (("mean", 1), "needs at least 2, got 1"),
        (("greedy", 4, 2), "no form for the 2 roll-outs of a prefix; leave the roll-outs out"),
        (("none", 0), "at least 1 sequence is sampled of each source, got 0"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        check_advantage(*arguments)


def test_loss_of_two_tokens():
    """2 (-log .5 - log .25) = 4.1589."""
    log_probs = torch.tensor([[0.5, 0.25, 0.1]]).log()
    sampled = torch.tensor([[True, True, False]])
    assert policy_gradient_loss(log_probs, torch.tensor([[2.0]]), sampled) == pytest.approx(4.1589, abs=5e-5)


def test_advantage_0_has_no_loss_and_no_gradient():
    logits = torch.randn(2, 3, requires_grad=True)
    loss = policy_gradient_loss(logits, torch.zeros(2, 1), torch.ones(2, 3, dtype=torch.bool))
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("advantage", [0.5, -0.5])
def test_a_step_moves_the_probability_to_the_sign_of_the_advantage(advantage):
    logits = torch.tensor([[0.1, -0.2, 0.3]], requires_grad=True)
    before = logits.log_softmax(-1)[:, :1]
    policy_gradient_loss(before, torch.tensor([[advantage]]), torch.ones(1, 1, dtype=torch.bool)).backward()
    after = (logits - 0.1 * logits.grad).log_softmax(-1)[:, :1]
    assert ((after - before) * advantage > 0).all()


def test_loss_is_that_of_the_public_re_implementation():
    """Its `train_one_batch` weighs the mean NLL of each sequence's tokens by its reward: ours, divided by the lengths."""
    log_probs, rewards = torch.rand(3, 4).log(), torch.rand(3)
    lengths = torch.tensor([4, 2, 3])
    sampled = torch.arange(4) < lengths[:, None]
    theirs = sum(rewards[i] * sum(-log_probs[i, t] for t in range(lengths[i])) / lengths[i] for i in range(3))
    ours = sum(
        policy_gradient_loss(log_probs[i : i + 1], rewards[i].view(1, 1), sampled[i : i + 1]) / lengths[i]
        for i in range(3)
    )
    torch.testing.assert_close(ours, theirs)


def test_kl_by_hand_and_without_forbidden_tokens():
    policy = torch.tensor([[[0.5, 0.5, 0.0], [0.9, 0.1, 0.0]]]).log()
    start = torch.tensor([[[0.25, 0.75, 0.0], [0.5, 0.5, 0.0]]]).log()
    first = 0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75)
    found = kl_to_reference(policy, start, torch.tensor([[True, False]]))
    assert found == pytest.approx(first, abs=1e-6)
    assert kl_to_reference(policy, policy, torch.ones(1, 2, dtype=torch.bool)) == 0


def test_margin_by_hand():
    rouge, sampled, reference = (
        torch.tensor(values) for values in ([0.6, 1.0, 1.0], [0.7, 0.9, 0.5], [0.9, 0.6, 0.9])
    )
    close(ranking_margin(rouge, sampled, reference), [0.2, 0.3, 0.0])


def test_curriculum_by_hand():
    close(curriculum_probabilities(torch.tensor([0.25, 0.5, 0.75, 1.0]), 12.0), [0.9526, 0.5, 0.0474, 0.0025])
    close(curriculum_probabilities(torch.tensor([1.0, 0.3, 0.6]), 0.0), [0.5] * 3)


def test_prefixes_of_roll_outs():
    assert rollout_places(5, 1) == [1, 2, 3, 4]
    assert rollout_places(5, 3) == [1, 4]
    assert rollout_places(1, 1) == []
    assert interpolated([1, 3, 5], [0.0, 1.0, 0.0], 5) == [0.0, 0.5, 1.0, 0.5, 0.0]


def test_token_advantages_by_hand():
    """T = 2: the better position has rank 1, sigmoid(12 (.5 - .5)) - .5 = 0; the other sigmoid(-6) - .5 = -.4975."""
    found = token_advantages([torch.tensor([0.3, 0.8]), torch.tensor([0.4])], torch.tensor([0.25, -0.25]))
    close(found, [[0.25 - 0.4975, 0.25], [-0.25 - 0.4975, 0.0]])


# ---------------------------------------------------------------- a bandit

LENGTH, VOCABULARY, SOURCES, WANTED = 4, 5, 8, 3
SYMBOLS = Symbols(pad=5, bos=6, eos=7)  # the bandit cannot draw an end: its logit is far below


class Bandit:
    """A policy without states: logits by position."""

    def __init__(self, logits, rows):
        none = torch.full((LENGTH, 3), -1e4)
        self.logits, self.rows = torch.cat([logits.detach(), none], dim=1), rows

    def next_logits(self, prefix):
        return self.logits[prefix.size(1) - 1].repeat(self.rows, 1)

    def keep(self, rows):
        self.rows = len(rows)


def trained(kind, reward, samples=4, updates=300):
    """Expected reward and entropy of a policy after training; at the start .2 and ln 5 = 1.61."""
    torch.manual_seed(0)
    logits = torch.zeros(LENGTH, VOCABULARY, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    limits = torch.full((SOURCES * samples,), LENGTH)
    for update in range(updates):
        draws = uniform_draws(1, update, list(range(SOURCES)), [samples] * SOURCES, LENGTH)
        drawn = sample_sequences(Bandit(logits, len(limits)), limits, SYMBOLS, draws)
        rewards = reward(drawn.tokens).view(SOURCES, samples)
        greedy = reward(logits.argmax(dim=1)[None]).expand(SOURCES)
        advantage = advantages(rewards, kind, 12.0, greedy).view(-1, 1)
        log_probs = logits.log_softmax(-1)[range(LENGTH), drawn.tokens]
        loss = policy_gradient_loss(log_probs, advantage, drawn.sampled) / drawn.sampled.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    probabilities = logits.detach().softmax(-1)
    entropy = -(probabilities * probabilities.log()).sum(-1).mean()
    return float(probabilities[:, WANTED].mean()), float(entropy)


def share_of_wanted(tokens):
    return tokens.eq(WANTED).float().mean(dim=1)


@pytest.mark.parametrize("samples", [2, 4])
@pytest.mark.parametrize("kind", ADVANTAGES)
def test_bandit_learns_from_every_advantage(kind, samples):
    assert trained(kind, share_of_wanted, samples)[0] > 0.9


def test_a_constant_reward_teaches_nothing_but_makes_the_policy_peaky():
    """The effect that Choshen et al. (2020) find in translation, in small."""
    reward, entropy = trained("none", lambda tokens: torch.ones(len(tokens)))
    assert reward < 0.5
    assert entropy < 1.3


def test_shuffled_rewards_teach_little():
    def shuffled(tokens):
        rewards = share_of_wanted(tokens)
        return rewards[torch.randperm(len(rewards))]

    assert trained("rank-centred", shuffled)[0] < 0.65


def test_equal_rewards_are_pushed_down_by_the_paper_s_ranks_alone():
    """Four ranks of 2.5: sigmoid(12 (.5 - 2.5 / 4)) - .5 = -.3176; centred sigmoid(12 (.5 - 2 / 4)) - .5 = 0."""
    rewards = torch.ones(1, 4)
    close(advantages(rewards, "rank"), [[-0.3176] * 4])
    for kind in ("rank-centred", "mean"):
        close(advantages(rewards, kind), [[0.0] * 4])


def test_centred_token_advantages_by_hand():
    """T = 2: ranks 1/2 and 3/2 of 2, sigmoid(+-12 / 4) - .5 = +-.4526. A token alone has rank 1/2 of 1: 0."""
    rewards, of_sequences = [torch.tensor([0.3, 0.8]), torch.tensor([0.4])], torch.tensor([0.25, -0.25])
    close(
        token_advantages(rewards, of_sequences, centred=True),
        [[0.25 - 0.4526, 0.25 + 0.4526], [-0.25, 0.0]],
    )
