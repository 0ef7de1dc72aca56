"""Scores of a text against its reference: sacreBLEU's BLEU and chrF2, and ROUGE by rouge_score.

A corpus score, and what each sentence adds to it, so that any subset or resample can be scored again.
"""

import importlib.metadata
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics import BLEU, CHRF

from fairseq_bert_kd.compat import import_extra

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")
NAMES = {
    "bleu": "BLEU",
    "chrf2": "chrF2",
    "length_ratio": "length ratio",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
}
_BLEU_ORDER = 4


class MetricSettings(NamedTuple):
    """How texts are compared.

    Attributes:
        lowercase: without case; ROUGE never looks at it.
        tokenize: sacreBLEU's tokenizer for BLEU.
        rouge: also ROUGE-1, ROUGE-2 and ROUGE-L.
    """

    lowercase: bool = False
    tokenize: str = "13a"
    rouge: bool = False


class Metrics:
    """The metrics of an experiment.

    Attributes:
        settings: how texts are compared.
        bleu: sacreBLEU's.
        chrf: sacreBLEU's, chrF2.
        rouge: rouge_score's scorer, or None.

    Raises:
        ImportError: ROUGE is asked for and rouge_score is not installed.
        ValueError: a tokenizer that sacreBLEU does not have, or cannot load.
    """

    def __init__(self, settings: MetricSettings):
        self.settings = settings
        if settings.tokenize not in BLEU.TOKENIZERS:
            raise ValueError(
                f"sacreBLEU has no tokenizer `{settings.tokenize}`; it has {', '.join(sorted(BLEU.TOKENIZERS))}"
            )
        options: dict[str, Any] = {"lowercase": settings.lowercase, "tokenize": settings.tokenize}
        options["force"] = settings.tokenize == "none"  # tokenised text is what is asked for: no warning
        try:
            self.bleu = BLEU(**options)
        except (RuntimeError, OSError) as error:  # some have to be installed, others are fetched
            raise ValueError(f"sacreBLEU's tokenizer `{settings.tokenize}` cannot be had: {error}") from None
        self.chrf = CHRF(lowercase=settings.lowercase)
        self._sentence_bleu = BLEU(**options, effective_order=True)  # for its counts only
        self.rouge = None
        if settings.rouge:
            self.rouge = import_extra("rouge_score.rouge_scorer").RougeScorer(ROUGE_TYPES, use_stemmer=True)

    @property
    def keys(self) -> tuple[str, ...]:
        """Of `Output.scores`, in the order of tables."""
        return (*(ROUGE_TYPES if self.rouge else ("bleu",)), "chrf2", "length_ratio")

    @property
    def signatures(self) -> dict[str, str]:
        """By metric, as sacreBLEU writes them."""
        for metric in (self.bleu, self.chrf):
            metric.corpus_score(["a"], [["a"]])  # it counts the references of a text while it scores
        signatures = {"BLEU": str(self.bleu.get_signature()), "chrF2": str(self.chrf.get_signature())}
        if not self.rouge:
            return signatures
        version = importlib.metadata.version("rouge-score")
        return {
            "ROUGE": f"F1|use_stemmer:True|split_summaries:False|mean over sentences|rouge_score:{version}",
            "chrF2": signatures["chrF2"],
            "length ratio": signatures["BLEU"],
        }


class Output:
    """A text and its scores; each is computed when it is first asked for.

    Args:
        metrics: to score with.
        hypotheses: ``(sentences,)``.
        references: ``(sentences,)``.
    """

    def __init__(self, metrics: Metrics, hypotheses: Sequence[str], references: Sequence[str]):
        assert len(hypotheses) == len(references), (len(hypotheses), len(references))
        self.metrics = metrics
        self.hypotheses = list(hypotheses)
        self.references = list(references)

    @cached_property
    def scores(self) -> dict[str, float]:
        """Corpus scores by the keys of `Metrics.keys`; 0 to 100, and ``length_ratio``."""
        bleu = self.metrics.bleu.corpus_score(self.hypotheses, [self.references])
        scores = {
            "bleu": bleu.score,
            "chrf2": self.metrics.chrf.corpus_score(self.hypotheses, [self.references]).score,
            "length_ratio": bleu.sys_len / max(bleu.ref_len, 1),
        }
        if self.metrics.rouge:
            scores |= dict(zip(ROUGE_TYPES, self.sentence_rouge.mean(axis=0).tolist(), strict=True))
        return {key: scores[key] for key in self.metrics.keys}

    @cached_property
    def sentence_chrf(self) -> NDArray[np.float64]:
        """``(sentences,)`` chrF2 of each sentence, 0 to 100."""
        pairs = zip(self.hypotheses, self.references, strict=True)
        return np.array(
            [self.metrics.chrf.sentence_score(text, [reference]).score for text, reference in pairs]
        )

    @cached_property
    def sentence_rouge(self) -> NDArray[np.float64]:
        """``(sentences, 3)`` F1 of `ROUGE_TYPES`, 0 to 100."""
        assert self.metrics.rouge is not None
        pairs = zip(self.references, self.hypotheses, strict=True)
        scored = [self.metrics.rouge.score(reference, text) for reference, text in pairs]
        return 100 * np.array([[score[name].fmeasure for name in ROUGE_TYPES] for score in scored])

    @cached_property
    def bleu_counts(self) -> NDArray[np.int64]:
        """``(sentences, 10)``: tokens of hypothesis and reference, matching n-grams, n-grams, for n = 1 to 4."""
        rows = []
        for text, reference in zip(self.hypotheses, self.references, strict=True):
            score = self.metrics._sentence_bleu.sentence_score(text, [reference])
            rows.append([score.sys_len, score.ref_len, *score.counts, *score.totals])
        return np.array(rows, dtype=np.int64).reshape(-1, 2 + 2 * _BLEU_ORDER)

    def subset_score(self, key: str, sentences: NDArray[np.int64]) -> float:
        """Score of some sentences, repeats allowed.

        Args:
            key: "bleu" (of the corpus that they are), "rougeL" or "chrf2" (means over the sentences).
            sentences: ``(n,)`` their numbers.
        """
        if key == "bleu":
            total = self.bleu_counts[sentences].sum(axis=0).tolist()
            return BLEU.compute_bleu(
                correct=total[2:6], total=total[6:], sys_len=total[0], ref_len=total[1], smooth_method="exp"
            ).score
        return float(self.sentence_scores(key)[sentences].mean())

    def sentence_scores(self, key: str) -> NDArray[np.float64]:
        """``(sentences,)`` scores of which the corpus score is the mean ("rougeL"), or chrF2 of each sentence."""
        return self.sentence_rouge[:, ROUGE_TYPES.index(key)] if key in ROUGE_TYPES else self.sentence_chrf
