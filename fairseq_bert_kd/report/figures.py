"""The figures of a report as PNG files, for READMEs."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from fairseq_bert_kd.report.growth import growth_panels
from fairseq_bert_kd.report.page import slugs
from fairseq_bert_kd.report.panels import gains_panel
from fairseq_bert_kd.report.plot_style import PANEL, Panel, write_png
from fairseq_bert_kd.report.section import Section

_CURVES = ("curve-valid-nll-loss", "curve-valid-bleu")  # what a README has room for
_ROW = 26  # CSS pixels of a system among the gains


def figure_paths(folder: str | Path, sections: Sequence[Section]) -> list[Path]:
    """Files that `write_figures` writes."""
    return [path for path, _, _ in _figures(Path(folder), sections)]


def write_figures(folder: str | Path, sections: Sequence[Section]) -> None:
    """Write ``FIGURE.png``, or ``EXPERIMENT.FIGURE.png`` where there are several experiments.

    Figures: ``learning_curves``, ``gain_by_length``, ``k_and_t`` and ``gains`` of an experiment, and ``TASK-SIZE.gain_by_pairs`` of
    experiments that differ in their number of training pairs, as far as there is data.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    for path, panels, size in _figures(Path(folder), sections):
        write_png(path, panels, size)


def _figures(
    folder: Path, sections: Sequence[Section]
) -> Iterator[tuple[Path, list[Panel], tuple[int, int]]]:
    for slug, section in zip(slugs(sections), sections, strict=True):
        prefix = f"{slug}." if len(sections) > 1 else ""
        for name, panels, size in _of(section):
            yield folder / f"{prefix}{name}.png", panels, size
    for panel in growth_panels(sections):
        yield folder / f"{panel.name.removeprefix('gain-by-pairs-')}.gain_by_pairs.png", [panel], (460, 260)


def _of(section: Section) -> Iterator[tuple[str, list[Panel], tuple[int, int]]]:
    curves = [panel for panel in section.curves if panel.name in _CURVES]
    if curves:
        yield "learning_curves", curves, PANEL
    if section.length_panel:
        yield "gain_by_length", [section.length_panel], (460, 260)
    if section.choice:
        wanted = ("captured-mass", "score-against-topk", "score-against-temperature")
        yield (
            "k_and_t",
            [panel for panel in section.choice if panel.name in wanted] or section.choice[:2],
            PANEL,
        )
    gains = gains_panel(section.results, section.rows) if section.results else None
    if gains:
        rows = sum(bool(row.gains) for made in section.rows.values() for row in made)
        yield "gains", [gains], (560, 90 + _ROW * rows)
