"""Metrics of texts: sacreBLEU's BLEU and chrF2, the length ratio, and ROUGE by the package rouge-score.

Sources: Papineni et al. 2002 (BLEU), Popović 2015 (chrF), Lin 2004 (ROUGE), Post 2018 (sacreBLEU).
"""

import importlib.metadata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics import BLEU, CHRF

from fairseq_bert_kd.compat import import_extra
from fairseq_bert_kd.evaluation.metric import Metric, MetricSettings, Values

TOKENIZERS = tuple(sorted(BLEU.TOKENIZERS))  # of sacreBLEU
DEFAULT_TOKENIZER = MetricSettings().tokenize
_BLEU_ORDER = 4
_BLEU_COLUMNS = ("bleu", "chrf2", "length_ratio")


def word_splitter(tokenize: str = DEFAULT_TOKENIZER) -> Callable[[str], list[str]]:
    """Words of a text, as one of sacreBLEU's tokenizers splits it."""
    tokenizer = BLEU(tokenize=tokenize, force=True).tokenizer
    return lambda text: tokenizer(text).split()


def word_counts(texts: Sequence[str], tokenize: str = DEFAULT_TOKENIZER) -> NDArray[np.int64]:
    """``(sentences,)`` numbers of words, see `word_splitter`."""
    words = word_splitter(tokenize)
    return np.array([len(words(text)) for text in texts], dtype=np.int64)


class Bleu(Metric):
    """Corpus BLEU of sacreBLEU. It has no scores of single sentences.

    Attributes:
        scorer: sacreBLEU's metric.

    Raises:
        ValueError: sacreBLEU does not have this tokenizer, or cannot load it.
    """

    name, title, kind, columns, test = "bleu", "BLEU", "text", _BLEU_COLUMNS, "sacrebleu"

    def __init__(self, settings: MetricSettings):
        super().__init__(settings)
        if settings.tokenize not in TOKENIZERS:
            raise ValueError(
                f"sacreBLEU has no tokenizer `{settings.tokenize}`; it has {', '.join(TOKENIZERS)}"
            )
        options: dict[str, Any] = {"lowercase": settings.lowercase, "tokenize": settings.tokenize}
        options["force"] = settings.tokenize == "none"  # no warning that the text is tokenised
        try:
            self.scorer = BLEU(**options)
        except (RuntimeError, OSError) as error:  # some tokenizers must be installed, others downloaded
            raise ValueError(
                f"sacreBLEU's tokenizer `{settings.tokenize}` is not available: {error}"
            ) from None
        self._sentence_scorer = BLEU(**options, effective_order=True)  # for its counts only

    @property
    def signature(self) -> str:
        return _sacrebleu_signature(self.scorer)

    def _corpus_score(self, predictions: Values, references: Values) -> float:
        return self.scorer.corpus_score(predictions, [references]).score

    def statistics(self, predictions: Values, references: Values) -> NDArray[np.int64]:
        """``(sentences, 10)``: words of prediction and reference, matching n-grams, n-grams, for n = 1 to 4."""
        rows = []
        for text, reference in zip(predictions, references, strict=True):
            score = self._sentence_scorer.sentence_score(text, [reference])
            rows.append([score.sys_len, score.ref_len, *score.counts, *score.totals])
        return np.array(rows, dtype=np.int64).reshape(-1, 2 + 2 * _BLEU_ORDER)

    def score_of(self, statistics: NDArray[np.int64]) -> float:
        total = statistics.sum(axis=0).tolist()
        return BLEU.compute_bleu(
            correct=total[2:6], total=total[6:], sys_len=total[0], ref_len=total[1], smooth_method="exp"
        ).score


class LengthRatio(Bleu):
    """Words of the predictions over words of the references, as BLEU counts them."""

    name, title, decimals, test = "length_ratio", "length ratio", 3, "statistics"

    def _corpus_score(self, predictions: Values, references: Values) -> float:
        score = self.scorer.corpus_score(predictions, [references])
        return score.sys_len / max(score.ref_len, 1)

    def score_of(self, statistics: NDArray[np.int64]) -> float:
        predicted, reference = statistics[:, :2].sum(axis=0).tolist()
        return predicted / max(reference, 1)


class Chrf(Metric):
    """Corpus chrF2 of sacreBLEU, and chrF2 of each sentence. The score of a subset is the mean of its sentences.

    Attributes:
        scorer: sacreBLEU's metric.
    """

    name, title, kind, columns, test = "chrf2", "chrF2", "text", _BLEU_COLUMNS, "sacrebleu"

    def __init__(self, settings: MetricSettings):
        super().__init__(settings)
        self.scorer = CHRF(lowercase=settings.lowercase)

    @property
    def signature(self) -> str:
        return _sacrebleu_signature(self.scorer)

    def _corpus_score(self, predictions: Values, references: Values) -> float:
        return self.scorer.corpus_score(predictions, [references]).score

    def sentence_scores(self, predictions: Values, references: Values) -> NDArray[np.float64]:
        pairs = zip(predictions, references, strict=True)
        return np.array([self.scorer.sentence_score(text, [reference]).score for text, reference in pairs])


class Rouge(Metric):
    """Mean F1 over sentences of one ROUGE type, with stemming and without splitting into sentences.

    rouge-score's tokenizer keeps ASCII letters and digits only, and ignores case.

    Raises:
        ImportError: rouge-score is not installed.
    """

    kind, resampled = "text", "sentence F1"
    columns = ("rouge1", "rouge2", "rougeL", "chrf2", "length_ratio")
    signature_title = "ROUGE"

    def __init__(self, settings: MetricSettings):
        super().__init__(settings)
        self.scorer = import_extra("rouge_score.rouge_scorer").RougeScorer([self.name], use_stemmer=True)

    @property
    def signature(self) -> str:
        version = importlib.metadata.version("rouge-score")
        return f"F1|use_stemmer:True|split_summaries:False|mean over sentences|rouge_score:{version}"

    def _corpus_score(self, predictions: Values, references: Values) -> float:
        return float(self.sentence_scores(predictions, references).mean())

    def sentence_scores(self, predictions: Values, references: Values) -> NDArray[np.float64]:
        pairs = zip(references, predictions, strict=True)
        scores = [self.scorer.score(reference, text)[self.name].fmeasure for reference, text in pairs]
        return 100 * np.array(scores)


class Rouge1(Rouge):
    """ROUGE-1: words."""

    name, title = "rouge1", "ROUGE-1"


class Rouge2(Rouge):
    """ROUGE-2: pairs of neighbouring words."""

    name, title = "rouge2", "ROUGE-2"


class RougeL(Rouge):
    """ROUGE-L: the longest common subsequence of words."""

    name, title = "rougeL", "ROUGE-L"


def _sacrebleu_signature(scorer: Any) -> str:
    scorer.corpus_score(["a"], [["a"]])  # the signature holds the number of references, known after scoring
    return str(scorer.get_signature())
