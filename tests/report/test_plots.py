import base64
import re
import xml.etree.ElementTree
from functools import partial

import pytest

from fairseq_bert_kd.evaluation.significance import Spread
from fairseq_bert_kd.report.compare_sentences import LengthBin
from fairseq_bert_kd.report.plot_style import Panel, svg_address, write_png
from fairseq_bert_kd.report.plots import draw_curves, draw_gains, draw_lengths, draw_mass, draw_values
from fairseq_bert_kd.report.read_logs import SystemCurve

CURVES = [
    SystemCurve("plain", {1: {100: 6.0, 200: 4.0, 300: 3.0}, 2: {100: 6.5, 200: 4.5, 300: 3.5}}),
    SystemCurve("dis<tilled", {1: {100: 6.0, 200: 4.0, 300: 2.0}}),
]
BINS = [LengthBin(1, 5, 20, -1.0, -2.5, 0.2), LengthBin(6, 6, 21, 2.0, 1.0, 3.0)]
DRAWN = {
    "curves": partial(draw_curves, curves=CURVES, perplexity=False),
    "perplexity": partial(draw_curves, curves=CURVES, perplexity=True),
    "lengths": partial(draw_lengths, bins=BINS, unit="BLEU"),
    "mass": partial(draw_mass, masses={1.0: {1: 0.5, 2: 0.75, 3: 0.875}, 10.0: {1: 0.1, 2: 0.2, 3: 0.25}}),
    "values": partial(
        draw_values,
        points={1.0: [30.0, 31.0], 64.0: [32.0]},
        baseline=("plain", Spread(29.0, 0.5, 3)),
        labels=("k", "BLEU"),
    ),
    "gains": partial(draw_gains, rows=[("k = 1", [0.1, -0.2]), ("k = 2", [1.0])], unit="BLEU"),
}


def panel(name, **changes):
    return Panel(name, f"title of {name}", "caption", f'what "{name}" shows', DRAWN[name])._replace(**changes)


def svg(panel):
    """The SVG document in the address of a panel."""
    kind, _, data = svg_address(panel).partition(",")
    assert kind == "data:image/svg+xml;base64"
    return base64.b64decode(data).decode()


@pytest.mark.parametrize("name", DRAWN)
def test_svg_needs_nothing_else(name):
    text = svg(panel(name))
    root = xml.etree.ElementTree.fromstring(text)
    assert root.attrib["viewBox"] == "0 0 360 265"
    assert not re.search(r"url\((?!#)|@import|<script", text)
    assert f"title of {name}" in text


def test_svg_is_the_same_every_time():
    assert svg_address(panel("curves")) == svg_address(panel("curves"))


def test_svg_escapes_labels():
    text = svg(panel("curves", title="a < b & c"))
    assert "dis&lt;tilled" in text
    assert "a &lt; b &amp; c" in text


@pytest.mark.parametrize("label", ["$k$", r"$\foo$", "100 $"])
def test_a_dollar_is_not_a_formula(label):
    text = svg(panel("gains", title=label, draw=partial(draw_gains, rows=[(label, [1.0])], unit=label)))
    assert text.count(f">{label}<") == 2
    assert f"gain, {label}" in text


def test_png_is_small_and_has_the_panels_side_by_side(tmp_path):
    image = pytest.importorskip("PIL.Image")
    write_png(tmp_path / "x.png", [panel("curves"), panel("values")])
    assert (tmp_path / "x.png").stat().st_size < 60_000
    with image.open(tmp_path / "x.png") as picture:
        assert picture.size == (1500, 552)
    write_png(tmp_path / "y.png", [panel(name) for name in ("curves", "values", "mass")])
    with image.open(tmp_path / "y.png") as picture:
        assert picture.size == (1500, 1104)  # two in a row


def axes_of(name, **changes):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = figure.subplots()
    partial(DRAWN[name], **changes)(axes)
    figure.draw_without_rendering()
    return axes


def test_learning_curves_draw_each_seed_and_the_mean():
    axes = axes_of("curves")
    drawn = [
        line.get_ydata().tolist() if hasattr(line.get_ydata(), "tolist") else list(line.get_ydata())
        for line in axes.lines
    ]
    assert drawn == [[6.0, 4.0, 3.0], [6.5, 4.5, 3.5], [6.25, 4.25, 3.25], [6.0, 4.0, 2.0]]
    assert {text.get_text() for text in axes.get_legend().texts} == {"plain", "dis<tilled"}


def test_far_values_get_a_logarithmic_axis():
    assert axes_of("values").get_xscale() == "log"
    assert axes_of("values", points={1.0: [1.0], 5.0: [2.0]}).get_xscale() == "linear"
    assert axes_of("values", points={0.0: [1.0], 5.0: [2.0]}).get_xscale() == "linear"


def test_one_point_can_be_drawn():
    axes_of("curves", curves=[SystemCurve("x", {1: {100: 3.0}})])
    axes_of("mass", masses={1.0: {1: 0.5}})
    axes_of("lengths", bins=BINS[:1])
