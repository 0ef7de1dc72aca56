"""`fairseq-bert-kd dump` killed with SIGKILL, started again, and compared byte for byte."""

import os
import random
import shutil
import signal
import sys
import threading
import time

import pytest
from tqdm import tqdm
from tqdm.auto import tqdm as auto_tqdm

from fairseq_bert_kd.storage.merge import merge_shards
from fairseq_bert_kd.storage.shards import Shard, shard_path
from fairseq_bert_kd.storage.topk_store import store_path
from tests.tiny_chain import dump, preprocess

LONG = bool(os.environ.get("KD_LONG_TESTS"))
OPTIONS = ("--chunk-sentences", 8, "--max-tokens", 100, "--gold", "--samples", 2, "--temperatures", 1)
SENTENCES = 48  # three chunks in each shard
SHARDS = (Shard(0, 2), Shard(1, 2))
PATIENCE = 300  # seconds until a child counts as hanging; it takes one or two
CALLS = ("pwrite", "fsync", "replace")  # what changes files


def run_in_child(work, kill_after=None, kill_at_call=None):
    """Run ``work`` in a forked process; whether it lived to its end.

    Args:
        work: callable.
        kill_after: seconds until SIGKILL.
        kill_at_call: number of the call of `CALLS` just before which the child kills itself.
    """
    child = os.fork()
    if not child:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - the child ends here
        tqdm.set_lock(threading.RLock())  # another thread may hold the parent's, see conftest.py
        if kill_at_call is not None:
            die_at(kill_at_call)
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while not (status := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail(f"the child process hangs (more than {PATIENCE} s)")
        time.sleep(0.005)
    status = status[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


def die_at(number):
    """Replace what changes files by calls that count, and kill this process at the given one."""
    left = [number]

    def dying(call):
        def counted(*args):
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return call(*args)

        return counted

    for name in CALLS:
        setattr(os, name, dying(getattr(os, name)))


def test_no_progress_bar_shares_a_lock_between_processes():
    def check():
        for _ in auto_tqdm(range(1)):  # what transformers draws
            pass
        assert auto_tqdm.get_lock() is tqdm.get_lock()
        assert isinstance(tqdm.get_lock(), type(threading.RLock()))

    check()
    assert run_in_child(check)


@pytest.fixture(scope="module")
def folder(chain, tmp_path_factory):
    """Data without a store, and the bytes of an undisturbed one, which took some seconds."""
    folder = tmp_path_factory.mktemp("kills")
    pieces = shutil.copytree(chain.raw.parent / "pieces", folder / "pieces")
    for path in pieces.glob("train.*"):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[:SENTENCES]
        path.write_text("".join(lines), encoding="utf-8")
    preprocess(pieces, folder / "data", "--srcdict", chain.data / "dict.de.txt", "--joined-dictionary")
    path = store_path(folder / "data", "train", "de", "en")
    started = time.perf_counter()
    assert run_in_child(lambda: dump_whole(folder / "data", chain.teacher))
    seconds = time.perf_counter() - started
    expected = path.read_bytes()
    path.unlink()
    return folder / "data", expected, seconds


def dump_whole(data, teacher):
    assert dump(data, teacher, *OPTIONS) == 0


def dump_shards_and_merge(data, teacher):
    path = store_path(data, "train", "de", "en")
    for shard in SHARDS:
        assert dump(data, teacher, *OPTIONS, "--shard", str(shard)) == 0
    merge_shards([shard_path(path, shard) for shard in SHARDS], path)


@pytest.mark.parametrize("work", [dump_whole, dump_shards_and_merge])
def test_killed_at_random_and_started_again_until_it_ends(chain, folder, work):
    data, expected, seconds = folder
    path, rng, kills = store_path(data, "train", "de", "en"), random.Random(work.__name__), 0
    wanted = 60 if LONG else 15
    while kills < wanted:
        clean(data)
        for _ in range(200):
            if run_in_child(lambda: work(data, chain.teacher), kill_after=rng.uniform(0, 1.2 * seconds)):
                break
            kills += 1
            assert not path.exists() or path.read_bytes() == expected
        assert run_in_child(lambda: work(data, chain.teacher))
        assert path.read_bytes() == expected
        assert not list(data.glob("*.partial"))
    clean(data)
    print(f"{kills} kills of {work.__name__} at random times")


@pytest.mark.parametrize("work", [dump_whole, dump_shards_and_merge])
def test_killed_before_a_file_changes(chain, folder, work):
    """At single calls spread over creation, chunks, header and publishing, up to where it lives to the end."""
    data, expected, _ = folder
    path, step, kills = store_path(data, "train", "de", "en"), 2 if LONG else 7, 0
    for number in range(0, 10_000, step):
        clean(data)
        if run_in_child(lambda: work(data, chain.teacher), kill_at_call=number):
            break
        kills += 1
        assert not path.exists() or path.read_bytes() == expected
        assert run_in_child(lambda: work(data, chain.teacher))
        assert path.read_bytes() == expected
    assert kills >= 3
    clean(data)
    print(f"{kills} kills of {work.__name__} before single changes of its files")


def clean(data):
    for path in data.glob("*.topk*"):
        path.unlink()
