"""Decode the main students of an experiment again, each with its best length penalty: does the gain stay?

    python examples/length_penalty.py OUT_DIR --penalties 0.6 1 1.5 2 3

Distilled students often write longer outputs, and BLEU penalises short ones. So each student gets the penalty (fairseq's
--lenpen; above 1 favours longer outputs) with the best score on the validation set. It is then scored on the test set, beside
its score with penalty 1, fairseq's default. OUT_DIR is a folder that examples/run.py wrote. Its decoding commands run
again with another --lenpen; existing outputs in OUT_DIR/lenpen are kept. BLEU / BP is BLEU without its brevity penalty. The
scores go to OUT_DIR/scores-length-penalty.json, which `fairseq-bert-kd report` shows in its page and results file.
"""

import argparse
import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any

from fill_tables import further_table  # beside this file

from fairseq_bert_kd.evaluation.fairseq_output import read_hypotheses, read_lines
from fairseq_bert_kd.evaluation.metric import Metric
from fairseq_bert_kd.evaluation.registry import signatures
from fairseq_bert_kd.evaluation.system_output import SystemOutput
from fairseq_bert_kd.report.formatting import list_text
from fairseq_bert_kd.report.read_experiment import MAIN_GROUP, Experiment, Notes, Run, read_experiment
from fairseq_bert_kd.report.read_scores import choose_metrics, further_scores, normalise

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
        except ValueError:
            continue  # cut short
        if other := main.get(record["step"]):
            command: str = record["command"].split(" > ")[0]
            return command.replace(f"students/{other}/", f"students/{run.name}/")
    raise ValueError(f"{steps} has no output of a main student; finish the experiment first")


def decoded(
    experiment: Experiment, run: Run, subset: str, penalty: float, metrics: dict[str, Metric]
) -> SystemOutput:
    """The run's output with a length penalty; decoded if it does not exist.

    Raises:
        RuntimeError: fairseq-generate failed; the message ends in its last output.
    """
    command = decoding_command(experiment, run, subset)
    path = experiment.folder / "lenpen" / f"{run.name}.{subset}.{penalty}.out"
    if penalty == AS_RUN and "--lenpen" not in command:
        path = experiment.output(run, subset)
    checkpoint = experiment.folder / "students" / run.name / "checkpoint_best.pt"
    own = path.parent.name == "lenpen"
    if not path.exists() or (
        own and checkpoint.exists() and checkpoint.stat().st_mtime > path.stat().st_mtime
    ):
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", metavar="OUT_DIR")
    parser.add_argument("--penalties", type=float, nargs="+", default=[0.6, 1.0, 1.5, 2.0, 3.0])
    args = parser.parse_args()
    notes = Notes(args.out)
    experiment = read_experiment(Path(args.out).absolute(), notes)
    metrics, metric = choose_metrics(experiment, notes)
    runs = [run for run in experiment.runs if run.group == MAIN_GROUP]
    runs.sort(key=lambda run: run.system != experiment.baseline)
    chosen = {run: chosen_penalty(experiment, run, args.penalties, metrics, metric) for run in runs}
    rows = []
    for name, penalties in (("penalty 1", dict.fromkeys(runs, AS_RUN)), ("chosen penalty", chosen)):
        for run, penalty in penalties.items():
            output = decoded(experiment, run, "test", penalty, metrics)
            rows.append(row_of(run, f"test, {name}", penalty, output, metric))
    rule = {"length penalty": f"best of {list_text(args.penalties)} on the validation set"}
    record = {"format": 1, "signatures": {"test": signatures(metrics) | rule}, "scores": rows}
    path = experiment.folder / "scores-length-penalty.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    leaders = (experiment.baseline, experiment.main)
    print("", further_table(further_scores("length-penalty", record, runs, leaders)), sep="\n")
    print(f"\n{path}: `fairseq-bert-kd report` shows it in the page and the results file")


if __name__ == "__main__":
    main()
