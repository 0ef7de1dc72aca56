import pytest
from markupsafe import Markup

from fairseq_bert_kd.evaluation.significance import Spread
from fairseq_bert_kd.report.formatting import (
    duration,
    language_attribute,
    percent,
    signed,
    spread_text,
    visible,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 日本 שלום", "plain ü 日本 שלום"),
        ("a\x00b\x1b[31m\u2028", r"a\x00b\x1b[31m\u2028"),
        ("\u202eevil", r"\u202eevil"),  # would turn the page's own text around
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("\ud800", r"\ud800"),
        ("a\u00a0b\u3000c", "a\u00a0b\u3000c"),
    ],
)
def test_visible(text, shown):
    assert visible(text) == shown


def test_visible_leaves_numbers_and_markup_unchanged():
    assert visible(3) == 3
    assert visible(Markup("a\nb")) == "a\nb"


@pytest.mark.parametrize(
    ("value", "text"), [(0.354, "+0.35"), (-0.354, "−0.35"), (0.004, "0.00"), (-0.004, "0.00"), (0, "0.00")]
)
def test_signed(value, text):
    assert signed(value) == text


@pytest.mark.parametrize(
    ("ending", "attribute"),
    [
        ("de", ' lang="de"'),
        ("zh_CN", ' lang="zh-CN"'),
        ("sr-Latn", ' lang="sr-Latn"'),
        ("label", ""),
        ('d"', ""),
        ("", ""),
    ],
)
def test_language_attribute(ending, attribute):
    assert language_attribute(ending) == attribute


def test_spread_text():
    assert spread_text(Spread(31.456, 0.849, 3)) == "31.46\u00a0±\u00a00.85"
    assert spread_text(Spread(-0.5, 0.1, 3), 1, sign=True) == "−0.5\u00a0±\u00a00.1"
    assert spread_text(Spread(0.9, None, 1), 3) == "0.900"
    assert spread_text(None) == "–"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (1334, "22 min 14 s"),
        (3899, "1 h 05 min"),
        (7199, "2 h 00 min"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.912, "91.2 %"), (0.0004, "<0.1 %"), (0.0, "0.0 %"), (1.0, "100.0 %"), (None, "–")]
)
def test_percent(share, text):
    assert percent(share) == text
