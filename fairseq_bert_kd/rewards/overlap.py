"""Rewards of overlap with the reference, ROUGE and sentence BLEU, and overlap with the source, which is penalised."""

import logging
from collections import Counter

from fairseq_bert_kd.evaluation.comparability import UNREAD, unread_share
from fairseq_bert_kd.evaluation.metric import Metric, MetricSettings
from fairseq_bert_kd.evaluation.paraphrase_metrics import sentence_bleu
from fairseq_bert_kd.evaluation.registry import METRICS
from fairseq_bert_kd.rewards.interface import Reward, Scores

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
                "Reward by `bleu` instead",
                *(self.name, 100 * unread),
            )
        return self._metric.sentence_scores(hypotheses, references) / 100


class BleuReward(Reward):
    """Smoothed sentence BLEU, see `sentence_bleu`."""

    name = "bleu"

    def _scores(self, sources: list[str], hypotheses: list[str], references: list[str]) -> Scores:
        return sentence_bleu(hypotheses, references)


class SourceBleu(Reward):
    """Smoothed sentence BLEU against the source: how much of it is copied."""

    name = "source-bleu"

    def _scores(self, sources: list[str], hypotheses: list[str], references: list[str]) -> Scores:
        return sentence_bleu(hypotheses, sources)
