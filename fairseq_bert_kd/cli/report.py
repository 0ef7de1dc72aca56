"""``fairseq-bert-kd report``: experiments as one page, figures and a results file."""

import argparse
from pathlib import Path

from fairseq_bert_kd.compat import import_extra
from fairseq_bert_kd.output_files import write_text
from fairseq_bert_kd.report.experiment_report import make_report, note_other_data
from fairseq_bert_kd.report.page import figure_paths, render, write_figures
from fairseq_bert_kd.report.results_file import write_results

HELP = """Write one HTML page about experiments: tables, learning curves, gains by length, sentences and the teacher's soft
labels. The page needs no network. Experiments may be half finished: the page lists what is missing."""
EXAMPLE = "example: fairseq-bert-kd report OUT --output report.html --results results.json --figures figures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUNS", help="folders that examples/run.py wrote")
    parser.add_argument("--output", required=True, metavar="FILE", help="the page")
    parser.add_argument("--results", metavar="FILE", help="also write scores, times and digests as JSON")
    parser.add_argument("--figures", metavar="DIR", help="also write figures as PNG files")
    parser.add_argument(
        "--subset",
        choices=("test", "valid"),
        default="test",
        help="compared outputs (default: test)",
    )
    parser.add_argument(
        "--sentences",
        type=_numbers,
        metavar="N[,N...]",
        help="training sentences, from 0, whose soft labels are shown (default: chosen by the rule in docs/report.md)",
    )
    parser.add_argument(
        "--comet",
        metavar="MODEL",
        default="",
        help="also score texts with COMET: path of a checkpoint or hub name (package unbabel-comet; default: not)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def main(args: argparse.Namespace) -> None:
    outputs = [Path(path) for path in (args.output, args.results) if path]
    if len(outputs) == 2 and outputs[0].absolute() == outputs[1].absolute():
        raise ValueError(f"--output and --results are both `{args.output}`; give two names")
    _check_absent(outputs, args.overwrite)
    for module in ("jinja2", "matplotlib"):
        import_extra(module)
    folders = [Path(folder).absolute() for folder in args.runs]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError(f"an experiment is given twice: {' '.join(args.runs)}; name each once")
    reports = [make_report(folder, args.subset, args.sentences, args.comet) for folder in folders]
    note_other_data(reports)
    if args.figures:
        outputs += _check_absent(figure_paths(args.figures, reports), args.overwrite)
    page = render(reports)
    Path(args.output).parent.mkdir(parents=True, exist_ok=True)
    write_text(args.output, page)
    if args.results:
        write_results(args.results, reports)
    if args.figures:
        write_figures(args.figures, reports)
    for path in outputs:
        print(path)


def _check_absent(paths: list[Path], overwrite: bool) -> list[Path]:
    """The paths, checked: none is a folder, and none exists without ``--overwrite``."""
    for path in paths:
        if path.is_dir():
            raise ValueError(f"`{path}` is a folder; name a file")
        if path.exists() and not overwrite:
            raise FileExistsError(f"`{path}` exists; pass --overwrite to replace it")
    return paths


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers like 3,17, got {text!r}") from None
