"""A training corpus in several data folders, ``a:b``: fairseq reads one an epoch, in turn, each with its own store."""

import os
import re
import shutil

import numpy as np
import pytest
from fairseq.data import indexed_dataset

from tests.partial_stores import drop_rows
from tests.test_chain import store, values
from tests.tiny_chain import (
    PLUGIN,
    dump,
    logged,
    preprocess,
    run_fairseq,
    tokenize_corpus,
    train_student,
    train_teacher,
)

STORES = "fairseq_bert_kd.data.teacher_stores"
ENOUGH = 100  # updates; the epochs end training


def lines_of(path, lines):
    text = path.read_text(encoding="utf-8").split("\n")[lines]
    path.write_text("".join(f"{line}\n" for line in text), encoding="utf-8")


@pytest.fixture(scope="session")
def shards(chain, tmp_path_factory):
    """Two folders: 72 and 48 of the chain's 120 pairs; the first half of the second has no teacher rows."""
    folder = tmp_path_factory.mktemp("shards")
    tokenize_corpus(chain.raw, folder / "pieces", chain.bert)
    both = folder / "first", folder / "second"
    for out, lines in zip(both, (slice(0, 72), slice(72, 120)), strict=True):
        pieces = shutil.copytree(folder / "pieces", folder / f"pieces-{out.name}")
        for language in ("de", "en"):
            lines_of(pieces / f"train.{language}", lines)
        preprocess(pieces, out, "--joined-dictionary", "--srcdict", chain.data / "dict.de.txt")
        assert dump(out, chain.teacher) == 0
    for path in [*both[1].glob("valid.*"), *both[1].glob("test.*")]:
        path.unlink()  # only the first folder needs them
    share = drop_rows(store(both[1]), slice(0, 24))
    return *both, share


@pytest.fixture
def folders(shards, tmp_path):
    """Copies that a test may change."""
    return [shutil.copytree(path, tmp_path / path.name) for path in shards[:2]]


def joined(folders):
    return os.pathsep.join(map(str, folders))


def epochs(number):
    return ("--max-epoch", number, "--max-tokens", 4096, "--log-interval", 1, "--log-format", "simple")


def stores_opened(messages):
    """Folders by epoch, and one more: fairseq loads the next epoch's data before it sees that training ends."""
    return re.findall(r"teacher rows for train: \S*/(\w+)/train.de-en.en.topk", "\n".join(messages))


def student(folders, save_dir, number, *arguments):
    """Train; stores opened, and sentences and coverage of each epoch."""
    with logged(STORES) as messages, logged("train") as ends:
        train_student(joined(folders), save_dir, *epochs(number), *arguments, updates=ENOUGH)
    return stores_opened(messages), values(ends, "bsz"), values(ends, "kd_coverage")


def test_epochs_take_the_folders_in_turn_each_with_its_store(shards, tmp_path):
    first, second, share = shards
    # all sentences of an epoch are one batch
    stores, sentences, coverage = student((first, second), tmp_path / "student", 4, "--batch-size", 120)
    assert stores == ["first", "second", "first", "second", "first"]
    assert sentences == [72, 48, 72, 48]
    assert coverage == [100, pytest.approx(share, abs=0.01), 100, pytest.approx(share, abs=0.01)]
    assert share < 75


def test_parts_without_rows_may_be_in_one_folder_alone(folders, tmp_path):
    first, second = folders
    for language in ("de", "en"):
        for ending in ("bin", "idx"):
            shutil.copy(
                first / f"valid.de-en.{language}.{ending}", second / f"train1.de-en.{language}.{ending}"
            )
    stores, *_ = student((first, second), tmp_path / "student", 2, "--kd-label-only", "train1")
    assert stores == ["first", "second", "first"]
    with pytest.raises(
        ValueError, match="--kd-label-only names `train2`, but .* has the parts train, train1; correct"
    ):
        student((first, second), tmp_path / "refused", 2, "--kd-label-only", "train2")
    with pytest.raises(ValueError, match=r"names every part of the training corpus in .*first \(train\)"):
        student((first, second), tmp_path / "refused", 2, "--kd-label-only", "train")


def test_sentences_are_compared_with_each_store_once(shards, tmp_path):
    with logged(STORES) as messages:
        train_student(joined(shards[:2]), tmp_path / "student", *epochs(4), updates=ENOUGH)
    compared = re.findall(r"(\w+)/train\S* belongs to these data: (\d+) sentences", "\n".join(messages))
    assert sorted(compared) == [("first", "72"), ("second", "48")]


def test_checks_of_folders_do_not_read_them_whole(shards, tmp_path, monkeypatch):
    """fairseq's reader does when it opens one; the run begins with the first folder, of which it opens each side once."""
    opened, read = [], indexed_dataset._warmup_mmap_file
    monkeypatch.setattr(
        indexed_dataset,
        "_warmup_mmap_file",
        lambda path: opened.append(os.path.relpath(path, shards[0])) or read(path),
    )
    train_student(joined(shards[:2]), tmp_path / "student", *epochs(1), "--batch-size", 24, updates=1)
    sides = [path for path in opened if "train" in path and path.endswith(".bin")]
    assert sorted(sides) == ["train.de-en.de.bin", "train.de-en.en.bin"]


@pytest.mark.parametrize("stopped_after", [1, 2])
def test_student_goes_on_with_the_folder_of_its_epoch(shards, tmp_path, stopped_after):
    student(shards[:2], tmp_path / "student", stopped_after)
    stores, sentences, _ = student(shards[:2], tmp_path / "student", 4, "--batch-size", 120)
    whole = ["first", "second", "first", "second", "first"]
    assert stores == whole[stopped_after:]
    assert sentences == [72, 48, 72, 48][stopped_after:]


def test_student_stopped_within_an_epoch_goes_on_there(shards, tmp_path):
    """Epoch 3 in batches of 24: three of the first folder, two of the second."""
    options = (*epochs(4), "--batch-size", 24)
    train_student(joined(shards[:2]), tmp_path / "student", *options, updates=6)
    with logged(STORES) as messages, logged("train_inner") as steps:
        train_student(joined(shards[:2]), tmp_path / "student", *options, updates=ENOUGH)
    assert stores_opened(messages) == ["first", "second", "first"]
    assert values(steps, "num_updates") == [7, 8, 9, 10]
    assert values(steps, "bsz") == [24] * 4


def test_teacher_learns_from_all_folders(chain, shards, tmp_path):
    data, options = joined(shards[:2]), (*epochs(4), "--batch-size", 120)
    with logged("train") as ends, logged("train_inner") as whole:
        train_teacher(data, chain.bert, tmp_path / "whole", *options, updates=ENOUGH)
    assert values(ends, "bsz") == [72, 48, 72, 48]
    with logged("train_inner") as parts:
        train_teacher(data, chain.bert, tmp_path / "parts", *options, "--max-epoch", 2, updates=ENOUGH)
        train_teacher(data, chain.bert, tmp_path / "parts", *options, updates=ENOUGH)
    assert values(parts, "num_updates") == [1, 2, 3, 4]
    assert values(parts, "loss") == values(whole, "loss")


def test_decoding_and_validation_read_the_first_folder(shards, tmp_path):
    checkpoint = train_student(joined(shards[:2]), tmp_path / "student")
    output = run_fairseq(
        "generate", joined(shards[:2]), "--user-dir", PLUGIN, "--task", "translation_with_teacher", "--path",
        checkpoint, "--beam", 1, "--max-len-b", 5, "--cpu",
    )  # fmt: skip
    assert len(re.findall(r"^H-\d+\t", output, flags=re.M)) == 20


# ---- bad input -------------------------------------------------------------------------------------


def refused(folders, tmp_path, error, message, *arguments):
    """The run ends before its first step, though the first folder alone would do for an epoch."""
    with logged("train_inner") as steps, pytest.raises(error, match=message):
        train_student(joined(folders), tmp_path / "student", *epochs(2), *arguments, updates=ENOUGH)
    assert steps == []
    assert not list((tmp_path / "student").glob("*.pt"))


def test_missing_store_of_a_later_folder_is_refused_at_once(folders, tmp_path):
    store(folders[1]).unlink()
    refused(folders, tmp_path, FileNotFoundError, r"second/train\.de-en\.en\.topk.*fairseq-bert-kd dump")


def test_store_of_another_folder_is_refused_at_once(folders, tmp_path):
    shutil.copy(store(folders[0]), store(folders[1]))
    message = r"second/train\.de-en\.en\.topk is longer than the data: 72 sentences against 48"
    refused(folders, tmp_path, ValueError, message)


def test_store_of_another_text_of_the_same_lengths_is_refused_at_once(folders, tmp_path):
    """The same bytes as the first folder's store, which fits the first folder."""
    for path in folders[0].glob("train.*"):
        shutil.copy(path, folders[1])
    path = folders[1] / "train.de-en.en.bin"
    ids = np.frombuffer(path.read_bytes(), "<u2").copy()
    ids[0] = ids[0] - 1 if ids[0] > 10 else ids[0] + 1
    path.write_bytes(ids.tobytes())
    refused(folders, tmp_path, ValueError, "second/train.* the target of sentence 0 .*has other tokens here")


def test_later_store_with_too_few_tokens_is_refused_at_once(chain, folders, tmp_path):
    store(folders[1]).unlink()
    assert dump(folders[1], chain.teacher, "--topk", 4) == 0
    refused(folders, tmp_path, ValueError, r"second/train\S* holds the 4 best tokens, --kd-topk is 8")


def other_dictionary(chain, folders, tmp_path):
    """Binarise the second folder with a dictionary of its own, of the same words in another order."""
    pieces = tmp_path / "pieces"
    tokenize_corpus(chain.raw, pieces, chain.bert)
    for language in ("de", "en"):
        lines_of(pieces / f"train.{language}", slice(72, 120))
    shutil.rmtree(folders[1])
    preprocess(pieces, folders[1])
    first, second = ((folder / "dict.en.txt").read_text(encoding="utf-8") for folder in folders)
    assert first != second


def test_later_store_of_another_dictionary_is_refused_at_once(chain, folders, tmp_path):
    """Also where the folder has no dictionary that would tell."""
    other_dictionary(chain, folders, tmp_path)
    teacher = train_teacher(folders[1], chain.bert, tmp_path / "teacher")
    assert dump(folders[1], teacher) == 0
    for path in folders[1].glob("dict.*.txt"):
        path.unlink()
    refused(
        folders,
        tmp_path,
        ValueError,
        r"second/train\S* was made with another target dictionary than \S+: symbol \d+",
    )


def other_dictionaries(folders):
    return rf"dict\.de\.txt in {folders[1]} .* symbol \d+ .* in {folders[0]}"


def test_teacher_is_not_trained_with_different_dictionaries(chain, folders, tmp_path):
    """fairseq itself would read all ids with the first folder's."""
    other_dictionary(chain, folders, tmp_path)
    with pytest.raises(ValueError, match=other_dictionaries(folders)):
        train_teacher(joined(folders), chain.bert, tmp_path / "teacher")


def test_plain_student_is_not_trained_with_different_dictionaries(chain, folders, tmp_path):
    other_dictionary(chain, folders, tmp_path)
    with pytest.raises(ValueError, match=other_dictionaries(folders)):
        train_student(joined(folders), tmp_path / "student", "--kd-weight", 0)


def test_dictionaries_may_differ_in_counts_and_stand_in_the_first_folder_only(chain, folders, tmp_path):
    for language in ("de", "en"):
        path = folders[1] / f"dict.{language}.txt"
        path.write_text(
            re.sub(r" \d+$", " 7", path.read_text(encoding="utf-8"), flags=re.M), encoding="utf-8"
        )
    assert train_teacher(joined(folders), chain.bert, tmp_path / "counts").exists()
    for language in ("de", "en"):
        (folders[1] / f"dict.{language}.txt").unlink()
    assert train_teacher(joined(folders), chain.bert, tmp_path / "absent").exists()
