"""Faults of data folders: what the user reads is the rule, the value and the next step, from every task and command."""

import logging
import shutil

import pytest

from fairseq_bert_kd.data.corpus_parts import language_pair
from tests.tiny_chain import (
    PLUGIN,
    dump,
    preprocess,
    run_fairseq,
    tokenize_corpus,
    train_student,
    train_teacher,
)

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.fixture(scope="module")
def pieces(chain, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pieces") / "pieces"
    tokenize_corpus(chain.raw, folder, chain.bert)
    return folder


@pytest.fixture
def data(chain, tmp_path):
    return shutil.copytree(chain.data, tmp_path / "data")


def teacher(chain, data, out):
    train_teacher(data, chain.bert, out / "teacher", updates=1)


def plain(chain, data, out):
    train_student(data, out / "plain", "--kd-weight", 0, updates=1)


def distilled(chain, data, out):
    train_student(data, out / "distilled", updates=1)


def generate(chain, data, out):
    student = out / "student" / "checkpoint_last.pt"
    if not student.exists():
        train_student(chain.data, student.parent, "--kd-weight", 0, updates=1)
    run_fairseq(
        "generate", data, "--user-dir", PLUGIN, "--task", "translation_with_teacher", "--path", student, "--cpu",
        "--gen-subset", "train", "--beam", 1, "--max-len-b", 3,
    )  # fmt: skip


READERS = {"teacher": teacher, "plain": plain, "distilled": distilled, "generate": generate}


# --- languages


@pytest.mark.parametrize(
    ("languages", "files", "given", "expected"),
    [
        (("de", "en"), ("train.de-en.de.idx",), (None, None), ("de", "en")),
        (("zh-Hant", "en"), ("train.zh-Hant-en.en.idx",), (None, None), ("zh-Hant", "en")),
        (("en", "pt-BR"), ("test.en-pt-BR.en.idx",), (None, None), ("en", "pt-BR")),
        (
            ("sr-Latn-RS", "zh-Hant"),
            ("valid.sr-Latn-RS-zh-Hant.zh-Hant.bin",),
            (None, None),
            ("sr-Latn-RS", "zh-Hant"),
        ),
        (("de", "en"), ("train.de-en.de.idx", "train.en-de.de.idx"), ("en", None), ("en", "de")),
        (
            ("de", "en", "fr"),
            ("train.de-en.de", "train.fr-en.fr"),
            (None, None),
            "several pairs (de-en, fr-en)",
        ),
        (("de", "en"), (), (None, None), "no pair"),
        (("de", "en"), ("train.de-en.de.idx",), ("fr", None), "no pair"),
    ],
)
def test_languages_are_read_from_file_names_with_their_hyphens(tmp_path, languages, files, given, expected):
    for name in [*(f"dict.{language}.txt" for language in languages), *files, "preprocess.log"]:
        (tmp_path / name).touch()
    if isinstance(expected, tuple):
        assert language_pair(str(tmp_path), *given) == expected
    else:
        with pytest.raises(ValueError, match="give --source-lang and --target-lang") as refusal:
            language_pair(str(tmp_path), *given)
        assert expected in str(refusal.value)


def test_the_whole_chain_runs_with_hyphens_and_without_options(chain, pieces, tmp_path):
    for split in ("train", "valid", "test"):
        shutil.copy(pieces / f"{split}.de", tmp_path / f"{split}.zh-Hant")
        shutil.copy(pieces / f"{split}.en", tmp_path / f"{split}.pt-BR")
    data = tmp_path / "data"
    run_fairseq(
        "preprocess", "--user-dir", PLUGIN, "--task", "translation_with_teacher", "-s", "zh-Hant", "-t", "pt-BR",
        "--trainpref", tmp_path / "train", "--validpref", tmp_path / "valid", "--testpref", tmp_path / "test",
        "--destdir", data, "--srcdict", chain.data / "dict.de.txt", "--joined-dictionary",
    )  # fmt: skip
    checkpoint = train_teacher(data, chain.bert, tmp_path / "teacher", updates=1)
    assert dump(data, checkpoint) == 0
    student = train_student(data, tmp_path / "student", updates=1)
    said = run_fairseq(
        "generate", data, "--user-dir", PLUGIN, "--task", "translation_with_teacher", "--path", student, "--cpu",
        "--beam", 1, "--max-len-b", 3,
    )  # fmt: skip
    assert "\nH-19\t" in f"\n{said}"


@pytest.mark.parametrize("reader", READERS)
def test_a_folder_that_is_not_there_is_named(chain, tmp_path, reader):
    with pytest.raises(
        FileNotFoundError, match=r"the data folder .*data does not exist; .*fairseq-preprocess"
    ):
        READERS[reader](chain, tmp_path / "data", tmp_path)


@pytest.mark.parametrize("reader", READERS)
def test_a_folder_without_data_is_named(chain, tmp_path, reader):
    (tmp_path / "data").mkdir()
    with pytest.raises(ValueError, match=r"the file names in .*data tell no pair .*--source-lang"):
        READERS[reader](chain, tmp_path / "data", tmp_path)


# --- formats


@pytest.mark.parametrize("impl", ["cached", "lazy"])
def test_the_older_format_is_refused_with_the_next_step(chain, pieces, tmp_path, impl):
    preprocess(pieces, tmp_path / "data", "--joined-dictionary", "--dataset-impl", impl)
    for name in ("teacher", "plain", "generate"):
        with pytest.raises(
            ValueError, match=r"not in fairseq's mmap format.*binarise with .*--dataset-impl mmap"
        ):
            READERS[name](chain, tmp_path / "data", tmp_path)


@pytest.mark.parametrize("impl", ["raw", "lazy"])
def test_formats_that_fairseq_is_told_of_still_train(chain, pieces, tmp_path, impl):
    preprocess(pieces, tmp_path / "data", "--joined-dictionary", "--dataset-impl", impl)
    train_student(tmp_path / "data", tmp_path / "plain", "--kd-weight", 0, "--dataset-impl", impl, updates=1)


@pytest.mark.parametrize(
    "name", ["train.de-en.en.idx", "train.de-en.en.bin", "dict.en.txt", "train.de-en.en.topk"]
)
def test_git_lfs_pointers_are_named_whatever_they_stand_for(chain, data, tmp_path, name):
    (data / name).write_bytes(POINTER)
    with pytest.raises(ValueError, match=rf"{name}`.* is a Git LFS pointer.* `git lfs pull`"):
        distilled(chain, data, tmp_path)


def test_a_checkpoint_that_is_a_pointer_is_named(chain, data, tmp_path, capsys):
    (tmp_path / "teacher.pt").write_bytes(POINTER)
    assert dump(data, tmp_path / "teacher.pt") == 2
    assert "teacher.pt` is a Git LFS pointer" in capsys.readouterr().err


def test_a_dictionary_with_a_wrong_line_is_named_with_its_number(chain, data, tmp_path):
    path = data / "dict.en.txt"
    path.write_text(path.read_text().replace("\n", "\njust-one-word\n", 1))
    with pytest.raises(
        ValueError, match=r"dict\.en\.txt, line 2: expected `symbol count`, got 'just-one-word'"
    ):
        plain(chain, data, tmp_path)


# --- empty and missing splits


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_split_without_a_line_is_refused_by_name(chain, pieces, tmp_path, split, capsys):
    changed = shutil.copytree(pieces, tmp_path / "pieces")
    for language in ("de", "en"):
        (changed / f"{split}.{language}").write_text("")
    preprocess(changed, tmp_path / "data", "--joined-dictionary", "--srcdict", chain.data / "dict.de.txt")
    for name in ("teacher", "plain", *(["generate"] if split == "train" else [])):
        with pytest.raises(ValueError, match=rf"split `{split}` in .* has no sentence .*leave the split out"):
            READERS[name](chain, tmp_path / "data", tmp_path)
    assert dump(tmp_path / "data", chain.teacher, "--subset", split) == 0  # nothing to score


def test_a_split_that_is_not_there_is_named(chain, data, tmp_path):
    for path in data.glob("valid.*"):
        path.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"Dataset not found: valid of de-en in .*; run fairseq-preprocess"
    ):
        plain(chain, data, tmp_path)


# --- what a newcomer cannot know


def test_the_share_of_unknown_tokens_is_said_once_for_every_split(chain, pieces, data, tmp_path, caplog):
    caplog.set_level(logging.INFO, "fairseq_bert_kd")
    train_student(data, tmp_path / "plain", "--kd-weight", 0, updates=5)  # several epochs
    assert (
        caplog.text.count("train: 0.00 % of the source tokens and 0.00 % of the target tokens are <unk>") == 1
    )
    assert caplog.text.count("valid: 0.00 % of the source tokens") == 1
    caplog.clear()

    few = tmp_path / "few.txt"
    few.write_text("".join((chain.data / "dict.de.txt").read_text().splitlines(keepends=True)[:-8]))
    preprocess(pieces, tmp_path / "few", "--joined-dictionary", "--srcdict", few)
    lines = [line.split() for line in (pieces / "train.en").read_text().splitlines()]
    known = {line.split()[0] for line in few.read_text().splitlines()}
    unknown = sum(word not in known for line in lines for word in line) / sum(map(len, lines))
    caplog.clear()
    assert unknown > 0.01
    teacher(chain, tmp_path / "few", tmp_path)
    [warning] = [record for record in caplog.records if record.getMessage().startswith("train: ")]
    assert warning.levelname == "WARNING"
    assert (
        f"and {100 * unknown:.2f} % of the target tokens are <unk>, pieces that the dictionary lacks"
        in warning.message
    )
    assert "--full-dictionary" in warning.message
    caplog.clear()
    assert dump(tmp_path / "few", tmp_path / "teacher" / "checkpoint_last.pt") == 0
    assert f"and {100 * unknown:.2f} % of the target tokens are <unk>" in caplog.text


def test_when_the_first_line_comes_is_said_at_the_start(chain, tmp_path, caplog):
    caplog.set_level(logging.INFO, "fairseq_bert_kd")
    train_student(chain.data, tmp_path / "student", "--kd-weight", 0, updates=3)
    train_teacher(chain.data, chain.bert, tmp_path / "teacher", "--log-interval", 7, updates=1)
    for interval in (100, 7):
        assert (
            caplog.text.count(f"the first line of training comes after {interval} updates (--log-interval)")
            == 1
        )


def test_a_teacher_that_goes_on_with_other_dictionaries_is_refused(chain, data, tmp_path):
    """Of the same size, so that its weights fit; the map from symbols to pieces would be the old one."""
    for language in ("de", "en"):
        path = data / f"dict.{language}.txt"
        first, second, *rest = path.read_text(encoding="utf-8").splitlines()
        path.write_text("\n".join([second, first, *rest, ""]), encoding="utf-8")
    save_dir = shutil.copytree(chain.teacher.parent, tmp_path / "teacher")
    with pytest.raises(
        ValueError, match=r"another source dictionary or tokenizer: symbol 4, .* \(2 of \d+ symbols differ\)"
    ):
        train_teacher(data, chain.bert, save_dir, updates=4)
    assert (save_dir / "checkpoint_last.pt").read_bytes() == chain.teacher.read_bytes()
