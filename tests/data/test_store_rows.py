import numpy as np
import pytest
import torch

from fairseq_bert_kd.batch import TeacherRequirements, unpack
from fairseq_bert_kd.data.absent_rows import AbsentRows
from fairseq_bert_kd.data.store_rows import StoreRows
from fairseq_bert_kd.storage.topk_store import TopKReader
from tests.storage.small_stores import make_corpus

ALL = TeacherRequirements(3, samples=True)


def reader(path, **changes):
    make_corpus(**changes).write(path)
    return TopKReader(path)


@pytest.fixture
def rich(tmp_path):
    """Ten sentences, the fourth and others missing; k=3, two temperatures, gold, two samples."""
    return reader(tmp_path / "rich", gold=True, samples=2)


def assert_rows_of(entry, row, store, sentence):
    """Row ``row`` of the entry is the sentence of the store, field by field."""
    records = store.rows(sentence)
    there = 0 if store.is_missing(sentence) else len(records)
    assert entry["present"][row].tolist() == [i < there for i in range(entry["present"].size(1))]
    fields = unpack(entry)
    for name in ("topk_ids", "topk_logits", "log_normalisers", "gold_logit", "sample_ids", "sample_logits"):
        assert np.array_equal(fields[name][row, :there].numpy(), records[name][:there]), name
        assert not fields[name][row, there:].any(), name


def scored(store):
    """Sentences with rows, of which there are some."""
    found = [i for i in range(len(store)) if not store.is_missing(i) and len(store.rows(i))]
    assert found
    return found


def test_every_field_arrives_bit_for_bit(rich):
    sentences = np.array([8, 0, 4, 3, 0])
    entry = StoreRows([rich], ALL).teacher_batch(sentences, width=9)
    for row, sentence in enumerate(sentences):
        assert_rows_of(entry, row, rich, int(sentence))
    assert entry["temperatures"] == (1.0, 5.0)
    assert entry["gold_stored"]
    assert any(rich.is_missing(int(i)) for i in sentences)  # so that the test can fail


def test_every_sentence_of_several_parts(rich, tmp_path):
    other = reader(tmp_path / "other", gold=True, samples=2, seed=5)
    entry = StoreRows([rich, other], ALL).teacher_batch(np.arange(20), width=9)
    for sentence in range(20):
        assert_rows_of(entry, sentence, (rich, other)[sentence // 10], sentence % 10)


def test_part_without_a_store_has_zeros_beside_the_other(rich):
    lengths = [3, 1]
    absent = AbsentRows("nowhere", rich.info, lengths)
    entry = StoreRows([rich, absent], ALL, upsample_first=2).teacher_batch(np.array([21, 4, 20]), width=9)
    assert len(absent) == 2
    assert absent.lengths.tolist() == lengths
    assert_rows_of(entry, 1, rich, 4)
    for name in ("topk_ids", "topk_logits", "log_normalisers", "gold_logit", "sample_ids", "present"):
        assert not entry[name][[0, 2]].any(), name
    assert entry["gold_stored"]


def test_numbers_that_fairseq_would_round_travel_as_integers(rich):
    entry = StoreRows([rich], ALL).teacher_batch(np.arange(10), width=9)
    tensors = {name: value.dtype for name, value in entry.items() if isinstance(value, torch.Tensor)}
    assert tensors == {
        "topk_ids": torch.int32, "topk_logits": torch.int16, "present": torch.bool, "log_normalisers": torch.int32,
        "gold_logit": torch.int16, "sample_ids": torch.int32, "sample_logits": torch.int16,
    }  # fmt: skip


def test_what_is_not_needed_is_not_read(rich):
    entry = StoreRows([rich], TeacherRequirements(2)).teacher_batch(np.arange(3), width=9)
    assert "sample_ids" not in entry
    assert entry["topk_ids"].size(-1) == entry["topk_logits"].size(-1) == 2


def test_parts_that_know_less_leave_it_out(rich, tmp_path):
    other = reader(tmp_path / "other", temperatures=(5.0, 7.0))
    rows = StoreRows([rich, other], TeacherRequirements(3))
    assert rows.temperatures == (5.0,)
    entry = rows.teacher_batch(np.arange(20), width=9)
    assert "gold_logit" not in entry
    assert not entry["gold_stored"]
    for first, store, column in ((0, rich, 1), (10, other, 0)):
        for sentence in scored(store):
            expected = store.rows(sentence)["log_normalisers"][:, column]
            found = unpack(entry)["log_normalisers"][first + sentence, : len(expected), 0]
            assert np.array_equal(found.numpy(), expected)


def test_parts_with_fewer_samples_give_as_many(rich, tmp_path):
    other = reader(tmp_path / "other", gold=True, samples=1, seed=5)
    entry = unpack(StoreRows([rich, other], ALL).teacher_batch(np.arange(20), width=9))
    for first, store in ((0, rich), (10, other)):
        for sentence in scored(store):
            records = store.rows(sentence)
            for name in ("sample_ids", "sample_logits"):
                found = entry[name][first + sentence, : len(records)].numpy()
                assert np.array_equal(found, records[name][:, :1]), name


def test_no_temperatures_at_all(tmp_path):
    entry = StoreRows([reader(tmp_path / "bare", temperatures=())], TeacherRequirements(3)).teacher_batch(
        np.arange(2), width=5
    )
    assert entry["temperatures"] == ()
    assert "log_normalisers" not in entry


def test_tensors_belong_to_the_batch_alone(rich):
    """A worker may write into them, and they may be pinned, though the store is read-only."""
    entry = StoreRows([rich], ALL).teacher_batch(np.arange(4), width=9)
    for value in entry.values():
        if isinstance(value, torch.Tensor):
            assert value.is_contiguous()
            value.zero_()
    assert_rows_of(StoreRows([rich], ALL).teacher_batch(np.array([0]), width=9), 0, rich, 0)


def test_sentence_beyond_the_store_is_refused(rich):
    with pytest.raises(IndexError, match="sentence 10 is not in store"):
        StoreRows([rich], ALL).teacher_batch(np.array([10]), width=9)
