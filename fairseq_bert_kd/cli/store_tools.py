"""``fairseq-bert-kd store``: tools for teacher stores, each in a module of its own."""

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fairseq_bert_kd.cli import dispatch
from fairseq_bert_kd.cli.dispatch import Command
from fairseq_bert_kd.report.formatting import visible
from fairseq_bert_kd.storage.header import open_header
from fairseq_bert_kd.storage.known_schemas import SCHEMAS
from fairseq_bert_kd.storage.topk import TopKInfo

PROG = "fairseq-bert-kd store"
HELP = "show, check, join and convert the files that `fairseq-bert-kd dump` writes"
TOOLS = {
    "verify": Command(
        "fairseq_bert_kd.cli.store_verify", "check every byte, and whether a store belongs to its data"
    ),
    "stat": Command(
        "fairseq_bert_kd.cli.store_stat", "header of a store, how much mass its rows hold, which k and T fit"
    ),
    "show": Command("fairseq_bert_kd.cli.store_show", "a sentence's soft labels as text"),
    "merge": Command("fairseq_bert_kd.cli.store_merge", "the shards of a dump as one store"),
    "export": Command("fairseq_bert_kd.cli.store_export", "a store as an Arrow or Parquet table"),
    "import": Command(
        "fairseq_bert_kd.cli.store_import", "an Arrow or Parquet table of any teacher as a store"
    ),
}
EXAMPLE = "example: fairseq-bert-kd store verify data-bin/train.de-en.en.topk --data data-bin"
_LARGE = 1 << 30  # bytes; below, a bar is for terminals only
_LOG_SECONDS = 30.0  # between two lines of a bar that goes to a file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    dispatch.add_commands(parser, TOOLS, EXAMPLE)


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROG, description=HELP)
    add_arguments(parser)
    return parser


def main(args: argparse.Namespace) -> int:
    """Run a tool; its exit status."""
    if args.command is None:
        get_parser().print_help()
        return 2
    return dispatch.run(TOOLS, PROG, [args.command, *args.arguments])


def module_for(tool: str, store: str) -> Any:
    """The module with the ``main(args)`` of a tool, "show" or "stat", for a store's kind of rows; raises as `open_header`."""
    info = open_header(Path(store), SCHEMAS).info
    rows = "topk" if isinstance(info, TopKInfo) else "vectors"
    return importlib.import_module(f"fairseq_bert_kd.cli.store_{tool}_{rows}")


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
    """The text with hidden characters escaped, and those that the terminal's encoding lacks; safe for any terminal."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return visible(text).encode(encoding, errors="backslashreplace").decode(encoding)
