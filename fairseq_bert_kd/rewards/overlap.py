"""Rewards of overlap with the reference, ROUGE and sentence BLEU, and overlap with the source, which is penalised."""

import logging
from collections import Counter

from fairseq_bert_kd.evaluation.comparability import UNREAD, unread_share, words_run_together
from fairseq_bert_kd.evaluation.metric import Metric, MetricSettings
from fairseq_bert_kd.evaluation.paraphrase_metrics import sentence_bleu
from fairseq_bert_kd.evaluation.registry import METRICS
from fairseq_bert_kd.evaluation.text_metrics import DEFAULT_TOKENIZER
from fairseq_bert_kd.rewards.interface import Reward, Scores, Texts

LOGGER = logging.getLogger(__name__)
ROUGE = {"rouge-1": "rouge1", "rouge-2": "rouge2", "rouge-l": "rougeL"}


class RougeReward(Reward):
    """F1 of one ROUGE type, as the reports compute it (Lin 2004).

    Its tokenizer reads ASCII letters and digits only; the first batch of another script gets a warning.

    Args:
        name: one of `ROUGE`.

    Raises:
        ImportError: rouge-score is not installed.
    """

    def __init__(self, name: str):
        self.name = name
        self._metric: Metric = METRICS[ROUGE[name]](MetricSettings())
        self._warned = False

    def _scores(self, sources: list[str], hypotheses: list[str], references: list[str]) -> Scores:
        if not self._warned and (unread := unread_share(Counter("".join(references)))) >= UNREAD:
            self._warned = True
            LOGGER.warning(
                "reward %s does not see %.0f %% of the letters of these references: ROUGE takes out all but ASCII letters and digits. "
                "Reward by `bleu` instead, with the --rl-tokenize of the language",
                *(self.name, 100 * unread),
            )
        return self._metric.sentence_scores(hypotheses, references) / 100


class BleuReward(Reward):
    """Smoothed sentence BLEU against the reference, see `sentence_bleu`.

    The first batch whose words the tokenizer does not find gets a warning.

    Args:
        tokenize: sacreBLEU's tokenizer.
        option: option that names it, for messages.

    Raises:
        ValueError: sacreBLEU does not have this tokenizer, or cannot load it.
    """

    name = "bleu"

    def __init__(self, tokenize: str = DEFAULT_TOKENIZER, option: str = "--rl-tokenize"):
        METRICS["bleu"](MetricSettings(tokenize=tokenize))  # says what is wrong with it
        self._tokenize, self._option = tokenize, option
        self._warned = False

    def _scores(self, sources: list[str], hypotheses: list[str], references: list[str]) -> Scores:
        return self._bleu(hypotheses, references)

    def _bleu(self, hypotheses: Texts, others: Texts) -> Scores:
        if not self._warned and (said := words_run_together(others, self._tokenize, self._option)):
            self._warned = True
            LOGGER.warning("%s of these texts: %s", self.name, said)
        return sentence_bleu(hypotheses, others, self._tokenize)


class SourceBleu(BleuReward):
    """Smoothed sentence BLEU against the source: how much of it is copied."""

    name = "source-bleu"

    def _scores(self, sources: list[str], hypotheses: list[str], references: list[str]) -> Scores:
        return self._bleu(hypotheses, sources)
