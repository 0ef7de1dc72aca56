"""Plots: learning curves, gain by length, captured mass, score against k and T, gains of all systems."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from fairseq_bert_kd.compat import import_extra
from fairseq_bert_kd.evaluation.significance import Spread
from fairseq_bert_kd.report.compare_sentences import LengthBin
from fairseq_bert_kd.report.formatting import signed
from fairseq_bert_kd.report.plot_style import INK, MUTED, SERIES, line_style, mark_style
from fairseq_bert_kd.report.read_logs import SystemCurve

_WARM_UP = 0.15  # share of the updates in which the curve may leave the drawn range
_SPREAD_OUT = 6.0  # an axis is logarithmic if largest / smallest value is above this


def draw_curves(axes: Any, curves: Sequence[SystemCurve], perplexity: bool, first: int = 0) -> None:
    """Seeds thin, their mean thick; each of several lines is named.

    Args:
        axes: axes to draw on.
        curves: one per system.
        perplexity: also give 2 to the power of the values, on the right.
        first: index of the first curve's colour.
    """
    ends = []
    for index, curve in enumerate(curves, start=first):
        style = line_style(index)
        for points in curve.by_seed.values():
            if len(curve.by_seed) > 1:
                axes.plot(list(points), list(points.values()), linewidth=0.8, alpha=0.45, **style)
        mean = curve.mean or next(iter(curve.by_seed.values()))
        few = {"marker": "o", "markersize": 3} if len(mean) < 25 else {}
        axes.plot(list(mean), list(mean.values()), linewidth=2, **style, **few)
        last = max(mean)
        ends.append((last, mean[last], curve.label, style["color"]))
    _limit_to_the_later_part(axes, curves)
    axes.set_xlabel("updates")
    axes.xaxis.set_major_locator(_ticker().MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    if perplexity:
        right = axes.secondary_yaxis("right", functions=(lambda bits: 2**bits, _log2))
        right.set_ylabel("perplexity")
        right.yaxis.set_major_locator(_ticker().MaxNLocator(5))
        right.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
        right.spines["right"].set_visible(False)
    if perplexity:  # the right side holds the second axis
        handles = [axes.plot([], [], linewidth=2, **line_style(first + i))[0] for i in range(len(curves))]
        labels = [curve.label for curve in curves]
        axes.legend(handles, labels, loc="best", frameon=False, labelcolor="linecolor", handlelength=2.2)
    elif len(ends) > 1:
        _name_at_the_right(axes, ends)


def draw_lengths(axes: Any, bins: Sequence[LengthBin], unit: str) -> None:
    """The gain of each bin with its confidence interval."""
    places = range(len(bins))
    gains = [item.gain for item in bins]
    low = [max(item.gain - item.low, 0) for item in bins]
    high = [max(item.high - item.gain, 0) for item in bins]
    axes.axhline(0, color=MUTED, linewidth=1)
    axes.errorbar(
        places,
        gains,
        yerr=[low, high],
        fmt="o",
        markersize=6,
        capsize=4,
        linewidth=1.6,
        color=SERIES[1],
    )
    for place, gain in zip(places, gains, strict=True):
        axes.annotate(
            signed(gain, 1),
            (place, gain),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=11,
        )
    axes.set_xlim(-0.4, len(bins) - 0.25)
    axes.set_xticks(places, [f"{_range(item)}\nn = {item.sentences:,}" for item in bins])
    axes.set_xlabel("words of the reference")
    axes.set_ylabel(f"gain, {unit}")


def draw_mass(axes: Any, masses: Mapping[float, Sequence[float]]) -> None:
    """Captured mass against k, one line per temperature."""
    ends = []
    for index, (temperature, values) in enumerate(masses.items()):
        style = line_style(index + 1)
        tokens = range(1, len(values) + 1)
        axes.plot(tokens, [100 * value for value in values], linewidth=2, **style)
        ends.append((len(values), 100 * values[-1], f"T = {temperature:g}", style["color"]))
    _spread_axis(axes, [end[0] for end in ends] + [1])
    axes.set_ylim(0, 102)
    axes.set_xlabel("k, tokens per position")
    axes.set_ylabel("% of the teacher’s probability")
    _name_at_the_right(axes, ends)


def draw_values(
    axes: Any,
    points: Mapping[float, Sequence[float]],
    baseline: tuple[str, Spread] | None,
    labels: tuple[str, str],
) -> None:
    """Scores of systems against the value that their group varies: all seeds, and the mean.

    Args:
        axes: axes to draw on.
        points: scores of all seeds, by value.
        baseline: name and score, drawn as a line with a band of one standard deviation.
        labels: labels of the axes.
    """
    values = sorted(points)
    means = [sum(points[value]) / len(points[value]) for value in values]
    for value in values:
        axes.plot([value] * len(points[value]), points[value], ".", color=SERIES[1], alpha=0.6)
    axes.plot(values, means, linewidth=1.8, markersize=7, **mark_style(1), linestyle="-")
    if baseline:
        name, score = baseline
        axes.axhline(score.mean, linewidth=1.6, **line_style(0))
        if score.sd is not None:
            band = (score.mean - score.sd, score.mean + score.sd)
            axes.axhspan(*band, color=SERIES[0], alpha=0.15, linewidth=0)
        above = score.mean >= max(means)
        axes.annotate(
            name, (0.99, score.mean), xycoords=("axes fraction", "data"), xytext=(0, 4 if above else -4),
            textcoords="offset points", ha="right", va="bottom" if above else "top", color=SERIES[0],
        )  # fmt: skip
    _spread_axis(axes, values)
    axes.set_xticks(values, [f"{value:,.0f}" if value >= 1000 else f"{value:g}" for value in values])
    axes.margins(x=0.08, y=0.12)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])


def draw_gains(axes: Any, rows: Sequence[tuple[str, Sequence[float]]], unit: str) -> None:
    """Gains of systems over their baselines, one row each: all seeds, and the mean."""
    axes.axvline(0, color=MUTED, linewidth=1)
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    for place, (_, gains) in enumerate(rows):
        axes.plot(
            gains,
            [place] * len(gains),
            "o",
            markersize=5,
            color=SERIES[1],
            alpha=0.45,
            markeredgewidth=0,
        )
        axes.plot(
            [sum(gains) / len(gains)],
            [place],
            "|",
            markersize=14,
            markeredgewidth=2.5,
            color=SERIES[1],
        )
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(f"gain, {unit}")


def _limit_to_the_later_part(axes: Any, curves: Sequence[SystemCurve]) -> None:
    """Limit the axis to the range of the later part; the first updates would flatten the rest."""
    points = [pair for curve in curves for seed in curve.by_seed.values() for pair in seed.items()]
    start = _WARM_UP * max(update for update, _ in points)
    later = [value for update, value in points if update >= start]
    low, high = min(later), max(later)
    room = 0.12 * (high - low) or 0.5
    axes.set_ylim(low - room, high + room)
    axes.set_xlim(left=0)


def _name_at_the_right(axes: Any, ends: Sequence[tuple[float, float, str, str]], gap: float = 13) -> None:
    """Names beside the ends, pushed apart where they would overlap; ``gap`` in points."""
    axes.figure.draw_without_rendering()  # sets the transformation of data to places
    points = 72 / axes.figure.dpi
    places = [axes.transData.transform((x, y))[1] * points for x, y, _, _ in ends]
    order = sorted(range(len(ends)), key=lambda i: places[i])
    moved = dict(enumerate(places))
    for before, after in pairwise(order):
        moved[after] = max(moved[after], moved[before] + gap)
    for i, (x, y, label, colour) in enumerate(ends):
        axes.annotate(
            label, (x, y), xytext=(6, moved[i] - places[i]), textcoords="offset points", va="center", color=colour,
            fontweight="bold", annotation_clip=False,
        )  # fmt: skip


def _spread_axis(axes: Any, values: Sequence[float]) -> None:
    """Make the x axis logarithmic, with ticks at powers of two, if the values lie far apart."""
    if min(values) >= 1 and max(values) / min(values) > _SPREAD_OUT:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_locator(_ticker().NullLocator())


def _range(item: LengthBin) -> str:
    return f"{item.shortest}–{item.longest}" if item.longest > item.shortest else str(item.shortest)


def _log2(value: Any) -> Any:
    return np.log2(np.maximum(value, 1e-9))


def _ticker() -> Any:
    return import_extra("matplotlib.ticker")
