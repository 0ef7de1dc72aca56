"""The panels of a report: which plots there are, with titles and captions."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from fairseq_bert_kd.report.compare_sentences import LengthBin
from fairseq_bert_kd.report.compare_systems import GROUP_TITLES, SystemRow, main_row
from fairseq_bert_kd.report.formatting import list_text, signed
from fairseq_bert_kd.report.plot_style import Panel
from fairseq_bert_kd.report.plots import draw_curves, draw_gains, draw_lengths, draw_mass, draw_values
from fairseq_bert_kd.report.read_experiment import MAIN_GROUP, Experiment
from fairseq_bert_kd.report.read_logs import (
    STUDENT_CURVES,
    TEACHER_CURVES,
    SystemCurve,
    TeacherLog,
    TrainingLog,
    system_curve,
)
from fairseq_bert_kd.report.read_scores import ScoredOutputs
from fairseq_bert_kd.report.read_stores import StoreStat

_SHORT = {"topk": "k", "temperature": "T", "weight": "weight", "passes": "passes"}
_GROUP_OPTIONS = {"topk": "--kd-topk", "temperature": "--kd-temperature", "weight": "--kd-weight"}


def curve_panels(
    experiment: Experiment, logs: Mapping[str, TrainingLog], baseline: SystemRow | None
) -> Iterator[Panel]:
    """Learning curves of the main system and its baseline (None: the experiment's)."""
    by_system = {
        system: [run for run in experiment.runs if run.system == system]
        for system in (baseline.system if baseline else experiment.baseline, experiment.main)
    }
    for kind in STUDENT_CURVES:
        made = [system_curve(runs, dict(logs), kind) for runs in by_system.values() if runs]
        curves = [curve for curve in made if curve]
        if not curves or not any(len(points) > 1 for curve in curves for points in curve.by_seed.values()):
            continue
        seeds = "; ".join(f"{curve.label}: {_seeds(curve.by_seed)}" for curve in curves)
        ends = "; ".join(f"{curve.label} ends at {_last(curve):.2f}" for curve in curves)
        yield Panel(
            name=f"curve-{kind.part}-{kind.name.replace('_', '-')}",
            title=kind.title,
            caption=f"Mean over the seeds thick, each seed thin. {seeds}.",
            alt=f"{kind.title} against updates. {ends}.",
            draw=partial(draw_curves, curves=curves, perplexity=kind.perplexity),
        )


def teacher_panels(teachers: Sequence[TeacherLog]) -> Iterator[Panel]:
    """Masked accuracy of the teachers while they trained."""
    for kind in TEACHER_CURVES:
        curves = [
            SystemCurve(teacher.name, teacher.name, {1: teacher.log.curve(kind.part, kind.name)})
            for teacher in teachers
        ]
        curves = [curve for curve in curves if len(curve.by_seed[1]) > 1]
        if curves:
            ends = "; ".join(f"{curve.label} ends at {_last(curve):.1f}" for curve in curves)
            yield Panel(
                name="teacher-masked-accuracy",
                title=kind.title,
                caption="Share of the masked target pieces of the validation set that the teacher predicts.",
                alt=f"{kind.title} against updates. {ends}.",
                draw=partial(draw_curves, curves=curves, perplexity=False, first=1),
            )


def length_panel(
    results: ScoredOutputs, bins: Sequence[LengthBin], labels: tuple[str, str], seeds: Sequence[int]
) -> Panel:
    """Gain by length of the reference; ``labels`` are those of main system and baseline."""
    unit = results.unit
    listed = "; ".join(
        f"{item.shortest} to {item.longest} words {signed(item.gain)} ({signed(item.low)} to {signed(item.high)})"
        for item in bins
    )
    return Panel(
        name="gain-by-length",
        title=f"Gain by length of the reference, {unit}",
        caption=f"{labels[0]} against {labels[1]}, mean of the gains of {_seeds(seeds)}; bars: 95 % "
        "bootstrap confidence over the bin’s sentences. Words as sacreBLEU’s 13a tokenizer counts them."
        + (" Mean of the sentences’ own chrF2." if results.main_metric == "chrf2" else ""),
        alt=f"Gain by length of the reference: {listed}.",
        draw=partial(draw_lengths, bins=bins, unit=unit),
    )


def mass_panel(stat: StoreStat) -> Panel:
    """Captured mass against k at each stored temperature."""
    ends = "; ".join(f"T = {t:g}: {100 * values[-1]:.1f} %" for t, values in stat.mass.items())
    return Panel(
        name="captured-mass",
        title="Captured mass against k",
        caption=f"Probability of the teacher’s k best tokens: mean over {stat.sampled_rows:,} training positions of the store "
        f"“{stat.name}”.",
        alt=f"Captured mass of all {stat.reader.info.k} stored tokens: {ends}.",
        draw=partial(draw_mass, masses=stat.mass),
    )


def value_panels(
    results: ScoredOutputs, rows: Mapping[str, Sequence[SystemRow]], stores: Mapping[str, StoreStat]
) -> Iterator[Panel]:
    """Score against the value that a group varies, for every group of numbers; the main system is one of the points."""
    unit, experiment = results.unit, results.experiment
    main = results.scores_of(experiment.main)
    for group, systems in rows.items():
        values = [_number(row.value) for row in systems]
        if group == MAIN_GROUP or None in values or len(set(values)) < len(values):
            continue
        points = {
            value: list(row.scores.values())
            for value, row in zip(values, systems, strict=True)
            if value is not None and row.scores
        }
        own = _main_value(experiment, group, stores)
        if own is not None and own not in points and main:
            points[own] = list(main.values())
        if len(points) < 2:
            continue
        base = main_row(rows, experiment.baseline)
        baseline = (base.label, base.spreads[results.main_metric]) if base and base.spreads else None
        title = GROUP_TITLES.get(group, group)
        listed = "; ".join(
            f"{value:g}: {sum(scores) / len(scores):.2f}" for value, scores in sorted(points.items())
        )
        seeds = sorted({len(scores) for scores in points.values()})
        yield Panel(
            name=f"score-against-{group}",
            title=f"{unit} against {_SHORT.get(group, group)}",
            caption=f"Dots are seeds ({' or '.join(map(str, seeds))} per value), the line joins their means. Dashed: the "
            "baseline, with a band of one standard deviation.",
            alt=f"{unit} by {title}: {listed}.",
            draw=partial(
                draw_values, points=points, baseline=baseline, labels=(title, f"{unit}, {results.subset} set")
            ),
        )


def gains_panel(results: ScoredOutputs, rows: Mapping[str, Sequence[SystemRow]]) -> Panel | None:
    """Gains of all systems over their baselines."""
    drawn = [(row.label, list(row.gains.values())) for made in rows.values() for row in made if row.gains]
    if not drawn:
        return None
    unit = results.unit
    return Panel(
        name="gains", title=f"Gain over the baseline, {unit}", caption="Dots are seeds, bars their means.", alt="",
        draw=partial(draw_gains, rows=drawn, unit=unit),
    )  # fmt: skip


def _main_value(experiment: Experiment, group: str, stores: Mapping[str, StoreStat]) -> float | None:
    """The main system's own value of what a group varies."""
    runs = [run for run in experiment.runs if run.system == experiment.main]
    if not runs:
        return None
    if group == "passes":
        stat = stores.get(runs[0].store or "")
        return float(stat.reader.info.passes) if stat else None
    return _number(runs[0].option(_GROUP_OPTIONS[group]) or "") if group in _GROUP_OPTIONS else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _last(curve: SystemCurve) -> float:
    mean = curve.mean or next(iter(curve.by_seed.values()))
    return mean[max(mean)]


def _seeds(seeds: Sequence[int] | Mapping[int, object]) -> str:
    listed = sorted(seeds)
    return f"{len(listed)} seed{'s' if len(listed) > 1 else ''} ({list_text(listed)})"
