"""Systems over the runs of several experiments: each run against the baseline's run of the same experiment and seed."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from fairseq_bert_kd.evaluation.significance import RunsTest, runs_test
from fairseq_bert_kd.report.compare_systems import SystemRow
from fairseq_bert_kd.report.formatting import list_text, spread_text

LEAST_RUNS = 6  # with fewer, Wilcoxon's two-sided p is 0.0625 or more however they differ
Record = Mapping[str, Any]
HEAD = ("", "against", "runs", "gain", "better, equal, worse", "sign test, p", "Wilcoxon, p")


class RunsRow(NamedTuple):
    """A system in the table.

    Attributes:
        label: name in tables.
        baseline: name of its baseline in tables.
        test: outcome over its runs.
        unpaired: runs of the system or the baseline for which the other one has no score.
    """

    label: str
    baseline: str
    test: RunsTest
    unpaired: int


def runs_rows(
    experiments: Sequence[Record], baseline: str | None = None, systems: Sequence[str] | None = None
) -> list[RunsRow]:
    """Rows for systems of all experiments against one baseline, in the order of the first experiment.

    Args:
        experiments: experiments of results files, with one metric and subset; their runs count alike.
        baseline: system to compare with (default: the experiments' own).
        systems: systems to compare (default: all).

    Raises:
        ValueError: experiments that cannot be compared, an unknown system, or one without paired runs.
    """
    _check_alike(experiments, baseline)
    scores = _scores(experiments)
    base = baseline or experiments[0]["baseline"]
    for name in (base, *(systems or ())):
        if name not in scores:
            raise ValueError(f"no system `{name}` has a score; there are: {list_text(scores) or 'none'}")
    labels = {run["system"]: run["label"] for experiment in experiments for run in experiment["runs"]}
    rows = []
    for name in systems or [name for name in scores if name != base]:
        both = [scores[name][run] - scores[base][run] for run in scores[name] if run in scores[base]]
        if not both:
            raise ValueError(
                f"`{name}` and `{base}` have no run of the same experiment and seed; name others"
            )
        unpaired = len(scores[name].keys() ^ scores[base].keys())
        rows.append(RunsRow(labels[name], labels[base], runs_test(both), unpaired))
    return rows


def report_rows(experiments: Sequence[Mapping[str, Sequence[SystemRow]]]) -> list[RunsRow]:
    """Rows for the systems of experiments of one kind, each against its own baseline over all of their runs.

    Args:
        experiments: rows by group, of each experiment (`system_rows`). A system is the same one where name and baseline are.

    Returns:
        Those with at least `LEAST_RUNS` runs, in the order of the experiments.
    """
    gains: dict[tuple[str, str], list[float]] = {}
    labels: dict[tuple[str, str], tuple[str, str]] = {}
    unpaired: dict[tuple[str, str], int] = {}
    for rows in experiments:
        by_name = {row.system: row for made in rows.values() for row in made}
        for row in by_name.values():
            base = by_name.get(row.baseline or "")
            if base is None or not row.gains:
                continue
            key = (row.system, base.system)
            labels.setdefault(key, (row.label, base.label))
            gains.setdefault(key, []).extend(row.gains.values())
            unpaired[key] = unpaired.get(key, 0) + len(row.scores.keys() ^ base.scores.keys())
    return [
        RunsRow(*labels[key], runs_test(values), unpaired[key])
        for key, values in gains.items()
        if len(values) >= LEAST_RUNS
    ]


def runs_table(rows: Iterable[RunsRow]) -> list[list[str]]:
    """Cells of the table, its head first."""
    return [[*HEAD], *(_cells(row) for row in rows)]


def _cells(row: RunsRow) -> list[str]:
    test = row.test
    runs = f"{test.gain.n}" + (f" ({row.unpaired} without a partner)" if row.unpaired else "")
    counts = list_text([test.better, test.equal, test.worse])
    gain = spread_text(test.gain, sign=True)
    return [row.label, row.baseline, runs, gain, counts, f"{test.sign_p:.2g}", f"{test.wilcoxon_p:.2g}"]


def _check_alike(experiments: Sequence[Record], baseline: str | None) -> None:
    """Check that the runs of the experiments may be put together."""
    said: dict[str, list[Any]] = {
        "metric": [experiment["metric"] for experiment in experiments],
        # what was asked for is not always what could be compared
        "compared metric": [experiment["compared"].get("metric") for experiment in experiments],
        "subset": [experiment["compared"].get("subset") for experiment in experiments],
        **({} if baseline else {"baseline": [experiment["baseline"] for experiment in experiments]}),
    }
    for key, each in said.items():
        values = dict.fromkeys(each)
        if len(values) > 1:
            raise ValueError(
                f"the experiments differ in their {key} ({list_text(values)}); give experiments with the same one"
            )
    for one, other in combinations(experiments, 2):
        if _is_copy(one, other):
            raise ValueError(
                f"`{one['title']}` and `{other['title']}` have the same texts, and the runs of one with their scores are among the "
                "other's: they are no further runs; leave one out"
            )


def _is_copy(one: Record, other: Record) -> bool:
    """Whether all runs of one experiment are among the other's."""
    mine, theirs = (
        {
            (system, seed): score
            for system, by_run in _scores([made]).items()
            for (_, seed), score in by_run.items()
        }
        for made in (one, other)
    )
    within = mine.items() <= theirs.items() or theirs.items() <= mine.items()
    return bool(mine and theirs) and one.get("text_sha256") == other.get("text_sha256") and within


def _scores(experiments: Sequence[Record]) -> dict[str, dict[tuple[int, int], float]]:
    """Scores by system, then by number of the experiment and seed: titles may repeat."""
    found: dict[str, dict[tuple[int, int], float]] = {}
    for number, experiment in enumerate(experiments):
        compared = experiment["compared"]
        for run in experiment["runs"]:
            scores = run["scores"].get(compared.get("subset"), {})
            if scores:
                by_run = found.setdefault(run["system"], {})
                by_run[number, run["seed"]] = scores[compared["metric"]]
    return found
