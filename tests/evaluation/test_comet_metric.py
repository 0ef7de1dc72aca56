"""COMET through a stand-in for its package, which is not installed here: what it is given, and what comes of it."""

import importlib.metadata
import sys
import types

import pytest

from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.evaluation.comet_metric import Comet
from fairseq_bert_kd.evaluation.metric import MetricSettings
from fairseq_bert_kd.evaluation.significance import paired_test
from fairseq_bert_kd.evaluation.system_output import SystemOutput
from tests.cli.test_score_translations import GOOD, POOR, REFERENCE, folder, score

__all__ = ["folder"]  # fixture
SOURCES = ["ein Satz", "zwei", "drei mehr"]


class Model:
    """Words of the output over those of the reference, plus one per 100 for each word of the source."""

    calls = 0

    def predict(self, segments, batch_size, gpus):
        Model.calls += 1
        scores = [
            len(segment["mt"].split()) / len(segment["ref"].split()) + 0.01 * len(segment["src"].split())
            for segment in segments
        ]
        return types.SimpleNamespace(scores=scores, system_score=sum(scores) / len(scores))


@pytest.fixture
def comet(monkeypatch):
    """The package's two functions; a checkpoint is loaded from a path, anything else downloaded first."""
    loaded = []
    module = types.ModuleType("comet")

    def download_model(name):
        if name != "Unbabel/some-model":
            raise KeyError(f"Model '{name}' not supported by COMET.")
        return f"cache/{name}.ckpt"

    def load_from_checkpoint(path):
        loaded.append(path)
        return Model()

    module.download_model, module.load_from_checkpoint = download_model, load_from_checkpoint
    monkeypatch.setitem(sys.modules, "comet", module)
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "9.9" if name == "unbabel-comet" else version(name)
    )
    return loaded


def test_scores_by_hand(comet, tmp_path):
    (tmp_path / "own.ckpt").write_text("weights")
    metric = Comet(MetricSettings(), str(tmp_path / "own.ckpt"), SOURCES)
    assert comet == [str(tmp_path / "own.ckpt")]
    assert metric.signature == "model:own.ckpt|x100|version:9.9"
    Model.calls = 0
    outputs = [SystemOutput({"comet": metric}, texts, REFERENCE) for texts in (POOR, GOOD)]
    # words 3/7 + 2 words of source, 6/7 + 1, 3/7 + 2
    assert outputs[0].sentence_scores("comet") == pytest.approx([300 / 7 + 2, 600 / 7 + 1, 300 / 7 + 2])
    assert outputs[0].scores["comet"] == pytest.approx((1200 / 7 + 5) / 3)
    assert 0 < paired_test("comet", *outputs).p <= 1
    assert Model.calls == 2  # each text is scored once


def test_score_command(comet, folder, capsys):
    (folder / "src").write_text("\n".join(SOURCES) + "\n")
    words = ("--comet", "Unbabel/some-model", "--source", folder / "src")
    assert score(folder, f"poor={folder / 'poor'}", *words) == 0
    out = capsys.readouterr().out
    assert out.split("\n")[0].endswith("COMET")
    assert out.split("\n")[2].endswith(f"{(1200 / 7 + 5) / 3:.2f}")
    assert "COMET: model:some-model|x100|version:9.9" in out
    assert comet == ["cache/Unbabel/some-model.ckpt"]
    assert score(folder, folder / "poor", "--comet", "Unbabel/some-model") == 2
    assert "give its raw text with --source" in capsys.readouterr().err
    assert score(folder, folder / "poor", "--comet", "unknown", "--source", folder / "src") == 2
    assert "give the path of a COMET checkpoint" in capsys.readouterr().err
    (folder / "short").write_text("one\n")
    assert score(folder, folder / "poor", "--comet", "m", "--source", folder / "short") == 2
    assert "has 1 lines, the reference has 3" in capsys.readouterr().err


def test_without_the_package_the_next_step_is_named(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "comet", None)
    (folder / "src").write_text("\n".join(SOURCES) + "\n")
    words = [
        "score",
        "--reference",
        folder / "ref",
        folder / "good",
        "--comet",
        "m",
        "--source",
        folder / "src",
    ]
    assert cli_main(list(map(str, words))) == 2
    err = capsys.readouterr().err
    assert "--comet needs unbabel-comet" in err
    assert "pip install 'fairseq-bert-kd[comet]'" in err
