"""Write the tables of results files into the pages that show them.

    python examples/fill_tables.py [PAGE...]

A page (default: README.md, examples/*/README.md, docs/*.md) marks each place by two lines; the text between them is replaced:

    <!-- table: results/laptop.json main -->
    <!-- end of table -->

The file, or the files one after another, are relative to the page. Names of tables follow it (see `markdown_tables`), in
quotes where they have spaces; without names it is all groups of systems.
Files that hold one table each (`table-NAME.json`) are one table; their columns must be the same.
A file of `fairseq-bert-kd gains --json` has the tables `reference_length`, `source_length` and `position`.
The name `training-pairs` alone is one table of all experiments, and so is `paired-runs`, every system over all runs of
them against their baseline (`paired-runs:SYSTEM`: against that one; `paired-runs:SYSTEM:OTHER:...`: only those others).
"""

import json
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fairseq_bert_kd.evaluation.registry import METRICS, TITLES
from fairseq_bert_kd.evaluation.significance import Spread, spread
from fairseq_bert_kd.report import read_tables
from fairseq_bert_kd.report.compare_runs import runs_rows, runs_table
from fairseq_bert_kd.report.compare_systems import GROUP_TITLES
from fairseq_bert_kd.report.formatting import (
    duration,
    list_text,
    markdown_table,
    p_text,
    percent,
    signed,
    spread_text,
)
from fairseq_bert_kd.report.read_experiment import MAIN_GROUP, RUN_FIELDS, Run, step_rows
from fairseq_bert_kd.report.read_further_scores import PREFIX, FurtherScores, further_scores

ROOT = Path(__file__).parents[1]
HEAD = r"<!-- table: (?P<files>\S+\.json(?: \S+\.json)*)(?P<groups>( \S+)*) -->\n"
PLACE = re.compile(rf"(?P<head>{HEAD})(?P<table>.*?)(?P<tail><!-- end of table -->)", re.DOTALL)
Record = Mapping[str, Any]
GROWTH_TABLE = "training-pairs"
RUNS_TABLE = "paired-runs"
GAIN_TABLES = ("reference_length", "source_length", "position")
_SHOWN_K = ("1", "8", "64")
_TEACHER_HEAD = ("teacher's updates", "masked accuracy, perplexity (validation)")
_SAME_IN_GROWTH = ("task", "size", "teacher", "baseline", "main", "metric", "lowercase", "bleu_tokenize")


class System(NamedTuple):
    """The scored runs of a system: one of them, scores by seed and metric, and its gains as in the results file."""

    run: Record
    scores: dict[int, dict[str, float]]
    compared: Record

    def mean(self, metric: str) -> str:
        return _mean(metric, spread([scores[metric] for scores in self.scores.values()]))

    def gains(self) -> list[str]:
        """Mean gain, and p by seed."""
        mean, sd, gains, p = (self.compared[key] for key in ("mean_gain", "sd_gain", "gains", "p"))
        gain = "" if mean is None else spread_text(Spread(mean, sd, len(gains)), sign=True)
        return [gain, _by_seed(p, p_text)]


def markdown_tables(experiment: Record, names: Sequence[str] | None = None) -> str:
    """The tables of an experiment, with a heading before those of ablations.

    Args:
        experiment: one of ``experiments`` of a results file.
        names: groups of systems, "stores" (what the teachers know), "times" and "scores-NAME" (a file of further
            scores) or "table-NAME" (a file with a table), in this order; None for all groups.

    Raises:
        ValueError: a group has no scored system.
    """
    groups = groups_of(experiment)
    further = [f"{PREFIX}{name}" for name in experiment.get("other_scores", {})]
    beside = [f"{read_tables.PREFIX}{name}" for name in experiment.get("other_tables", {})]
    tables: dict[str, Callable[[Record, str], str]] = {
        **dict.fromkeys(groups, _ablation_table),
        **({MAIN_GROUP: _main_table} if MAIN_GROUP in groups else {}),
        **dict.fromkeys(further, _further_table),
        **dict.fromkeys(beside, _beside_table),
        "stores": _store_table,
        "times": _time_table,
    }
    for name in names or ():
        if name not in tables:
            known = list_text([*groups, *further, *beside]) or "none"
            raise ValueError(f"no system of the group `{name}` has a score; there are: {known}")
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
        reason = "must have the same reference, theirs differ; score them on one test set"
        raise ValueError(f"experiments in one table of training pairs {reason}")
    pairs = [experiment["training_pairs"] for experiment in experiments]
    if None in pairs or len(set(pairs)) < len(pairs):
        raise ValueError(
            f"each experiment must have its own number of training pairs, these have {list_text(pairs)}"
        )
    metric, rows, labels = experiments[0]["compared"]["metric"], [], []
    for experiment in sorted(experiments, key=lambda experiment: experiment["training_pairs"]):
        systems, number = _systems(experiment, MAIN_GROUP), f"{experiment['training_pairs']:,}"
        base, main = (systems.get(name) for name in _leaders(experiment))
        if base is None or main is None or not main.compared["gains"]:
            main_name, base_name = experiment["main"], experiment["baseline"]
            raise ValueError(
                f"the experiment of {number} pairs has no gain of `{main_name}` over `{base_name}` yet"
            )
        known = _teacher_cells(experiment, [main.run["teacher"]])
        rows.append([number, *known, base.mean(metric), main.mean(metric), *main.gains()])
        labels = [f"{system.run['label']}, {TITLES[metric]}" for system in (base, main)]
    return _table(["training pairs", *_TEACHER_HEAD, *labels, "gain", "p by seed"], rows) + "\n"


def paired_runs_table(experiments: Sequence[Record], name: str = RUNS_TABLE) -> str:
    """Paired tests of all systems over the runs of several experiments.

    Args:
        experiments: of a results file.
        name: of the table: `RUNS_TABLE`, or that and ``:SYSTEM``, the baseline, or that and ``:OTHER`` for each system.

    Raises:
        ValueError: see `runs_rows`.
    """
    baseline, *systems = name.split(":")[1:] or [None]
    head, *rows = runs_table(runs_rows(experiments, baseline, systems or None))
    return _table(head, rows) + "\n"


def joined_table(records: Sequence[Record]) -> str:
    """The rows of several files of one table each (``table-NAME.json``), one after another.

    Raises:
        ValueError: their columns are not the same, or a file is no table; see also `further_table` of `report.read_tables`.
    """
    tables = [read_tables.further_table("", record) for record in records]
    heads = {tuple(table.head) for table in tables}
    if len(heads) > 1:
        raise ValueError(f"tables in one must have the same columns, these have {sorted(map(list, heads))}")
    return _table(tables[0].head, [row for table in tables for row in table.rows]) + "\n"


def gain_tables(record: Record, names: Sequence[str] | None = None) -> str:
    """Gains by length and by position that ``fairseq-bert-kd gains`` found.

    Args:
        record: what it wrote.
        names: of `GAIN_TABLES`, in this order; None for all that it holds.

    Raises:
        ValueError: the file has no such gains.
    """
    present = [name for name in GAIN_TABLES if name in record]
    for name in names or ():
        if name not in present:
            raise ValueError(f"no gains of the name `{name}`; there are: {list_text(present) or 'none'}")
    return "\n\n".join(_gain_table(record, name) for name in names or present) + "\n"


def _gain_table(record: Record, name: str) -> str:
    """Gain of each bin with its interval; by position also what the baseline has."""
    bins, unit = record[name], TITLES[record["metric"]]
    intervals = [f"{signed(item['low'])} to {signed(item['high'])}" for item in bins]
    if name == "position":
        head = [
            "part of the reference",
            f"{record['order']}-grams",
            record["baseline"],
            "gain, per 100",
            "interval",
        ]
        rows = [
            [
                f"{item['first']} to {item['last']} %",
                f"{item['ngrams']:,}",
                f"{item['baseline']:.2f}",
                signed(item["gain"]),
            ]
            for item in bins
        ]
    else:
        head = [f"words of the {name.partition('_')[0]}", "sentences", f"gain, {unit}", "interval"]
        rows = [
            [f"{item['shortest']} to {item['longest']}", f"{item['sentences']:,}", signed(item["gain"])]
            for item in bins
        ]
    return _table(head, [[*row, interval] for row, interval in zip(rows, intervals, strict=True)])


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
            text = _mean(key, row.score(key))
            values = list_text(f"{value:.4g}" for value in row.values.get(key, {}).values())
            cells.append(f"{text} ({values})" if "," in values else text)
        gain = spread_text(row.gain(first), sign=True) if first in row.gains else ""
        rows.append([row.label, row.subset, list_text(row.seeds), *cells, gain])
    return _table(["", "set", "seeds", *titles, f"gain, {titles[0]}"], rows)


def _main_table(experiment: Record, group: str) -> str:
    metric, systems = experiment["compared"]["metric"], _systems(experiment, group).values()
    keys = [key for system in systems for scores in system.scores.values() for key in scores]
    others = [key for key in dict.fromkeys(keys) if key != metric]
    rows = []
    for system in systems:
        by_seed = {seed: scores[metric] for seed, scores in system.scores.items()}
        means = map(system.mean, (metric, *others))
        rows.append([system.run["label"], _by_seed(by_seed, "{:.2f}".format), *means, *system.gains()])
    titles = [TITLES[key] for key in others]
    return _table(["", f"{TITLES[metric]} by seed", "mean ± sd", *titles, "gain", "p by seed"], rows)


def _ablation_table(experiment: Record, group: str) -> str:
    """A group's systems after the main baseline and the main system, each with the gain over its own baseline."""
    metric, main = experiment["compared"]["metric"], _systems(experiment, MAIN_GROUP)
    leaders = {name: system for name, system in main.items() if name in _leaders(experiment)}
    rows = []
    for system in (leaders | _systems(experiment, group)).values():
        gains = _by_seed(system.compared["gains"], signed)
        rows.append(
            [system.run["label"], list_text(system.scores), system.mean(metric), system.gains()[0], gains]
        )
    table = _table(["", "seeds", TITLES[metric], "gain", "gain by seed"], rows)
    return f"**{GROUP_TITLES.get(group, group)}**\n\n{table}"


def _further_table(experiment: Record, name: str) -> str:
    runs = [Run(**{key: run[key] for key in RUN_FIELDS}) for run in experiment["runs"]]
    name = name.removeprefix(PREFIX)
    return further_table(further_scores(name, experiment["other_scores"][name], runs, _leaders(experiment)))


def _beside_table(experiment: Record, name: str) -> str:
    name = name.removeprefix(read_tables.PREFIX)
    table = read_tables.further_table(name, experiment["other_tables"][name])
    return _table(table.head, table.rows)


def _store_table(experiment: Record, _: str) -> str:
    """Each store with what its teacher knows: of validation positions while it trained, of the training targets here."""
    rows = []
    for name, store in experiment["stores"].items():
        mass, accuracy = store["captured_mass"].get("1", {}), store["gold_accuracy"]
        knows = _knows(None if accuracy is None else 100 * accuracy, store["gold_perplexity"])
        named = [teacher["teacher"] for teacher in store.get("folds", [])] or [store["teacher"]]
        teacher = _teacher_cells(experiment, [Path(path).parent.name for path in named])
        covered, held = percent(store["scored_share"]), (percent(mass.get(k)) for k in _SHOWN_K)
        rows.append([name, *teacher, str(store["passes"]), covered, knows, *held])
    head = [*_TEACHER_HEAD, "passes", "covered", "accuracy, perplexity (training targets)"]
    return _table(["store", *head, *(f"k = {k} holds at T = 1" for k in _SHOWN_K)], rows)


def _time_table(experiment: Record, _: str) -> str:
    """Wall-clock time of every kind of step: the shortest of its kind, which was disturbed least."""
    rows = [
        [name, str(len(times)), duration(min(times.values()))]
        for name, times in step_rows(experiment["seconds"]).items()
    ]
    return _table(["step", "runs", "shortest"], rows)


def _teacher_cells(experiment: Record, teachers: Sequence[str | None]) -> list[str]:
    """Updates (also those of the kept checkpoint, if a later one was worse), and what was known on validation.

    Of several teachers, one for each fold, updates that are not the same are a range, and the others are means.
    """
    logs = [experiment["teachers"].get(teacher, {}) for teacher in teachers]
    updates, kept = (_range([log.get(key) for log in logs]) for key in ("updates", "best_at"))
    trained = updates if kept in (updates, "–") else f"{kept} of {updates}"
    means = (_mean_or_none([log.get(key) for log in logs]) for key in ("masked_accuracy", "perplexity"))
    return [trained, _knows(*means)]


def _range(numbers: Sequence[int | None]) -> str:
    known = sorted({number for number in numbers if number is not None})
    return " to ".join(f"{number:,}" for number in dict.fromkeys([known[0], known[-1]])) if known else "–"


def _mean_or_none(numbers: Sequence[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return sum(known) / len(known) if known else None


def _knows(accuracy: float | None, perplexity: float | None) -> str:
    """Accuracy in per cent and perplexity."""
    return "–" if accuracy is None or perplexity is None else f"{accuracy:.1f} %, {perplexity:.2f}"


def _systems(experiment: Record, group: str) -> dict[str, System]:
    """Scored systems of a group by name, in the order of ``compared``, which is that of a report."""
    systems = {}
    runs = sorted(experiment["runs"], key=lambda run: run["seed"])
    for name, compared in experiment["compared"].get("systems", {}).items():
        own = [run for run in runs if (run["system"], run["group"]) == (name, group)]
        if scores := {run["seed"]: _scores(experiment, run) for run in own if _scores(experiment, run)}:
            systems[name] = System(own[0], scores, compared)
    return systems


def _leaders(experiment: Record) -> tuple[str, str]:
    return experiment["baseline"], experiment["main"]


def _mean(metric: str, value: Spread | None) -> str:
    return spread_text(value, METRICS[metric].decimals if metric in METRICS else 2)


def _by_seed(values: Mapping[Any, float], text: Callable[[float], str]) -> str:
    return list_text(f"{seed}: {text(value)}" for seed, value in values.items())


def _scores(experiment: Record, run: Record) -> dict[str, float]:
    return run["scores"].get(experiment["compared"].get("subset"), {})


def _reference(experiment: Record) -> str | None:
    """Digest of the reference."""
    return experiment["text_sha256"].get(f"{experiment['compared']['subset']}.{experiment['target_lang']}")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return markdown_table(head, rows).replace("\u00a0", " ")


def pages() -> list[Path]:
    """Every page that may hold a table."""
    return [ROOT / "README.md", *sorted(ROOT.glob("examples/*/README.md")), *sorted(ROOT.glob("docs/*.md"))]


def filled(page: Path) -> str:
    """The page's text with its tables filled from the results files.

    Raises:
        ValueError: a results file lacks a table that the page names, or a place has no end; the message names the page.
    """
    text = page.read_text(encoding="utf-8")
    places = list(PLACE.finditer(text))
    if len(places) < len(re.findall(HEAD, text)):
        first = next((place for place in places if re.search(HEAD, place["table"])), None)
        where = f"after `{first['head'].strip()}`" if first else "after the last place"
        raise ValueError(
            f"{page} lacks `<!-- end of table -->` {where}; add it, or what follows would be replaced"
        )

    def table(place: re.Match[str]) -> str:
        names = shlex.split(place["groups"])
        files = [page.parent / file for file in place["files"].split()]
        records = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        experiments = [found for record in records for found in record.get("experiments", ())]
        try:
            if records and all("rows" in record for record in records):
                text = joined_table(records)
            elif not experiments:
                text = "\n".join(gain_tables(record, names or None) for record in records)
            elif names == [GROWTH_TABLE]:
                text = growth_table(experiments)
            elif names and names[0].split(":")[0] == RUNS_TABLE:
                text = "\n".join(paired_runs_table(experiments, name) for name in names)
            else:
                text = "\n".join(markdown_tables(experiment, names or None) for experiment in experiments)
        except ValueError as error:
            raise ValueError(f"{page}, `{place['files']}`: {error}") from None
        return f"{place['head']}\n{text}\n{place['tail']}"

    return PLACE.sub(table, text)


def main() -> None:
    for page in [Path(name) for name in sys.argv[1:]] or pages():
        text = filled(page)
        if text != page.read_text(encoding="utf-8"):
            page.write_text(text, encoding="utf-8")
            print(page)


if __name__ == "__main__":
    main()
