import json
import subprocess
import sys

import numpy as np
import pytest

from fairseq_bert_kd.evaluation.significance import RESAMPLES, SEED, mean_p_value, p_values
from fairseq_bert_kd.evaluation.text_metrics import Metrics, MetricSettings, Output

WORDS = [
    "a",
    "man",
    "is",
    "sitting",
    "on",
    "the",
    "red",
    "chair",
    "in",
    "front",
    "of",
    "an",
    "old",
    "house",
    "with",
    "two",
    "dogs",
]


def corpus(sentences=60):
    """References, and two texts that lack words of them."""
    rng = np.random.default_rng(1)
    references = [" ".join(rng.choice(WORDS, 9)) for _ in range(sentences)]
    worse, better = (
        [" ".join(word for word in text.split() if rng.random() > lost) for text in references]
        for lost in (0.3, 0.2)
    )
    return references, worse, better


def test_p_is_that_of_sacrebleus_command_line(tmp_path):
    references, worse, better = corpus()
    for file, lines in (("ref", references), ("worse", worse), ("better", better)):
        (tmp_path / file).write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "sacrebleu", "ref", "-i", "worse", "better", "-m", "bleu", "--paired-bs"]
    command += ["--paired-bs-n", str(RESAMPLES), "-f", "json"]
    child = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = json.loads(child.stdout)[1]["BLEU"]
    metrics = Metrics(MetricSettings())
    base, system = (Output(metrics, texts, references) for texts in (worse, better))
    p, signature = p_values("bleu", base, {"x": system})
    assert p["x"] == pytest.approx(expected["p_value"], abs=1e-9)
    assert system.scores["bleu"] == pytest.approx(expected["score"], abs=0.06)  # it prints one digit
    assert signature == f"nrefs:1|bs:{RESAMPLES}|seed:{SEED}|" + "|".join(
        str(metrics.bleu.get_signature()).split("|")[1:]
    )


def test_mean_p_value_against_the_slow_way():
    rng = np.random.default_rng(2)
    base, system = rng.random(30), rng.random(30) + 0.15
    drawn = np.random.default_rng(SEED).choice(30, size=(RESAMPLES, 30), replace=True)
    samples = [abs(np.mean([system[i] - base[i] for i in row])) for row in drawn.tolist()]
    mean, observed = sum(samples) / RESAMPLES, abs(system.mean() - base.mean())
    expected = (sum(sample - mean > observed for sample in samples) + 1) / (RESAMPLES + 1)
    assert mean_p_value(base, system) == pytest.approx(expected, abs=1e-12)
    assert mean_p_value(system, base) == mean_p_value(base, system)  # two-sided


def test_a_large_difference_is_significant_and_a_small_one_is_not():
    base = np.random.default_rng(3).random(200)
    assert mean_p_value(base, base + 1) == 1 / (RESAMPLES + 1)
    flipped = base.copy()
    flipped[:2] = [base[1] + 0.01, base[0] - 0.009]
    assert mean_p_value(base, flipped) > 0.2


def test_equal_texts_do_not_differ():
    references, worse, _ = corpus(10)
    for settings, key in ((MetricSettings(), "bleu"), (MetricSettings(rouge=True), "rougeL")):
        metrics = Metrics(settings)
        same = [Output(metrics, worse, references) for _ in range(2)]
        assert p_values(key, same[0], {"x": same[1]})[0] == {"x": 1.0}
