"""A teacher's rows from a laid-out batch, for a dump and for a live teacher."""

import math
from collections.abc import Iterator, Sequence

from torch import Tensor

from fairseq_bert_kd.functional.teacher_rows import TeacherRows, teacher_rows
from fairseq_bert_kd.teachers.interface import TokenTeacher
from fairseq_bert_kd.teachers.pair_batches import EncoderBatch

SLICE_LOGITS = 1 << 26  # logits in memory together, 256 MiB in float32


class TokenScorer:
    """A teacher's rows at the predicted positions of batches.

    Args:
        model: a teacher in evaluation mode.
        excluded_ids: ``(n,)`` int64 ids that no target holds, on the model's device.
        dictionary_size: symbols of the target dictionary.
        k: tokens per row.
        temperatures: temperatures with a log-normaliser in each row.
        samples: tokens per row that are drawn outside the stored ones.
        keep_gold: whether the gold token is one of the stored ones, see `teacher_rows`.

    Raises:
        ValueError: more tokens per row than can be targets.
    """

    def __init__(
        self,
        model: TokenTeacher,
        excluded_ids: Tensor,
        dictionary_size: int,
        k: int,
        temperatures: Sequence[float],
        samples: int = 0,
        keep_gold: bool = False,
    ):
        candidates = dictionary_size - len(excluded_ids)
        needed = k + (1 + keep_gold if samples else 0)
        if needed > candidates:
            extras = " and one to draw" if needed > k else ""
            raise ValueError(
                f"topk {k}{extras} is above the {candidates} symbols of the target dictionary that can be targets; request fewer "
                "(--topk of dump, --kd-topk beside a live teacher, store_topk of an experiment's settings)"
            )
        self.model, self.excluded_ids, self.dictionary_size = model, excluded_ids, dictionary_size
        self.k, self.temperatures, self.keep_gold = k, temperatures, keep_gold

    def score(self, batch: EncoderBatch) -> Iterator[tuple[slice, TeacherRows, Tensor]]:
        """Run the teacher on a batch, without waiting for its results.

        Args:
            batch: batch on the model's device.

        Yields:
            Some of the batch's rows, what `teacher_rows` keeps of them, and their ``(rows, dictionary)`` float32 logits,
            relative to the row's best and minus infinity for excluded ids. The encoder runs once; the slices bound the
            memory of the logits.
        """
        features = self.model.extract_features(batch.input_positions, **batch.inputs)  # (rows, hidden)
        for part in slices(len(features), self.dictionary_size):
            logits = self.model.project(features[part]).float()
            rows = teacher_rows(
                logits,
                batch.gold[part],
                self.excluded_ids,
                self.k,
                self.temperatures,
                uniforms=None if batch.uniforms is None else batch.uniforms[part],
                keep_gold=self.keep_gold,
            )
            yield part, rows, logits


def slices(rows: int, dictionary_size: int) -> Iterator[slice]:
    """Parts of a batch's rows whose logits fit into memory together."""
    step = max(SLICE_LOGITS // dictionary_size, 1)
    return (slice(start, start + step) for start in range(0, rows, step))


def check_settings(
    topk: int,
    passes: int | None,
    max_tokens: int | None,
    temperatures: Sequence[float],
    samples: int,
    seed: int,
) -> None:
    """ValueError for out-of-range settings of a dump or of a live teacher."""
    positive = {"topk": topk, "passes": passes, "max-tokens": max_tokens}
    for name, value in positive.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}; the paper uses topk 8 and 7 passes")
    for name, value in {"samples": samples, "seed": seed}.items():
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")
    bad = next((t for t in temperatures if not 0 < t < math.inf), None)
    if bad is not None:
        raise ValueError(f"temperatures must be positive, got {bad:g}; the paper uses 5 and 10")
