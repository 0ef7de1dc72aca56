"""`fairseq-bert-kd vectors` killed with SIGKILL, started again, and compared byte for byte."""

import random
import time

import numpy as np
import pytest

from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.storage.vector_store import vector_store_path
from tests.cli.test_dump_kills import LONG, run_in_child
from tests.tiny_chain import WORDS, build_teacher_folder
from tests.tiny_sentences import prepare


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Teacher, data, and the bytes and seconds of an undisturbed run."""
    root = tmp_path_factory.mktemp("kills")
    build_teacher_folder("bert", root / "bert")
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(40)]
    (root / "train.txt").write_text("".join(f"{line}\n" for line in lines))
    assert prepare(root / "bert", root / "data", "--task", "plain", "--train", root / "train.txt") == 0
    started = time.perf_counter()
    assert run_in_child(lambda: work(root))
    path = vector_store_path(root / "data", "train")
    return root, path, path.read_bytes(), time.perf_counter() - started


def work(root):
    words = ["vectors", root / "data", "--encoder-model", root / "bert", "--cpu", "--chunk-sentences", 8]
    assert cli_main(list(map(str, words))) == 0


def clean(data):
    for path in data.glob("*.vec*"):
        path.unlink()


def test_killed_at_random_and_started_again_until_it_ends(folder):
    root, path, expected, seconds = folder
    rng, kills = random.Random(0), 0
    while kills < (40 if LONG else 5):
        clean(root / "data")
        for _ in range(100):
            if run_in_child(lambda: work(root), kill_after=rng.uniform(0, 1.2 * seconds)):
                break
            kills += 1
            assert not path.exists() or path.read_bytes() == expected
        assert run_in_child(lambda: work(root))
        assert path.read_bytes() == expected
        assert not list((root / "data").glob("*.partial"))


def test_killed_before_a_file_changes(folder):
    """At single calls spread over creation, chunks, header and publishing, up to where it lives to the end."""
    root, path, expected, _ = folder
    kills = 0
    for number in range(0, 10_000, 1 if LONG else 9):
        clean(root / "data")
        if run_in_child(lambda: work(root), kill_at_call=number):
            break
        kills += 1
        assert not path.exists() or path.read_bytes() == expected
        assert run_in_child(lambda: work(root))
        assert path.read_bytes() == expected
    assert kills >= 3
