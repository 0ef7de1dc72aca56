"""``fairseq-bert-kd report``: experiments as one page, figures and a results file."""

import argparse
import logging
from pathlib import Path

from fairseq_bert_kd.compat import import_extra
from fairseq_bert_kd.report.experiment import read_experiment
from fairseq_bert_kd.report.figures import figure_paths, write_figures
from fairseq_bert_kd.report.notes import Notes
from fairseq_bert_kd.report.page import render
from fairseq_bert_kd.report.provenance import note_other_data
from fairseq_bert_kd.report.results_file import write_results
from fairseq_bert_kd.report.section import Choices, make_section

HELP = """Tables, learning curves, gains by length, sentences and the teacher's soft labels of experiments, as one HTML
page that needs no network. Works on half-finished experiments: the page lists what is missing."""
EXAMPLE = "example: fairseq-bert-kd report OUT --out report.html --results results.json --figures figures"
LOGGER = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument("runs", nargs="+", metavar="RUNS", help="folders that examples/*/run.sh wrote")
    parser.add_argument("--out", required=True, metavar="FILE", help="the page")
    parser.add_argument("--results", metavar="FILE", help="also write scores, times and digests as JSON")
    parser.add_argument("--figures", metavar="DIR", help="also write the figures as PNG files")
    parser.add_argument(
        "--subset",
        choices=("test", "valid"),
        default="test",
        help="outputs that the page compares (default: test)",
    )
    parser.add_argument(
        "--sentences",
        type=_numbers,
        metavar="N[,N...]",
        help="training sentences, from 0, whose soft labels are shown (default: chosen by the rule that docs/report.md states)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")


def main(args: argparse.Namespace) -> None:
    outputs = [Path(path) for path in (args.out, args.results) if path]
    if len(outputs) == 2 and outputs[0].absolute() == outputs[1].absolute():
        raise ValueError(f"--out and --results are both `{args.out}`; give two names")
    _refuse_existing(outputs, args.overwrite)
    for module in ("jinja2", "matplotlib"):
        import_extra(module)
    folders = [Path(folder).absolute() for folder in args.runs]
    if len(set(folders)) < len(folders):
        raise ValueError(f"an experiment is given twice: {' '.join(args.runs)}; name each once")
    notes = [Notes(folder) for folder in args.runs]
    experiments = [read_experiment(folder, found) for folder, found in zip(args.runs, notes, strict=True)]
    choices = Choices(args.subset, sentences=args.sentences)
    sections = [
        make_section(experiment, found, choices) for experiment, found in zip(experiments, notes, strict=True)
    ]
    note_other_data(experiments, [section.digests for section in sections], notes)
    if args.figures:
        outputs += _refuse_existing(figure_paths(args.figures, sections), args.overwrite)
    page = render(sections)
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    Path(args.out).write_text(page, encoding="utf-8")
    if args.results:
        write_results(args.results, sections)
    if args.figures:
        write_figures(args.figures, sections)
    for path in outputs:
        print(path)


def _refuse_existing(paths: list[Path], overwrite: bool) -> list[Path]:
    for path in paths:
        if path.is_dir():
            raise ValueError(f"`{path}` is a folder; name a file")
        if path.exists() and not overwrite:
            raise FileExistsError(f"`{path}` exists; pass --overwrite to replace it")
    return paths


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected numbers with commas between, like 3,17, got {text!r}"
        ) from None
