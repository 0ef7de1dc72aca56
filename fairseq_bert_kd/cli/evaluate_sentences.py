"""``fairseq-bert-kd evaluate-sentences``: how good a sentence model is, and whether it differs from another one."""

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_bert_kd.cli.sentence_presets import GLUE, glue_lines
from fairseq_bert_kd.cli.sentence_table import add_format_arguments
from fairseq_bert_kd.evaluation.fairseq_output import READERS, prediction_line
from fairseq_bert_kd.evaluation.metric import Metric, MetricSettings
from fairseq_bert_kd.evaluation.registry import METRICS, find_metric, signatures
from fairseq_bert_kd.evaluation.significance import SEED, bootstrap_interval, paired_test
from fairseq_bert_kd.evaluation.system_output import SystemOutput
from fairseq_bert_kd.output_files import check_new_file, write_text
from fairseq_bert_kd.storage.sentence_data import CLASSES, NUMBERS, SETS, SentenceSpec

HELP = "score a sentence model on a split or a file: accuracy, F1, correlations, with 95 % intervals and paired tests"
EXAMPLE = """examples:
  fairseq-bert-kd evaluate-sentences data-sst2 --path sst2/checkpoint_best.pt --predictions sst2.valid.txt
  fairseq-bert-kd evaluate-sentences data-sst2 --path small/checkpoint_best.pt --against sst2.valid.txt
  fairseq-bert-kd evaluate-sentences data-sst2 --path sst2/checkpoint_best.pt --input dev.tsv --task sst2
  fairseq-bert-kd evaluate-sentences data-sst2 --path sst2/checkpoint_best.pt --input test.tsv --task sst2 --glue SST-2.tsv
  fairseq-bert-kd evaluate-sentences data-stsb --path encoder/checkpoint_best.pt --sts --subset test"""
SCORED_KINDS = {CLASSES: "accuracy", NUMBERS: "spearman", SETS: "micro_f1"}  # and their main metrics
CHOICES = sorted(name for name, metric in METRICS.items() if metric.kind in SCORED_KINDS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        nargs="?",
        help="folder of prepared sentences (default: the one that the checkpoint was trained on)",
    )
    parser.add_argument(
        "--path",
        required=True,
        metavar="FILE",
        help="checkpoint of a sentence model; with --sts also the folder or hub name of a transformers encoder",
    )
    parser.add_argument("--subset", default="valid", help="split of the folder (default: %(default)s)")
    parser.add_argument(
        "--input", metavar="FILE", help="score this file instead of a split; the folder gives the dictionary"
    )
    add_format_arguments(parser)
    parser.add_argument(
        "--tokenizer",
        metavar="PATH",
        help="tokenizer for --input, folder or hub name (default: the one that the folder was prepared with)",
    )
    parser.add_argument(
        "--metric", choices=CHOICES, help="metric that comes first and is tested (default: that of the task)"
    )
    parser.add_argument(
        "--positive",
        metavar="CLASS",
        help="class whose F1 counts (default: that of the task, else the mean over the classes)",
    )
    parser.add_argument(
        "--against",
        metavar="FILE",
        help="predictions of another model for the same rows, written by --predictions: a paired test says whether the two "
        "differ",
    )
    parser.add_argument(
        "--predictions",
        metavar="FILE",
        help="write the predictions, one per row: names of classes, of all of a row's types with tabs between "
        "them, or numbers",
    )
    parser.add_argument(
        "--glue",
        metavar="FILE",
        help="write the predictions for --input, a test file of the GLUE task that --task names, as GLUE's server reads them",
    )
    parser.add_argument("--json", metavar="FILE", help="also write scores, intervals and tests to this file")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace existing --predictions, --glue and --json files"
    )
    parser.add_argument(
        "--sts",
        action="store_true",
        help="compare the cosine of the two sentences' vectors with the scores, instead of a classification head",
    )
    parser.add_argument(
        "--vector",
        help="with --sts: which of the model's vectors, such as mean or cls (default: the model's own)",
    )
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="rows at a time (default: %(default)s)"
    )
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")


def main(args: argparse.Namespace) -> None:
    """Predict, print the scores and write the files.

    Raises:
        ValueError: options that contradict each other, or data, predictions or a checkpoint that do not belong together.
        FileNotFoundError: a missing file or folder.
        FileExistsError: an output exists.
    """
    check_options(args)
    from fairseq_bert_kd.cli import sentence_predictions

    model = sentence_predictions.load(args.path, args.data, args.cpu, args.vector)
    rows = sentence_predictions.rows_to_predict(args, model)
    kind = NUMBERS if args.sts else model.task.predicted_kind
    if rows.references is None:
        if args.against:
            raise ValueError(f"--against compares by labels, and {rows.name} has none; leave it out")
        if not (args.predictions or args.glue):
            raise ValueError(
                f"{rows.name} has no labels to compare with; give --predictions FILE to write what the model says"
            )
        metrics = {}
    else:
        metrics = chosen_metrics(args, kind, model.task.spec)
    started = time.monotonic()
    predictions = (
        sentence_predictions.cosines(model, rows, args.batch_size, args.vector)
        if args.sts
        else sentence_predictions.predict(model, rows, args.batch_size)
    )
    seconds = time.monotonic() - started
    print(f"{rows.name}: {len(predictions):,} rows in {seconds:.1f} seconds")
    if args.predictions:
        write_text(
            args.predictions, "".join(f"{prediction_line(prediction)}\n" for prediction in predictions)
        )
    if args.glue:
        write_text(args.glue, "".join(f"{line}\n" for line in glue_lines(args.task, predictions)))
    results: dict[str, Any] = {"checkpoint": args.path, "set": rows.name, "rows": len(predictions)}
    if rows.references is not None:
        results |= scores(metrics, predictions, rows.references)
        if args.against:
            results["against"] = compare(args.against, kind, metrics, predictions, rows.references)
    if args.json:
        write_text(args.json, json.dumps(results, indent=2, ensure_ascii=False) + "\n")


def check_options(args: argparse.Namespace) -> None:
    """Check the options before anything is loaded.

    Raises:
        ValueError, FileNotFoundError, FileExistsError: as in `main`.
    """
    if args.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, got {args.batch_size}")
    of_input = {
        "--task": args.task,
        "--columns": args.columns,
        "--label-column": args.label_column,
        "--label-kind": args.label_kind != CLASSES,
        "--header": args.header,
        "--quoting": args.quoting != "none",
        "--tokenizer": args.tokenizer,
    }
    given = [option for option, used in of_input.items() if used]
    if given and not args.input:
        raise ValueError(
            f"{', '.join(given)}: these options say how to read --input FILE, which is not given; leave them out"
        )
    if not (args.sts or Path(args.path).is_file() or args.path.endswith(".pt")):
        raise ValueError(
            f"--path `{args.path}` must be a checkpoint that fairseq-train wrote, such as `{Path(args.path, 'checkpoint_best.pt')}`: "
            "of a transformers folder or hub name there are vectors, for --sts, and no classification head"
        )
    if args.vector and not args.sts:
        raise ValueError("--vector chooses a vector for --sts, which is not given; leave it out")
    if args.glue and (args.sts or not args.input or args.task not in GLUE):
        raise ValueError(
            f"--glue writes what a classifier or regression says of a test file of GLUE: give --input FILE and --task, one of "
            f"{', '.join(GLUE)}, without --sts"
        )
    if args.sts and args.metric and METRICS[args.metric].kind != NUMBERS:
        raise ValueError(
            f"--sts compares numbers, --metric {args.metric} compares classes; choose pearson or spearman"
        )
    for option in ("input", "against"):
        name = getattr(args, option)
        if name and not Path(name).is_file():
            raise FileNotFoundError(f"--{option} `{name}` does not exist, or is no file. Check its path")
    for option in ("predictions", "glue", "json"):
        if name := getattr(args, option):
            check_new_file(f"--{option}", name, args.overwrite)


def chosen_metrics(args: argparse.Namespace, kind: str, spec: SentenceSpec) -> dict[str, Metric]:
    """Metrics of the kind, the main one first.

    Raises:
        ValueError: a metric of another kind, or a class that the model does not know.
    """
    stated = spec.metric if spec.kind == kind else ""
    main = find_metric(args.metric or stated or SCORED_KINDS[kind])
    if main.kind != kind:
        raise ValueError(
            f"--metric {args.metric} compares {main.kind}, the model predicts {kind}; choose another metric"
        )
    positive = args.positive or spec.positive
    if args.positive and args.positive not in spec.names:
        raise ValueError(
            f"--positive `{args.positive}` is not a class of the model; its classes are {', '.join(spec.names) or 'none'}"
        )
    settings = MetricSettings(positive=positive)
    names = [
        main.name,
        *(name for name, metric in METRICS.items() if metric.kind == kind and name != main.name),
    ]
    return {name: METRICS[name](settings) for name in names}


def scores(metrics: Mapping[str, Metric], predictions: list[Any], references: list[Any]) -> dict[str, Any]:
    """Print and return every score with its 95 % interval by the bootstrap over rows."""
    output = SystemOutput(metrics, predictions, references)
    everything = np.arange(len(references))
    found = {}
    width = max(len(metric.title) for metric in metrics.values())
    for name, metric in metrics.items():

        def score(drawn: Any, name: str = name) -> float:
            return output.subset_score(name, drawn)

        low, high = bootstrap_interval(score, everything, np.random.default_rng(SEED))
        value = output.scores[name]
        found[name] = {"score": value, "low": low, "high": high}
        print(f"{metric.title:<{width}}  {value:6.2f}  [{low:.2f}, {high:.2f}]")
    listed = signatures(metrics)
    for title, signature in listed.items():
        print(f"{title}: {signature}")
    return {"scores": found, "signatures": listed}


def compare(
    path: str, kind: str, metrics: Mapping[str, Metric], predictions: list[Any], references: list[Any]
) -> dict[str, Any]:
    """Print and return the difference to another model's predictions, by the main metric and those that go with it.

    Raises:
        ValueError: another number of predictions, or predictions of another kind.
    """
    others = READERS[kind](path)
    if len(others) != len(references):
        raise ValueError(
            f"--against `{path}` has {len(others)} predictions for {len(references)} rows; give predictions of the same split"
        )
    baseline, system = (SystemOutput(metrics, values, references) for values in (others, predictions))
    main = next(iter(metrics.values()))
    found = {}
    for name in main.columns:
        test = paired_test(name, baseline, system)
        before, after = baseline.scores[name], system.scores[name]
        found[name] = {"score": before, "difference": after - before, "p": test.p, "test": test.signature}
        print(
            f"against {path}: {metrics[name].title} {before:.2f}, {after - before:+.2f}, p = {test.p:.2g} ({test.description})"
        )
    return {"predictions": path, **found}
