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
from fairseq_bert_kd.report.read_scores import choose_metrics, further_scores

AS_RUN = 1.0  # fairseq's default; the workflow decodes with it unless its size sets another


def decoding_command(experiment: Experiment, run: Run, subset: str) -> str:
    """Command that makes the run's output, without its redirection: one that the experiment has run, for this run.

    Raises:
        ValueError: no main student is decoded yet.
    """
    for line in (experiment.folder / "steps.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        for other in experiment.runs:
            if other.group == MAIN_GROUP and record["step"] == f"outputs/{other.name}.{subset}":
                command: str = record["command"].split(" > ")[0]
                return command.replace(f"students/{other.name}/", f"students/{run.name}/")
    raise ValueError(
        f"{experiment.folder}/steps.jsonl has no output of a main student; finish the experiment first"
    )


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
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        unfinished = path.with_suffix(".part")
        with open(unfinished, "wb") as file:
            finished = subprocess.run(
                ["bash", "-c", f"{command} --lenpen {penalty}"], cwd=experiment.folder, stdout=file,
                stderr=subprocess.PIPE, check=False, env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
            )  # fmt: skip
        if finished.returncode:
            raise RuntimeError(
                f"decoding {run.name} ended with {finished.returncode}:\n{finished.stderr[-2000:].decode(errors='replace')}"
            )
        unfinished.rename(path)
    references = read_lines(experiment.text(subset, experiment.target_lang))
    return SystemOutput(metrics, read_hypotheses(path, len(references)), references)


def without_brevity(output: SystemOutput) -> float:
    """BLEU without its brevity penalty, exp(1 - 1 / length ratio) for ratios below 1; 0 for empty output."""
    ratio = output.scores["length_ratio"]
    return output.scores["bleu"] / math.exp(min(0.0, 1 - 1 / ratio)) if ratio else 0.0


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
    chosen: dict[Run, float] = {}
    for run in runs:
        by_penalty = {
            penalty: decoded(experiment, run, "valid", penalty, metrics).scores[metric]
            for penalty in args.penalties
        }
        best = max(by_penalty, key=by_penalty.__getitem__)
        print(run.name, *(f"{penalty:g}: {score:.2f}" for penalty, score in by_penalty.items()), flush=True)
        chosen[run] = best
    record = scores_record(experiment, chosen, metrics, metric, args.penalties)
    path = experiment.folder / "scores-length-penalty.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    leaders = (experiment.baseline, experiment.main)
    print("", further_table(further_scores("length-penalty", record, runs, leaders)), sep="\n")
    print(f"\n{path}: `fairseq-bert-kd report` shows it in the page and the results file")


def scores_record(
    experiment: Experiment,
    chosen: dict[Run, float],
    metrics: dict[str, Metric],
    metric: str,
    penalties: list[float],
) -> dict[str, Any]:
    """Scores of the test set with fairseq's default penalty and with the chosen ones, as `further_scores` reads them."""
    rows = []
    for subset, by_run in {
        "test, penalty 1": dict.fromkeys(chosen, AS_RUN),
        "test, chosen penalty": chosen,
    }.items():
        for run, penalty in by_run.items():
            output = decoded(experiment, run, "test", penalty, metrics)
            rows.append({
                "system": run.system,
                "seed": run.seed,
                "subset": subset,
                metric: output.scores[metric],
                "length penalty": penalty,
                **({"BLEU / BP": without_brevity(output)} if metric == "bleu" else {}),
                "length_ratio": output.scores["length_ratio"],
            })  # fmt: skip
    listed = {
        **signatures(metrics),
        "length penalty": f"best of {list_text(penalties)} on the validation set",
    }
    return {"format": 1, "signatures": {"test": listed}, "scores": rows}


if __name__ == "__main__":
    main()
