"""Paired bootstrap resampling (Koehn, 2004): sacreBLEU's, and the same protocol for means of sentence scores."""

import logging
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from sacrebleu.significance import PairedTest

from fairseq_bert_kd.evaluation.text_metrics import ROUGE_TYPES, Output

RESAMPLES = 1000
SEED = 12345  # sacreBLEU's default


def p_values(key: str, baseline: Output, systems: Mapping[str, Output]) -> tuple[dict[str, float], str]:
    """Two-sided p-values of systems against a baseline on the same references.

    sacreBLEU's ``paired-bs``: sentences are drawn with replacement, the same ones for both sides; p is the share of
    resamples whose absolute difference, less its mean over the resamples, exceeds the observed one, with one added
    to both counts. Where the two scores are equal p is 1: the rule above counts none of the resamples of two equal
    texts and would call them different.

    Args:
        key: "bleu", "chrf2" or one of `ROUGE_TYPES`.
        baseline: scored text.
        systems: scored texts by name.

    Returns:
        p-value by name, and the test's signature.
    """
    if key in ROUGE_TYPES:
        values = {
            name: mean_p_value(baseline.sentence_scores(key), output.sentence_scores(key))
            for name, output in systems.items()
        }
        return values, f"paired bootstrap of sentence F1|bs:{RESAMPLES}|seed:{SEED}"
    metric = baseline.metrics.bleu if key == "bleu" else baseline.metrics.chrf
    named = [
        ("baseline", baseline.hypotheses),
        *((name, output.hypotheses) for name, output in systems.items()),
    ]
    quiet = logging.getLogger("sacrebleu")
    level = quiet.level
    quiet.setLevel(logging.WARNING)
    try:
        test = PairedTest(named, {key: metric}, [baseline.references], test_type="bs", n_samples=RESAMPLES)
        signatures, results = test()
    finally:
        quiet.setLevel(level)
    name = next(iter(signatures))
    base = results[name][0].score
    tested = {
        system: 1.0 if result.score == base else result.p_value
        for system, result in zip(systems, results[name][1:], strict=True)
    }
    return tested, str(signatures[name])


def mean_p_value(baseline: NDArray[np.float64], system: NDArray[np.float64]) -> float:
    """p-value of a difference of means, see `p_values`; both ``(sentences,)``."""
    rng = np.random.default_rng(SEED)
    difference = system - baseline
    if not difference.mean():
        return 1.0
    drawn = rng.choice(len(difference), size=(RESAMPLES, len(difference)), replace=True)
    samples = np.abs(difference[drawn].mean(axis=1))
    beyond = int((samples - samples.mean() > abs(difference.mean())).sum())
    return (beyond + 1) / (RESAMPLES + 1)
