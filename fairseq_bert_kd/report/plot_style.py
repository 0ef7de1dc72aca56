"""The look of figures: colours, sizes, and figures as SVG or PNG."""

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fairseq_bert_kd.compat import import_extra
from fairseq_bert_kd.report.formatting import visible

PANEL = (360, 265)  # CSS pixels: a panel fits a phone, and wide pages have several side by side
_PIXELS = 72  # CSS pixels per inch of matplotlib's SVG
_PNG_DPI = 150
_PNG_COLUMNS = 2  # more would be too small in a README
# each series has dashes and a marker too, so that no line is known by its colour alone
_LINES = ("--", "-", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))
_MARKS = ("s", "o", "^", "D", "v", "P")


INK = "#1a1a1a"  # text
MUTED = "#595959"  # axes and tick labels
GRID = "#dddddd"  # grid lines
# series, the baseline first: colours of Okabe and Ito (jfly.uni-koeln.de/color) that colour-blind people can distinguish,
# with a darker yellow
SERIES = ("#5f5f5f", "#0072b2", "#d55e00", "#00795a", "#b0468a", "#8a6d00")


class Panel(NamedTuple):
    """One plot.

    Attributes:
        name: letters and hyphens, unique in an experiment.
        title: title with the unit.
        caption: what a reader must know: n, seeds, how it was computed.
        alt: content in words, for readers who do not see it.
        draw: function that draws it onto axes.
    """

    name: str
    title: str
    caption: str
    alt: str
    draw: Callable[[Any], None]


def line_style(index: int) -> dict[str, Any]:
    """Colour and dashes of the series ``index``."""
    return {"color": SERIES[index % len(SERIES)], "linestyle": _LINES[index % len(_LINES)]}


def mark_style(index: int) -> dict[str, Any]:
    """Colour and marker of the series ``index``."""
    return {"color": SERIES[index % len(SERIES)], "marker": _MARKS[index % len(_MARKS)]}


def svg_address(panel: Panel) -> str:
    """The panel as SVG, in a ``data:`` address for an ``<img>``. Its background is transparent."""
    figure, grid = _figure(1, PANEL)
    with _style(panel.name):
        _draw(grid[0], panel)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def write_png(path: Path, panels: Sequence[Panel], size: tuple[int, int] = PANEL) -> None:
    """Write panels on white, two per row, in few colours for a small file.

    Args:
        path: file; an existing one is replaced.
        panels: at least one.
        size: size of each in CSS pixels.
    """
    image = import_extra("PIL.Image")
    figure, grid = _figure(len(panels), size)
    with _style(path.stem):
        for axes, panel in zip(grid, panels, strict=False):
            _draw(axes, panel)
        for axes in grid[len(panels) :]:
            axes.remove()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_PNG_DPI, facecolor="white")
    picture = image.open(buffer).convert("RGB").quantize(colors=64, dither=image.Dither.NONE)
    picture.save(path, format="PNG", optimize=True)


def _figure(panels: int, size: tuple[int, int]) -> tuple[Any, list[Any]]:
    """A figure without global state, and its axes row by row; the last row may have one too many."""
    columns = min(panels, _PNG_COLUMNS)
    rows = -(-panels // columns)
    with _style(""):
        module = import_extra("matplotlib.figure")
        inches = (columns * size[0] / _PIXELS, rows * size[1] / _PIXELS)
        figure = module.Figure(figsize=inches, layout="constrained")
        return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _draw(axes: Any, panel: Panel) -> None:
    axes.set_title(panel.title, loc="left", fontsize=12, color=INK, fontweight="bold", pad=8)
    panel.draw(axes)
    for text in axes.findobj(import_extra("matplotlib.text").Text):
        text.set_text(visible(text.get_text()))


def _style(salt: str) -> Any:
    return import_extra("matplotlib").rc_context(
        {
            "font.family": "DejaVu Sans",
            "text.parse_math": False,  # a dollar in the data is not a formula
            "font.size": 11.5,
            "text.color": INK,
            "axes.edgecolor": MUTED,
            "axes.labelcolor": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.grid.axis": "y",
            "axes.axisbelow": True,
            "axes.labelsize": 11.5,
            "grid.color": GRID,
            "grid.linewidth": 0.8,
            "xtick.color": MUTED,
            "ytick.color": MUTED,
            "xtick.labelsize": 11,
            "ytick.labelsize": 11,
            "lines.solid_capstyle": "round",
            "figure.constrained_layout.w_pad": 0.06,
            "figure.constrained_layout.h_pad": 0.06,
            "figure.constrained_layout.wspace": 0.04,
            "svg.fonttype": "none",
            "svg.hashsalt": salt,
            "path.simplify": True,
        }
    )
