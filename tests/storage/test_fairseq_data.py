"""Our reader of fairseq's binarised data against fairseq's own, and fairseq's overflow beyond 2 GiB."""

import multiprocessing
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary
from fairseq.data.indexed_dataset import MMapIndexedDatasetBuilder, make_builder, make_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_bert_kd.storage.fairseq_data import (
    IndexedTokens,
    check_parallel,
    open_pairs,
    open_sides,
    read_dictionary,
    sentence_files,
    sentence_hash,
    translation_files,
)
from tests.storage.small_stores import tokens_in_child

SENTENCES = [[4, 5, 2], [2], [], [7, 65499, 4, 2], [300, 2]]


def write(prefix, sentences, vocabulary=100, impl="mmap"):
    """As fairseq-preprocess does."""
    builder = make_builder(f"{prefix}.bin", impl, vocab_size=vocabulary)
    for sentence in sentences:
        builder.add_item(torch.tensor(sentence, dtype=torch.int64))
    builder.finalize(f"{prefix}.idx")
    return str(prefix)


def write_index(path, dtype_code, sizes, pointers):
    """An index by hand; no pass through fairseq."""
    header = struct.pack("<9sQBQ", b"MMIDIDX\x00\x00", 1, dtype_code, len(sizes))
    body = np.asarray(sizes, "<i4").tobytes() + np.asarray(pointers, "<i8").tobytes()
    Path(path).write_bytes(header + body)


def write_pair(folder, source=SENTENCES, target=SENTENCES, name="train.de-en"):
    return write(folder / f"{name}.de", source), write(folder / f"{name}.en", target)


# ---------------------------------------------------------------- the same as fairseq


@pytest.mark.parametrize(
    ("vocabulary", "dtype"), [(65499, np.uint16), (65500, np.uint32), (70000, np.uint32), (None, np.uint32)]
)
def test_same_as_the_host(tmp_path, vocabulary, dtype):
    prefix = write(tmp_path / "train.de-en.en", SENTENCES, vocabulary)
    ours, theirs = IndexedTokens(prefix), make_dataset(prefix, "mmap")
    assert ours.dtype == dtype
    assert len(ours) == len(theirs) == 5
    assert ours.sizes.tolist() == theirs.sizes.tolist() == [3, 1, 0, 4, 2]
    assert [ours[i].tolist() for i in range(5)] == [theirs[i].tolist() for i in range(5)] == SENTENCES
    ours.check()
    with pytest.raises(IndexError):
        ours[5]
    with pytest.raises(ValueError, match="read-only"):
        ours[0][:] = 1


def test_int32_data_of_another_writer(tmp_path):
    prefix = tmp_path / "x"
    builder = MMapIndexedDatasetBuilder(f"{prefix}.bin", dtype=np.int32)
    builder.add_item(torch.tensor([4, 70000, 2]))
    builder.finalize(f"{prefix}.idx")
    ours = IndexedTokens(prefix)
    assert ours.dtype == np.int32
    assert ours[0].tolist() == [4, 70000, 2]
    ours.check()


@settings(max_examples=40, deadline=None)
@given(
    parts=st.lists(st.lists(st.lists(st.integers(0, 69999), max_size=8), max_size=6), min_size=1, max_size=4),
    vocabulary=st.sampled_from([70000, 65000]),
)
def test_any_data_written_by_several_workers(tmp_path_factory, parts, vocabulary):
    """Each worker's part, then merged as fairseq-preprocess --workers does."""
    folder = tmp_path_factory.mktemp("data")
    parts = [[[token % vocabulary for token in sentence] for sentence in part] for part in parts]
    builder = make_builder(f"{folder}/all.bin", "mmap", vocab_size=vocabulary)
    for number, part in enumerate(parts):
        builder.merge_file_(write(folder / f"part{number}", [*part, [2]], vocabulary))
    builder.finalize(f"{folder}/all.idx")
    ours = IndexedTokens(folder / "all")
    ours.check()
    assert [ours[i].tolist() for i in range(len(ours))] == [s for part in parts for s in [*part, [2]]]


def test_empty_split(tmp_path):
    prefix = write(tmp_path / "train.de-en.en", [])
    ours = IndexedTokens(prefix)
    assert len(ours) == 0
    assert ours.sizes.tolist() == []
    ours.check()
    assert len(pickle.loads(pickle.dumps(ours))) == 0


def test_sentences_without_tokens_only(tmp_path):
    ours = IndexedTokens(write(tmp_path / "x", [[], []]))
    ours.check()
    assert [ours[i].tolist() for i in range(2)] == [[], []]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_pickling(tmp_path, method):
    ours = IndexedTokens(write(tmp_path / "train.de-en.en", SENTENCES, 70000))
    assert len(pickle.dumps(ours)) < 1000
    copy = pickle.loads(pickle.dumps(ours))
    assert [copy[i].tolist() for i in range(5)] == SENTENCES
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=tokens_in_child, args=(ours, queue))
    child.start()
    assert queue.get(timeout=120) == SENTENCES
    child.join(timeout=120)
    assert child.exitcode == 0


def test_copies_find_the_data_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickled = pickle.dumps(IndexedTokens(write("train.de-en.en", SENTENCES)))
    monkeypatch.chdir("/")
    assert pickle.loads(pickled)[0].tolist() == [4, 5, 2]


def test_opening_does_not_go_through_the_index(tmp_path):
    """2^27 sentences in a sparse index of 1.5 GiB."""
    count = 2**27
    path = tmp_path / "x.idx"
    path.write_bytes(struct.pack("<9sQBQ", b"MMIDIDX\x00\x00", 1, 8, count))
    os.truncate(path, 26 + 12 * count)
    (tmp_path / "x.bin").write_bytes(b"")
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tokens = IndexedTokens(tmp_path / "x")
    assert len(tokens) == count
    assert tokens[count - 1].tolist() == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 5_000  # of 393,216 pages


# ---------------------------------------------------------------- fairseq's overflow


def test_the_host_overflows_when_it_merges(tmp_path):
    """The fault itself, in the installed fairseq under numpy 2: parts of 2^29 tokens of 2 bytes each.

    Should this fail one day, fairseq has fixed it, and the message of `IndexedTokens.check` with it.
    """
    with np.errstate(over="ignore"):
        builder = MMapIndexedDatasetBuilder(f"{tmp_path}/all.bin", dtype=np.uint16)
        for number in range(5):
            part = tmp_path / f"part{number}"
            write_index(f"{part}.idx", 8, [2**29], [0])
            Path(f"{part}.bin").write_bytes(b"\1")  # fairseq copies it without reading its size
            builder.merge_file_(str(part))
        builder.finalize(f"{tmp_path}/all.idx")
    os.truncate(tmp_path / "all.bin", 5 * 2**30)
    with open(tmp_path / "all.idx", "rb") as file:
        file.seek(26 + 4 * 5)
        pointers = np.frombuffer(file.read(), "<i8")
    assert pointers.tolist() == [0, 2**30, -(2**31), -(2**30), 0]  # and not 2^31, 3 * 2^30, 2^32
    with pytest.raises(
        ValueError, match="is damaged from sentence 2 on: it points to byte -2147483648"
    ) as caught:
        IndexedTokens(tmp_path / "all").check()
    assert "instead of 2147483648. Under numpy 2, fairseq overflows there when it merges parts" in str(
        caught.value
    )
    assert "run fairseq-preprocess again with --workers 1" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_host_does_not_overflow_with_one_worker(tmp_path):
    """Then it counts in Python's integers, so what the message advises helps."""
    builder = MMapIndexedDatasetBuilder(f"{tmp_path}/all.bin", dtype=np.uint16)
    builder.add_item(torch.tensor([4, 2]))
    assert type(builder._sizes[0]) is int
    builder._sizes = [2**29] * 5
    builder.finalize(f"{tmp_path}/all.idx")
    os.truncate(tmp_path / "all.bin", 5 * 2**30)
    IndexedTokens(tmp_path / "all").check()


@pytest.mark.parametrize(("code", "item"), [(8, 2), (9, 4), (4, 4)])
def test_pointers_in_int32(tmp_path, code, item):
    """As fairseq computes them, many sentences long; the first wrong one is named."""
    sizes = np.full(5000, 2**20, dtype=np.int32)
    right = np.arange(5000, dtype=np.int64) * 2**20 * item
    write_index(tmp_path / "x.idx", code, sizes, right.astype(np.int32))
    (tmp_path / "x.bin").touch()
    os.truncate(tmp_path / "x.bin", 5000 * 2**20 * item)
    first = 2**31 // (2**20 * item)
    with pytest.raises(
        ValueError, match=f"from sentence {first} on: it points to byte -2147483648 instead of {2**31}"
    ):
        IndexedTokens(tmp_path / "x").check()
    write_index(tmp_path / "x.idx", code, sizes, right)
    IndexedTokens(tmp_path / "x").check()


def test_right_data_beyond_4_gib(tmp_path):
    lengths = [3, 2**30, 2, 2**30 - 1, 4, 2**31 - 1, 1]
    starts = np.concatenate([[0], np.cumsum(lengths)]) * 4
    write_index(tmp_path / "x.idx", 9, lengths, starts[:-1])
    with open(tmp_path / "x.bin", "wb") as file:
        file.truncate(int(starts[-1]))
        for sentence in (0, 2, 4, 6):
            row = np.arange(lengths[sentence], dtype="<u4") + 100 * sentence
            os.pwrite(file.fileno(), row.tobytes(), int(starts[sentence]))
    ours = IndexedTokens(tmp_path / "x")
    ours.check()
    assert ours[2].tolist() == [200, 201]
    assert ours[4].tolist() == [400, 401, 402, 403]
    assert ours[6].tolist() == [600]
    assert len(ours[5]) == 2**31 - 1
    assert ours[5][-1] == 0


# ---------------------------------------------------------------- what is refused


@pytest.fixture
def prefix(tmp_path):
    return Path(write(tmp_path / "train.de-en.en", SENTENCES))


@pytest.mark.parametrize("suffix", [".idx", ".bin"])
def test_absent_file(prefix, suffix):
    Path(f"{prefix}{suffix}").unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"train.de-en.en\{suffix} does not exist; run fairseq-preprocess"
    ):
        IndexedTokens(prefix)


def test_another_format_of_the_host(tmp_path):
    prefix = write(tmp_path / "x", SENTENCES, impl="cached")
    with pytest.raises(
        ValueError,
        match="is not in fairseq's mmap format, but in its older .*; binarise with `fairseq-preprocess",
    ):
        IndexedTokens(prefix)


@pytest.mark.parametrize("content", [b"", b"MMIDIDX", b"x" * 100])
def test_wrong_magic(prefix, content):
    Path(f"{prefix}.idx").write_bytes(content)
    with pytest.raises(ValueError, match="is not in fairseq's mmap format|version 0"):
        IndexedTokens(prefix)


@pytest.mark.parametrize(("version", "code"), [(2, 8), (1, 0), (1, 6), (1, 7), (1, 99)])
def test_version_and_type(prefix, version, code):
    index = Path(f"{prefix}.idx")
    index.write_bytes(struct.pack("<9sQB", b"MMIDIDX\x00\x00", version, code) + index.read_bytes()[18:])
    with pytest.raises(
        ValueError, match=f"has version {version} and type code {code}, unknown here; binarise again"
    ):
        IndexedTokens(prefix)


@pytest.mark.parametrize("change", [-1, -40, 1])
def test_index_of_another_size(prefix, change):
    index = Path(f"{prefix}.idx")
    content = index.read_bytes()
    index.write_bytes(content[:change] if change < 0 else content + b"\0")
    with pytest.raises(
        ValueError, match=rf"is damaged: {len(content) + change} bytes instead of {len(content)}"
    ):
        IndexedTokens(prefix)


@pytest.mark.parametrize("size", [0, 1, 19, 21])
def test_data_of_another_size(prefix, size):
    data = Path(f"{prefix}.bin")
    data.write_bytes(data.read_bytes().ljust(size, b"\0")[:size])
    with pytest.raises(
        ValueError, match=rf"train.de-en.en.bin has {size} bytes, its index says 20; copy it again"
    ):
        IndexedTokens(prefix).check()


def test_pointer_that_was_moved(prefix):
    index = Path(f"{prefix}.idx")
    content = bytearray(index.read_bytes())
    content[26 + 20 + 8 * 3] += 2
    index.write_bytes(content)
    with pytest.raises(ValueError, match="damaged from sentence 3 on: it points to byte 10 instead of 8"):
        IndexedTokens(prefix).check()


# ---------------------------------------------------------------- both sides


def test_open_pairs(tmp_path):
    write_pair(tmp_path, source=SENTENCES[::-1])
    pairs = open_pairs(tmp_path, "train", "de", "en")
    assert pairs["source"][0].tolist() == [300, 2]
    assert pairs["target"][0].tolist() == [4, 5, 2]


def test_files_of_the_other_direction(tmp_path):
    """fairseq reads them too."""
    write_pair(tmp_path)
    assert translation_files(tmp_path, "train", "en", "de") == {
        "source": (f"{tmp_path}/train.de-en.en", tmp_path / "dict.en.txt"),
        "target": (f"{tmp_path}/train.de-en.de", tmp_path / "dict.de.txt"),
    }
    write_pair(tmp_path, name="train.en-de")
    assert (
        translation_files(str(tmp_path), "train", "en", "de")["source"].prefix == f"{tmp_path}/train.en-de.en"
    )


def test_absent_split(tmp_path):
    write_pair(tmp_path)
    with pytest.raises(
        FileNotFoundError, match="Dataset not found: valid of de-en in .*; run fairseq-preprocess"
    ):
        open_pairs(tmp_path, "valid", "de", "en")
    (tmp_path / "train.de-en.en.idx").unlink()
    with pytest.raises(FileNotFoundError, match="train.de-en.en.idx does not exist"):
        open_pairs(tmp_path, "train", "de", "en")


def test_raw_text_is_named(tmp_path):
    (tmp_path / "train.de-en.de").write_text("a b\n")
    with pytest.raises(ValueError, match=r"train.de-en.de is raw text .* binarise with `fairseq-preprocess"):
        translation_files(tmp_path, "train", "de", "en")
    write(tmp_path / "train.de-en.de", SENTENCES)
    assert translation_files(tmp_path, "train", "de", "en")["source"].prefix == f"{tmp_path}/train.de-en.de"


def test_unequal_sides(tmp_path):
    write_pair(tmp_path, source=SENTENCES[:4])
    message = r"source and target of split `train` have different numbers of sentences \(4 and 5\); give"
    with pytest.raises(ValueError, match=message):
        open_pairs(tmp_path, "train", "de", "en")
    with pytest.raises(ValueError, match=r"split `a` .* \(1 and 0\)"):
        check_parallel("a", 1, 0)
    check_parallel("a", 3, 3)


@pytest.mark.parametrize("side", ["de", "en"])
def test_both_sides_are_checked(tmp_path, side):
    write_pair(tmp_path)
    with open(tmp_path / f"train.de-en.{side}.bin", "ab") as file:
        file.write(b"\0\0")
    with pytest.raises(ValueError, match=rf"train.de-en.{side}.bin has 22 bytes, its index says 20"):
        open_pairs(tmp_path, "train", "de", "en")


@pytest.mark.parametrize("sides", [("input0",), ("input0", "input1", "label")])
def test_sides_of_sentence_prediction(tmp_path, sides):
    for place, side in enumerate(sides):
        (tmp_path / side).mkdir()
        write(tmp_path / side / "train", SENTENCES[place:] + SENTENCES[:place])
    files = sentence_files(tmp_path, "train", sides)
    assert {side: found.dictionary for side, found in files.items()} == {
        side: tmp_path / side / "dict.txt" for side in sides
    }
    opened = open_sides(files, "train")
    assert list(opened) == list(sides)
    assert [tokens[0].tolist() for tokens in opened.values()] == SENTENCES[: len(sides)]
    assert opened.hashes(0) == {side: sentence_hash(SENTENCES[i]) for i, side in enumerate(sides)}


def test_absent_and_unequal_sides_are_named(tmp_path):
    for side, sentences in (("input0", SENTENCES), ("label", SENTENCES[1:])):
        (tmp_path / side).mkdir()
        write(tmp_path / side / "valid", sentences)
    with pytest.raises(
        FileNotFoundError, match="side `input1` of split `valid`, does not exist; run fairseq"
    ):
        sentence_files(tmp_path, "valid", ("input0", "input1"))
    with pytest.raises(
        ValueError, match=r"input0 and label of split `valid` have different numbers .*\(5 and 4\)"
    ):
        open_sides(sentence_files(tmp_path, "valid", ("input0", "label")), "valid")


# ---------------------------------------------------------------- hashes and dictionaries


def test_sentence_hash_by_hand():
    # printf '\x04\0\0\0\x05\0\0\0\x02\0\0\0' | b2sum -l 64 says b30b74df2a151ab8
    assert sentence_hash([4, 5, 2]) == 0xB81A152ADF740BB3
    for dtype in ("<u2", "<u4", "<i8", ">i4"):
        assert sentence_hash(np.array([4, 5, 2], dtype=dtype)) == 0xB81A152ADF740BB3
    assert sentence_hash(torch.tensor([4, 5, 2])) == 0xB81A152ADF740BB3
    assert sentence_hash(np.array([9, 4, 9, 5, 9, 2])[1::2]) == 0xB81A152ADF740BB3
    assert (
        len({sentence_hash(s) for s in ([], [0], [0, 0], [1], [256], [65536], [4, 2, 5], [4, 5, 2, 2])}) == 8
    )


def test_dictionary_by_hand(tmp_path):
    path = tmp_path / "dict.en.txt"
    path.write_text("der 30\n▁a b 7\n<s> 2 #fairseq:overwrite\n", encoding="utf-8")
    assert read_dictionary(path) == ["<s>", "<pad>", "</s>", "<unk>", "der", "▁a b", "<s>"]


def test_dictionary_that_the_host_wrote(tmp_path):
    theirs = Dictionary()
    for count, symbol in enumerate(
        ["straße", "##s", "数据", "a", "\u0301", "😀", "#fairseq:overwrite", "</S>"]
    ):
        theirs.add_symbol(symbol, n=100 - count)
    theirs.finalize(nwords=-1, padding_factor=8)
    theirs.save(str(tmp_path / "dict.txt"))
    symbols = read_dictionary(tmp_path / "dict.txt")
    assert len(symbols) % 8 == 0
    assert symbols == theirs.symbols == Dictionary.load(str(tmp_path / "dict.txt")).symbols
    assert [theirs.index(symbol) for symbol in symbols] == list(range(len(symbols)))


def test_symbol_that_comes_again_to_overwrite(tmp_path):
    """fairseq gives it a new id and keeps the old one as well."""
    path = tmp_path / "dict.txt"
    path.write_text("a 5\nb 4\na 3 #fairseq:overwrite\n<unk> 2 #fairseq:overwrite\n", encoding="utf-8")
    theirs = Dictionary.load(str(path))
    assert (
        read_dictionary(path) == theirs.symbols == ["<s>", "<pad>", "</s>", "<unk>", "a", "b", "a", "<unk>"]
    )
    assert theirs.index("a") == 6


@settings(max_examples=100, deadline=None)
@given(
    symbols=st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs", "Zs", "Zl", "Zp", "Cc"]), min_size=1, max_size=5),
            st.integers(-3, 10**12),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_any_dictionary_has_the_ids_of_the_host(tmp_path_factory, symbols):
    path = tmp_path_factory.mktemp("dictionary") / "dict.txt"
    seen, lines = {"<s>", "<pad>", "</s>", "<unk>"}, []
    for symbol, count, flag in symbols:
        lines.append(f"{symbol} {count}" + (" #fairseq:overwrite" if flag or symbol in seen else ""))
        seen.add(symbol)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    assert read_dictionary(path) == Dictionary.load(str(path)).symbols


@pytest.mark.parametrize(
    "line",
    [
        "b 1",
        "b c 1",
        "b  1",
        "b 1 ",
        "b 1\r",
        "b\t1",
        "b",
        "",
        "b x",
        "b 1.5",
        "b -1",
        "b １",
        "\ufeffb 1",
        "b\u2028c 1",
        "b\u00a0c 1",
        "b\x0cc 1",
        "b\x1cc 1",
        "#fairseq:overwrite 1",
        "b 1 #fairseq:overwrite",
        "b #fairseq:overwrite",
        "b 1 #other",
        "b +1",
        "b 1_0",
        " 1",  # an empty symbol
        "b --1",
        "b ²",  # a digit that is no number
        "a 1",  # comes again without the flag
        "<unk> 1",
    ],
)
def test_odd_lines_are_taken_as_the_host_takes_them(tmp_path, line):
    path = tmp_path / "dict.txt"
    path.write_bytes(f"a 5\n{line}\nz 1\n".encode())
    try:
        expected = Dictionary.load(str(path)).symbols
    except (ValueError, RuntimeError):
        expected = None
    try:
        found = read_dictionary(path)
    except ValueError:
        found = None
    assert found == expected


def test_odd_line_is_named(tmp_path):
    path = tmp_path / "dict.en.txt"
    path.write_text("a 1\nb\n", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"dict.en.txt, line 2: expected `symbol count`, got 'b'; fix the line"
    ):
        read_dictionary(path)


def test_absent_dictionary(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="dictionary .* does not exist; give the folder that fairseq-preprocess"
    ):
        read_dictionary(tmp_path / "dict.en.txt")
