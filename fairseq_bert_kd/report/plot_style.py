"""The look of figures: colours, sizes, and figures as SVG or PNG."""

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fairseq_bert_kd.compat import import_extra

PANEL = (360, 265)  # CSS pixels: a panel fits a phone, and wide pages have several side by side
_PIXELS = 72  # CSS pixels per inch of matplotlib's SVG
_PNG_DPI = 150
_PNG_COLUMNS = 2  # more would be too small in a README
# each series has dashes too, so that no line is known by its colour alone
_LINES = ("--", "-", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))
INK = "#1a1a1a"  # text
MUTED = "#595959"  # axes and tick labels
# series, the baseline first: colours of Okabe and Ito (jfly.uni-koeln.de/color) that colour-blind people can distinguish,
# with a darker yellow
SERIES = ("#5f5f5f", "#0072b2", "#d55e00", "#00795a", "#b0468a", "#8a6d00")
_STYLE = {
    "font.family": "DejaVu Sans",
    "text.parse_math": False,  # a dollar in the data is not a formula
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "legend.labelcolor": "linecolor",
    "lines.linewidth": 1.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "svg.fonttype": "none",
}


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


def svg_address(panel: Panel) -> str:
    """The panel as SVG, in a ``data:`` address for an ``<img>``. Its background is transparent."""
    image = _image([panel], PANEL, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(image.getvalue()).decode('ascii')}"


def write_png(path: Path, panels: Sequence[Panel], size: tuple[int, int] = PANEL) -> None:
    """Write panels on white, two per row, in few colours for a small file.

    Args:
        path: file; an existing one is replaced.
        panels: at least one.
        size: size of each in CSS pixels.
    """
    pillow = import_extra("PIL.Image")
    image = pillow.open(_image(panels, size, format="png", dpi=_PNG_DPI, facecolor="white"))
    colours = image.convert("RGB").quantize(colors=64, dither=pillow.Dither.NONE)
    colours.save(path, format="PNG", optimize=True)


def _image(panels: Sequence[Panel], size: tuple[int, int], **options: Any) -> io.BytesIO:
    """Panels side by side, row by row, as an image of the given format."""
    rows, columns = -(-len(panels) // _PNG_COLUMNS), min(len(panels), _PNG_COLUMNS)
    inches = (columns * size[0] / _PIXELS, rows * size[1] / _PIXELS)
    with import_extra("matplotlib").rc_context({**_STYLE, "svg.hashsalt": panels[0].name}):
        figure = import_extra("matplotlib.figure").Figure(figsize=inches, layout="constrained")
        for place, panel in enumerate(panels, start=1):
            axes = figure.add_subplot(rows, columns, place)
            axes.set_title(panel.title)
            panel.draw(axes)
        buffer = io.BytesIO()
        figure.savefig(buffer, **options)
    buffer.seek(0)
    return buffer
