"""Write the tables of results files into the pages that show them.

    python examples/fill_tables.py [PAGE...]

A page (default: README.md, examples/*/README.md, docs/*.md) marks each place by two lines; the text between them is replaced:

    <!-- table: results/laptop.json main -->
    <!-- end of table -->

The file is relative to the page. Names of tables follow it (see `markdown_tables`); without names it is all groups of systems.
The name `training-pairs` alone is one table of all experiments of the file.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fairseq_bert_kd.evaluation.registry import METRICS, TITLES
from fairseq_bert_kd.evaluation.significance import Spread, spread
from fairseq_bert_kd.report.compare_systems import GROUP_TITLES
from fairseq_bert_kd.report.formatting import duration, list_text, p_text, percent, signed, spread_text
from fairseq_bert_kd.report.read_experiment import MAIN_GROUP, RUN_FIELDS, Run, step_rows
from fairseq_bert_kd.report.read_scores import PREFIX, FurtherScores, further_scores

ROOT = Path(__file__).parents[1]
PLACE = re.compile(
    r"(?P<head><!-- table: (?P<file>\S+)(?P<groups>( \S+)*) -->\n).*?(?P<tail><!-- end of table -->)",
    re.DOTALL,
)
Record = Mapping[str, Any]
GROWTH_TABLE = "training-pairs"
_SHOWN_K = ("1", "8", "64")
_SAME_IN_GROWTH = ("task", "size", "teacher", "baseline", "main", "metric", "lowercase", "bleu_tokenize")


class System(NamedTuple):
    """The scored runs of a system.

    Attributes:
        label: name in tables.
        teacher: folder of its teacher, or None.
        scores: scores by seed, then by metric.
        compared: its gains, as in the results file.
    """

    label: str
    teacher: str | None
    scores: dict[int, dict[str, float]]
    compared: Record

    def mean(self, metric: str) -> str:
        decimals = METRICS[metric].decimals if metric in METRICS else 2
        return spread_text(spread([scores[metric] for scores in self.scores.values()]), decimals)

    @property
    def gain(self) -> str:
        mean, sd, gains = (self.compared[key] for key in ("mean_gain", "sd_gain", "gains"))
        return "" if mean is None else spread_text(Spread(mean, sd, len(gains)), sign=True)

    @property
    def p(self) -> str:
        return list_text(f"{seed}: {p_text(p)}" for seed, p in self.compared["p"].items())


def markdown_tables(experiment: Record, names: Sequence[str] | None = None) -> str:
    """The tables of an experiment, with a heading before those of ablations.

    Args:
        experiment: one of ``experiments`` of a results file.
        names: groups of systems, "stores" (what the teachers know), "times" and "scores-NAME" (a file of further
            scores), in this order; None for all groups.

    Raises:
        ValueError: a group has no scored system.
    """
    groups = groups_of(experiment)
    tables = {
        **dict.fromkeys(groups, _ablation_table),
        **{f"{PREFIX}{name}": _further_table for name in experiment.get("other_scores", {})},
    }
    known = list(tables)
    tables |= {MAIN_GROUP: _main_table} if MAIN_GROUP in groups else {}
    tables |= {"stores": _store_table, "times": _time_table}
    for name in names or ():
        if name not in tables:
            raise ValueError(
                f"no system of the group `{name}` has a score; there are: {list_text(known) or 'none'}"
            )
    return "\n\n".join(tables[name](experiment, name) for name in names or groups) + "\n"


def growth_table(experiments: Sequence[Record]) -> str:
    """Baseline and main system of several experiments, by their number of training pairs.

    Args:
        experiments: experiments of a results file: of one task and size, each with its own number of pairs.

    Raises:
        ValueError: they differ in more than their pairs, two have the same number, or the main system of one has no gain.
    """
    if len({tuple(experiment[key] for key in _SAME_IN_GROWTH) for experiment in experiments}) != 1:
        raise ValueError(
            f"experiments in one table of training pairs must have the same {list_text(_SAME_IN_GROWTH)}; give report "
            "the folders of one task and size"
        )
    if len({_reference(experiment) for experiment in experiments}) != 1:
        raise ValueError(
            "experiments in one table of training pairs must have the same reference, theirs differ; score them on one "
            "test set"
        )
    by_pairs = {experiment["training_pairs"]: experiment for experiment in experiments}
    if None in by_pairs or len(by_pairs) < len(experiments):
        raise ValueError(
            f"each experiment must have its own number of training pairs, these have "
            f"{list_text(experiment['training_pairs'] for experiment in experiments)}"
        )
    rows = [_growth_row(experiment) for _, experiment in sorted(by_pairs.items())]
    first = experiments[0]
    metric, systems = first["compared"]["metric"], _systems(first, MAIN_GROUP)
    labels = [f"{systems[name].label}, {TITLES[metric]}" for name in (first["baseline"], first["main"])]
    known = ["teacher's updates", "masked accuracy, perplexity (validation)"]
    return _table(["training pairs", *known, *labels, "gain", "p by seed"], rows) + "\n"


def groups_of(experiment: Record) -> list[str]:
    """Groups with a score, the main one first, then in the order of a report."""
    present = [run["group"] for run in experiment["runs"] if _scores(experiment, run)]
    order = [MAIN_GROUP, *GROUP_TITLES, *present]
    return [group for group in dict.fromkeys(order) if group in present]


def further_table(scores: FurtherScores) -> str:
    """Further scores: mean ± sd with the values of each seed, and the gain by the first one."""
    first, titles = scores.keys[0], [TITLES.get(key, key) for key in scores.keys]
    rows = []
    for row in scores.rows:
        cells = []
        for key in scores.keys:
            text = spread_text(row.score(key), METRICS[key].decimals if key in METRICS else 2)
            values = list_text(f"{value:.4g}" for value in row.values.get(key, {}).values())
            cells.append(f"{text} ({values})" if "," in values else text)
        gain = spread_text(row.gain(first), sign=True) if first in row.gains else ""
        rows.append([row.label, row.subset, list_text(row.seeds), *cells, gain])
    return _table(["", "set", "seeds", *titles, f"gain, {titles[0]}"], rows)


def _main_table(experiment: Record, group: str) -> str:
    metric, systems = experiment["compared"]["metric"], _systems(experiment, group).values()
    others = [key for system in systems for scores in system.scores.values() for key in scores]
    others = [key for key in dict.fromkeys(others) if key != metric]
    titles = [TITLES[key] for key in others]
    rows = [
        [
            system.label,
            list_text(f"{seed}: {scores[metric]:.2f}" for seed, scores in system.scores.items()),
            *map(system.mean, (metric, *others)),
            system.gain,
            system.p,
        ]
        for system in systems
    ]
    return _table(["", f"{TITLES[metric]} by seed", "mean ± sd", *titles, "gain", "p by seed"], rows)


def _ablation_table(experiment: Record, group: str) -> str:
    """A group's systems after the main baseline and the main system, each with the gain over its own baseline."""
    metric = experiment["compared"]["metric"]
    leaders = (experiment["baseline"], experiment["main"])
    main = {
        name: system for name, system in _systems(experiment, MAIN_GROUP).items() if name in leaders
    }  # in the order of the report
    rows = []
    for system in {**main, **_systems(experiment, group)}.values():
        gains = list_text(f"{seed}: {signed(gain)}" for seed, gain in system.compared["gains"].items())
        rows.append([system.label, list_text(system.scores), system.mean(metric), system.gain, gains])
    table = _table(["", "seeds", TITLES[metric], "gain", "gain by seed"], rows)
    return f"**{GROUP_TITLES.get(group, group)}**\n\n{table}"


def _further_table(experiment: Record, name: str) -> str:
    runs = [Run(**{key: run[key] for key in RUN_FIELDS}) for run in experiment["runs"]]
    name = name.removeprefix(PREFIX)
    leaders = (experiment["baseline"], experiment["main"])
    return further_table(further_scores(name, experiment["other_scores"][name], runs, leaders))


def _store_table(experiment: Record, _: str) -> str:
    """Each store with what its teacher knows: of validation positions while it trained, of the training targets here."""
    rows = []
    for name, store in experiment["stores"].items():
        mass, accuracy = store["captured_mass"].get("1", {}), store["gold_accuracy"]
        rows.append([
            name,
            *_teacher_cells(experiment, Path(store["teacher"]).parent.name),
            str(store["passes"]),
            percent(store["scored_share"]),
            _knows(None if accuracy is None else 100 * accuracy, store["gold_perplexity"]),
            *(percent(mass.get(k)) for k in _SHOWN_K),
        ])  # fmt: skip
    head = [
        "store", "teacher's updates", "masked accuracy, perplexity (validation)", "passes", "covered",
        "accuracy, perplexity (training targets)", *(f"k = {k} holds at T = 1" for k in _SHOWN_K),
    ]  # fmt: skip
    return _table(head, rows)


def _time_table(experiment: Record, _: str) -> str:
    """Wall-clock time of every kind of step: the shortest of its kind, which was disturbed least."""
    rows = [
        [name, str(len(times)), duration(min(times.values()))]
        for name, times in step_rows(experiment["seconds"]).items()
    ]
    return _table(["step", "runs", "shortest"], rows)


def _growth_row(experiment: Record) -> list[str]:
    pairs = f"{experiment['training_pairs']:,}"
    systems, metric = _systems(experiment, MAIN_GROUP), experiment["compared"]["metric"]
    base, main = (systems.get(experiment[role]) for role in ("baseline", "main"))
    if base is None or main is None or not main.compared["gains"]:
        raise ValueError(
            f"the experiment of {pairs} pairs has no gain of `{experiment['main']}` over "
            f"`{experiment['baseline']}` yet"
        )
    known = _teacher_cells(experiment, main.teacher)
    return [pairs, *known, base.mean(metric), main.mean(metric), main.gain, main.p]


def _teacher_cells(experiment: Record, teacher: str | None) -> list[str]:
    """Its updates (also those of the kept checkpoint, if a later one was worse), and what it knew on validation."""
    log = experiment["teachers"].get(teacher, {})
    updates, kept = ("–" if log.get(key) is None else f"{log[key]:,}" for key in ("updates", "best_at"))
    trained = updates if kept in (updates, "–") else f"{kept} of {updates}"
    return [trained, _knows(log.get("masked_accuracy"), log.get("perplexity"))]


def _knows(accuracy: float | None, perplexity: float | None) -> str:
    """Accuracy in per cent and perplexity."""
    return "–" if accuracy is None or perplexity is None else f"{accuracy:.1f} %, {perplexity:.2f}"


def _systems(experiment: Record, group: str) -> dict[str, System]:
    """Scored systems of a group by name, in the order of ``compared``, which is that of a report."""
    systems = {}
    for name, compared in experiment["compared"].get("systems", {}).items():
        runs = [run for run in experiment["runs"] if (run["system"], run["group"]) == (name, group)]
        runs = sorted((run for run in runs if _scores(experiment, run)), key=lambda run: run["seed"])
        if runs:
            scores = {run["seed"]: _scores(experiment, run) for run in runs}
            systems[name] = System(runs[0]["label"], runs[0]["teacher"], scores, compared)
    return systems


def _scores(experiment: Record, run: Record) -> dict[str, float]:
    return run["scores"].get(experiment["compared"].get("subset"), {})


def _reference(experiment: Record) -> str | None:
    """Digest of the reference."""
    return experiment["text_sha256"].get(f"{experiment['compared']['subset']}.{experiment['target_lang']}")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    text = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return text.replace("\u00a0", " ")


def pages() -> list[Path]:
    """Every page that may hold a table."""
    return [ROOT / "README.md", *sorted(ROOT.glob("examples/*/README.md")), *sorted(ROOT.glob("docs/*.md"))]


def filled(page: Path) -> str:
    """The page's text with its tables filled from the results files.

    Raises:
        ValueError: a results file lacks a table that the page names; the message names the page.
    """

    def table(place: re.Match[str]) -> str:
        record = json.loads((page.parent / place["file"]).read_text(encoding="utf-8"))
        names = place["groups"].split()
        try:
            if names == [GROWTH_TABLE]:
                tables = [growth_table(record["experiments"])]
            else:
                tables = [markdown_tables(experiment, names or None) for experiment in record["experiments"]]
        except ValueError as error:
            raise ValueError(f"{page}, `{place['file']}`: {error}") from None
        return place["head"] + "\n" + "\n".join(tables) + "\n" + place["tail"]

    return PLACE.sub(table, page.read_text(encoding="utf-8"))


def main() -> None:
    for page in [Path(name) for name in sys.argv[1:]] or pages():
        text = filled(page)
        if text != page.read_text(encoding="utf-8"):
            page.write_text(text, encoding="utf-8")
            print(page)


if __name__ == "__main__":
    main()
