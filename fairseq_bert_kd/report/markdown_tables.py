"""Tables of a results file in Markdown, for the README of an experiment."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fairseq_bert_kd.evaluation.text_metrics import NAMES
from fairseq_bert_kd.report.comparison import GROUP_TITLES
from fairseq_bert_kd.report.experiment import MAIN_GROUP, RUN_FIELDS, Run, Step
from fairseq_bert_kd.report.formats import duration, list_text, p_text, percent, signed, spread_text
from fairseq_bert_kd.report.other_scores import PREFIX, OtherRow, OtherScores, other_scores
from fairseq_bert_kd.report.results import Spread, spread
from fairseq_bert_kd.report.step_times import step_rows

Record = Mapping[str, Any]
GROWTH_TABLE = "training-pairs"
_SHOWN_K = (1, 8, 64)
_SAME_IN_GROWTH = ("task", "size", "teacher", "baseline", "main", "metric", "lowercase", "bleu_tokenize")


def markdown_tables(experiment: Record, names: Sequence[str] | None = None) -> str:
    """The tables of an experiment, a heading before those of ablations.

    Args:
        experiment: one of `experiments` of a results file.
        names: groups of systems, "stores" (what the teachers know), "times" and "scores-NAME" (a file of further
            scores), in this order; None for all groups.

    Raises:
        ValueError: a group has no system that is scored.
    """
    found = groups_of(experiment)
    others = [f"{PREFIX}{name}" for name in experiment.get("other_scores", {})]
    for name in names or ():
        if name not in (*found, *others, *_OTHER_TABLES):
            raise ValueError(
                f"no system of the group `{name}` has a score; there are: {list_text([*found, *others]) or 'none'}"
            )
    parts = []
    for name in names or found:
        if name in _OTHER_TABLES:
            parts.append(_OTHER_TABLES[name](experiment))
        elif name in others:
            parts.append(other_scores_table(_other_scores(experiment, name.removeprefix(PREFIX))))
        elif name == MAIN_GROUP:
            parts.append(_main_table(experiment))
        else:
            parts.append(f"**{GROUP_TITLES.get(name, name)}**\n\n{_ablation_table(experiment, name)}")
    return "\n\n".join(parts) + "\n"


def growth_table(experiments: Sequence[Record]) -> str:
    """Baseline and main system of several experiments, by their number of training pairs.

    Args:
        experiments: of a results file; of one task and size, each with its own number of pairs.

    Raises:
        ValueError: they differ in more than their pairs, two have the same number, or the main system of one has no gain.
    """
    kinds = {tuple(found[key] for key in _SAME_IN_GROWTH) for found in experiments}
    if len(kinds) != 1:
        raise ValueError(
            f"experiments in one table of training pairs must have the same {list_text(_SAME_IN_GROWTH)}; give report the "
            "folders of one task and size"
        )
    references = {
        found["text_sha256"].get(f"{found['compared']['subset']}.{found['target_lang']}")
        for found in experiments
    }
    if len(references) != 1:
        raise ValueError(
            "experiments in one table of training pairs must have the same reference, theirs differ; score them on one test set"
        )
    by_pairs = {found["training_pairs"]: found for found in experiments}
    if None in by_pairs or len(by_pairs) < len(experiments):
        raise ValueError(
            f"each experiment must have its own number of training pairs, these have "
            f"{list_text(found['training_pairs'] for found in experiments)}"
        )
    rows = [_growth_row(found) for _, found in sorted(by_pairs.items())]
    first = experiments[0]
    labels = [
        next(run["label"] for run in first["runs"] if run["system"] == name) for name in _leaders(first)
    ]
    head = [
        "training pairs", "teacher's updates", "masked accuracy, perplexity (validation)",
        *(f"{label}, {NAMES[first['compared']['metric']]}" for label in labels), "gain", "p by seed",
    ]  # fmt: skip
    return _table(head, rows) + "\n"


def _growth_row(experiment: Record) -> list[str]:
    pairs = f"{experiment['training_pairs']:,}"
    baseline, main = _leaders(experiment)
    metric, systems = experiment["compared"]["metric"], _systems(experiment, MAIN_GROUP)
    if not systems.get(main) or not experiment["compared"]["systems"][main]["gains"]:
        raise ValueError(f"the experiment of {pairs} pairs has no gain of `{main}` over `{baseline}` yet")
    found = experiment["compared"]["systems"][main]
    log = experiment["teachers"].get(systems[main][0]["teacher"], {})
    return [
        pairs,
        *_teacher_cells(log),
        *(
            spread_text(spread([_scores(experiment, run)[metric] for run in systems[name]]))
            for name in (baseline, main)
        ),
        _gain(found),
        list_text(f"{seed}: {p_text(p)}" for seed, p in found["p"].items()),
    ]


def groups_of(experiment: Record) -> list[str]:
    """Groups with a score, the main one first, then in the order of a report."""
    present = [run["group"] for run in experiment["runs"] if _scores(experiment, run)]
    order = [MAIN_GROUP, *GROUP_TITLES, *present]
    return [group for group in dict.fromkeys(order) if group in present]


def _main_table(experiment: Record) -> str:
    metric, compared = experiment["compared"]["metric"], experiment["compared"]["systems"]
    others = [key for key in _keys(experiment) if key != metric]
    head = ["", f"{NAMES[metric]} by seed", "mean ± sd", *(NAMES[key] for key in others), "gain", "p by seed"]
    rows = []
    for system, runs in _systems(experiment, MAIN_GROUP).items():
        by_seed = {run["seed"]: _scores(experiment, run) for run in runs}
        found = compared[system]
        rows.append([
            runs[0]["label"],
            list_text(f"{seed}: {scores[metric]:.2f}" for seed, scores in by_seed.items()),
            spread_text(spread([scores[metric] for scores in by_seed.values()])),
            *(
                spread_text(spread([scores[key] for scores in by_seed.values()]), 3 if key == "length_ratio" else 2)
                for key in others
            ),
            _gain(found),
            list_text(f"{seed}: {p_text(p)}" for seed, p in found["p"].items()),
        ])  # fmt: skip
    return _table(head, rows)


def _ablation_table(experiment: Record, group: str) -> str:
    """A group's systems, the main baseline and the main system before them; each with the gain over its own baseline."""
    metric, compared = experiment["compared"]["metric"], experiment["compared"]["systems"]
    systems = {
        **{
            name: runs
            for name, runs in _systems(experiment, MAIN_GROUP).items()
            if name in _leaders(experiment)
        },
        **_systems(experiment, group),
    }
    rows = []
    for system, runs in systems.items():
        scores = [_scores(experiment, run)[metric] for run in runs]
        seeds = list_text(run["seed"] for run in runs)
        found = compared[system]
        by_seed = list_text(f"{seed}: {signed(gain)}" for seed, gain in found["gains"].items())
        rows.append([runs[0]["label"], seeds, spread_text(spread(scores)), _gain(found), by_seed])
    return _table(["", "seeds", NAMES[metric], "gain", "gain by seed"], rows)


def _store_table(experiment: Record) -> str:
    """Each store with what its teacher knew: on validation positions while it trained, on the training targets here."""
    head = [
        "store", "teacher's updates", "masked accuracy, perplexity (validation)", "passes", "covered",
        "accuracy, perplexity (training targets)", *(f"k = {k} holds at T = 1" for k in _SHOWN_K),
    ]  # fmt: skip
    rows = []
    for name, store in experiment["stores"].items():
        log = experiment["teachers"].get(Path(store["teacher"]).parent.name, {})
        mass = store["captured_mass"].get("1", {})
        rows.append([
            name,
            *_teacher_cells(log),
            str(store["passes"]),
            percent(store["scored_share"]),
            _both(_times_100(store["gold_accuracy"]), store["gold_perplexity"]),
            *(percent(mass.get(str(k))) for k in _SHOWN_K),
        ])  # fmt: skip
    return _table(head, rows)


def _time_table(experiment: Record) -> str:
    """Wall-clock time of every kind of step, the shortest of its kind: the one that was disturbed least."""
    steps = [Step(name, seconds) for name, seconds in experiment["seconds"].items()]
    rows = [
        [row.name, str(len(row.times)), duration(min(seconds for _, seconds in row.times))]
        for row in step_rows(steps)
    ]
    return _table(["step", "runs", "shortest"], rows)


def other_scores_table(other: OtherScores) -> str:
    """Further scores: mean ± sd with the seeds' own values, and the gain of the first one."""
    first = other.keys[0]
    head = [
        "",
        "set",
        "seeds",
        *(NAMES.get(key, key) for key in other.keys),
        f"gain, {NAMES.get(first, first)}",
    ]
    rows = [
        [
            row.label,
            row.subset,
            list_text(row.seeds),
            *(_with_values(row, key) for key in other.keys),
            spread_text(row.gain(first), sign=True) if first in row.gains else "",
        ]
        for row in other.rows
    ]
    return _table(head, rows)


def _with_values(row: OtherRow, key: str) -> str:
    values = row.values.get(key, {}).values()
    text = spread_text(row.score(key), 3 if key == "length_ratio" else 2)
    return f"{text} ({list_text(f'{value:.4g}' for value in values)})" if len(values) > 1 else text


def _other_scores(experiment: Record, name: str) -> OtherScores:
    runs = [
        Run(name=f"{run['system']}.{run['seed']}", **{key: run[key] for key in RUN_FIELDS})
        for run in experiment["runs"]
    ]
    return other_scores(name, experiment["other_scores"][name], runs, _leaders(experiment))


def _teacher_cells(log: Record) -> list[str]:
    """Its updates (and the checkpoint that was kept, where a later one was worse), and what it knew on validation."""
    updates, kept = (_number(log.get(key), ",") for key in ("updates", "best_at"))
    return [
        updates if kept in (updates, "–") else f"{kept} of {updates}",
        _both(log.get("masked_accuracy"), log.get("perplexity")),
    ]


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _times_100(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _both(accuracy: float | None, perplexity: float | None) -> str:
    if accuracy is None or perplexity is None:
        return "–"
    return f"{accuracy:.1f} %, {perplexity:.2f}"


def _leaders(experiment: Record) -> tuple[str, str]:
    return experiment["baseline"], experiment["main"]


def _systems(experiment: Record, group: str) -> dict[str, list[Record]]:
    """Scored runs of a group by system, in the order of `compared`, which is that of a report."""
    runs = [run for run in experiment["runs"] if run["group"] == group and _scores(experiment, run)]
    by_system = {
        system: sorted((run for run in runs if run["system"] == system), key=lambda run: run["seed"])
        for system in experiment["compared"]["systems"]
    }
    return {system: found for system, found in by_system.items() if found}


def _scores(experiment: Record, run: Record) -> dict[str, float]:
    return run["scores"].get(experiment["compared"].get("subset"), {})


def _keys(experiment: Record) -> list[str]:
    return list(next(scores for run in experiment["runs"] if (scores := _scores(experiment, run))))


def _gain(found: Record) -> str:
    if found["mean_gain"] is None:
        return ""
    return spread_text(Spread(found["mean_gain"], found["sd_gain"], len(found["gains"])), sign=True)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    text = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return text.replace("\u00a0", " ")


_OTHER_TABLES: dict[str, Callable[[Record], str]] = {"stores": _store_table, "times": _time_table}
