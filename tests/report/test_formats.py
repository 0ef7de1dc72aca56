import pytest
from markupsafe import Markup

from fairseq_bert_kd.report.experiment import Step
from fairseq_bert_kd.report.foreign_text import visible
from fairseq_bert_kd.report.formats import duration, gain_scale, percent, signed, spread_text
from fairseq_bert_kd.report.results import Spread
from fairseq_bert_kd.report.step_times import StepRow, step_rows


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


def test_visible_leaves_what_is_no_foreign_text():
    assert visible(3) == 3
    assert visible(Markup("a\nb")) == "a\nb"


@pytest.mark.parametrize(
    ("value", "text"), [(0.354, "+0.35"), (-0.354, "−0.35"), (0.004, "0.00"), (-0.004, "0.00"), (0, "0.00")]
)
def test_signed(value, text):
    assert signed(value) == text


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


def test_gain_scale_holds_all_gains_and_zero():
    assert gain_scale([1.0, 2.0]) == (pytest.approx(-0.16), pytest.approx(2.16))
    assert gain_scale([]) == (-1.0, 1.0)


def test_runs_of_a_system_share_a_row():
    names = [
        "teacher",
        "students/weight-0.1.1",
        "students/weight-0.9.1",
        "students/weight-0.9.2",
        "students/odd",
    ]
    names += ["outputs/weight-0.9.1.test", "outputs/plain.1.test"]
    rows = step_rows(Step(name, 10.0 + i) for i, name in enumerate(names))
    assert rows == [
        StepRow("teacher", [("", 10.0)]),
        StepRow("students/weight-0.1", [("1", 11.0)]),
        StepRow("students/weight-0.9", [("1", 12.0), ("2", 13.0)]),
        StepRow("students/odd", [("", 14.0)]),
        StepRow("outputs/weight-0.9", [("1.test", 15.0)]),
        StepRow("outputs/plain", [("1.test", 16.0)]),
    ]
    assert rows[2].total == 25
