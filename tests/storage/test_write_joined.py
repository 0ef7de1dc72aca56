"""The loop that merges of shards and of folds share: what is copied, when the disk is waited for, and what a fault leaves."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fairseq_bert_kd.storage import merge
from fairseq_bert_kd.storage.merge import write_joined


class Writer:
    """Notes what it is asked for; it holds some chunks of an earlier run."""

    complete = False

    def __init__(self, held=()):
        self.held, self.asked = held, []

    def holds(self, chunk, entry):
        return chunk in self.held

    def copy_chunk(self, chunk, data, entry):
        self.asked.append(chunk)

    def sync(self):
        self.asked.append("sync")

    def discard(self):
        self.asked.append("discard")

    def finish(self):
        self.asked.append("finish")
        return {"rows": 4}


def chunks(count, fault=None):
    """Chunks of 100 bytes; at one of them the source is damaged."""
    for chunk in range(count):
        if chunk == fault:
            raise ValueError("damaged")
        yield chunk, SimpleNamespace(records=np.zeros(100, np.uint8)), None, Path("shard")


def test_the_disk_is_waited_for_after_so_many_bytes(monkeypatch):
    monkeypatch.setattr(merge, "SYNC_BYTES", 250)
    writer = Writer()
    assert write_joined(writer, chunks(7), ()) == {"rows": 4}
    assert writer.asked == [0, 1, 2, "sync", 3, 4, 5, "sync", 6, "finish"]


def test_chunks_of_an_earlier_run_are_neither_copied_nor_counted(monkeypatch):
    monkeypatch.setattr(merge, "SYNC_BYTES", 250)
    writer = Writer(held=(0, 2, 3))
    write_joined(writer, chunks(6), ())
    assert writer.asked == [1, 4, 5, "sync", "finish"]


def test_a_damaged_source_throws_the_work_away():
    writer = Writer()
    with pytest.raises(ValueError, match="damaged"):
        write_joined(writer, chunks(3, fault=1), ())
    assert writer.asked == [0, "discard"]
