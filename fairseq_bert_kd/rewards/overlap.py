"""Rewards of overlap with the reference, ROUGE and sentence BLEU, and overlap with the source, which is penalised."""

from fairseq_bert_kd.evaluation.metric import Metric, MetricSettings
from fairseq_bert_kd.evaluation.paraphrase_metrics import sentence_bleu
from fairseq_bert_kd.evaluation.registry import METRICS
from fairseq_bert_kd.rewards.interface import Reward, Scores

ROUGE = {"rouge-1": "rouge1", "rouge-2": "rouge2", "rouge-l": "rougeL"}


class RougeReward(Reward):
    """F1 of one ROUGE type, as the reports compute it (Lin 2004).

    Args:
        name: one of `ROUGE`.

    Raises:
        ImportError: rouge-score is not installed.
    """

    def __init__(self, name: str):
        self.name = name
        self._metric: Metric = METRICS[ROUGE[name]](MetricSettings())

    def _scores(self, sources: list[str], hypotheses: list[str], references: list[str]) -> Scores:
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
