"""Writing a store: resuming, files of others, shards, and disks that fail."""

import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_bert_kd.storage import work_file
from fairseq_bert_kd.storage.merge import merge_shards
from fairseq_bert_kd.storage.shards import Shard, shard_path, store_of_shard
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.storage.topk_store import TopKReader
from fairseq_bert_kd.storage.verify import verify_store
from fairseq_bert_kd.storage.work_file import WorkFile, work_path
from tests.storage.small_stores import NAME, make_corpus

CORPUS = make_corpus()  # three chunks
CORRECTED = make_corpus(seed=1)  # equal settings and lengths, other hashes and rows
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture
def path(tmp_path):
    return tmp_path / NAME


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Bytes of the undisturbed store."""
    path = tmp_path_factory.mktemp("whole") / NAME
    CORPUS.write(path)
    return path.read_bytes()


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def start(path, *chunks, corpus=CORPUS, **options):
    """Unfinished work with these chunks."""
    with corpus.open(path, **options) as writer:
        for chunk in chunks:
            corpus.write_chunk(writer, chunk)


def in_child(function, *args):
    """What ``function`` raises or returns in a forked process, as text; None when a signal ended it."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            try:
                text = repr(function(*args))
            except BaseException as error:
                text = "".join(traceback.format_exception_only(type(error), error)).strip()
            os.write(write_end, text.encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, encoding="utf-8") as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return text if os.WIFEXITED(status) else None


# ---------------------------------------------------------------- going on


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_any_order_of_chunks_gives_the_same_bytes(path, whole, order):
    CORPUS.write(path, order=order)
    assert path.read_bytes() == whole
    assert names(path.parent) == [NAME]


@pytest.mark.parametrize("done", [(), (0,), (2,), (0, 2), (0, 1, 2)])
def test_resume_does_not_write_again_what_is_there(path, whole, done):
    start(path, *done)
    assert names(path.parent) == [NAME + ".partial"]
    with CORPUS.open(path) as writer:
        assert [chunk for chunk in writer.chunks() if writer.is_done(chunk)] == list(done)
        for chunk in done:
            data, found = CORPUS.chunk(chunk), writer.read_chunk(chunk)
            assert found.records.tobytes() == data.records.tobytes()
            assert found.hashes["target"].tolist() == data.hashes["target"].tolist()
            assert found.status.tolist() == data.status.tolist()
            assert found.lengths.tolist() == data.lengths.tolist()
        for chunk in set(range(3)) - set(done):
            assert writer.read_chunk(chunk) is None
            CORPUS.write_chunk(writer, chunk)
        writer.finish()
    assert path.read_bytes() == whole


def test_places_of_chunks(path):
    with CORPUS.open(path) as writer:
        assert writer.chunks() == [0, 1, 2]
        assert [list(writer.sentences(chunk)) for chunk in writer.chunks()] == [
            [0, 1, 2, 3],
            [4, 5, 6, 7],
            [8, 9],
        ]
        assert [writer.lengths(chunk).tolist() for chunk in writer.chunks()] == [
            [3, 0, 5, 1],
            [2, 4, 4, 1],
            [7, 2],
        ]
    with CORPUS.open(path, Shard(1, 2)) as writer:
        assert writer.chunks() == [1]


def test_chunk_may_be_written_again(path, whole):
    start(path, 0, corpus=replace(CORPUS, seed=5))
    with CORPUS.open(path) as writer:
        for chunk in writer.chunks():
            CORPUS.write_chunk(writer, chunk)
        writer.finish()
    assert path.read_bytes() == whole


def test_finish_names_the_first_chunk_that_is_absent(path, whole):
    with CORPUS.open(path) as writer:
        CORPUS.write_chunk(writer, 0)
        with pytest.raises(
            ValueError, match="2 of 3 chunks were not written to .*, first chunk 1; write every chunk"
        ):
            writer.finish()
        CORPUS.write_chunk(writer, 2)
        with pytest.raises(ValueError, match="1 of 3 chunks .* first chunk 1"):
            writer.finish()
        assert not path.exists()
        CORPUS.write_chunk(writer, 1)
        writer.finish()
        with pytest.raises(AssertionError, match="was finished or closed before"):
            CORPUS.write_chunk(writer, 0)
    assert path.read_bytes() == whole
    with (
        CORPUS.open(path.with_name("other"), Shard(1, 2)) as writer,
        pytest.raises(ValueError, match="1 of 1 chunks .* first chunk 1"),
    ):
        writer.finish()


def test_exception_keeps_the_work(path, whole):
    def interrupted():
        with CORPUS.open(path) as writer:
            CORPUS.write_chunk(writer, 1)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        interrupted()
    with CORPUS.open(path) as writer:
        assert writer.is_done(1)
    CORPUS.write(path)
    assert path.read_bytes() == whole


def test_discard(path):
    with CORPUS.open(path) as writer:
        writer.discard()
        writer.discard()
    assert names(path.parent) == []
    with CORPUS.open(path) as writer:
        for chunk in writer.chunks():
            CORPUS.write_chunk(writer, chunk)
        writer.finish()
        writer.discard()  # nothing is left to remove
    assert names(path.parent) == [NAME]


# ---------------------------------------------------------------- one writer


def test_second_writer_is_refused(path):
    message = "another process is writing .*partial; wait for it, or stop it and run this command again"
    with CORPUS.open(path) as writer:
        CORPUS.write_chunk(writer, 0)
        for options in ({}, {"overwrite": True}):
            with pytest.raises(FileExistsError, match=message):
                CORPUS.open(path, **options)
        with CORPUS.open(path, Shard(0, 2)), CORPUS.open(path, Shard(1, 2)):
            pass  # other files
        assert writer.is_done(0)
    with CORPUS.open(path) as writer:
        assert writer.is_done(0)


@needs_fork
def test_second_writer_in_another_process_is_refused(path):
    with CORPUS.open(path):
        assert "another process is writing" in in_child(CORPUS.open, path)
    assert in_child(start, path, 0) == "None"


@needs_fork
def test_closed_work_is_free_although_a_child_process_lives(path):
    # a child that was forked meanwhile, a loader's worker say, inherits the lock
    writer = CORPUS.open(path)
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        writer.close()
        CORPUS.open(path).close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# ---------------------------------------------------------------- other settings


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (make_corpus(passes=8), "passes: 7 against 8"),
        (make_corpus(k=2), "k: 3 against 2"),
        (make_corpus(chunk_sentences=2), "chunk_sentences: 4 against 2"),
        (make_corpus(dictionary_size=21), "dictionary_size: 20 against 21"),
        (make_corpus([3, 0, 5, 1, 2, 4, 4, 1, 7]), "shard 1/1 of 10 sentences against 1/1 of 9"),
        (make_corpus([3, 0, 5, 1, 2, 4, 4, 1, 7, 3]), "29 rows against 30"),
        (make_corpus([0, 3, 5, 1, 2, 4, 4, 1, 7, 2]), "sentences have other lengths"),
        (make_corpus([3, 0, 5, 1, 2, 4, 4, 1, 2, 7]), "sentences have other lengths"),
    ],
)
def test_unfinished_work_with_other_settings(path, whole, other, difference):
    start(path, 0, 1)
    before = work_path(path).read_bytes()
    with pytest.raises(
        ValueError, match=rf"is the unfinished work of .* other settings \({difference}"
    ) as caught:
        other.open(path)
    assert "finish it with those, or pass --overwrite to throw it away" in str(caught.value)
    assert work_path(path).read_bytes() == before
    other.write(path, overwrite=True)
    assert not verify_store(path)
    assert TopKReader(path).info == other.info
    assert TopKReader(path).lengths.tolist() == other.lengths.tolist()
    clean = path.with_name("clean")
    other.write(clean)
    assert path.read_bytes() == clean.read_bytes()  # nothing of the old work shines through


def test_overwrite_goes_on_with_work_of_the_same_settings(path):
    start(path, 0)
    with CORPUS.open(path, overwrite=True) as writer:
        assert writer.is_done(0)


def test_complete_store_is_recognised(path, whole):
    CORPUS.write(path)
    for options in ({}, {"shard": Shard(0, 1)}):
        with CORPUS.open(path, **options) as writer:
            assert writer.complete
            assert writer.chunks() == []
    assert names(path.parent) == [NAME]
    with CORPUS.open(path, overwrite=True) as writer:
        assert not writer.complete
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (make_corpus(teacher="bert-large"), "teacher: 'bert-base-multilingual-cased' against 'bert-large'"),
        (make_corpus([3, 0, 5, 1, 2, 4, 4, 1, 7, 3]), "29 rows against 30"),
        # a corpus in another order
        (make_corpus([0, 3, 5, 1, 2, 4, 4, 1, 7, 2]), "lengths"),
    ],
)
def test_existing_store_is_replaced_only_when_asked(path, whole, other, difference):
    CORPUS.write(path)
    with pytest.raises(FileExistsError, match=rf"exists and differs \(.*{difference}.*\); pass --overwrite"):
        other.open(path)
    assert path.read_bytes() == whole
    start(path, 0, corpus=other, overwrite=True)
    assert path.read_bytes() == whole  # until the other one is whole
    other.write(path, overwrite=True)
    assert TopKReader(path).info == other.info
    assert names(path.parent) == [NAME]


@pytest.mark.parametrize("content", [b"", b"notes\n", b"KDTOPK\r\n", b"KDTOPKw\n" + bytes(90)])
def test_existing_file_of_another_kind_is_kept(path, whole, content):
    path.write_bytes(content)
    with pytest.raises(FileExistsError, match="exists and differs .*; pass --overwrite to replace it"):
        CORPUS.open(path)
    assert path.read_bytes() == content
    CORPUS.write(path, overwrite=True)
    assert path.read_bytes() == whole


def test_truncated_store_is_not_complete(path, whole):
    path.write_bytes(whole[:-1])
    with pytest.raises(FileExistsError, match="exists and differs .* is truncated"):
        CORPUS.open(path)


def test_store_that_appears_meanwhile_is_kept(path):
    with CORPUS.open(path) as writer:
        for chunk in writer.chunks():
            CORPUS.write_chunk(writer, chunk)
        path.write_bytes(b"of another process")
        with pytest.raises(FileExistsError, match="--overwrite"):
            writer.finish()
    assert path.read_bytes() == b"of another process"
    path.unlink()
    assert CORPUS.write(path)["scored_rows"] > 0


def test_same_store_that_appears_meanwhile(path, whole):
    with CORPUS.open(path) as writer:
        for chunk in writer.chunks():
            CORPUS.write_chunk(writer, chunk)
        path.write_bytes(whole)
        writer.finish()
    assert path.read_bytes() == whole
    assert names(path.parent) == [NAME]


def test_folder_in_place_of_a_file(path, tmp_path):
    with pytest.raises(FileExistsError, match="is a folder; choose a file name"):
        CORPUS.open(tmp_path, overwrite=True)
    with pytest.raises(
        FileNotFoundError, match=r"the folder of store .* does not exist; run fairseq-preprocess"
    ):
        CORPUS.open(tmp_path / "absent" / "store")
    assert names(tmp_path) == []


# ---------------------------------------------------------------- work files that were damaged


@pytest.mark.parametrize("torn", ["zeros", "half", "other magic", "half of the last one"])
def test_work_with_a_torn_header_keeps_its_chunks(path, whole, torn):
    start(path, 0, 2)
    work = bytearray(work_path(path).read_bytes())
    if torn == "zeros":
        work[:4096] = bytes(4096)
    elif torn == "half":
        work[600:4096] = bytes(3496)
    elif torn == "other magic":
        work[:8] = b"\0" * 8
    else:
        work[:512] = whole[:512]  # the finished header came half
    work_path(path).write_bytes(work)
    with CORPUS.open(path) as writer:
        assert [writer.is_done(chunk) for chunk in range(3)] == [True, False, True]
        assert path.parent.joinpath(NAME + ".partial").stat().st_size == len(whole)
    CORPUS.write(path)
    assert path.read_bytes() == whole


def test_work_of_other_settings_with_a_torn_header_is_not_taken(path, whole):
    """The same layout and another teacher: only the chunks' digests tell."""
    start(path, 0, 1, 2, corpus=make_corpus(teacher="bert-base-multilingual-cusad"))
    work = bytearray(work_path(path).read_bytes())
    assert len(work) == len(whole)
    work_path(path).write_bytes(bytes(100) + work[100:])
    with CORPUS.open(path) as writer:
        assert [writer.is_done(chunk) for chunk in range(3)] == [False] * 3
    CORPUS.write(path)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("size", [0, 1, 100, 4096, -1])
def test_work_file_of_another_size(path, whole, size):
    start(path, 0)
    work = work_path(path).read_bytes()
    work_path(path).write_bytes(work[:size])
    CORPUS.write(path)
    assert path.read_bytes() == whole


def test_foreign_bytes_in_the_work_file(path, whole):
    work_path(path).write_bytes(b"x" * 100_000)
    CORPUS.write(path)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("section", ["source_hashes", "target_hashes", "status", "records", "chunk_table"])
def test_damaged_chunk_is_written_again(path, whole, section):
    start(path, 0, 1, 2)
    with CORPUS.open(path) as writer:
        layout = writer.layout
    middle = (layout.starts[section] + layout.ends[section]) // 2  # belongs to chunk 1
    work = bytearray(work_path(path).read_bytes())
    work[middle] ^= 1
    work_path(path).write_bytes(work)
    with CORPUS.open(path) as writer:
        assert [writer.is_done(chunk) for chunk in range(3)] == [True, False, True]
    CORPUS.write(path)
    assert path.read_bytes() == whole


def test_swapped_chunks_are_recognised(path):
    corpus = make_corpus([3] * 8, missing=0.0)
    start(path, 0, 1, corpus=corpus)
    with corpus.open(path) as writer:
        starts = writer.layout.starts
    work = bytearray(work_path(path).read_bytes())
    for section, size in (("source_hashes", 32), ("target_hashes", 32), ("status", 4), ("records", 12 * 20)):
        at = starts[section]
        work[at : at + 2 * size] = work[at + size : at + 2 * size] + work[at : at + size]
    at, size = starts["chunk_table"], (len(work) - starts["chunk_table"]) // 2
    work[at:] = work[at + size :] + work[at : at + size]
    work_path(path).write_bytes(work)
    with corpus.open(path) as writer:
        assert [writer.is_done(chunk) for chunk in range(2)] == [False, False]


def test_killed_between_finishing_and_renaming(path, whole, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            CORPUS.write(path)
    assert work_path(path).read_bytes() == whole
    with CORPUS.open(path) as writer:
        assert all(writer.is_done(chunk) for chunk in range(3))
    CORPUS.write(path)
    assert path.read_bytes() == whole


# ---------------------------------------------------------------- shards


def write_shards(corpus, path, count, order=None):
    for index in order or range(count):
        corpus.write(path, Shard(index, count))
    return [shard_path(path, Shard(index, count)) for index in range(count)]


@pytest.mark.parametrize("count", [2, 3, 7, 11])
def test_shards_give_the_same_bytes(path, whole, count):
    shards = write_shards(CORPUS, path, count, order=list(range(count))[::-1])
    assert [store_of_shard(shard) for shard in shards] == [path] * count
    reported = []
    summary = merge_shards(shards[::-1], path, progress=reported.append)
    assert path.read_bytes() == whole
    assert not verify_store(path)
    assert TopKReader(path).header.summary == summary
    layout = TopKReader(path).header.layout
    assert sum(reported) == layout.ends["records"] - layout.starts["records"]
    assert merge_shards(shards, path) == summary  # is there already
    assert [verify_store(shard) for shard in shards] == [[]] * count


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 6), max_size=40),
    chunk_sentences=st.integers(1, 9),
    count=st.sampled_from([1, 2, 3, 7, 11]),
    seed=st.integers(0, 20),
    gold=st.booleans(),
    data=st.data(),
)
def test_any_shards_give_the_same_bytes(tmp_path_factory, lengths, chunk_sentences, count, seed, gold, data):
    folder = tmp_path_factory.mktemp("shards")
    corpus = make_corpus(lengths, seed=seed, gold=gold, samples=2, chunk_sentences=chunk_sentences)
    corpus.write(folder / "whole")
    shards = write_shards(corpus, folder / "parts", count, data.draw(st.permutations(range(count))))
    merge_shards(data.draw(st.permutations(shards)), folder / "merged")
    assert (folder / "merged").read_bytes() == (folder / "whole").read_bytes()
    sentences = sum(len(TopKReader(shard, shard=True)) for shard in shards)
    assert sentences == len(lengths)


@pytest.mark.parametrize(
    "names", ["1/2 2/4 4/4", "1/4 2/2 3/4", "3/3 1/6 4/6 2/3", "4/12 1/4 8/12 2/4 3/4 12/12"]
)
def test_shards_of_machines_with_other_numbers_of_gpus_join_to_the_same_bytes(tmp_path, names):
    corpus = make_corpus([1, 2, 0, 3, 1, 2, 2, 1, 1, 4, 1, 2, 1, 3], chunk_sentences=1)
    corpus.write(tmp_path / "whole")
    shards = []
    for name in names.split():
        number, count = map(int, name.split("/"))
        corpus.write(tmp_path / "parts", Shard(number - 1, count))
        shards.append(shard_path(tmp_path / "parts", Shard(number - 1, count)))
    merge_shards(shards, tmp_path / "merged")
    assert (tmp_path / "merged").read_bytes() == (tmp_path / "whole").read_bytes()


def test_merge_goes_on(path, whole, monkeypatch):
    shards = write_shards(CORPUS, path, 2)
    calls = []

    def interrupted(size):
        calls.append(size)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_shards(shards, path, progress=interrupted)
    with CORPUS.open(path) as writer:
        assert [writer.is_done(chunk) for chunk in range(3)] == [True, True, False]
    merge_shards(shards, path)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("overwrite", [False, True])
def test_merge_goes_on_with_the_shards_as_they_are_now(path, monkeypatch, overwrite):
    """Unfinished work of shards that were dumped again since is not taken for theirs."""
    old = write_shards(CORPUS, path, 2)

    def interrupted(size):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_shards(old, path, progress=interrupted)
    for shard in old:
        shard.unlink()
    new = write_shards(CORRECTED, path, 2)
    CORRECTED.write(path.with_name("expected"))
    merge_shards(new, path, overwrite)
    assert path.read_bytes() == path.with_name("expected").read_bytes()


def test_merge_does_not_take_another_store_for_its_own(path, whole):
    merge_shards(write_shards(CORPUS, path, 2), path)
    new = write_shards(CORRECTED, path.with_name("new"), 2)
    with pytest.raises(
        FileExistsError, match=r"holds other rows than .*new.shard-1-of-2 in chunk 0 .*--overwrite"
    ):
        merge_shards(new, path)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (lambda a, b, c, other, halves: [], "no shards given; name the files"),
        (lambda a, b, c, other, halves: [a, c], "shard 2/3 is missing; name all shards of the store"),
        (lambda a, b, c, other, halves: [b], "shard 1/3, 3/3 is missing"),
        (lambda a, b, c, other, halves: [a, b, c, b], "shard 2/3 is given twice; name each shard once"),
        (
            lambda a, b, c, other, halves: [a, b, other[2]],
            "are not of one dump .passes: 7 against 8.; make all shards",
        ),
        (
            lambda a, b, c, other, halves: [a, b, halves[1]],
            "shards 2/2 and 2/3 hold the same sentences; leave one of them out",
        ),
        (lambda a, b, c, other, halves: [halves[1]], "shard 1/2 is missing"),
    ],
)
def test_merge_refuses(path, tmp_path, choose, message):
    for name in ("other", "halves", "out"):
        (tmp_path / name).mkdir()
    shards = write_shards(CORPUS, path, 3)
    other = write_shards(make_corpus(passes=8), tmp_path / "other" / "store", 3)
    halves = write_shards(CORPUS, tmp_path / "halves" / "store", 2)
    with pytest.raises(ValueError, match=message):
        merge_shards(choose(*shards, other, halves), tmp_path / "out" / "store")
    assert names(tmp_path / "out") == []


def test_merge_of_absent_unfinished_or_other_length_shards(path):
    shards = write_shards(CORPUS, path, 2)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        merge_shards([*shards, path.with_name("absent")], path)
    longer = replace(CORPUS, lengths=np.append(CORPUS.lengths, [1, 1, 1]))
    longer.write(path.with_name("longer"), Shard(1, 2))
    with pytest.raises(ValueError, match="another number of sentences"):
        merge_shards([shards[0], path.with_name("longer.shard-2-of-2")], path)
    start(path.with_name("third"), shard=Shard(0, 2))
    with pytest.raises(ValueError, match="is unfinished"):
        merge_shards([path.with_name("third.shard-1-of-2.partial"), shards[1]], path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("section", "byte"),
    [
        ("dictionary", 9),
        ("offsets", 8),  # other lengths: no work may stand in the way of the sound shard
        ("offsets", 9),  # a negative length
        ("source_hashes", 9),
        ("target_hashes", 9),
        ("status", 3),
        ("records", 9),
        ("chunk_table", 9),
    ],
)
def test_merge_of_a_damaged_shard(path, whole, section, byte):
    shards = write_shards(CORPUS, path, 2)
    good = shards[0].read_bytes()
    layout = TopKReader(shards[0], shard=True).header.layout
    content = bytearray(good)
    content[layout.starts[section] + byte] ^= 1
    shards[0].write_bytes(content)
    with pytest.raises(ValueError, match="is damaged|are not of one dump|dictionary"):
        merge_shards(shards, path)
    assert not path.exists()
    shards[0].write_bytes(good)
    merge_shards(shards, path)
    assert path.read_bytes() == whole


def test_merge_replaces_only_when_asked(path, whole):
    shards = write_shards(CORPUS, path, 2)
    path.write_bytes(b"notes")
    with pytest.raises(FileExistsError, match="exists and differs"):
        merge_shards(shards, path)
    merge_shards(shards, path, overwrite=True)
    assert path.read_bytes() == whole


def test_merge_keeps_what_another_machine_summed_up(path, whole, monkeypatch):
    # a processor may round exp otherwise
    shards = write_shards(CORPUS, path, 2)
    original = TopKInfo.count

    def count(*args):
        counts = original(*args)
        return counts | {"captured": [np.nextafter(total, 99) for total in counts["captured"]]}

    monkeypatch.setattr(TopKInfo, "count", count)
    merge_shards(shards, path)
    assert path.read_bytes() == whole


def test_name_of_a_shard():
    assert store_of_shard("d/train.shard-1.shard-2-of-3") == Path("d/train.shard-1")
    with pytest.raises(ValueError, match="is not named like a shard .* give --output"):
        store_of_shard("d/train.de-en.en.topk")


# ---------------------------------------------------------------- disks that fail


def is_one_line(text, *parts):
    assert "\n" not in text
    for part in parts:
        assert part in text
    return True


@pytest.fixture
def old_store(path):
    """A store of another teacher in the way."""
    make_corpus(teacher="old").write(path)
    return path.read_bytes()


@contextmanager
def small_disk(size):
    """A file system with room for ``size`` bytes."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        if (
            not sys.platform.startswith("linux")
            or os.geteuid() != 0
            or subprocess.run(command, check=False).returncode
        ):
            pytest.skip("needs the right to mount a small file system")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def test_disk_full_at_the_start(whole):
    corpus = make_corpus([100] * 40)
    with small_disk("64k") as folder:
        path = folder / NAME
        CORPUS.write(path)
        with pytest.raises(OSError, match=r"no room for [\d,]+ bytes \(No space left on device\)") as caught:
            corpus.write(path, overwrite=True)
        message = str(caught.value)
        assert path.read_bytes() == whole  # untouched
        with pytest.raises(OSError, match="no room for"):
            corpus.write(path, overwrite=True)  # the same once more
        filling = work_path(path).stat().st_blocks if work_path(path).exists() else 0
        assert filling == 0
        subprocess.run(["mount", "-o", "remount,size=1m", str(folder)], check=True)
        corpus.write(path, overwrite=True)
        assert not verify_store(path)
        assert len(TopKReader(path)) == 40
    is_one_line(message, str(work_path(path)))


def test_disk_full_where_the_system_cannot_reserve(whole, monkeypatch):
    """Then a chunk finds the disk full; what was written before counts."""

    def unsupported(*_):
        raise OSError(95, "not supported")

    monkeypatch.setattr(work_file, "allocate", unsupported)
    corpus = make_corpus([100] * 40)
    with small_disk("48k") as folder:
        path = folder / NAME
        with pytest.raises(OSError, match="No space left on device") as caught:
            corpus.write(path)
        is_one_line(str(caught.value))
        assert names(folder) == [NAME + ".partial"]
        with corpus.open(path) as writer:
            done = [writer.is_done(chunk) for chunk in writer.chunks()]
        assert done[0]
        assert not done[-1]
        subprocess.run(["mount", "-o", "remount,size=1m", str(folder)], check=True)
        with corpus.open(path) as writer:
            assert [writer.is_done(chunk) for chunk in writer.chunks()] == done
        corpus.write(path)
        assert not verify_store(path)


def test_room_is_reserved_at_once(path):
    """Where the file system can: the blocks belong to the file before anything is written."""
    file = WorkFile(path)
    file.reserve(1 << 20)
    stat = os.stat(work_path(path))
    assert stat.st_size == 1 << 20
    assert stat.st_blocks == 0 or stat.st_blocks * 512 >= 1 << 20


def test_nothing_is_written_where_the_file_system_cannot_reserve(path):
    """An ext4 file without extents is one of those; glibc's posix_fallocate would write into each of its blocks."""
    work_path(path).touch()
    command = shutil.which("chattr") or "false"
    if subprocess.run([command, "-e", str(work_path(path))], capture_output=True, check=False).returncode:
        pytest.skip("no such file system here")
    file = WorkFile(path)
    file.reserve(1 << 20)
    stat = os.stat(work_path(path))
    assert (stat.st_size, stat.st_blocks) == (1 << 20, 0)


def limited(size, function, *args, **options):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    return function(*args, **options)


@needs_fork
def test_limit_on_the_size_of_files(path, old_store):
    # ftruncate finds the limit before fallocate
    text = in_child(lambda: limited(5000, CORPUS.write, path, overwrite=True))
    assert path.read_bytes() == old_store
    CORPUS.write(path, overwrite=True)
    assert TopKReader(path).info == CORPUS.info
    is_one_line(text, "OSError", "File too large", "no room for", str(work_path(path)))


@needs_fork
def test_limit_that_comes_while_chunks_are_written(path, whole):
    def write():
        with CORPUS.open(path) as writer:
            CORPUS.write_chunk(writer, 0)
            limited(writer.layout.starts["records"], lambda: None)
            CORPUS.write_chunk(writer, 1)

    is_one_line(in_child(write), "OSError", "File too large")
    with CORPUS.open(path) as writer:
        assert [writer.is_done(chunk) for chunk in range(3)] == [True, False, False]
    CORPUS.write(path)
    assert path.read_bytes() == whole


def test_file_system_that_cannot_reserve(path, whole, monkeypatch):
    def unsupported(*_):
        raise OSError(95, "not supported")

    monkeypatch.setattr(work_file, "allocate", unsupported)
    CORPUS.write(path)
    assert path.read_bytes() == whole


@needs_fork
def test_folder_without_write_permission(whole):
    with tempfile.TemporaryDirectory() as name:  # not in pytest's folder, which is its owner's alone
        folder = Path(name)
        path = folder / NAME
        CORPUS.write(path)
        shards = write_shards(CORPUS, folder / "parts", 2)
        folder.chmod(0o555)

        def unprivileged(function, *args):
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            return function(*args)

        is_one_line(
            in_child(unprivileged, lambda: CORPUS.write(path, overwrite=True)),
            "PermissionError",
            str(work_path(path)),
        )
        is_one_line(
            in_child(unprivileged, merge_shards, shards, folder / "merged"),
            "PermissionError",
            "merged.partial",
        )
        assert in_child(unprivileged, lambda: len(TopKReader(path))) == "10"
        assert in_child(unprivileged, verify_store, path) == "[]"
        assert in_child(unprivileged, lambda: CORPUS.open(path).complete) == "True"
        folder.chmod(0o755)
        assert path.read_bytes() == whole
        assert names(folder) == ["parts.shard-1-of-2", "parts.shard-2-of-2", NAME]


@pytest.mark.parametrize("folder", ["with spaces", "größer/数据", "quote'\"$(x)", "e\u0301"])
def test_odd_paths(tmp_path, whole, folder, monkeypatch):
    path = tmp_path / folder / NAME
    path.parent.mkdir(parents=True)
    CORPUS.write(path)
    assert path.read_bytes() == whole
    merge_shards(write_shards(CORPUS, path, 2), path.with_name("größer 2.topk"))
    assert path.with_name("größer 2.topk").read_bytes() == whole
    monkeypatch.chdir(path.parent)
    path.unlink()
    CORPUS.write(Path(NAME))
    assert TopKReader(NAME).path == path


# ---------------------------------------------------------------- readers and writers at once


def read_until_stopped(path, stop, queue):
    """Open the store again and again; its rows must be those of one of the two teachers, whole."""
    allowed = {}
    for seed in (0, 1):
        corpus = replace(CORPUS, seed=seed)
        allowed[seed] = b"".join(corpus.chunk(chunk).records.tobytes() for chunk in range(corpus.chunks))
    seen, opened = set(), 0
    try:
        while not stop.is_set() or not opened:
            reader = TopKReader(path)
            rows = b"".join(reader.rows(i).tobytes() for i in range(len(reader)))
            seen.add(next((seed for seed, expected in allowed.items() if rows == expected), "mixed"))
            opened += 1
        queue.put(seen)
    except Exception as error:
        queue.put(repr(error))


@needs_fork
def test_two_readers_while_others_write_and_replace(path, tmp_path):
    CORPUS.write(path)
    context = multiprocessing.get_context("fork")
    stop, queue = context.Event(), context.Queue()
    readers = [context.Process(target=read_until_stopped, args=(path, stop, queue)) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(30):
        CORPUS.write(tmp_path / f"other {turn}")
        replace(CORPUS, seed=(turn + 1) % 2).write(path, overwrite=True)
    stop.set()
    seen = [queue.get(timeout=60) for _ in readers]
    for reader in readers:
        reader.join(timeout=60)
        assert reader.exitcode == 0
    assert all(isinstance(one, set) and one <= {0, 1} for one in seen), seen
    assert set.union(*seen) == {0, 1}  # both were there to be seen


def test_chunks_from_several_threads(path):
    from concurrent.futures import ThreadPoolExecutor

    corpus = make_corpus([2, 3, 1] * 40)
    corpus.write(path)
    with corpus.open(path.with_name("threads")) as writer, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda chunk: corpus.write_chunk(writer, chunk), writer.chunks()[::-1]))
        writer.finish()
    assert path.with_name("threads").read_bytes() == path.read_bytes()
