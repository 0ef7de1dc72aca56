"""The best that a student of a teacher can write scores 100 with the options that we recommend, in every language."""

import logging
import re

import pytest

from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from tests.tokenization.tiny_tokenizers import KINDS, build_tokenizer

LANGUAGES = {
    "German": [
        "Zwei junge Männer stehen in der Küche.",
        "Ein Mädchen über der Straße.",
        "Größe und Übung für Äpfel.",
    ],
    "Chinese": ["我们喜欢翻译。", "大学里的人在学习ＡＢＣ和中文字符。", "人们测试翻译，他们说：“好。”"],
    "Vietnamese": [
        "Tôi thích dịch những câu này từ tiếng Anh.",
        "Người ta nói như vậy ở Việt Nam.",
        "Đây là một ví dụ.",
    ],
    "Arabic": [
        "يقف رجلان في المطبخ الكبير.",
        "هذا كتابٌ جميلٌ جدًّا عن اللغة العربية.",
        "ماذا تقول؟ لا أعرف، ربما.",
    ],
}
RECOMMENDED = {"Chinese": ["--tokenize", "zh"]}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    for kind in KINDS:
        build_tokenizer(kind, folder / kind)
    return {kind: HfTokenizer(str(folder / kind)) for kind in KINDS}


def write(folder, tokenizer, lines):
    """A reference, and what fairseq-generate writes for a student that says exactly this: text and pieces."""
    (folder / "ref").write_text("\n".join(lines) + "\n", encoding="utf-8")
    pieces = tokenizer.encode_batch(lines)
    said = [
        f"H-{i}\t-0.1\t{' '.join(symbols)}\nD-{i}\t-0.1\t{tokenizer.decode(symbols)}\n"
        for i, symbols in enumerate(pieces)
    ]
    (folder / "out").write_text("".join(said), encoding="utf-8")


def score(folder, *options):
    assert (
        cli_main(
            ["score", "--reference", str(folder / "ref"), f"perfect={folder / 'out'}", *map(str, options)]
        )
        == 0
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_perfect_student_scores_100(tokenizers, tmp_path, capsys, caplog, kind, language):
    tokenizer = tokenizers[kind]
    caplog.set_level(logging.WARNING)
    write(tmp_path, tokenizer, LANGUAGES[language])
    options = ["--normalise-like", tokenizer.name, *RECOMMENDED.get(language, [])]
    for stock in ([], ["--tokenizer", tokenizer.name]):
        score(tmp_path, *options, *stock)
        printed = capsys.readouterr().out
        assert re.search(r"^perfect +1 +100.00 +100.00 +1.000$", printed, flags=re.M)
        assert re.findall(r"\|norm:(.*)$", printed, flags=re.M) == [tokenizer.label()] * 2
    assert caplog.records == []  # nothing that could not be compared


@pytest.mark.parametrize("language", ["German", "Vietnamese"])
def test_without_the_option_the_cause_is_said_before_the_number(
    tokenizers, tmp_path, capsys, caplog, language
):
    caplog.set_level(logging.WARNING)
    write(tmp_path, tokenizers["bert_uncased"], LANGUAGES[language])
    score(tmp_path, "--lowercase")
    assert "100.00" not in capsys.readouterr().out
    assert "perfect: the reference has letters with accents (" in caplog.text
    score(tmp_path)
    assert "perfect: the reference has capital letters (" in caplog.text


def test_chinese_with_the_default_says_what_to_use(tokenizers, tmp_path, capsys, caplog):
    caplog.set_level(logging.WARNING)
    write(tmp_path, tokenizers["bert_cased"], LANGUAGES["Chinese"])
    score(tmp_path)
    assert "(Han), but --tokenize 13a takes words from spaces: use --tokenize zh" in caplog.text
