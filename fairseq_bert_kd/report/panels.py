"""The panels of a report: which plots there are, with titles and captions."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial

from fairseq_bert_kd.report.compare_positions import PositionBin
from fairseq_bert_kd.report.compare_sentences import LengthBin
from fairseq_bert_kd.report.compare_systems import GROUP_TITLES, SystemRow, main_row
from fairseq_bert_kd.report.formatting import list_text, signed
from fairseq_bert_kd.report.plot_style import Panel
from fairseq_bert_kd.report.plots import (
    draw_curves,
    draw_gains,
    draw_lengths,
    draw_mass,
    draw_positions,
    draw_values,
)
from fairseq_bert_kd.report.read_experiment import MAIN_GROUP, Experiment, Run
from fairseq_bert_kd.report.read_logs import (
    REWARD_CURVES,
    STUDENT_CURVES,
    TEACHER_CURVE,
    CurveKind,
    SystemCurve,
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
    systems = (baseline.system if baseline else experiment.baseline, experiment.main)
    by_system = [[run for run in experiment.runs if run.system == system] for system in systems]
    for kind in STUDENT_CURVES[experiment.kind]:
        curves = [curve for runs in by_system if runs and (curve := system_curve(runs, logs, kind))]
        seeds = "; ".join(f"{curve.label}: {_seeds(curve.by_seed)}" for curve in curves)
        yield from _curve_panel(
            f"curve-{kind.part}", kind, curves, f"Mean over the seeds thick, each seed thin. {seeds}."
        )


def rewarded_systems(experiment: Experiment, logs: Mapping[str, TrainingLog]) -> dict[str, list[Run]]:
    """Runs of the systems of the main group whose training had rewards, or knew them as a control."""
    by_system: dict[str, list[Run]] = {}
    for run in experiment.runs:
        if run.group == MAIN_GROUP:
            by_system.setdefault(run.system, []).append(run)
    return {
        system: runs
        for system, runs in by_system.items()
        if any(logs[run.name].curve("train", "reward") for run in runs if run.name in logs)
    }


def reward_panels(experiment: Experiment, logs: Mapping[str, TrainingLog]) -> Iterator[Panel]:
    """What rewards did to all systems of the main group: rewards, copies, entropy. None where no training had rewards.

    The baseline is beside them on the validation set.
    """
    if not (rewarded := rewarded_systems(experiment, logs)):
        return
    baseline = [run for run in experiment.runs if run.system == experiment.baseline]
    for kind in REWARD_CURVES:
        of_systems = ({experiment.baseline: baseline} if kind.part == "valid" and baseline else {}) | rewarded
        drawn = {system: system_curve(runs, logs, kind) for system, runs in of_systems.items()}
        yield from _curve_panel(
            f"reward-{kind.part}",
            kind,
            [curve for curve in drawn.values() if curve],
            "True rewards, also of controls that were trained without them.",
            first=0 if drawn.get(experiment.baseline) else 1,
        )


def teacher_panels(teachers: Mapping[str, TrainingLog]) -> Iterator[Panel]:
    """Masked accuracy of the teachers while they trained."""
    kind = TEACHER_CURVE
    curves = {name: log.curve(kind.part, kind.name) for name, log in teachers.items()}
    yield from _curve_panel(
        "teacher",
        kind,
        [SystemCurve(name, {1: curve}) for name, curve in curves.items() if curve],
        "Share of the masked target pieces of the validation set that the teacher predicts.",
        first=1,
    )


def length_panel(
    results: ScoredOutputs, bins: Sequence[LengthBin], labels: tuple[str, str], seeds: Collection[int]
) -> Panel:
    """Gain by length of the reference; ``labels`` are those of main system and baseline."""
    listed = "; ".join(
        f"{item.shortest} to {item.longest} words {signed(item.gain)} ({signed(item.low)} to {signed(item.high)})"
        for item in bins
    )
    tokenize = results.metrics[results.main_metric].settings.tokenize
    return Panel(
        name="gain-by-length",
        title=f"Gain by length of the reference, {results.unit}",
        caption=f"{labels[0]} against {labels[1]}, mean of the gains of {_seeds(seeds)}; bars: 95 % "
        f"bootstrap confidence over the bin’s sentences. Words as sacreBLEU’s {tokenize} tokenizer counts them.",
        alt=f"Gain by length of the reference: {listed}.",
        draw=partial(draw_lengths, bins=bins, unit=results.unit),
    )


def position_panel(bins: Sequence[PositionBin], labels: tuple[str, str], seeds: Collection[int]) -> Panel:
    """Gain by position in the reference; ``labels`` are those of main system and baseline."""
    listed = "; ".join(
        f"{item.first} to {item.last} % {signed(item.gain)} ({signed(item.low)} to {signed(item.high)})"
        for item in bins
    )
    return Panel(
        name="gain-by-position",
        title="Gain by position in the sentence",
        caption=f"{labels[0]} against {labels[1]}: of 100 pairs of neighbouring words in a part of the references, how many more "
        f"the output has; mean of {_seeds(seeds)}, bars: 95 % bootstrap confidence over sentences. Our measure.",
        alt=f"Gain by position in the reference: {listed}.",
        draw=partial(draw_positions, bins=bins),
    )


def mass_panel(stat: StoreStat) -> Panel:
    """Captured mass against k at each stored temperature."""
    k = stat.reader.info.k
    ends = "; ".join(f"T = {t:g}: {100 * masses[k]:.1f} %" for t, masses in stat.mass.items())
    return Panel(
        name="captured-mass",
        title="Captured mass against k",
        caption=f"Probability of the teacher’s k best tokens: mean over {stat.stat.rows:,} training positions of the store "
        f"“{stat.name}”.",
        alt=f"Captured mass of all {k} stored tokens: {ends}.",
        draw=partial(draw_mass, masses=stat.mass),
    )


def value_panels(
    results: ScoredOutputs, rows: Mapping[str, Sequence[SystemRow]], stores: Mapping[str, StoreStat]
) -> Iterator[Panel]:
    """Score against the value that a group varies, for every group of numbers; the main system is one of the points."""
    base, main = (main_row(rows, name) for name in (results.experiment.baseline, results.experiment.main))
    baseline = (base.label, base.spreads[results.main_metric]) if base and base.spreads else None
    for group, systems in rows.items():
        values = [_number(row.value) for row in systems]
        if group == MAIN_GROUP or None in values or len(set(values)) < len(values):
            continue
        points = {_main_value(results.experiment, group, stores): list(main.scores.values()) if main else []}
        points |= dict(zip(values, (list(row.scores.values()) for row in systems), strict=True))
        drawn = {value: scores for value, scores in points.items() if value is not None and scores}
        if len(drawn) < 2:
            continue
        title = GROUP_TITLES.get(group, group)
        listed = "; ".join(
            f"{value:g}: {sum(drawn[value]) / len(drawn[value]):.2f}" for value in sorted(drawn)
        )
        yield Panel(
            name=f"score-against-{group}",
            title=f"{results.unit} against {_SHORT.get(group, group)}",
            caption="Dots are seeds, the line joins their means. Dashed: the baseline, with a band of one standard "
            "deviation.",
            alt=f"{results.unit} by {title}: {listed}.",
            draw=partial(
                draw_values,
                points=drawn,
                baseline=baseline,
                labels=(title, f"{results.unit}, {results.subset} set"),
            ),
        )


def gains_panel(results: ScoredOutputs, rows: Mapping[str, Sequence[SystemRow]]) -> Panel | None:
    """Gains of all systems over their baselines."""
    drawn = [(row.label, list(row.gains.values())) for made in rows.values() for row in made if row.gains]
    if not drawn:
        return None
    return Panel(
        name="gains", title=f"Gain over the baseline, {results.unit}", caption="Dots are seeds, bars their means.",
        alt="", draw=partial(draw_gains, rows=drawn, unit=results.unit),
    )  # fmt: skip


def _curve_panel(
    name: str, kind: CurveKind, curves: Sequence[SystemCurve], caption: str, first: int = 0
) -> Iterator[Panel]:
    """A panel of curves, if one of them has two points."""
    if any(len(points) > 1 for curve in curves for points in curve.by_seed.values()):
        ends = "; ".join(f"{curve.label} ends at {list(curve.mean.values())[-1]:.2f}" for curve in curves)
        yield Panel(
            name=f"{name}-{kind.name.replace('_', '-')}",
            title=kind.title,
            caption=caption,
            alt=f"{kind.title} against updates. {ends}.",
            draw=partial(draw_curves, curves=curves, perplexity=kind.perplexity, first=first),
        )


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


def _seeds(seeds: Collection[int]) -> str:
    return f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''} ({list_text(sorted(seeds))})"
