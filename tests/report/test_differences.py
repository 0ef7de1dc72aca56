import pytest

from fairseq_bert_kd.report.differences import MOST_WORDS, Part, marked_words, shortened


@pytest.mark.parametrize(
    ("reference", "text", "parts"),
    [
        ("a b c", "a b c", [Part("same", "a b c")]),
        ("a b c", "a x c", [Part("same", "a"), Part("lacking", "b"), Part("extra", "x"), Part("same", "c")]),
        ("a b c", "a c", [Part("same", "a"), Part("lacking", "b"), Part("same", "c")]),
        ("a c", "a b b c", [Part("same", "a"), Part("extra", "b b"), Part("same", "c")]),
        ("a b", "", [Part("lacking", "a b")]),
        ("", "a", [Part("extra", "a")]),
        ("", "", []),
        ("שלום עולם", "שלום לך", [Part("same", "שלום"), Part("lacking", "עולם"), Part("extra", "לך")]),
    ],
)
def test_marks(reference, text, parts):
    assert marked_words(reference, text) == parts


def test_case():
    assert marked_words("The Man", "the man", lowercase=True) == [Part("same", "the man")]
    assert marked_words("The", "the") == [Part("lacking", "The"), Part("extra", "the")]


def test_a_very_long_text_is_cut():
    words = " ".join(["word"] * 5000)
    assert marked_words(words, words)[-1] == Part("same", "… (4,800 more words)")
    assert shortened(words).endswith("word … (4,800 more words)")
    assert len(shortened(words).split()) == MOST_WORDS + 4
    assert shortened("a  b") == "a  b"
