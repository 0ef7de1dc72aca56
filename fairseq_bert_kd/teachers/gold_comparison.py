"""Says when a teacher predicts the gold tokens no better than its student, from numbers that are there anyway."""

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

from fairseq_bert_kd.data.absent_rows import AbsentRows
from fairseq_bert_kd.storage.topk_store import TopKReader

logger = logging.getLogger(__name__)

REMEDY = (
    "Such a teacher teaches mistakes: train it longer or on more text before you dump it again, or lower --kd-weight (0 is "
    "plain training)"
)
BY_HEART = (
    "A student that has learned the training sentences by heart gets there too; to compare on others, dump the validation "
    "set: fairseq-bert-kd dump ... --subset valid --gold"
)


class GoldComparison:
    """Compares the first teacher of a run with its student, split by split, and warns once about each."""

    def __init__(self) -> None:
        self._stored: dict[
            str, float
        ] = {}  # split -> the teacher's bits per gold token, over all stored rows
        self._warned: set[str] = set()

    def note_stores(self, split: str, readers: Iterable[TopKReader | AbsentRows]) -> None:
        """Remember and log the teacher's perplexity on a split, if the headers of its stores tell it.

        Args:
            split: name of the split.
            readers: first teacher's stores of its parts.
        """
        summaries: list[Any] = [reader.header.summary for reader in readers if isinstance(reader, TopKReader)]
        rows = sum(summary["scored_rows"] for summary in summaries)
        if not rows or any(summary["gold_nll"] is None for summary in summaries if summary["scored_rows"]):
            return
        nats = sum(
            summary["gold_nll"] * summary["scored_rows"] for summary in summaries if summary["scored_rows"]
        )
        self._stored[split] = nats / rows / math.log(2)
        logger.info(
            "%s: the teacher's perplexity on the gold tokens is %s; compare the student's `ppl`",
            split,
            _perplexity(self._stored[split]),
        )

    def compare(self, split: str | None, stats: Mapping[str, Any], training: bool = False) -> float | None:
        """Warn where the teacher is behind.

        Args:
            split: name of the split that the statistics are of.
            stats: smoothed values as fairseq logs them, in bits; of the teacher if its rows hold the gold tokens.
            training: whether the split is the training set, on which the student is ahead more easily.

        Returns:
            The teacher's bits per gold token; None if not known.
        """
        same_rows = "kd_teacher_nll" in stats
        teacher = stats["kd_teacher_nll"] if same_rows else self._stored.get(split or "")
        student = stats.get("kd_gold_nll" if same_rows else "nll_loss")
        if split is None or teacher is None or student is None:
            return None
        if student <= teacher and split not in self._warned:
            self._warned.add(split)
            logger.warning(
                "%s: the teacher predicts the gold tokens no better than its student (perplexity %s against %s). %s%s",
                split,
                _perplexity(teacher),
                _perplexity(student),
                REMEDY,
                f". {BY_HEART}" if training else "",
            )
        return float(teacher)


def _perplexity(bits: float) -> str:
    return f"{2 ** min(float(bits), 1000.0):.4g}"
