"""Inverse reinforcement: the evaluator goes on to learn from what the generator sampled."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fairseq_bert_kd.criterions.ranking_margin import RankingMarginConfig, RankingMarginCriterion
from fairseq_bert_kd.rewards.evaluator import load_evaluator
from tests.ranked_texts import REFERENCES, SAMPLES, SOURCES, prepare_pairs, ranking, write_texts
from tests.tiny_chain import PLUGIN, logged, run_fairseq
from tests.tiny_sentences import TinySentences, train

HEAD = "sentence_classification_head"


@pytest.fixture(scope="module")
def files(chain, tmp_path_factory):
    """Labelled pairs, an evaluator, and texts to rank."""
    folder = write_texts(tmp_path_factory.mktemp("ranking"))
    train(prepare_pairs(chain.bert, folder), folder / "evaluator", updates=2)
    return folder


def continued(files, save_dir, *arguments, updates=8):
    """Continue the evaluator on the triples; the path of its last checkpoint."""
    run_fairseq(
        "train", files / "data", "--user-dir", PLUGIN, *ranking(files), "--arch", "tiny_sentences", "--finetune-from-model",
        files / "evaluator" / "checkpoint_last.pt", "--optimizer", "adam", "--lr", 0.05, "--batch-size", 8, "--max-update", updates, "--save-dir",
        save_dir, "--no-epoch-checkpoints", "--num-workers", 0, "--cpu", "--log-format", "json", "--log-interval", 1,
        *arguments,
    )  # fmt: skip
    return save_dir / "checkpoint_last.pt"


def test_the_margin_falls_and_references_rise_above_samples(files, tmp_path):
    with logged("train_inner") as inner, logged("valid") as valid:
        last = continued(files, tmp_path)
    first, final = json.loads(inner[0]), json.loads(inner[-1])
    assert float(final["margin"]) < 0.7 * float(first["margin"])
    assert first["learned"] == "1"
    assert "valid_accuracy" in json.loads(valid[-1])
    evaluator = load_evaluator(str(last), "good", "--rl-evaluator")
    found, other = evaluator(SOURCES[:1], REFERENCES[:1], [""]), evaluator(SOURCES[:1], SAMPLES[:1], [""])
    assert found > other + 0.3


def test_texts_that_fit_two_by_two_are_not_refused_three_by_three(files, tmp_path, monkeypatch):
    """The model reads a source with one other text; what is longer is cut, and counted."""
    longest = 2 * max(len(text.split()) + 1 for text in (*SOURCES, *REFERENCES, *SAMPLES))
    monkeypatch.setattr(TinySentences, "positions", 2 * longest)
    with logged("fairseq_bert_kd.tasks.ranking_margin") as messages:
        continued(files, tmp_path / "all", updates=1)
        assert not messages
        monkeypatch.setattr(TinySentences, "positions", 8)
        continued(files, tmp_path / "cut", updates=1)
    assert all("texts were cut to 4 tokens" in message for message in messages)
    assert messages


def test_the_curriculum_learns_a_part(files, tmp_path):
    options = ("--ranking-curriculum-delta", 12, "--ranking-curriculum-updates", 100)
    with logged("train_inner") as inner:
        continued(files, tmp_path, *options, updates=3)
    assert 0 < sum(float(json.loads(line)["learned"]) for line in inner) < 3


class Scorer(torch.nn.Module):
    """Gives M(X, Y) as the second text says it, in tenths."""

    def __init__(self):
        super().__init__()
        self.classification_heads = {HEAD: None}

    def forward(self, texts, lengths, features_only, classification_head_name):
        score = texts[1][:, 0].double() / 10
        return torch.stack([torch.zeros_like(score), torch.log(score / (1 - score))], dim=1), {}


def batch(rouge, places=(0.5,)):
    pairs = len(rouge)
    texts = (torch.zeros(pairs, 1), torch.full((pairs, 1), 9), torch.full((pairs, 1), 7))
    targets = torch.tensor(
        [[r, p] for r, p in zip(rouge, np.resize(places, pairs), strict=True)], dtype=torch.float64
    )
    net_input = {"texts": texts, "lengths": (None,) * 3}
    return {"net_input": net_input, "target": targets, "id": torch.arange(pairs), "ntokens": 1}


def criterion(**options):
    task = SimpleNamespace(
        label_dictionary=None, positive=1, cfg=SimpleNamespace(seed=1), target_dictionary=None
    )
    return RankingMarginCriterion(RankingMarginConfig(classification_head_name=HEAD, **options), task)


def test_by_hand():
    """ROUGE-L .6, M(Yhat) .7, M(Y) .9: .2; ROUGE-L 1: max(0, -.2)."""
    loss, size, log = criterion()(Scorer(), batch([0.6, 1.0]))
    assert (float(loss), size) == (pytest.approx(0.2), 2)
    assert float(log["reference_score"]) == pytest.approx(1.8)
    assert float(log["sampled_score"]) == pytest.approx(1.4)


def test_curriculum_by_place():
    """At delta 12 the closest pairs are learned nearly always, the farthest hardly ever; at its end one in two."""
    learner = criterion(ranking_curriculum_delta=12.0, ranking_curriculum_updates=10)
    for place, update, least, most in ((0.0, 0, 0.95, 1.0), (1.0, 0, 0.0, 0.05), (1.0, 10, 0.35, 0.65)):
        learner.set_num_updates(update)
        _, size, _ = learner(Scorer(), batch([0.6] * 200, [place]))
        assert least <= size / 200 <= most


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--criterion", "sentence_prediction"), "task ranking_margin needs --criterion ranking_margin"),
        (("--ranking-sources", ""), "needs --ranking-sources FILE, the raw text that the generator read"),
        (("--ranking-positive", "best"), "`best` is none of them. Correct --ranking-positive"),
        (("--ranking-curriculum-delta", -1), "--ranking-curriculum-delta must be at least 0, got -1"),
    ],
)
def test_refused(files, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        continued(files, tmp_path, *options)


def test_sides_of_unequal_length_are_refused(files, tmp_path):
    short = tmp_path / "short"
    short.write_text("a\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"has 24 lines, .* 1; give the two sides of one text"):
        continued(files, tmp_path, "--ranking-references", short)


def test_triples_are_refused_by_another_task(files):
    with pytest.raises(ValueError, match="needs --task ranking_margin"):
        criterion()(Scorer(), {"net_input": {"texts": (0, 0), "lengths": (0, 0)}})
