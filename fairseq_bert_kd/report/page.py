"""The report as one HTML page that needs nothing else, and its figures as PNG files."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import fairseq_bert_kd
from fairseq_bert_kd.compat import import_extra
from fairseq_bert_kd.evaluation.registry import METRICS, TITLES, signatures
from fairseq_bert_kd.evaluation.significance import Spread
from fairseq_bert_kd.report import formatting
from fairseq_bert_kd.report.compare_runs import RunsRow, report_rows, runs_table
from fairseq_bert_kd.report.compare_systems import GROUP_TITLES, verdict
from fairseq_bert_kd.report.experiment_report import ExperimentReport, is_copy
from fairseq_bert_kd.report.formatting import plain_name, signed, visible
from fairseq_bert_kd.report.panels import gains_panel
from fairseq_bert_kd.report.plot_style import PANEL, Panel, svg_address, write_png
from fairseq_bert_kd.report.plots import draw_values
from fairseq_bert_kd.report.read_experiment import MAIN_GROUP, step_rows
from fairseq_bert_kd.storage.topk import PREFIX_PLAN, scoring_plan
from fairseq_bert_kd.storage.topk_stat import suggested_k, suggested_temperature, warnings

TEMPLATES = Path(__file__).parent / "templates"
_README_CURVES = ("curve-valid-nll-loss", "curve-valid-bleu")  # the panels of a README: it has little room
_README_CHOICE = ("captured-mass", "score-against-topk", "score-against-temperature")
_WIDE = (460, 260)  # CSS pixels of a panel alone in its file
_ROW = 26  # CSS pixels of a system among the gains
Figure = tuple[str, list[Panel], tuple[int, int]]  # name, panels, size of each in CSS pixels


def slugs(reports: Sequence[ExperimentReport]) -> list[str]:
    """Name of each experiment for addresses and file names: its task, or task, size and number if tasks repeat."""
    tasks = [report.experiment.task for report in reports]
    names: list[str] = []
    for number, report in enumerate(reports, start=1):
        task, size = report.experiment.task, report.experiment.size
        name = plain_name(task if tasks.count(task) == 1 else f"{task}-{size}") or "experiment"
        names.append(f"{name}-{number}" if name in names else name)
    return names


def render(reports: Sequence[ExperimentReport]) -> str:
    """The whole page, experiments in the given order."""
    jinja2, markup = import_extra("jinja2"), import_extra("markupsafe").Markup
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=visible,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "spread": formatting.spread_text,
        "signed": signed,
        "listed": formatting.list_text,
        "title_of": lambda key: TITLES.get(key, key),
        "duration": formatting.duration,
        "percent": formatting.percent,
        "language": lambda code: markup(formatting.language_attribute(code)),
    }
    environment.globals |= {
        "svg_address": svg_address,
        "verdict": verdict,
        "report_rows": report_rows,
        "runs_table": runs_table,
        "step_rows": step_rows,
        "signatures": signatures,
        "suggested_k": suggested_k,
        "suggested_temperature": suggested_temperature,
        "warnings": warnings,
        "DECIMALS": {name: metric.decimals for name, metric in METRICS.items()},
        "GROUP_TITLES": GROUP_TITLES,
        "MAIN_GROUP": MAIN_GROUP,
        "PREFIX_PLAN": PREFIX_PLAN,
        "scoring_plan": scoring_plan,
    }
    return environment.get_template("page.html").render(
        reports=list(zip(slugs(reports), reports, strict=True)),
        growth=list(growth_panels(reports)),
        together=list(rows_together(reports)),
        version=fairseq_bert_kd.__version__,
    )


def rows_together(reports: Sequence[ExperimentReport]) -> Iterator[tuple[list[str], list[RunsRow]]]:
    """Titles and paired tests over all runs, for each task, size and metric with two or more experiments; copies are left out."""
    kinds: dict[tuple[str, str, str], list[ExperimentReport]] = {}
    for report in reports:
        if report.results is not None:
            kind = (report.experiment.task, report.experiment.size, report.results.unit)
            same = kinds.setdefault(kind, [])
            if not any(is_copy(report, other) for other in same):
                same.append(report)
    for several in kinds.values():
        if len(several) > 1 and (rows := report_rows([report.rows for report in several])):
            yield [report.experiment.title for report in several], rows


def growth_panels(reports: Sequence[ExperimentReport]) -> Iterator[Panel]:
    """Gain against training pairs, for each task and size whose experiments have two or more numbers of pairs.

    Experiments with another reference, metric, teacher, or options of the main system are in panels of their own. If two
    experiments have the same number of pairs, the later one is left out.
    """
    kinds: dict[tuple[object, ...], dict[float, list[float]]] = {}
    for report in reports:
        experiment, results, main = report.experiment, report.results, report.main
        if main is None or not main.gains or results is None or not report.training_pairs:
            continue
        reference = experiment.text(results.subset, experiment.target_lang).name
        kind = (
            experiment.task, experiment.size, results.unit, tuple(signatures(results.metrics).values()),
            report.digests.get(reference), experiment.teacher, main.options,
        )  # fmt: skip
        kinds.setdefault(kind, {}).setdefault(report.training_pairs, list(main.gains.values()))
    names: list[str] = []
    for (task, size, unit, *_), points in kinds.items():
        if len(points) < 2:
            continue
        name = plain_name(f"gain-by-pairs-{task}-{size}")
        names.append(f"{name}-{len(names) + 1}" if name in names else name)
        listed = "; ".join(
            f"{pairs:,}: {signed(sum(gains) / len(gains))}" for pairs, gains in sorted(points.items())
        )
        yield Panel(
            name=names[-1],
            title=f"Gain against training pairs, {unit}",
            caption=f"{task}, {size} size. Dots are seeds, the line joins their means. Teacher and students of each point "
            "know its training pairs only.",
            alt=f"{task}, {size} size: gain by number of training pairs: {listed}.",
            draw=partial(
                draw_values,
                points=points,
                baseline=("no gain", Spread(0.0, None, 1)),
                labels=("training pairs", f"gain, {unit}"),
            ),
        )


def figure_paths(folder: str | Path, reports: Sequence[ExperimentReport]) -> list[Path]:
    """Files that `write_figures` writes."""
    return [Path(folder) / f"{name}.png" for name, _, _ in _figures(reports)]


def write_figures(folder: str | Path, reports: Sequence[ExperimentReport]) -> None:
    """Write ``FIGURE.png``, or ``EXPERIMENT.FIGURE.png`` for several experiments.

    Figures of an experiment: ``learning_curves``, ``gain_by_length``, ``gain_by_position``, ``k_and_t`` and ``gains``.
    Experiments with different numbers of training pairs share ``TASK-SIZE.gain_by_pairs``. Figures without data are left out.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, panels, size in _figures(reports):
        write_png(Path(folder) / f"{name}.png", panels, size)


def _figures(reports: Sequence[ExperimentReport]) -> Iterator[Figure]:
    for slug, report in zip(slugs(reports), reports, strict=True):
        prefix = f"{slug}." if len(reports) > 1 else ""
        for name, panels, size in _figures_of(report):
            if panels:
                yield f"{prefix}{name}", panels, size
    for panel in growth_panels(reports):
        yield f"{panel.name.removeprefix('gain-by-pairs-')}.gain_by_pairs", [panel], _WIDE


def _figures_of(report: ExperimentReport) -> Iterator[Figure]:
    yield "learning_curves", [panel for panel in report.curves if panel.name in _README_CURVES], PANEL
    yield "gain_by_length", [report.length_panel] if report.length_panel else [], _WIDE
    yield "gain_by_position", [report.position_panel] if report.position_panel else [], _WIDE
    chosen = [panel for panel in report.choice if panel.name in _README_CHOICE]
    yield "k_and_t", chosen or report.choice[:2], PANEL
    gains = gains_panel(report.results, report.rows) if report.results else None
    rows = sum(bool(row.gains) for made in report.rows.values() for row in made)
    yield "gains", [gains] if gains else [], (560, 90 + _ROW * rows)
