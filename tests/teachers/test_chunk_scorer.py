"""What a chunk does with rows that a teacher could not score, by hand."""

import numpy as np
import pytest

from fairseq_bert_kd.storage.schema import NOT_FINITE, SCORED, TOO_LONG, ChunkData
from fairseq_bert_kd.teachers.chunk_scorer import Chunk

LENGTHS = np.array([2, 0, 3, 1, 2])
SENTENCES = [[0, 1], [], [2, 3, 4], [5], [6, 7]]  # their rows


def chunk(bad_rows=(), too_long=()):
    """Sentences of `LENGTHS` whose rows hold 1, but for those that were never scored."""
    status = np.full(5, SCORED, np.uint8)
    status[list(too_long)] = TOO_LONG
    records = np.ones(8, dtype=[("topk_ids", "<u2", (1,))])
    made = Chunk(0, [], [], [], ChunkData({}, LENGTHS, status, records), plan=[])
    made.finite[list(bad_rows)] = False
    return made


@pytest.mark.parametrize(
    ("bad_rows", "missing"), [((), []), ((0,), [0]), ((1,), [0]), ((3,), [2]), ((4, 5), [2, 3]), ((7,), [4])]
)
def test_any_row_that_is_not_finite_takes_its_sentence_away_and_no_other(bad_rows, missing):
    closed = chunk(bad_rows).close()
    assert np.flatnonzero(closed.data.status == NOT_FINITE).tolist() == missing
    assert (np.delete(closed.data.status, missing) == SCORED).all()
    gone = [row for sentence in missing for row in SENTENCES[sentence]]
    assert not closed.data.records["topk_ids"][gone].any()
    assert np.delete(closed.data.records["topk_ids"], gone, axis=0).all()


def test_gold_tokens_are_counted_where_the_store_has_rows():
    """Sentences 0 and 4 of two rows are left: one of their four best tokens is gold, of 0.5 nats each."""
    made = chunk(bad_rows=[3, 5], too_long=[1])
    made.gold_correct[[1, 2, 5]] = True
    made.gold_nll[:] = 0.5
    assert made.close().gold_summary() == {"gold_correct": 1, "gold_nll": 2.0}
