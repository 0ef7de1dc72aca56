"""What cannot be compared is said, and nothing else."""

import unicodedata

import pytest

from fairseq_bert_kd.evaluation.comparability import remarks
from fairseq_bert_kd.evaluation.metric import MetricSettings

GERMAN = ["Zwei junge Männer stehen in der Küche.", "Größe und Übung für Äpfel."]
TEXTS = {
    "German": GERMAN,
    "English": [
        "Two young men are in the kitchen.",
        "He said it at the café on the corner of a long street in town.",
    ],
    "Vietnamese": ["Tôi thích dịch những câu này.", "Người ta nói như vậy."],
    "Arabic": ["يقف رجلان في المطبخ.", "هذا كتابٌ جميلٌ جدًّا."],
    "Hindi": ["दो आदमी रसोई में खड़े हैं।"],
    "Russian": ["Двое мужчин стоят на кухне."],
}
CHINESE, JAPANESE, KOREAN, THAI = (
    ["我们喜欢翻译。"],
    ["二人の男が台所に立っている。"],
    ["두 남자가 부엌에 서 있다."],
    ["ผู้ชายสองคนยืนอยู่ในครัว"],
)


def said(texts, references, **settings):
    return list(remarks(texts, references, MetricSettings(**settings)))


def stripped(text):
    """As an uncased BERT leaves text."""
    letters = unicodedata.normalize("NFD", text)
    return "".join(letter for letter in letters if unicodedata.category(letter) != "Mn").lower()


@pytest.mark.parametrize("language", TEXTS)
def test_text_like_the_reference_gives_no_remark(language):
    texts = TEXTS[language]
    assert said(texts, texts) == []
    assert said([text[::-1] for text in texts], texts) == []  # that it is poor is none of our business


def test_lower_case_output():
    lower = [text.lower() for text in GERMAN]
    [remark] = said(lower, GERMAN)
    assert remark == (
        "the reference has capital letters (6), the output hardly any (0), and each of them counts as an error: use "
        "--lowercase, or pass both through the student's tokenizer with --normalise-like TOKENIZER"
    )
    assert said(lower, GERMAN, lowercase=True) == []
    assert said(GERMAN, lower)[0].startswith(
        "the output has capital letters (6), the reference hardly any (0)"
    )


@pytest.mark.parametrize("language", ["German", "Vietnamese", "Hindi"])
def test_output_without_accents(language):
    """Issue 17, F5; Hindi's vowel signs are marks like accents."""
    output = [stripped(text) for text in TEXTS[language]]
    [remark] = said(output, TEXTS[language], lowercase=True)
    assert "the reference has letters with accents (" in remark
    assert "--normalise-like TOKENIZER" in remark


def test_single_accents_in_a_long_text_are_no_trait():
    references = ["the man walks down the street with his dog " * 30 + "to the café"]
    assert said([stripped(references[0])], references) == []


@pytest.mark.parametrize(
    ("form", "name"), [("NFD", "marks apart from their letters"), ("NFKC", "compatibility forms such as ﬁ")]
)
def test_other_forms_of_unicode(form, name):
    """Decomposed text comes from macOS and from uncased models of Korean, NFKC from XLM-R."""
    references = [*GERMAN, "Ｆｕｌｌ ½ ﬁne", *KOREAN]
    output = [unicodedata.normalize(form, text) for text in references]
    found = said(output, references)
    assert len(found) == 1
    assert name in found[0]


@pytest.mark.parametrize(
    ("text", "script", "tokenizer"),
    [
        (CHINESE, "Han", "zh"),
        (JAPANESE, "kana", "ja-mecab"),
        (KOREAN, "Hangul", "ko-mecab"),
        (THAI, "Thai", "char"),
    ],
)
def test_scripts_without_spaces(text, script, tokenizer):
    """Issue 17, F23."""
    for words in ("13a", "intl"):
        [remark] = said(text, text, tokenize=words)
        assert (
            f"({script}), but --tokenize {words} takes words from spaces: use --tokenize {tokenizer}"
            in remark
        )
    assert said(text, text, tokenize=tokenizer) == []
    assert said(text + GERMAN * 3, text + GERMAN * 3) == []  # a few words of it


@pytest.mark.parametrize(
    "pieces", [["Zwei jun ##ge M ##änner ."], ["▁Zwei ▁junge ▁Männer ."], ["Zwei Ġjunge ĠMänner ."]]
)
def test_pieces_in_place_of_text(pieces):
    assert any("words like a tokenizer's pieces" in remark for remark in said(pieces, GERMAN))
    assert not any("pieces" in remark for remark in said(["# Heading", "## x @@"], ["# Heading", "## x @@"]))


def test_joined_words():
    """Issue 17, F4, where no task sees the option."""
    joined = [text.replace(" ", "") for text in GERMAN]
    assert any("hardly any spaces" in remark for remark in said(joined, GERMAN))
    assert not any("hardly any spaces" in remark for remark in said(CHINESE, CHINESE))


@pytest.mark.parametrize(("language", "share"), [("Russian", "100%"), ("Arabic", "100%"), ("English", None)])
def test_letters_that_rouge_does_not_read(language, share):
    texts = TEXTS[language]
    assert list(remarks(texts, texts, MetricSettings())) == []
    found = list(remarks(texts, texts, MetricSettings(), rouge=True))
    assert [remark.split(" of the letters")[0][-4:] for remark in found] == ([share] if share else [])
