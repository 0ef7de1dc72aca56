"""``fairseq-bert-kd compare-runs``: paired tests of systems over the runs of several experiments."""

import argparse
import json
from typing import Any

from fairseq_bert_kd.report.compare_runs import runs_rows, runs_table
from fairseq_bert_kd.report.formatting import markdown_table

HELP = """Gains of systems over a baseline in all runs of one or several experiments, each run against the baseline's of the same
experiment and seed: mean, standard deviation, the sign test and Wilcoxon's signed-rank test, both two-sided and exact."""
NEEDED = {"title", "metric", "baseline", "compared", "runs"}  # of an experiment
EXAMPLE = "example: fairseq-bert-kd compare-runs trec/results.json snips/results.json --baseline unigram --systems smoothed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results", nargs="+", metavar="FILE", help="results files (fairseq-bert-kd report --results)"
    )
    parser.add_argument(
        "--baseline", metavar="SYSTEM", help="system to compare with (default: the experiments' baseline)"
    )
    parser.add_argument(
        "--systems", nargs="+", metavar="SYSTEM", help="systems to compare (default: all others)"
    )


def main(args: argparse.Namespace) -> None:
    """Print the table.

    Raises:
        ValueError: see `runs_rows`, or a file is no results file.
    """
    experiments = [experiment for path in args.results for experiment in read_experiments(path)]
    head, *rows = runs_table(runs_rows(experiments, args.baseline, args.systems))
    print(markdown_table(head, rows))


def read_experiments(path: str) -> list[dict[str, Any]]:
    """Experiments of a results file.

    Raises:
        ValueError: it is none.
    """
    with open(path, encoding="utf-8") as file:
        try:
            experiments = json.load(file)["experiments"]
            if experiments and all(experiment.keys() >= NEEDED for experiment in experiments):
                return experiments
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
    raise ValueError(
        f"`{path}` is no results file; write one with `fairseq-bert-kd report FOLDER --results FILE`"
    )
