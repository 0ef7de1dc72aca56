"""The look of figures: colours, sizes, and how a figure becomes inline SVG or a PNG file."""

import io
import re
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from fairseq_bert_kd.compat import import_extra
from fairseq_bert_kd.report.foreign_text import visible

PANEL = (360, 265)  # CSS pixels; a panel fits a phone, and wide pages set several side by side
_POINT = 72  # of matplotlib's SVG, an inch
_PNG_DPI = 150
_PNG_COLUMNS = 2  # more would be small at the width of a README
_LINES = (
    "--",
    "-",
    "-.",
    ":",
    (0, (5, 1, 1, 1, 1, 1)),
    (0, (1, 2)),
)  # so that no line is known by its colour only
_MARKS = ("s", "o", "^", "D", "v", "P")


class Palette(NamedTuple):
    """Colours by role.

    Attributes:
        ink: text, and whatever must be seen.
        muted: axes and labels of ticks.
        grid: thin lines.
        series: of systems, the baseline first.
    """

    ink: str
    muted: str
    grid: str
    series: tuple[str, ...]

    def line(self, index: int) -> dict[str, Any]:
        """Colour and dashes of the series ``index``."""
        return {"color": self.series[index % len(self.series)], "linestyle": _LINES[index % len(_LINES)]}

    def mark(self, index: int) -> dict[str, Any]:
        """Colour and marker of the series ``index``."""
        return {"color": self.series[index % len(self.series)], "marker": _MARKS[index % len(_MARKS)]}


# of Okabe and Ito's colours (jfly.uni-koeln.de/color), which colour-blind people tell apart; darker yellow
PAPER = Palette(
    "#1a1a1a", "#595959", "#dddddd", ("#5f5f5f", "#0072b2", "#d55e00", "#00795a", "#b0468a", "#8a6d00")
)
# stand for CSS variables, which the page sets for light and dark
_PAGE = Palette("#a00001", "#a00002", "#a00003", tuple(f"#a0001{i}" for i in range(6)))
_VARIABLES = {
    **{_PAGE.ink: "var(--ink)", _PAGE.muted: "var(--muted)", _PAGE.grid: "var(--grid)"},
    **{colour: f"var(--series-{i})" for i, colour in enumerate(_PAGE.series)},
}


class Panel(NamedTuple):
    """One plot.

    Attributes:
        name: of letters and hyphens, unique in a page.
        title: what is drawn, with its unit.
        caption: what a reader must know: n, seeds, how it was computed.
        alt: what is seen, for those who do not see it.
        draw: draws it onto axes.
    """

    name: str
    title: str
    caption: str
    alt: str
    draw: Callable[[Any, Palette], None]


def svg(panel: Panel) -> str:
    """The panel as an SVG element that takes its colours and font from the page."""
    figure, grid = _figure(1, _PAGE, PANEL)
    with _style(_PAGE, panel.name):
        _draw(grid[0], panel, _PAGE)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], count=1, flags=re.S)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    text = re.sub(r"""font-family: [^";]*""", "font-family: inherit", text).replace("xlink:href", "href")
    used = set(re.findall(r"""(?:url\(|href=")#(\w+)""", text))  # all other names would stand in every figure
    text = re.sub(r' id="([\w.]+)"', lambda found: found[0] if found[1] in used else "", text)
    text = re.sub(r"\n\s*", "\n", text)
    width, height = PANEL
    label = escape(visible(panel.alt), quote=True)
    head = f'<svg class="plot" role="img" aria-label="{label}" viewBox="0 0 {width} {height}">'
    return re.sub(r"<svg[^>]*>", lambda _: head, text, count=1).strip()


def write_png(path: Path, panels: Sequence[Panel], size: tuple[int, int] = PANEL) -> None:
    """Panels on white, two in a row, in few colours so that the file stays small.

    Args:
        path: replaced where it exists.
        panels: at least one.
        size: of each in CSS pixels.
    """
    image = import_extra("PIL.Image")
    figure, grid = _figure(len(panels), PAPER, size)
    with _style(PAPER, path.stem):
        for axes, panel in zip(grid, panels, strict=False):
            _draw(axes, panel, PAPER)
        for axes in grid[len(panels) :]:
            axes.remove()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_PNG_DPI, facecolor="white")
    picture = image.open(buffer).convert("RGB").quantize(colors=64, dither=image.Dither.NONE)
    picture.save(path, format="PNG", optimize=True)


def _figure(panels: int, palette: Palette, size: tuple[int, int]) -> tuple[Any, list[Any]]:
    """A figure without any global state, and its axes row by row; the last row may have one too many."""
    columns = min(panels, _PNG_COLUMNS)
    rows = -(-panels // columns)
    with _style(palette, ""):
        module = import_extra("matplotlib.figure")
        inches = (columns * size[0] / _POINT, rows * size[1] / _POINT)
        figure = module.Figure(figsize=inches, layout="constrained")
        return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _draw(axes: Any, panel: Panel, palette: Palette) -> None:
    axes.set_title(panel.title, loc="left", fontsize=12, color=palette.ink, fontweight="bold", pad=8)
    panel.draw(axes, palette)
    for text in axes.findobj(import_extra("matplotlib.text").Text):
        text.set_text(visible(text.get_text()))


def _style(palette: Palette, salt: str) -> Any:
    return import_extra("matplotlib").rc_context(
        {
            "font.family": "DejaVu Sans",
            "text.parse_math": False,  # a dollar of the data is no formula
            "font.size": 11.5,
            "text.color": palette.ink,
            "axes.edgecolor": palette.muted,
            "axes.labelcolor": palette.ink,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.grid.axis": "y",
            "axes.axisbelow": True,
            "axes.labelsize": 11.5,
            "grid.color": palette.grid,
            "grid.linewidth": 0.8,
            "xtick.color": palette.muted,
            "ytick.color": palette.muted,
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
