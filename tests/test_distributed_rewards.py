"""Two workers sample, are rewarded and learn as one process does with twice ``--update-freq``.

Draws depend on seed, update and sentence, so the samples are the same. An odd number of batches leaves one worker without
one in the last update, and fairseq gives it a dummy batch.
"""

import pytest

from tests.ranked_texts import prepare_pairs, ranking, write_texts
from tests.rewarded_generators import TINY, train
from tests.test_distributed_training import ODD, assert_same_weights, from_log, in_one, training
from tests.two_workers import TwoWorkers

SAME = (
    "loss",
    "rl_loss",
    "nll_loss",
    "reward",
    "copy_rate",
    "cut_rate",
    "entropy",
    "sample_length",
    "wpb",
    "bsz",
    "gnorm",
)


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    with TwoWorkers(tmp_path_factory.mktemp("logs")) as both:
        yield both


def held_back(chain, folder):
    """Options of roll-outs, and of a policy that is held at its start."""
    start = train(chain.data, folder / "start", "--rl-weight", 0, updates=1)
    kl = ("--rl-kl-weight", 0.1, "--rl-reference", start)
    return (*kl, "--rl-samples", 2, "--rl-rollouts", 1, "--rl-rollout-stride", 4)


@pytest.mark.parametrize("backend", ["legacy_ddp", "pytorch_ddp"])
def test_generator(chain, workers, tmp_path, backend):
    legacy = backend == "legacy_ddp"
    options = held_back(chain, tmp_path) if legacy else ("--rl-advantage", "greedy")
    arguments = (
        "--task", "translation_with_reward", "--criterion", "policy_gradient", *TINY, "--dropout", 0, "--label-smoothing", 0.1,
        "--kd-tokenizer", chain.bert, "--rl-reward", "bleu", "--rl-max-start-ppl", 1e9, "--batch-size", ODD,
        "--eval-bleu", "--eval-bleu-args", '{"beam": 1, "max_len_b": 8}',
        *options,
    )  # fmt: skip
    one = in_one(chain.data, tmp_path / "one", *arguments, epochs=1)
    command = training(chain.data, tmp_path / "two", *arguments, "--ddp-backend", backend, epochs=1)
    two = from_log(workers.run("train", *command, pytorch_ddp=backend == "pytorch_ddp")[0])
    assert len(one["train_inner"]) == len(two["train_inner"]) == 3
    for expected, found in zip(one["train_inner"], two["train_inner"], strict=True):
        for name in (*SAME, "rl_kl") if legacy else SAME:
            assert float(found[name]) == pytest.approx(float(expected[name]), rel=1e-3, abs=2e-3), name
    for name in ("valid_entropy", "valid_reward", "valid_source_bleu", "valid_loss"):
        assert float(two["valid"][0][name]) == pytest.approx(float(one["valid"][0][name]), rel=1e-3, abs=2e-3)
    assert_same_weights(tmp_path / "one", tmp_path / "two")


def test_evaluator_that_ranks(chain, workers, tmp_path):
    """Three batches of 10, 10 and 4 triples, with a curriculum: one worker gets a dummy batch in the last update."""
    data, texts = prepare_pairs(chain.bert, tmp_path), write_texts(tmp_path)
    arguments = (
        *ranking(texts), "--arch", "decomposable_attention", "--encoder-model", chain.bert, "--evaluator-dropout", 0,
        "--batch-size", 10, "--ranking-curriculum-delta", 4,
    )  # fmt: skip
    one = in_one(data, tmp_path / "one", *arguments, epochs=2)
    command = training(data, tmp_path / "two", *arguments, epochs=2)
    two = from_log(workers.run("train", *command, pytorch_ddp=True)[0])
    assert len(one["train_inner"]) == len(two["train_inner"]) == 4
    for expected, found in zip(one["train_inner"], two["train_inner"], strict=True):
        for name in ("loss", "margin", "learned", "sampled_score", "reference_score", "gnorm"):
            assert float(found[name]) == pytest.approx(float(expected[name]), rel=1e-3, abs=2e-3), name
    assert 0 < sum(float(entry["learned"]) for entry in one["train_inner"]) < 4
    for expected, found in zip(one["valid"], two["valid"], strict=True):
        assert float(found["valid_loss"]) == pytest.approx(float(expected["valid_loss"]), rel=1e-3, abs=2e-3)
    assert_same_weights(tmp_path / "one", tmp_path / "two")
