"""Options of training with rewards that would be without effect, or rewards of garbage, are refused."""

from collections import deque
from types import SimpleNamespace

import pytest
import torch

from fairseq_bert_kd.compat import load_checkpoint
from fairseq_bert_kd.criterions.ranking_margin import RankingMarginConfig, RankingMarginCriterion
from fairseq_bert_kd.rewards.evaluator import load_evaluator
from fairseq_bert_kd.tasks.translation_with_reward import (
    TranslationWithRewardConfig,
    TranslationWithRewardTask,
)
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from tests.rewarded_generators import train
from tests.tiny_sentences import prepare, write_table
from tests.tiny_sentences import train as train_sentences
from tests.tokenization.tiny_tokenizers import build_tokenizer

PLAIN = ("--rl-weight", 0)


def test_another_tokenizer_is_refused(chain, tmp_path):
    build_tokenizer("roberta", tmp_path / "roberta")
    with pytest.raises(ValueError, match=r"every symbol of the source dictionary must be a piece of"):
        train(chain.data, tmp_path, "--rl-reward", "bleu", tokenizer=tmp_path / "roberta")
    assert not (tmp_path / "checkpoint_last.pt").exists()


def test_the_checkpoint_knows_what_its_pieces_were_made_with(chain, tmp_path):
    last = train(chain.data, tmp_path, *PLAIN, "--rl-reward", "bleu", tokenizer=chain.bert, updates=1)
    digests = load_checkpoint(str(last))["task_state"]["digests"]
    assert digests.keys() == {"source_dictionary", "target_dictionary", "tokenizer"}
    assert digests["tokenizer"] == HfTokenizer(str(chain.bert)).digest()


def test_an_evaluator_whose_tokenizer_has_changed_is_refused(chain, tmp_path):
    table = write_table(tmp_path / "pairs.tsv", 16, pairs=True)
    columns = ("--columns", "text,other", "--label-column", "label", "--train", table, "--valid", table)
    assert prepare(chain.bert, tmp_path / "data", *columns) == 0
    path = train_sentences(tmp_path / "data", tmp_path / "model", updates=1)
    build_tokenizer("bert_cased", tmp_path / "cased")
    state = torch.load(path, weights_only=False)
    state["cfg"]["task"]["kd_tokenizer"] = str(tmp_path / "cased")
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"--evaluator `.*` comes from a teacher with another tokenizer"):
        load_evaluator(str(path), "good", "--evaluator")
    with pytest.raises(ValueError, match="none is named as the one of paraphrases; name it with --positive"):
        load_evaluator(str(path), None, "--evaluator", positive_option="--positive")


UNUSED = [
    ("rl_control", "shuffled"),
    ("rl_samples", 2),
    ("rl_max_len_b", 9),
    ("rl_reference", "x.pt"),
    ("rl_reward", "bleu"),
    ("rl_evaluator", "x.pt"),
]


@pytest.mark.parametrize("judged", [False, True])
@pytest.mark.parametrize(("name", "value"), UNUSED)
def test_options_of_samples_are_refused_without_samples(name, value, judged):
    """All but those that judge in validation, once there is a tokenizer, and limits that nothing can reach."""
    task = object.__new__(TranslationWithRewardTask)
    task.cfg = TranslationWithRewardConfig(rl_max_start_ppl=1e9, kd_tokenizer="x" if judged else None)
    criterion = SimpleNamespace(_name="label_smoothed_cross_entropy")
    task._check_unused(criterion)
    setattr(task.cfg, name, value)
    if judged and name in ("rl_reward", "rl_evaluator"):
        task._check_unused(criterion)
        return
    option = f"--{name.replace('_', '-')}"
    with pytest.raises(
        ValueError, match=f"{option} is for training with samples, and --criterion label_smoo"
    ):
        task._check_unused(criterion)


def test_a_run_without_samples_refuses_them(chain, tmp_path):
    with pytest.raises(ValueError, match="--rl-samples is for training with samples, and --criterion policy"):
        train(chain.data, tmp_path, *PLAIN, "--rl-samples", 2)


def test_a_constant_reward_with_ranks_that_are_not_centred(chain, tmp_path):
    options = ("--rl-reward", "bleu", "--rl-control", "constant", "--rl-advantage", "rank")
    with pytest.raises(ValueError, match="pushes all of them down; take --rl-advantage none"):
        train(chain.data, tmp_path, *options, tokenizer=chain.bert)


def test_the_end_of_a_curriculum_needs_its_beginning():
    cfg = RankingMarginConfig(ranking_curriculum_updates=5)
    task = SimpleNamespace(cfg=SimpleNamespace(seed=1), label_dictionary=None)
    with pytest.raises(
        ValueError, match="--ranking-curriculum-updates 5 ends a curriculum, which begins with"
    ):
        RankingMarginCriterion(cfg, task)


def test_copies_name_the_update_before_which_they_were_fewer():
    task = object.__new__(TranslationWithRewardTask)
    task.cfg, task._copies, task._update = SimpleNamespace(rl_max_copy_rate=0.5), deque(maxlen=50), 149
    names = ("rl_reward", "rl_cut", "rl_entropy", "rl_sampling_seconds", "rl_reward_seconds")
    sums = dict.fromkeys((*names, "rl_update_seconds"), 0.0)
    sums |= {"rl_samples": 10.0, "rl_tokens": 50.0, "rl_copies": 6.0}
    for _ in range(49):
        task._log_training(sums)
    with pytest.raises(ValueError, match="a checkpoint from before update 101$"):  # the 150th was the last
        task._log_training(sums)
