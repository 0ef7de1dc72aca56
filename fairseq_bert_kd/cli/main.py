"""The console command ``fairseq-bert-kd``: one module per subcommand, imported when it runs."""

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence
from typing import NamedTuple

import fairseq_bert_kd


class Command(NamedTuple):
    """A subcommand.

    Attributes:
        module: module with HELP, add_arguments(parser) and main(args), imported when the command runs.
        summary: line of ``--help``, which so imports no torch.
    """

    module: str
    summary: str


CLI = "fairseq_bert_kd.cli"
COMMANDS = {
    "tokenize": Command(f"{CLI}.tokenize_corpus", "text to the teacher's pieces, losslessly"),
    "dump": Command(f"{CLI}.dump_teacher_topk", "store a teacher's top-k logits for every target position"),
    "score": Command(
        f"{CLI}.score_translations", "sacreBLEU of fairseq-generate's output on detokenised text"
    ),
    "store": Command(f"{CLI}.store_tools", "verify, show, merge, convert the stored logits"),
    "export-student": Command(
        f"{CLI}.export_student", "a student's checkpoint for stock fairseq and CTranslate2"
    ),
    "report": Command(f"{CLI}.report", "experiments as one page, figures and a results file"),
}


def get_parser() -> argparse.ArgumentParser:
    summaries = "\n".join(f"  {name:<15} {command.summary}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="fairseq-bert-kd",
        description="BERT's knowledge for fairseq sequence-to-sequence models.",
        epilog=f"commands:\n{summaries}\n\n`fairseq-bert-kd COMMAND --help` explains each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"fairseq-bert-kd {fairseq_bert_kd.__version__}"
    )
    parser.add_argument(
        "--user-dir", action="store_true", help="print the folder to give to fairseq's --user-dir, and exit"
    )
    parser.add_argument("command", nargs="?", choices=COMMANDS, metavar="COMMAND")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def cli_main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; its exit status. A user error prints one line on standard error and gives 2."""
    parser = get_parser()
    args = parser.parse_args(argv)
    if args.user_dir:
        print(next(iter(fairseq_bert_kd.__path__)))
        return 0
    if args.command is None:
        parser.print_help()
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s | %(levelname)s | %(name)s | %(message)s")
    try:
        command = importlib.import_module(COMMANDS[args.command].module)
        command_parser = argparse.ArgumentParser(
            prog=f"fairseq-bert-kd {args.command}", description=command.HELP
        )
        command.add_arguments(command_parser)
        status = command.main(command_parser.parse_args(args.arguments))
    except BrokenPipeError:  # an OSError, so before them
        return 1
    except (ValueError, OSError, ImportError) as error:
        print(f"fairseq-bert-kd {args.command}: {error}", file=sys.stderr)
        return 2
    return status or 0


if __name__ == "__main__":
    sys.exit(cli_main())
