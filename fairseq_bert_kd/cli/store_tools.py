"""``fairseq-bert-kd store``: tools for top-k stores, each in a module of its own, imported when asked for."""

import argparse
import importlib
import sys
from typing import Any

from tqdm import tqdm

HELP = "look at, check, join and convert the files that `fairseq-bert-kd dump` writes"
# subcommand -> module with HELP, add_arguments(parser) and main(args)
SUBCOMMANDS = {
    "verify": "fairseq_bert_kd.cli.store_verify",
    "stat": "fairseq_bert_kd.cli.store_stat",
    "show": "fairseq_bert_kd.cli.store_show",
    "merge": "fairseq_bert_kd.cli.store_merge",
    "export": "fairseq_bert_kd.cli.store_export",
    "import": "fairseq_bert_kd.cli.store_import",
}
SUMMARIES = {
    "verify": "check every byte, and whether a store belongs to its data",
    "stat": "what a store says about itself, how much mass it holds, which k and T fit",
    "show": "a sentence's soft labels as text",
    "merge": "the shards of a dump as one store",
    "export": "a store as an Arrow or Parquet file",
    "import": "the authors' shelve dump as a store",
}
EXAMPLE = "example: fairseq-bert-kd store verify data-bin/train.de-en.en.topk --data data-bin"
_LARGE = 1 << 30  # bytes; below, a bar is for terminals only
_LOG_SECONDS = 30.0  # between two lines of a bar that goes to a file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    tools = "\n".join(f"  {name:<10} {summary}" for name, summary in SUMMARIES.items())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.usage = "fairseq-bert-kd store TOOL [--help] [arguments of the tool]"
    parser.epilog = f"tools:\n{tools}\n\n`fairseq-bert-kd store TOOL --help` explains each.\n\n{EXAMPLE}"
    parser.add_argument("tool", nargs="?", choices=SUBCOMMANDS, metavar="TOOL", help="one of those below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fairseq-bert-kd store", description=HELP)
    add_arguments(parser)
    return parser


def main(args: argparse.Namespace) -> int:
    """Run a tool; its exit status."""
    if args.tool is None:
        get_parser().print_help()
        return 2
    tool = importlib.import_module(SUBCOMMANDS[args.tool])
    parser = argparse.ArgumentParser(
        prog=f"fairseq-bert-kd store {args.tool}",
        description=tool.HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tool.add_arguments(parser)
    return tool.main(parser.parse_args(args.arguments)) or 0


def progress_bar(description: str, total: int) -> Any:
    """A bar of bytes on standard error, for a terminal or a large store."""
    terminal = sys.stderr.isatty()
    return tqdm(
        desc=description,
        total=total,
        unit="B",
        unit_scale=True,
        mininterval=0.1 if terminal else _LOG_SECONDS,
        disable=not terminal and total < _LARGE,
        file=sys.stderr,
    )


def printable(text: str) -> str:
    """The text with control characters and halves of surrogate pairs escaped, safe for any terminal."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return safe.encode(encoding, errors="backslashreplace").decode(encoding)
