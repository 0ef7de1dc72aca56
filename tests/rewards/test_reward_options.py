"""Options of training with rewards that would be without effect, or rewards of garbage, are refused."""

import json
import logging
from types import SimpleNamespace

import pytest
import torch

from fairseq_bert_kd.compat import load_checkpoint
from fairseq_bert_kd.criterions.ranking_margin import RankingMarginConfig, RankingMarginCriterion
from fairseq_bert_kd.rewards.evaluator import load_evaluator
from fairseq_bert_kd.rewards.reward_log import RewardLog
from fairseq_bert_kd.rewards.reward_options import check_judges, check_metric, check_sampling, check_unused
from fairseq_bert_kd.tasks import translation_with_reward
from fairseq_bert_kd.tasks.translation_with_reward import TranslationWithRewardConfig, check_text_options
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from tests.rewarded_generators import train
from tests.tiny_chain import logged
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
    """Without --eval-bleu no text is judged, so no reward is needed; the policy's entropy is logged."""
    with logged("valid") as valid:
        last = train(chain.data, tmp_path, *PLAIN, tokenizer=chain.bert, updates=1)
    found = json.loads(valid[-1])
    assert 0 < float(found["valid_entropy"]) < 6
    assert "valid_reward" not in found
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
    with pytest.raises(ValueError, match=r"--evaluator `.*` was made with another tokenizer than `.*cased`"):
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
    cfg = TranslationWithRewardConfig(rl_max_start_ppl=1e9, kd_tokenizer="x" if judged else None)
    check_unused(cfg, "label_smoothed_cross_entropy")
    setattr(cfg, name, value)
    if judged and name in ("rl_reward", "rl_evaluator"):
        check_unused(cfg, "label_smoothed_cross_entropy")
        return
    option = f"--{name.replace('_', '-')}"
    with pytest.raises(
        ValueError, match=f"{option} is for training with samples, and --criterion label_smoo"
    ):
        check_unused(cfg, "label_smoothed_cross_entropy")


def test_a_run_without_samples_refuses_them(chain, tmp_path):
    with pytest.raises(ValueError, match="--rl-samples is for training with samples, and --criterion policy"):
        train(chain.data, tmp_path, *PLAIN, "--rl-samples", 2)


def settings(**options):
    """Settings of a task, of which options are checked without data."""
    cfg = TranslationWithRewardConfig(kd_tokenizer="x", **{"best_checkpoint_metric": "ibleu", **options})
    cfg.left_pad_target = False
    return cfg


REFUSED_WITH_SAMPLES = [
    ({"rl_control": "constant", "rl_advantage": kind}, f"--rl-advantage {kind} {effect}")
    for kind, effect in (
        ("rank", "pushes all of them down; take --rl-advantage none"),
        ("rank-centred", "makes 0 of it"),
        ("mean", "makes 0 of it"),
        ("greedy", "makes 0 of it"),
    )
] + [
    ({"rl_delta": 6.0, "rl_advantage": "mean"}, "--rl-delta 6 has no effect without --rl-advantage rank or"),
    ({"rl_rollout_stride": 2}, "--rl-rollout-stride 2 has no effect without --rl-rollouts above 0"),
    ({"rl_tokenize": "zh", "rl_copy_penalty": 0.0}, "--rl-tokenize zh has no effect without a reward bleu"),
    ({"rl_rollout_delta": 6.0}, "--rl-rollout-delta 6 has no effect without --rl-rollouts above 0"),
    ({"best_checkpoint_metric": "reward"}, "would choose by what is optimised, --rl-reward evaluator; take ibl"),
    ({"best_checkpoint_metric": "bleu", "rl_reward": "bleu"}, "--best-checkpoint-metric bleu would choose by"),
    ({"best_checkpoint_metric": "ibleu", "rl_reward": "0.5*bleu+0.5*rouge-1"}, "take held_out, with"),
    ({"best_checkpoint_metric": "bleu", "rl_reward": "bleu"}, "reward by rouge-l, and take bleu"),
    ({"best_checkpoint_metric": "evaluator", "rl_reward": "0.5*evaluator+0.5*rouge-1"}, "would choose by"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), REFUSED_WITH_SAMPLES)
def test_options_without_effect_on_samples_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        check_sampling(settings(**options))


ACCEPTED_WITH_SAMPLES = [
    {},
    {"rl_control": "constant", "rl_advantage": "none"},
    {"rl_delta": 6.0, "rl_advantage": "rank"},
    {"rl_tokenize": "zh"},
    {"rl_tokenize": "zh", "rl_copy_penalty": 0.0, "rl_reward": "bleu", "best_checkpoint_metric": "held_out"},
    {"rl_rollouts": 1, "rl_rollout_stride": 2, "rl_rollout_delta": 6.0},
    {"best_checkpoint_metric": "bleu", "rl_reward": "rouge-2"},
    {"best_checkpoint_metric": "evaluator", "rl_reward": "rouge-2"},
    {"best_checkpoint_metric": "held_out", "rl_reward": "bleu"},
]


@pytest.mark.parametrize("options", ACCEPTED_WITH_SAMPLES)
def test_options_with_effect_are_accepted(options, caplog):
    with caplog.at_level(logging.WARNING):
        check_sampling(settings(**options))
    assert not caplog.messages


def test_the_loss_of_the_targets_as_measure_of_the_best_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        check_sampling(settings(best_checkpoint_metric="loss"))
    assert "keep the generator that the samples have changed least; take ibleu or held_out" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        check_sampling(settings(best_checkpoint_metric="loss", rl_reward="bleu"))
    assert "take held_out, with" in caplog.text  # ibleu is refused with this reward


METRICS = [
    ("held_out", {"eval_bleu": True}, "held_out is not logged without --rl-held-out-evaluator; give it"),
    ("evaluator", {"eval_bleu": True, "rl_reward": "bleu"}, "is not logged without --rl-evaluator"),
    ("ibleu", {}, "--best-checkpoint-metric ibleu is not logged without --eval-bleu"),
    ("bleu", {}, "--best-checkpoint-metric bleu is not logged without --eval-bleu"),
    ("ibleu", {"kd_tokenizer": None}, "without --eval-bleu and --kd-tokenizer; give them"),
    ("rouge-2", {"eval_bleu": True}, "rouge-2 is not logged in validation under this name"),
    ("ibleu", {"eval_bleu": True, "maximize_best_checkpoint_metric": False}, "add --maximize-best-check"),
    ("source_bleu", {"eval_bleu": True}, "leave --maximize-best-checkpoint-metric out"),
    ("loss", {}, "--best-checkpoint-metric loss is the better the smaller it is"),
]


@pytest.mark.parametrize(("metric", "options", "message"), METRICS)
def test_a_metric_that_cannot_choose_the_best_is_refused(metric, options, message):
    given = {"kd_tokenizer": "x", "maximize_best_checkpoint_metric": True, **options}
    with pytest.raises(ValueError, match=message):
        check_metric(TranslationWithRewardConfig(best_checkpoint_metric=metric, **given))


def test_metrics_that_choose_the_best_are_accepted():
    given = {"kd_tokenizer": "x", "eval_bleu": True, "rl_held_out_evaluator": "x.pt"}
    for metric in ("held_out", "ibleu", "bleu", "loss", "source_bleu", "copy_rate", "ppl"):
        best = {
            "best_checkpoint_metric": metric,
            "maximize_best_checkpoint_metric": metric in ("held_out", "ibleu", "bleu"),
        }
        check_metric(TranslationWithRewardConfig(**given, **best))


WITHOUT_BLEU = [
    ({"rl_held_out_evaluator": "x.pt"}, True, "--rl-held-out-evaluator scores the output of --eval-bleu"),
    ({"rl_held_out_evaluator": "x.pt"}, False, "--rl-held-out-evaluator scores the output of --eval-bleu"),
    ({"rl_evaluator": "x.pt", "rl_reward": "bleu"}, True, "--rl-evaluator scores the output of --eval-bleu"),
    ({"rl_sentence_encoder": "x"}, True, "--rl-sentence-encoder scores the output of --eval-bleu"),
    ({"rl_evaluator": "x.pt"}, False, "--rl-evaluator scores the output of --eval-bleu"),
    ({"rl_reward": "bleu"}, False, "--rl-reward scores the output of --eval-bleu"),
]


@pytest.mark.parametrize(("options", "samples", "message"), WITHOUT_BLEU)
def test_what_judges_in_validation_alone_needs_its_output(options, samples, message):
    with pytest.raises(ValueError, match=message):
        check_judges(settings(**options), samples)
    check_judges(settings(eval_bleu=True, **options), samples)


def test_what_rewards_needs_no_validation():
    check_judges(settings(rl_evaluator="x.pt", rl_positive="good"), samples=True)
    check_judges(settings(rl_reward="bleu"), samples=True)
    with pytest.raises(ValueError, match="--rl-positive good names a class of evaluators, and there is none"):
        check_judges(settings(rl_reward="bleu", rl_positive="good"), samples=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [("eval_tokenized_bleu", True), ("eval_bleu_remove_bpe", "@@ "), ("eval_bleu_detok", "moses")],
)
def test_fairseq_s_ways_to_text_are_refused_beside_the_tokenizer(name, value):
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} says how pieces become text, which"):
        check_text_options(settings(eval_bleu=True, **{name: value}))


def test_the_clock_waits_for_the_device(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    seconds = [translation_with_reward._now(torch.device(name)) for name in ("cpu", "cuda")]
    assert seconds == sorted(seconds)
    assert waited == [torch.device("cuda")]


def test_the_end_of_a_curriculum_needs_its_beginning():
    cfg = RankingMarginConfig(ranking_curriculum_updates=5)
    task = SimpleNamespace(cfg=SimpleNamespace(seed=1), label_dictionary=None)
    with pytest.raises(
        ValueError, match="--ranking-curriculum-updates 5 ends a curriculum, which begins with"
    ):
        RankingMarginCriterion(cfg, task)


def test_copies_name_the_update_before_which_they_were_fewer():
    log = RewardLog()
    names = ("rl_reward", "rl_cut", "rl_entropy", "rl_sampling_seconds", "rl_reward_seconds")
    sums = dict.fromkeys((*names, "rl_update_seconds"), 0.0)
    sums |= {"rl_samples": 10.0, "rl_tokens": 50.0, "rl_copies": 6.0}
    for _ in range(49):
        log.reduce([sums], 0.5, 149)
    with pytest.raises(ValueError, match="a checkpoint from before update 101$"):  # the 150th was the last
        log.reduce([sums], 0.5, 149)
