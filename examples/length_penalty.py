"""Decode the main students of an experiment again, each with its best length penalty: does the gain stay?

    python examples/length_penalty.py OUT_DIR --penalties 0.6 1 1.5 2 3

Distilled students often write longer outputs, and BLEU penalises short ones. So each student gets the penalty (fairseq's
--lenpen; above 1 favours longer outputs) with the best score on the validation set. It is then scored on the test set, beside
its score with penalty 1, fairseq's default. OUT_DIR is a folder that examples/run.py wrote. Its decoding commands run
again with another --lenpen; existing outputs in OUT_DIR/lenpen are kept. BLEU / BP is BLEU without its brevity penalty. The
scores go to OUT_DIR/scores-length-penalty.json, which `fairseq-bert-kd report` shows in its page and results file. A student that
OUT_DIR has not decoded yet, or that has no checkpoint any more, is named and left out.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fill_tables import further_table  # beside this file

from fairseq_bert_kd.evaluation.fairseq_output import read_hypotheses, read_lines
from fairseq_bert_kd.evaluation.metric import Metric
from fairseq_bert_kd.evaluation.registry import signatures
from fairseq_bert_kd.evaluation.system_output import SystemOutput
from fairseq_bert_kd.report.formatting import list_text
from fairseq_bert_kd.report.read_experiment import MAIN_GROUP, Experiment, Notes, Run, read_experiment
from fairseq_bert_kd.report.read_further_scores import further_scores
from fairseq_bert_kd.report.read_scores import choose_metrics, normalise

AS_RUN = 1.0  # fairseq's default; the workflow decodes with it unless its size sets another


def decoding_command(experiment: Experiment, run: Run, subset: str) -> str:
    """Command that makes the run's output, without its redirection: one that the experiment has run, for this run.

    Raises:
        ValueError: no main student is decoded yet.
    """
    steps = experiment.folder / "steps.jsonl"
    main = {f"outputs/{run.name}.{subset}": run.name for run in experiment.runs if run.group == MAIN_GROUP}
    for line in reversed(steps.read_text(encoding="utf-8").splitlines()):  # the latest
        try:
            record = json.loads(line)
            step, command = str(record["step"]), str(record["command"])
        except (ValueError, TypeError, KeyError):
            continue  # cut short
        if other := main.get(step):
            return command.split(" > ")[0].replace(f"students/{other}/", f"students/{run.name}/")
    raise ValueError(f"{steps} has no output of a main student; finish the experiment first")


class CannotDecode(ValueError):
    """A run that is not finished, or whose checkpoint is gone."""


def decoded(
    experiment: Experiment, run: Run, subset: str, penalty: float, metrics: dict[str, Metric]
) -> SystemOutput:
    """The run's output with a length penalty; decoded if it does not exist, or is older than the checkpoint.

    Raises:
        CannotDecode: the experiment has not decoded the run itself (a checkpoint may be of a student that is still training), or
            there is no checkpoint to decode with.
        RuntimeError: fairseq-generate failed; the message ends in its last output.
    """
    if not (path := experiment.output(run, subset)).exists():
        raise CannotDecode(f"there is no outputs/{path.name} yet; finish the experiment with examples/run.py")
    command = decoding_command(experiment, run, subset)
    checkpoint = experiment.folder / "students" / run.name / "checkpoint_best.pt"
    trained = checkpoint.stat().st_mtime if checkpoint.exists() else 0.0
    by_the_experiment = penalty == AS_RUN and "--lenpen" not in command
    if not by_the_experiment:
        path = experiment.folder / "lenpen" / f"{run.name}.{subset}.{penalty}.out"
        if not path.exists() and not trained:
            raise CannotDecode(
                f"students/{run.name}/checkpoint_best.pt is not there; train it again, or put it back"
            )
    if not by_the_experiment and not (path.exists() and path.stat().st_mtime >= trained):
        path.parent.mkdir(exist_ok=True)
        script = f"({command} --lenpen {penalty}) > '{path}.part' && mv '{path}.part' '{path}'"
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
        finished = subprocess.run(
            ["bash", "-c", script],
            cwd=experiment.folder,
            env=environment,
            stderr=subprocess.PIPE,
            check=False,
        )
        if finished.returncode:
            end = finished.stderr[-2000:].decode(errors="replace")
            raise RuntimeError(f"decoding {run.name} ended with {finished.returncode}:\n{end}")
    references = read_lines(experiment.text(subset, experiment.target_lang))
    normalised = normalise(experiment, Notes(experiment.folder))
    return SystemOutput(metrics, normalised(read_hypotheses(path, len(references))), normalised(references))


def chosen_penalty(
    experiment: Experiment, run: Run, penalties: list[float], metrics: dict[str, Metric], metric: str
) -> float:
    """The penalty with which a run scores best on the validation set."""
    scores = {
        penalty: decoded(experiment, run, "valid", penalty, metrics).scores[metric] for penalty in penalties
    }
    print(run.name, *(f"{penalty:g}: {score:.2f}" for penalty, score in scores.items()), flush=True)
    return max(scores, key=scores.__getitem__)


def row_of(run: Run, subset: str, penalty: float, output: SystemOutput, metric: str) -> dict[str, Any]:
    """Scores as `further_scores` reads them; BLEU / BP divides by exp(1 - 1 / length ratio) for ratios below 1."""
    score, ratio = output.scores[metric], output.scores["length_ratio"]
    row = {"system": run.system, "seed": run.seed, "subset": subset, metric: score, "length penalty": penalty}
    if metric == "bleu":
        row["BLEU / BP"] = score / math.exp(min(0.0, 1 - 1 / ratio)) if ratio else 0.0
    return {**row, "length_ratio": ratio}


def main() -> int:
    """Exit status: 0, or 2 after an error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", metavar="OUT_DIR")
    parser.add_argument("--penalties", type=float, nargs="+", default=[0.6, 1.0, 1.5, 2.0, 3.0])
    args = parser.parse_args()
    try:
        compare(Path(args.out).absolute(), args.penalties)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"length_penalty.py: {error}", file=sys.stderr)
        return 2
    return 0


def compare(folder: Path, penalties: list[float]) -> None:
    """Choose a penalty for every main student, score with it, and write and print the scores.

    Raises:
        ValueError: the folder is no experiment with texts, or no student of it can be decoded.
        RuntimeError: see `decoded`.
    """
    notes = Notes(folder)
    experiment = read_experiment(folder, notes)
    if experiment.kind != "text":
        raise ValueError(
            f"{folder} compares {experiment.kind} by {experiment.metric}; give an experiment with texts"
        )
    metrics, metric = choose_metrics(experiment, notes)
    runs, as_run, tuned = [], [], []
    for run in sorted(experiment.runs, key=lambda run: run.system != experiment.baseline):
        if run.group != MAIN_GROUP:
            continue
        try:
            chosen = chosen_penalty(experiment, run, penalties, metrics, metric)
            of_penalty = {each: decoded(experiment, run, "test", each, metrics) for each in (AS_RUN, chosen)}
        except CannotDecode as error:
            print(f"{run.name} is left out: {error}", flush=True)
            continue
        runs.append(run)
        as_run.append(row_of(run, "test, penalty 1", AS_RUN, of_penalty[AS_RUN], metric))
        tuned.append(row_of(run, "test, chosen penalty", chosen, of_penalty[chosen], metric))
    if not runs:
        raise ValueError(f"{folder} has no main student that can be decoded; finish the experiment first")
    rule = {"length penalty": f"best of {list_text(penalties)} on the validation set"}
    record = {"format": 1, "signatures": {"test": signatures(metrics) | rule}, "scores": as_run + tuned}
    path = experiment.folder / "scores-length-penalty.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    leaders = (experiment.baseline, experiment.main)
    print("", further_table(further_scores("length-penalty", record, runs, leaders)), sep="\n")
    print(f"\n{path}: `fairseq-bert-kd report` shows it in the page and the results file")


if __name__ == "__main__":
    sys.exit(main())
