"""Official files to text and references, in each of their layouts."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples import official_files
from tests.tokenization.tiny_tokenizers import build_tokenizer

RECIPES = Path(__file__).resolve().parents[3] / "examples" / "recipes"
sys.path.insert(0, str(RECIPES))

import prepare_gigaword  # noqa: E402
import prepare_iwslt14  # noqa: E402
import prepare_tokenised  # noqa: E402
import unknown_words  # noqa: E402
from check_teacher_text import changed_lines  # noqa: E402
from corpus import Pair, count, short_enough, write_split  # noqa: E402
from unknown_words import with_unknown_symbol  # noqa: E402

from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer  # noqa: E402


def prepare(monkeypatch, module, *arguments):
    monkeypatch.setattr(sys, "argv", ["prepare", *map(str, arguments)])
    module.main()


def lines(path):
    return path.read_text(encoding="utf-8").split("\n")[:-1]


# ---- IWSLT14 -------------------------------------------------------------------------------------------------
def iwslt14_training(folder, german, english):
    official_files.iwslt14(folder, packed=False)
    for language, texts in (("de", german), ("en", english)):
        official_files.write(folder / f"de-en/train.tags.de-en.{language}", texts)
    return folder / "de-en"


def test_iwslt14_follows_fairseqs_script(tmp_path, monkeypatch):
    german = [
        "<url>x</url>",
        "<talkid>1</talkid>",
        "<title>Ein Titel</title>",
        "",
        "eins zwei drei",
        "Ich's!",
        "a " * 176,
    ]
    english = [
        "<url>x</url>",
        "<talkid>1</talkid>",
        "<title>A Title</title>",
        "",
        "one two",
        "I\u2019m!",
        "a " * 176,
    ]
    german += [f"Satz {number}" for number in range(25)]
    english += [f"Sentence {number}" for number in range(25)]
    folder = iwslt14_training(tmp_path, german, english)
    prepare(monkeypatch, prepare_iwslt14, folder, "--out", tmp_path)
    train, valid = lines(tmp_path / "text/train.en"), lines(tmp_path / "text/valid.en")
    # title and "Ich's!" are first and second; the empty pair, 3 : 2 tokens beyond none, 176 tokens are left out
    assert train[:4] == ["a title", "one two", "i \u2019 m !", "sentence 0"]  # 1.5 is still allowed
    assert lines(tmp_path / "text/train.de")[2] == "ich ' s !"
    assert valid == ["sentence 19"]  # the 23rd clean pair
    assert len(train) == 27
    assert lines(tmp_path / "reference/valid.raw") == ["Sentence 19"]
    assert not (tmp_path / "reference/train.tok").exists()


@pytest.mark.parametrize(
    ("source", "target", "kept"),
    [
        ("a b c", "a b", True),
        ("a b c d", "a b", False),
        ("a", "a b", False),
        ("", "", False),
        ("a " * 175, "a " * 175, True),
        ("a " * 176, "a " * 175, False),
        ("a" * 1000, "b", True),
        ("a" * 1001, "b", False),
    ],
)
def test_clean_pairs_of_iwslt14(source, target, kept):
    assert prepare_iwslt14.is_clean(source, target) == kept


def test_iwslt14_joins_five_tests_with_references_before_and_after_tokenisation(tmp_path, monkeypatch):
    folder = official_files.iwslt14(tmp_path, tests=2, packed=False) / "de-en"
    prepare(monkeypatch, prepare_iwslt14, folder, "--out", tmp_path)
    text = lines(tmp_path / "text/test.en")
    assert text[:3] == ["it 's set 0 , line 0 .", "it 's set 0 , line 1 .", "it 's set 1 , line 0 ."]
    assert len(text) == 10
    assert lines(tmp_path / "text/test.de")[0] == "it ' s set 0 , line 0 ."
    assert lines(tmp_path / "reference/test.tok")[0] == "it &apos;s set 0 , line 0 ."
    assert lines(tmp_path / "reference/test.raw")[0] == "It\u2019s set 0, line 0."


def test_a_part_of_iwslt14(tmp_path, monkeypatch):
    folder = official_files.iwslt14(tmp_path, packed=False) / "de-en"
    part = "--pairs", 5, "--max-words", 8, "--valid-pairs", 1, "--test-pairs", 3
    prepare(monkeypatch, prepare_iwslt14, folder, "--out", tmp_path, *part)
    assert [len(lines(tmp_path / f"text/{name}.de")) for name in ("train", "valid", "test")] == [5, 1, 3]
    assert len(lines(tmp_path / "reference/test.tok")) == len(lines(tmp_path / "reference/test.raw")) == 3


def test_a_part_leaves_out_pairs_with_a_long_side():
    pairs = [Pair("a b", "A"), Pair("a", "A B C"), Pair("a b c", "A"), Pair("a", "A B")]
    assert list(short_enough(pairs, 2)) == [pairs[0], pairs[3]]
    assert list(short_enough(pairs, None)) == pairs


def test_a_part_that_leaves_nothing_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="the valid set has no pair left; look at its files, or raise --max-words"
    ):
        write_split(tmp_path, "valid", ("de", "en"), [])


def test_sides_of_unequal_length_are_refused(tmp_path, monkeypatch):
    folder = iwslt14_training(tmp_path, ["eins", "zwei"], ["one"])
    with pytest.raises(ValueError, match="as many lines, but of train.tags.de-en the second ends after 1"):
        prepare(monkeypatch, prepare_iwslt14, folder, "--out", tmp_path)


# ---- IWSLT15 and WMT14 ---------------------------------------------------------------------------------------
def tokenised(folder, names, languages):
    prefixes = [
        f"--{split}={folder / name}" for split, name in zip(("train", "valid", "test"), names, strict=True)
    ]
    return [*prefixes, "--languages", *languages]


def test_iwslt15_without_escapes_and_without_the_pair_that_has_one_side(tmp_path, monkeypatch):
    official_files.iwslt15(tmp_path, pairs=40)
    arguments = tokenised(tmp_path, ("train", "tst2012", "tst2013"), ("en", "vi"))
    prepare(monkeypatch, prepare_tokenised, *arguments, "--out", tmp_path)
    train = lines(tmp_path / "text/train.vi")
    assert len(train) == len(lines(tmp_path / "text/train.en")) == 39
    assert all(line.startswith('T\u00f4i " ') and "&" not in line.replace("You & me", "") for line in train)
    assert any("Jack 's low-cost shop" in line for line in train)
    assert all("&quot;" in line for line in lines(tmp_path / "reference/test.tok"))
    assert not (tmp_path / "reference/test.raw").exists()


@pytest.mark.parametrize("subwords", [True, False])
def test_wmt14_joins_subwords_and_takes_raw_references(tmp_path, monkeypatch, subwords):
    official_files.wmt14(tmp_path, subwords=subwords)
    ending = ".bpe.32000" if subwords else ""
    names = [f"{name}{ending}" for name in ("train.tok.clean", "newstest2013.tok", "newstest2014.tok")]
    raw = ["--valid-raw", tmp_path / "newstest2013.de", "--test-raw", tmp_path / "newstest2014.de"]
    prepare(
        monkeypatch, prepare_tokenised, *tokenised(tmp_path, names, ("en", "de")), *raw, "--out", tmp_path
    )
    text = "\n".join(lines(tmp_path / "text/train.de"))
    assert "Jack 's low-cost shop" in text
    assert "@@" not in text
    assert lines(tmp_path / "reference/valid.tok")[0] == "Jack &apos;s low-cost shop 0"
    assert lines(tmp_path / "reference/valid.raw")[0] == "Jack's low-cost shop 0"
    assert len(lines(tmp_path / "reference/test.raw")) == len(lines(tmp_path / "text/test.de")) == 5


def test_raw_references_of_another_length_are_refused(tmp_path, monkeypatch):
    official_files.wmt14(tmp_path, subwords=False)
    arguments = tokenised(tmp_path, ("train.tok.clean", "newstest2013.tok", "newstest2014.tok"), ("en", "de"))
    raw = "--test-raw", tmp_path / "newstest2013.de"
    message = "of .*newstest2014.tok and .*newstest2013.de the first ends after 5"
    with pytest.raises(ValueError, match=message):
        prepare(monkeypatch, prepare_tokenised, *arguments, *raw, "--out", tmp_path)


def test_a_user_s_mistake_is_one_line(tmp_path):
    arguments = tokenised(tmp_path, ("train", "valid", "test"), ("en", "vi"))
    command = [sys.executable, RECIPES / "prepare_tokenised.py", *arguments, "--out", tmp_path]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("prepare_tokenised.py: `")
    assert "train.en` is missing (and train.en.gz too)" in result.stderr
    assert "Traceback" not in result.stderr


# ---- Gigaword ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("layout", ["org_data", "sumdata"])
def test_gigaword_layouts_give_the_same_text(tmp_path, monkeypatch, layout):
    official_files.gigaword(tmp_path, layout)
    prepare(monkeypatch, prepare_gigaword, tmp_path / layout, "--out", tmp_path, "--sample-pairs", 10)
    sizes = {
        name: len(lines(tmp_path / f"text/{name}.title")) for name in ("train", "valid", "testdev", "test")
    }
    assert sizes == {"train": 40, "valid": 10, "testdev": 10, "test": 4}
    assert lines(tmp_path / "text/test.title")[0] == "<unk> says 0"
    assert lines(tmp_path / "text/test.article")[0].startswith("<unk> said ")
    drawn = [list(map(int, lines(tmp_path / f"reference/{name}.numbers"))) for name in ("valid", "testdev")]
    assert not set(drawn[0]) & set(drawn[1])
    assert lines(tmp_path / "text/valid.title") == [f"<unk> says {number}" for number in drawn[0]]


def test_gigawords_draw_is_the_same_everywhere():
    assert prepare_gigaword.sample(10, [3, 3], seed=1) == [[1, 3, 6], [0, 5, 7]]
    assert prepare_gigaword.sample(10, [3, 3], seed=2) == [[0, 2, 6], [3, 5, 7]]


def test_gigawords_draw_needs_enough_pairs():
    with pytest.raises(ValueError, match="take 12 pairs of the validation set, which has 10. Give a smaller"):
        prepare_gigaword.sample(10, [6, 6], seed=1)


def test_an_unknown_layout_of_gigaword_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="must hold train.src.txt or train/train.article.txt"):
        prepare_gigaword.layout_of(tmp_path)


def test_unknown_words_become_one_symbol(tmp_path):
    build_tokenizer("bert_uncased", tmp_path)
    tokenizer = HfTokenizer(str(tmp_path))
    spelled = tokenizer.encode("<unk>")
    pieces = tokenizer.encode("the <unk> man a<unk> <unk> <unk>, <unk>")
    marked = with_unknown_symbol(pieces, spelled, tokenizer)
    assert marked.count("<unk>") == 3  # not where letters or a comma are glued to it
    assert tokenizer.decode(marked) == "the <unk> man a<unk> <unk> <unk>, <unk>"
    assert with_unknown_symbol(marked, spelled, tokenizer) == marked  # a second time changes nothing


def test_unknown_words_of_files_change_in_place(tmp_path, monkeypatch, capsys):
    build_tokenizer("bert_uncased", tmp_path)
    pieces = tmp_path / "train.title"
    spelled = " ".join(HfTokenizer(str(tmp_path)).encode("<unk> and <unk>"))
    pieces.write_text(f"{spelled}\n\nthe\n", encoding="utf-8")
    prepare(monkeypatch, unknown_words, "--tokenizer", tmp_path, pieces)
    assert pieces.read_text(encoding="utf-8") == "<unk> and <unk>\n\nthe\n"
    assert "train.title: 2 unknown words" in capsys.readouterr().out


def test_unknown_words_need_pieces_that_leave_the_space_alone(tmp_path, monkeypatch):
    build_tokenizer("xlmr", tmp_path)
    with pytest.raises(ValueError, match="must have WordPiece, .* is sentencepiece"):
        prepare(monkeypatch, unknown_words, "--tokenizer", tmp_path, tmp_path / "none")


# ---- of all ---------------------------------------------------------------------------------------------------
def test_a_teacher_that_drops_accents_is_found(tmp_path):
    for kind in ("bert_uncased", "bert_cased"):
        build_tokenizer(kind, tmp_path / kind)
    uncased, cased = (HfTokenizer(str(tmp_path / kind)) for kind in ("bert_uncased", "bert_cased"))
    text = ["T\u00f4i  l\u00e0", "Two men"]
    assert changed_lines(text, cased, lowercase=False) == []
    assert [line for line, _ in changed_lines(text, uncased, lowercase=False)] == text
    assert changed_lines(text, uncased, lowercase=True) == [(text[0], "toi la")]


@pytest.mark.parametrize("value", ["0", "-3", "some", "1.5"])
def test_a_part_is_a_number_or_all(value):
    assert count("all") is None
    assert count("12") == 12
    with pytest.raises(Exception, match=f"must be a number from 1, or `all`, but is `{value}`"):
        count(value)
