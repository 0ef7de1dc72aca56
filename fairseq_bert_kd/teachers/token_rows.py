"""A teacher's rows from a laid-out batch, for a dump and for a live teacher."""

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
        keep_gold: whether the gold token is one of the stored ones, see `teacher_rows`.
    """

    def __init__(
        self,
        model: TokenTeacher,
        excluded_ids: Tensor,
        dictionary_size: int,
        k: int,
        temperatures: Sequence[float],
        keep_gold: bool = False,
    ):
        self.model, self.excluded_ids, self.dictionary_size = model, excluded_ids, dictionary_size
        self.k, self.temperatures, self.keep_gold = k, temperatures, keep_gold

    def score(self, batch: EncoderBatch) -> Iterator[tuple[slice, TeacherRows, Tensor]]:
        """Run the teacher on a batch, without waiting for its results.

        Args:
            batch: on the model's device.

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
