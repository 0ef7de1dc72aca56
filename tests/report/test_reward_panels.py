"""Curves of rewards: RL beside its controls, and nothing where no training had rewards."""

from types import SimpleNamespace

from fairseq_bert_kd.report.panels import reward_panels
from fairseq_bert_kd.report.read_experiment import Run
from fairseq_bert_kd.report.read_logs import TrainingLog


def run(system, group="main"):
    return Run(system, 1, system, group, "", "continued", "", None, None, 200)


def log(reward=None, held_out=0.5):
    train = {"nll_loss": 2.0} | (
        {} if reward is None else {"reward": reward, "entropy": 3.0, "copy_rate": 0.1}
    )
    valid = {"loss": 3.0, "held_out": held_out, "bleu": 20.0}
    return TrainingLog({100: train, 200: train}, {100: valid, 200: valid}, 1.0)


def test_all_rewarded_systems_of_the_main_group_are_drawn():
    runs = [run("continued"), run("evaluator"), run("constant"), run("kl", "penalty")]
    logs = {
        "continued.1": log(held_out=0.4),
        "evaluator.1": log(0.7),
        "constant.1": log(0.6),
        "kl.1": log(0.7),
    }
    panels = list(reward_panels(SimpleNamespace(runs=runs, baseline="continued"), logs))
    assert [panel.name for panel in panels] == [
        "reward-train-reward", "reward-valid-held-out", "reward-valid-bleu", "reward-train-copy-rate", "reward-train-entropy",
    ]  # fmt: skip
    assert "evaluator ends at 0.70; constant ends at 0.60." in panels[0].alt
    validated = "continued ends at 0.40; evaluator ends at 0.50; constant ends at 0.50."  # the baseline too
    assert validated in panels[1].alt


def test_no_panels_without_rewards():
    experiment = SimpleNamespace(runs=[run("plain")], baseline="plain")
    assert list(reward_panels(experiment, {"plain.1": log()})) == []
