"""Verify: a sound store passes, and each check alone sees what only it can see."""

import json
import struct
import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fairseq_bert_kd.storage.chunk import chunk_digest, table_entry
from fairseq_bert_kd.storage.fairseq_data import dictionary_digest
from fairseq_bert_kd.storage.schema import new_digest
from fairseq_bert_kd.storage.shards import Shard
from fairseq_bert_kd.storage.verify import verify_store
from tests.storage.small_stores import (
    NAME,
    PAIRS,
    SYMBOLS,
    assemble,
    flip,
    header_of,
    make_chunks,
    make_info,
    make_parts,
    write_data,
    write_store,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / NAME


def only(problems):
    """The one problem."""
    assert len(problems) == 1, problems
    return problems[0]


# ---------------------------------------------------------------- sound ones


@pytest.mark.parametrize("workers", [None, 1, 3])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gold": True, "samples": 1, "temperatures": (1.0,)},
        {"temperatures": ()},
        {"k": 1},
        {"chunk_sentences": 1},
        {"chunk_sentences": 100},
    ],
    ids=str,
)
def test_sound_store_has_no_problems(path, changes, workers):
    seen = []
    write_store(path, make_info(**changes))
    assert verify_store(path, workers=workers, progress=seen.append) == []
    layout = header_of(path).layout
    assert sum(seen) == layout.ends["records"] - layout.starts["records"]


def test_assembled_store_is_the_written_one(path, tmp_path):
    write_store(path)
    assert assemble(tmp_path / "other", make_parts()).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_sound_shards_have_no_problems_even_the_empty_one(path, index):
    shard = write_store(path, shard=Shard(index, 4))  # three chunks
    assert verify_store(shard) == []


def test_store_without_sentences(path):
    assert verify_store(write_store(path, pairs=[], missing=())) == []


def test_store_of_missing_sentences_only(path):
    assert verify_store(write_store(path, missing=range(5))) == []


# ---------------------------------------------------------------- one mutant for each check


def test_file_that_is_no_store(path):
    path.write_bytes(b"no store at all")
    assert "is not a teacher store" in only(verify_store(path))


@pytest.mark.parametrize("content", [b"", b"KDTOPK\r\n", b"KDTOPK\r\n" + bytes(20)], ids=len)
def test_stump(path, content):
    path.write_bytes(content)
    assert only(verify_store(path))


def test_version(path):
    write_store(path)
    content = bytearray(path.read_bytes())
    content[8] = 4
    path.write_bytes(content)
    assert "format version 4, this code reads versions 2 and 3" in only(verify_store(path))


@pytest.mark.parametrize(("size", "word"), [(-1, "truncated"), (1, "over-long")])
def test_size(path, size, word):
    write_store(path)
    content = path.read_bytes()
    path.write_bytes(content[:size] if size < 0 else content + b"\0")
    assert f"is {word}" in only(verify_store(path))


def test_header_digest(path):
    write_store(path)
    flip(path, 100)
    assert "does not match the header's digest" in only(verify_store(path))


def test_header_of_another_make_whose_digest_fits(path):
    write_store(path)
    content = bytearray(path.read_bytes())
    size = struct.unpack_from("<I", content, 12)[0]
    values = json.loads(content[32 : 32 + size])
    values["info"] = ["not", "an", "object"]
    area = json.dumps(values).encode().ljust(size)
    digest = new_digest()
    digest.update(content[:16] + area)
    content[16 : 32 + size] = digest.digest() + area
    path.write_bytes(content)
    assert "header" in only(verify_store(path))


def test_gap_between_sections(path):
    write_store(path)
    place = header_of(path).layout.gaps()[2][0]
    flip(path, place)
    assert only(verify_store(path)) == f"byte {place} between two sections must be zero, got 1"


def test_every_gap_is_looked_at(path):
    write_store(path)
    gaps = header_of(path).layout.gaps()
    assert len(gaps) >= 5
    for _, end in gaps:
        flip(path, end - 1)
    assert len(verify_store(path)) == len(gaps)


def test_dictionary_digest(path):
    write_store(path)
    flip(path, header_of(path).layout.starts["dictionary"])
    assert "dictionary section is damaged: it does not match its digest" in only(verify_store(path))


def test_dictionary_size(path):
    assemble(path, replace(make_parts(), symbols=SYMBOLS[:-1]))
    assert "it has 9 lines" in only(verify_store(path))


def test_dictionary_that_is_not_utf8(path):
    write_store(path)
    place = header_of(path).layout.starts["dictionary"]
    content = bytearray(path.read_bytes())
    content[place] = 0xFF
    path.write_bytes(content)
    assert "dictionary section is damaged" in only(verify_store(path))


def test_index_starts_at_row_0(path):
    assemble(path, make_parts(first_row=1))
    assert only(verify_store(path)) == "the index must start at row 0, got 1"


def test_index_ends_at_the_last_row(path):
    assemble(path, make_parts(last_rows=2))
    assert only(verify_store(path)) == "the index must end at row 15, the last, got 13"


@pytest.mark.parametrize("row", [-1, 14, 2**62])
def test_index_that_leaves_the_rows_or_descends(path, row):
    write_store(path)
    content = bytearray(path.read_bytes())
    place = (
        header_of(path).layout.starts["offsets"] + 3 * 8
    )  # where sentence 3 begins, in the middle of chunk 1
    struct.pack_into("<q", content, place, row)
    path.write_bytes(content)
    sentence = 2
    assert f"chunk 1 (sentences 2 to 3): the index is wrong at sentence {sentence}, " in only(
        verify_store(path)
    )


def test_table_digest(path):
    assemble(path, make_parts(table_digest="00" * 16))
    assert only(verify_store(path)) == "the chunk table does not match its digest in the header"


@pytest.mark.parametrize("section", ["source_hashes", "target_hashes", "status", "records"])
def test_chunk_digest_covers_every_section(path, section):
    write_store(path)
    layout = header_of(path).layout
    flip(path, layout.ends[section] - 1)
    assert only(verify_store(path)) == "chunk 2 (sentences 4 to 4) does not match its digest"


def test_chunk_digest_covers_the_number_in_the_corpus(path):
    """The chunks of shard 2 of 2 that was written as if it were shard 1."""
    info, chunks = make_info(), make_chunks(make_info())
    parts = make_parts(shard=Shard(1, 2), corpus_sentences=5)
    parts.chunks, parts.entries = chunks[1:2], {1: table_entry(0, chunks[1], info)}
    assemble(path, parts)
    assert only(verify_store(path)) == "chunk 1 (sentences 2 to 3) does not match its digest"


def test_shard_tells_corpus_indices(path):
    shard = write_store(path, shard=Shard(1, 3))  # holds chunk 1 only
    assert verify_store(shard) == []
    flip(shard, header_of(shard).layout.starts["records"])
    assert only(verify_store(shard)) == "chunk 1 (sentences 2 to 3) does not match its digest"


def test_rows_that_no_teacher_says(path):
    parts = make_parts()
    parts.chunks[1].records["topk_logits"][4] = (0, -2, -1)  # ascends; the only row of sentence 3
    parts.entries[1] = table_entry(1, parts.chunks[1], parts.info)
    assemble(path, parts)
    assert only(verify_store(path)) == (
        "chunk 1 (sentences 2 to 3) matches its digest, but was written wrong: sentence 3, position 0: topk_logits "
        "must descend, got [0.0, -2.0, -1.0]"
    )


def test_rows_of_a_shard_are_reported_with_corpus_indices(path):
    parts = make_parts(shard=Shard(1, 3), corpus_sentences=5)
    parts.chunks = parts.chunks[1:2]
    parts.chunks[0].records["topk_ids"][4] = (4, 5, 99)
    assemble(path, parts)
    assert "sentence 3, position 0: topk_ids must lie in the target dictionary of 10" in only(
        verify_store(path)
    )


def falsified_entry(chunk, data, info, **fields):
    """An entry with other counts, whose digest fits all the same."""

    entry = table_entry(chunk, data, info)
    for name, value in fields.items():
        entry[name] = value
    entry["digest"] = np.frombuffer(chunk_digest(chunk, entry, data, info), np.uint8)
    return entry


@pytest.mark.parametrize(
    ("fields", "reported"),
    [
        ({"scored_rows": 4}, "the chunk table says scored_rows 4, its rows give 5"),
        ({"missing": (0, 1, 0)}, "the chunk table says missing [0, 1, 0], its rows give [0, 0, 0]"),
        ({"captured": (5 * 0.875 + 1e-3, 2.0)}, "the chunk table says captured"),
        ({"captured": (np.nan, np.nan)}, "the chunk table says captured [nan, nan]"),
    ],
    ids=str,
)
def test_table_says_what_the_rows_say(path, fields, reported):
    parts = make_parts()
    parts.entries[1] = falsified_entry(1, parts.chunks[1], parts.info, **fields)
    if "captured" in fields and np.isnan(fields["captured"][0]):
        parts.summary = {}  # NaN does not go into a header
    assemble(path, parts)
    assert reported in only(verify_store(path))


@pytest.mark.parametrize(("relative", "problems"), [(1e-12, 0), (1e-7, 1)])
def test_sums_may_differ_by_rounding(path, relative, problems):
    parts = make_parts()
    captured = table_entry(1, parts.chunks[1], parts.info)["captured"] * (1 + relative)
    parts.entries[1] = falsified_entry(1, parts.chunks[1], parts.info, captured=captured)
    assemble(path, parts)
    assert len(verify_store(path)) == problems


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        ({"scored_rows": 12}, "summary says scored_rows 12, its chunks give 11"),
        ({"captured_mass": [0.5, 0.5]}, "summary says captured_mass [0.5, 0.5], its chunks give [0.87"),
        ({"gold_nll": 0.5}, "summary says gold_nll 0.5, its chunks give None"),
        ({"extra": 1}, "summary says extra 1, its chunks give None"),
    ],
    ids=str,
)
def test_summary_says_what_the_table_says(path, change, reported):
    write_store(path)
    summary = header_of(path).summary | change
    assemble(path, make_parts(summary=summary))
    assert reported in only(verify_store(path))


def test_summary_that_is_no_object(path):
    assemble(path, make_parts(summary=[1]))
    assert "summary must be an object, got [1]" in only(verify_store(path))


# ---------------------------------------------------------------- many problems


def test_all_bad_chunks_are_reported_up_to_twenty(path):
    pairs = [PAIRS[0]] * 30
    write_store(path, make_info(chunk_sentences=1), pairs, missing=())
    layout = header_of(path).layout
    for sentence in range(0, 30, 2):
        flip(path, layout.starts["status"] + sentence)
    problems = verify_store(path)
    assert problems == [
        f"chunk {i} (sentences {i} to {i}) does not match its digest" for i in range(0, 30, 2)
    ]
    for sentence in range(1, 30, 2):
        flip(path, layout.starts["status"] + sentence)
    problems = verify_store(path, workers=2)
    assert len(problems) == 21
    assert problems[-1] == "and 10 more bad chunks"


def test_any_flipped_byte_is_a_problem_and_never_a_stack_trace(path, tmp_path):
    write_store(path, make_info(gold=True, samples=1))
    content = path.read_bytes()
    header_end = header_of(path).layout.starts["dictionary"]
    mutant = tmp_path / "mutant.topk"
    rng = np.random.default_rng(0)
    for place in [*rng.integers(0, header_end, 40), *range(header_end, len(content), 5)]:
        changed = bytearray(content)
        changed[place] ^= rng.integers(1, 256)
        mutant.write_bytes(changed)
        assert verify_store(mutant, workers=1), place


def test_memory_does_not_grow_with_the_store(path, tmp_path):
    peaks = []
    for name, chunks in (("small", 40), ("large", 400)):
        pairs = [([2], list(range(4, 10)) * 20)] * chunks
        store = write_store(tmp_path / name, make_info(chunk_sentences=1), pairs, missing=())
        tracemalloc.start()
        assert verify_store(store, workers=1) == []
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    layout = header_of(tmp_path / "large").layout
    assert peaks[1] - peaks[0] < (layout.ends["records"] - layout.starts["records"]) / 5


def test_threads_end_with_the_call(path):
    before = threading.active_count()
    write_store(path)
    verify_store(path, workers=4)
    assert threading.active_count() == before


def test_file_that_does_not_exist_is_a_user_error(path, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist or is not a file"):
        verify_store(path)
    with pytest.raises(FileNotFoundError, match="does not exist or is not a file"):
        verify_store(tmp_path)


# ---------------------------------------------------------------- with the data


@pytest.fixture
def store(path):
    source = dictionary_digest(SYMBOLS)
    return write_store(path, make_info(source_dictionary_digest=source))


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data")


def test_store_that_belongs_to_its_data(store, data):
    assert verify_store(store, data) == []


@pytest.mark.parametrize("index", [0, 1, 2])
def test_shard_that_belongs_to_its_data(path, data, index):
    assert verify_store(write_store(path, shard=Shard(index, 3)), data) == []


def test_number_of_sentences(store, tmp_path):
    data = write_data(tmp_path / "data", [*PAIRS, PAIRS[0]])
    source, target = verify_store(store, data)
    assert source.startswith(
        "it is shorter than the data: 5 sentences against 6 of the source; give the folder"
    )
    assert "5 sentences against 6 of the target" in target


@pytest.mark.parametrize(
    ("sentence", "pair", "reported"),
    [
        (
            2,
            ([5, 2], PAIRS[2][1]),
            [
                "it was made from another text: the source of sentence 2 (line 3 of the text) has other tokens here"
            ],
        ),
        (
            4,
            (PAIRS[4][0], [4, 5, 2]),
            [
                "it was made from another text: the target of sentence 4 (line 5 of the text) has other tokens here"
            ],
        ),
        (
            1,
            (PAIRS[1][0], [6, 6, 2]),
            [
                "it has 2 rows for sentence 1 (line 2 of the text), its target has 3 tokens with end of sentence"
            ],
        ),
        (
            3,
            ([2], [4]),
            [
                "it was made from another text: the source of sentence 3 (line 4 of the text) has other tokens here",
                "it was made from another text: the target of sentence 3 (line 4 of the text) has other tokens here",
            ],
        ),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_sentence_that_differs(path, tmp_path, sentence, pair, reported, count):
    pairs = list(PAIRS)
    pairs[sentence] = pair
    data = write_data(tmp_path / "data", pairs)
    shards = [write_store(path, shard=Shard(index, count)) for index in range(count)]
    assert [problem for shard in shards for problem in verify_store(shard, data)] == reported


def test_many_sentences_that_differ(path, tmp_path):
    write_store(path, pairs=[PAIRS[0]] * 30, missing=())
    data = write_data(tmp_path / "data", [PAIRS[1]] * 30)
    problems = verify_store(path, data)
    assert len(problems) == 21
    assert problems[0].startswith("it was made from another text: the source of sentence 0")
    assert problems[-1] == "and 40 more sentences that differ from the data"


@pytest.mark.parametrize(
    ("symbols", "reported"),
    [
        (
            [*SYMBOLS[:6], "x", *SYMBOLS[7:]],
            "symbol 6 (line 3 of dict.en.txt) was `c`, it is `x` here (10 and 10 symbols)",
        ),
        (SYMBOLS[:-1], "symbol 9 (line 6 of dict.en.txt) was `f`, it is absent here (10 and 9 symbols)"),
        ([*SYMBOLS, "g"], "symbol 10 (line 7 of dict.en.txt) was absent, it is `g` here (10 and 11 symbols)"),
    ],
)
def test_target_dictionary(path, tmp_path, symbols, reported):
    data = write_data(tmp_path / "data", symbols=symbols)
    problem = only(verify_store(write_store(path), data))
    assert problem.startswith(f"it was made with another target dictionary than dict.en.txt: {reported}")


def test_target_dictionary_with_a_damaged_one_in_the_store(store, tmp_path):
    data = write_data(tmp_path / "data")
    (data / "dict.en.txt").write_text("x 1\n")
    flip(store, header_of(store).layout.starts["dictionary"])
    assert [
        problem
        for problem in verify_store(store, data)
        if problem.startswith("it was made with another target dictionary than dict.en.txt; give")
    ]


def test_source_dictionary(store, data):
    (data / "dict.de.txt").write_text("x 1\n", encoding="utf-8")
    assert only(verify_store(store, data)).startswith(
        "it was made with another source dictionary than dict.de.txt;"
    )


def test_source_dictionary_that_the_store_does_not_know(path, data):
    (data / "dict.de.txt").unlink()
    assert verify_store(write_store(path), data) == []


def test_dictionary_that_cannot_be_read(store, data):
    (data / "dict.en.txt").write_text("nocount\n", encoding="utf-8")
    assert "line 1: expected `symbol count`" in only(verify_store(store, data))


def test_byte_positions_that_overflowed(store, data):
    index = data / "train.de-en.en.idx"
    content = bytearray(index.read_bytes())
    struct.pack_into("<q", content, len(content) - 8, -(2**31))
    index.write_bytes(content)
    problem = only(verify_store(store, data))
    assert "is damaged from sentence 4 on: it points to byte -2147483648" in problem


def test_data_that_is_cut_off(store, data):
    bin_file = Path(data / "train.de-en.de.bin")
    bin_file.write_bytes(bin_file.read_bytes()[:-2])
    assert "copy it again" in only(verify_store(store, data))


@pytest.mark.parametrize("name", ["train.de-en.de.idx", "train.de-en.en.bin", "dict.en.txt"])
def test_data_that_does_not_exist_is_a_user_error(store, data, name):
    (data / name).unlink()
    with pytest.raises(FileNotFoundError):
        verify_store(store, data)
