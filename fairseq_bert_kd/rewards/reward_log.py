"""What training with rewards says in the log, and where it stops since samples copy their source."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from fairseq import utils
from fairseq.logging import metrics

from fairseq_bert_kd.evaluation.paraphrase_metrics import (
    BLEU_COUNTS,
    IBLEU_WEIGHTS,
    bleu_counts,
    bleu_of_counts,
    copies,
    corpus_bleu,
    ibleu,
)
from fairseq_bert_kd.evaluation.text_metrics import DEFAULT_TOKENIZER
from fairseq_bert_kd.rewards.interface import Reward
from fairseq_bert_kd.rewards.rewarded_samples import COUNTS, SECONDS, BatchTexts

COPY_WINDOW = 50  # updates over which the copy rate is taken
UPDATE_SECONDS = "rl_update_seconds"
# sums over a batch in validation; the log shows no name that begins with an underscore
ENTROPY, TARGETS, TEXTS, COPIES = "_rl_entropy", "_rl_targets", "_rl_texts", "_rl_copies"
SOURCE_BLEU = "_rl_source_bleu_"  # prefix of its counts
JUDGED = "_rl_judged_"  # prefix of the sums of scores


def judged_counts(
    texts: Sequence[str], batch: BatchTexts, judges: Mapping[str, Reward], tokenize: str = DEFAULT_TOKENIZER
) -> dict[str, float]:
    """What validation counts of a batch's output.

    Args:
        texts: best sequence of each source.
        batch: its sources and references.
        judges: by name in the log.
        tokenize: sacreBLEU's tokenizer for source-BLEU.
    """
    counts = {TEXTS: float(len(texts)), COPIES: float(copies(texts, batch.sources).sum())}
    for name, count in bleu_counts(corpus_bleu(texts, batch.sources, tokenize=tokenize)).items():
        counts[f"{SOURCE_BLEU}{name}"] = float(count)
    for name, judge in judges.items():
        counts[f"{JUDGED}{name}"] = float(judge(batch.sources, texts, batch.references).sum())
    return counts


class RewardLog:
    """Means of the sums that batches count, in training and in validation."""

    def __init__(self) -> None:
        self._copies: deque[tuple[float, float]] = deque(maxlen=COPY_WINDOW)

    def reduce(self, logging_outputs: Sequence[Mapping[str, Any]], max_copy_rate: float, update: int) -> None:
        """Log what all workers counted.

        Args:
            logging_outputs: one of each worker and batch.
            max_copy_rate: share of copies among the samples of `COPY_WINDOW` updates above which training stops.
            update: number of the latest update, from 0.

        Raises:
            ValueError: more samples are copies.
        """
        counted = {*COUNTS, *SECONDS, UPDATE_SECONDS}
        sums: dict[str, float] = {}
        for log in logging_outputs:
            for name, value in log.items():
                if name in counted or name.startswith("_rl_"):
                    sums[name] = sums.get(name, 0.0) + float(utils.item(value))
        if sums.get("rl_samples"):
            self._log_training(sums, max_copy_rate, update)
        if targets := sums.get(TARGETS):
            metrics.log_scalar("entropy", sums[ENTROPY] / targets, targets, round=4)
        if sums.get(TEXTS):
            _log_validation(sums)

    def _log_training(self, sums: Mapping[str, float], max_copy_rate: float, update: int) -> None:
        samples, tokens = sums["rl_samples"], max(sums["rl_tokens"], 1)
        for name, title, total in (
            ("rl_reward", "reward", samples),
            ("rl_copies", "copy_rate", samples),
            ("rl_cut", "cut_rate", samples),
            ("rl_tokens", "sample_length", samples),
            ("rl_entropy", "entropy", tokens),
        ):
            metrics.log_scalar(title, sums[name] / total, total, round=4)
        for name in (*SECONDS, UPDATE_SECONDS):  # of all workers together, a batch
            metrics.log_scalar(name.removeprefix("rl_"), sums[name], round=3)
        self._copies.append((sums["rl_copies"], samples))
        copied = sum(count for count, _ in self._copies) / sum(count for _, count in self._copies)
        if len(self._copies) == COPY_WINDOW and copied > max_copy_rate:
            raise ValueError(
                f"{100 * copied:.1f} % of the samples of the last {COPY_WINDOW} updates copy their source, more than "
                f"--rl-max-copy-rate {max_copy_rate:g}: the reward accepts copies. Raise --rl-copy-penalty, or take "
                f"another reward, and go back to a checkpoint from before update {update + 2 - COPY_WINDOW}"
            )


def _log_validation(sums: Mapping[str, float]) -> None:
    texts = sums[TEXTS]
    metrics.log_scalar("copy_rate", sums[COPIES] / texts, texts, round=4)
    for name in sums:
        if name.startswith(JUDGED):
            metrics.log_scalar(name.removeprefix(JUDGED), sums[name] / texts, texts, round=4)
    for name in BLEU_COUNTS:
        metrics.log_scalar_sum(f"{SOURCE_BLEU}{name}", sums[f"{SOURCE_BLEU}{name}"])
    metrics.log_derived("source_bleu", lambda meters: round(_source_bleu(meters), 2))
    metrics.log_derived("ibleu", _ibleu)


def _source_bleu(meters: Any) -> float:
    return bleu_of_counts({name: meters[f"{SOURCE_BLEU}{name}"].sum for name in BLEU_COUNTS})


def _ibleu(meters: Any) -> float:
    """0.9 BLEU - 0.1 source-BLEU of the validation set, a metric to choose a checkpoint by that is no reward."""
    bleu = meters.get_smoothed_value("bleu") if "bleu" in meters else 0.0
    return round(ibleu(bleu, _source_bleu(meters), IBLEU_WEIGHTS[0]), 2)
