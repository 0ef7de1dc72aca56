"""Writers and merges that are killed at any moment: the store is absent or whole, and running again completes it.

``KD_LONG_TESTS=1`` kills several times as often.
"""

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from fairseq_bert_kd.storage import work_file, writer
from fairseq_bert_kd.storage.merge import merge_shards
from fairseq_bert_kd.storage.shards import Shard, shard_path
from fairseq_bert_kd.storage.verify import verify_store
from fairseq_bert_kd.storage.work_file import work_path
from tests.storage.small_stores import NAME, make_corpus

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

LONG = bool(os.environ.get("KD_LONG_TESTS"))
LENGTHS = np.random.default_rng(0).integers(0, 6, 80 if LONG else 24)
CORPUS = make_corpus(LENGTHS, chunk_sentences=2)  # 12 chunks, or 40
OLD = make_corpus(LENGTHS, chunk_sentences=2, teacher="old")
# all through which the writer changes the disk
CALLS = ((os, "pwrite"), (os, "fsync"), (os, "replace"), (work_file, "allocate"))
# a call that is torn is a write of which half arrives; other calls do not happen then. "before" is the same as
# "after" the call before, and so left out of the short run
MODES = ("torn", "after", "before") if LONG else ("torn", "after")


def die():
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def die_at(turn, mode):
    """Replace the functions in `CALLS`, so that the process dies at call ``turn`` of any of them."""
    calls = iter(range(10**9))

    def deadly(function, name):
        def call(*args):
            if next(calls) != turn:
                return function(*args)
            if mode == "torn" and name == "pwrite":
                descriptor, content, place = args
                function(descriptor, memoryview(content)[: len(content) // 2], place)
            elif mode == "after":
                function(*args)
            die()

        return call

    for module, name in CALLS:
        setattr(module, name, deadly(getattr(module, name), name))


def run_until_killed(job, turn, mode):
    """Run ``job`` in a process of its own that dies at call ``turn``; whether it died."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            die_at(turn, mode)
            job()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the job failed before it was killed; see its traceback above"
    return False


def kill_everywhere(job, path, whole, old=None):
    """Kill ``job`` at each of its calls in each mode, run it again; the number of kills.

    Args:
        job: writes ``path``.
        path: of the store, alone in its folder.
        whole: bytes of an undisturbed run.
        old: bytes that lie there before.
    """
    kills, left_old, left_new = 0, 0, 0
    for mode in MODES:
        for turn in range(10**6):
            path.unlink(missing_ok=True)
            if old is not None:
                path.write_bytes(old)
            killed = run_until_killed(job, turn, mode)
            found = path.read_bytes() if path.exists() else None
            assert found in (old, whole), f"half a store after a kill {mode} call {turn}"
            left_old, left_new = left_old + (found == old), left_new + (found == whole)
            if not killed:
                assert found == whole
                break
            kills += 1
            job()
            assert path.read_bytes() == whole, f"other bytes after a kill {mode} call {turn}"
            assert os.listdir(path.parent) == [path.name]
        assert turn > len(CALLS)
    assert left_old > 20  # kills before the publishing ...
    assert left_new > len(MODES) + 2  # ... and after it, besides the runs that were not killed
    return kills


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Bytes of an undisturbed run."""
    path = tmp_path_factory.mktemp("whole") / NAME
    CORPUS.write(path)
    assert not verify_store(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """Bytes of another teacher's store."""
    path = tmp_path_factory.mktemp("old") / NAME
    OLD.write(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    path = tmp_path_factory.mktemp("shards") / NAME
    for index in range(3):
        CORPUS.write(path, Shard(index, 3))
    return [shard_path(path, Shard(index, 3)) for index in range(3)]


@pytest.fixture
def path(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / NAME


# ---------------------------------------------------------------- kills at every call


def test_writer_killed_at_every_call(path, whole):
    kills = kill_everywhere(lambda: CORPUS.write(path), path, whole)
    assert kills >= len(MODES) * (CORPUS.chunks * 5 + 10), f"only {kills} kills"  # 5 writes per chunk
    print(f"{kills} kills of the writer")


def test_merge_killed_at_every_call(path, whole, shards):
    kills = kill_everywhere(lambda: merge_shards(shards, path), path, whole)
    assert kills >= len(MODES) * (CORPUS.chunks * 5 + 10), f"only {kills} kills"
    print(f"{kills} kills of the merge")


def test_replacing_writer_killed_at_every_call(path, whole, old):
    """Another teacher's store is there before."""
    few = make_corpus(LENGTHS[:8], chunk_sentences=2)
    few.write(path)
    new = path.read_bytes()
    kills = kill_everywhere(lambda: few.write(path, overwrite=True), path, new, old)
    print(f"{kills} kills of the replacing writer")


def test_one_shard_killed_at_every_call(path):
    few, shard = make_corpus(LENGTHS[:10], chunk_sentences=2), Shard(1, 2)
    place = shard_path(path, shard)
    few.write(path, shard)
    new = place.read_bytes()
    kills = kill_everywhere(lambda: few.write(path, shard), place, new)
    print(f"{kills} kills of a shard's writer")


@pytest.mark.parametrize("every", [1, 2, 7, 20] if LONG else [7, 20])
def test_work_that_is_killed_again_and_again_gets_done(path, whole, every):
    """Each run dies ``every`` writes after it began to write chunks; each keeps what the ones before did."""

    def job():
        with CORPUS.open(path) as writer:
            if not writer.complete:
                die_at(every - 1, random.Random(kills).choice(MODES))
                for chunk in writer.chunks():
                    if not writer.is_done(chunk):
                        CORPUS.write_chunk(writer, chunk)
                if every < 5:  # it could never write a chunk's five parts
                    die()
                writer.finish()

    kills, done = 0, 0
    while run_until_killed(job, 10**9, "before"):
        kills += 1
        assert not path.exists() or path.read_bytes() == whole
        with CORPUS.open(path) as writer:
            now = (
                CORPUS.chunks if writer.complete else sum(writer.is_done(chunk) for chunk in writer.chunks())
            )
        assert now >= done, "a chunk was lost"
        done = now
        if every < 5 and kills == 5:
            CORPUS.write(path)
    assert kills >= 3
    assert path.read_bytes() == whole


# ---------------------------------------------------------------- kills at random times


def run_for(job, seconds):
    """Run ``job`` in a process of its own and kill it after ``seconds``; whether it was still running."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            job()
            code = 0
        finally:
            os._exit(code)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def seconds_of(job, path):
    """How long ``job`` takes in a process of its own, forking included."""
    path.unlink(missing_ok=True)
    begin = time.perf_counter()
    assert not run_until_killed(job, 10**9, "before")
    return time.perf_counter() - begin


@pytest.mark.parametrize("kind", ["write", "merge"])
def test_kills_at_random_times(path, whole, shards, kind):
    def job():
        return CORPUS.write(path) if kind == "write" else merge_shards(shards, path)

    usual = min(seconds_of(job, path) for _ in range(3))
    job()
    times, kills = random.Random(0), 0
    for _ in range(300 if LONG else 40):
        path.unlink()
        kills += run_for(job, times.uniform(0, 0.8 * usual))
        assert not path.exists() or path.read_bytes() == whole
        job()
        assert path.read_bytes() == whole
        assert os.listdir(path.parent) == [path.name]
    print(f"{kills} kills of {kind} at random times")  # how many depends on the machine


# ---------------------------------------------------------------- power failures


class PowerFailure(BaseException):
    """The machine stops."""


class Disk:
    """Content of a work file on disk when the power fails: all before the last sync, any of the rest.

    A write counts in blocks of 512 bytes, each of which came or did not, in whatever order.
    """

    def __init__(self, monkeypatch, turn):
        self.synced, self.pending = None, []  # bytes at the last sync, writes since
        self.turn, self.calls = turn, iter(range(10**9))
        for name in ("pwrite", "fsync", "replace"):
            monkeypatch.setattr(os, name, self._watched(getattr(os, name), getattr(self, f"_{name}")))

    def _watched(self, function, note):
        def call(*args):
            if next(self.calls) == self.turn:
                raise PowerFailure
            result = function(*args)
            note(*args)
            return result

        return call

    def _pwrite(self, descriptor, content, place):
        self.pending.append((place, bytes(content)))

    def _fsync(self, descriptor):
        target = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if target.is_file():
            self.synced, self.pending = target.read_bytes(), []

    def _replace(self, source, target):
        assert not self.pending, "published before all of it was on disk"
        self.synced, self.pending = None, []

    def left(self, size, dice):
        """Bytes of the file after the failure, ``size`` bytes long when it was never synced."""
        content = bytearray(bytes(size) if self.synced is None else self.synced)
        share = dice.choice([0.1, 0.5, 0.9])
        for place, written in self.pending:
            whole = dice.random() < share
            for start in range(0, len(written), 512):
                block = written[start : start + 512]
                inside = place + start + len(block) <= len(content)
                if inside and (whole or dice.random() < share / 2):
                    content[place + start : place + start + len(block)] = block
        return bytes(content)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux' names of open files")
@pytest.mark.parametrize("kind", ["write", "merge"])
def test_power_failures(path, whole, shards, kind, monkeypatch):
    def job():
        return CORPUS.write(path) if kind == "write" else merge_shards(shards, path)

    failures, dice = 0, random.Random(1)
    sizes = [0, 4096, len(whole) // 2, *[len(whole)] * 4]  # of a file that was never synced
    begins = CORPUS.chunks + 8  # calls until the header of the work file is on disk; most can go wrong there
    for turn in range(10**6):
        for _ in range(8 if LONG or turn < begins else 1):
            path.unlink(missing_ok=True)
            with monkeypatch.context() as patch:
                disk = Disk(patch, turn)
                try:
                    job()
                except PowerFailure:
                    failures += 1
            if path.exists():  # published, or not killed at all
                assert path.read_bytes() == whole
            else:
                work_path(path).write_bytes(disk.left(dice.choice(sizes), dice))
            job()
            assert path.read_bytes() == whole, f"other bytes after a power failure at call {turn}"
            assert os.listdir(path.parent) == [path.name]
        if next(disk.calls) <= turn:
            break  # the job ended before
    assert failures > 150
    print(f"{failures} power failures")


def test_calls_that_are_watched_are_all_there_are():
    """The kills mean little when the writer changes the disk by other ways; its code is checked here."""
    code = ""
    for module in (work_file, writer):
        code += (
            Path(module.__file__).read_text(encoding="utf-8").replace("work.write(", "")
        )  # which is `pwrite`
    for other in (".write(", "os.rename", "shutil", ".flush", "mmap", "os.write", ".tofile", "os.pwritev"):
        assert other not in code, other
    for module, name in CALLS:
        assert (f"os.{name}(" if module is os else f" {name}(") in code
