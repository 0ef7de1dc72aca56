"""Plots: learning curves, gain by length, captured mass, score against k and T, gains of all systems."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fairseq_bert_kd.compat import import_extra
from fairseq_bert_kd.evaluation.significance import Spread
from fairseq_bert_kd.report.compare_positions import PositionBin
from fairseq_bert_kd.report.compare_sentences import LengthBin
from fairseq_bert_kd.report.plot_style import MUTED, SERIES, line_style
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
    for index, curve in enumerate(curves, start=first):
        if len(curve.by_seed) > 1:
            for points in curve.by_seed.values():
                axes.plot(list(points), list(points.values()), linewidth=0.8, alpha=0.45, **line_style(index))
        axes.plot(list(curve.mean), list(curve.mean.values()), label=curve.label, **line_style(index))
    # the range of the later part: the first updates would flatten the rest
    pairs = [pair for curve in curves for seed in curve.by_seed.values() for pair in seed.items()]
    start = _WARM_UP * max(update for update, _ in pairs)
    later = [value for update, value in pairs if update >= start]
    room = 0.12 * (max(later) - min(later)) or 0.5
    axes.set_ylim(min(later) - room, max(later) + room)
    axes.set_xlim(left=0)
    axes.set_xlabel("updates")
    axes.locator_params(axis="x", nbins=5, integer=True)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.legend()
    if perplexity:
        right = axes.secondary_yaxis("right", functions=(np.exp2, _log2))
        right.set_ylabel("perplexity")
        right.yaxis.set_major_locator(import_extra("matplotlib.ticker").MaxNLocator(5))
        right.yaxis.set_major_formatter("{x:.3g}")


def draw_lengths(axes: Any, bins: Sequence[LengthBin], unit: str) -> None:
    """The gain of each bin with its confidence interval."""
    _draw_gains(axes, bins, [f"{item.shortest}–{item.longest}\nn = {item.sentences:,}" for item in bins])
    axes.set_xlabel("words of the reference")
    axes.set_ylabel(f"gain, {unit}")


def draw_positions(axes: Any, bins: Sequence[PositionBin]) -> None:
    """The gain in each part of the references with its confidence interval."""
    _draw_gains(axes, bins, [f"{item.first}–{item.last} %" for item in bins])
    axes.set_xlabel("part of the reference")
    axes.set_ylabel("gain, matched pairs per 100")


def _draw_gains(axes: Any, bins: Sequence[LengthBin] | Sequence[PositionBin], names: Sequence[str]) -> None:
    """Gains with their confidence intervals above the names of their bins."""
    gains = [item.gain for item in bins]
    low = [max(item.gain - item.low, 0) for item in bins]
    high = [max(item.high - item.gain, 0) for item in bins]
    axes.axhline(0, color=MUTED, linewidth=1)
    axes.errorbar(range(len(bins)), gains, yerr=[low, high], fmt="o", capsize=4, color=SERIES[1])
    axes.set_xlim(-0.4, len(bins) - 0.6)
    axes.set_xticks(range(len(bins)), names)


def draw_mass(axes: Any, masses: Mapping[float, Mapping[int, float]]) -> None:
    """Captured mass against k, one line per temperature."""
    for index, (temperature, by_tokens) in enumerate(masses.items(), start=1):
        shares = [100 * mass for mass in by_tokens.values()]
        axes.plot(list(by_tokens), shares, label=f"T = {temperature:g}", **line_style(index))
        _spread_axis(axes, list(by_tokens))
    axes.set_ylim(0, 102)
    axes.set_xlabel("k, tokens per position")
    axes.set_ylabel("% of the teacher’s probability")
    axes.legend()


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
    for value in values:
        axes.plot([value] * len(points[value]), points[value], ".", color=SERIES[1], alpha=0.6)
    axes.plot(values, [np.mean(points[value]) for value in values], "o-", color=SERIES[1])
    if baseline:
        name, score = baseline
        axes.axhline(score.mean, label=name, **line_style(0))
        if score.sd is not None:
            band = (score.mean - score.sd, score.mean + score.sd)
            axes.axhspan(*band, color=SERIES[0], alpha=0.15, linewidth=0)
        axes.legend()
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
        axes.plot(gains, [place] * len(gains), "o", color=SERIES[1], alpha=0.45)
        axes.plot([np.mean(gains)], [place], "|", markersize=14, markeredgewidth=2.5, color=SERIES[1])
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(f"gain, {unit}")


def _spread_axis(axes: Any, values: Sequence[float]) -> None:
    """Make the x axis logarithmic, with ticks at powers of two, if the values lie far apart."""
    if min(values) >= 1 and max(values) / min(values) > _SPREAD_OUT:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()


def _log2(value: Any) -> Any:
    return np.log2(np.maximum(value, 1e-9))
