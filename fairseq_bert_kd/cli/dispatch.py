"""Commands with subcommands: one table, and each subcommand's module imported only when it runs."""

import argparse
import importlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Command(NamedTuple):
    """A subcommand.

    Attributes:
        module: has ``HELP`` and ``EXAMPLE``, the head and the foot of its help, ``add_arguments(parser)`` and ``main(args)``,
            which returns an exit status or None.
        summary: one line for the list of subcommands.
    """

    module: str
    summary: str


Table = Mapping[str, Command]


def add_commands(parser: argparse.ArgumentParser, table: Table, example: str = "") -> None:
    """Let a parser take a subcommand, ``args.command`` (or None), and its arguments, ``args.arguments``.

    Args:
        parser: parser of the command; its help lists the subcommands.
        table: subcommands by name.
        example: last line of the help.
    """
    width = max(map(len, table)) + 1
    listed = "\n".join(f"  {name:<{width}} {command.summary}" for name, command in table.items())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"commands:\n{listed}\n\n`{parser.prog} COMMAND --help` explains each."
    parser.epilog += f"\n\n{example}" if example else ""
    parser.add_argument("command", nargs="?", choices=table, metavar="COMMAND", help="one of those below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def run(table: Table, prog: str, argv: Sequence[str]) -> int:
    """Run a subcommand; its exit status.

    Args:
        table: subcommands by name.
        prog: name of the command, for messages.
        argv: name of the subcommand and its arguments.
    """
    name, *arguments = argv
    args = get_parser(table, prog, name).parse_args(arguments)
    return importlib.import_module(table[name].module).main(args) or 0


def get_parser(table: Table, prog: str, name: str) -> argparse.ArgumentParser:
    """Parser of a subcommand's arguments.

    Args:
        table: subcommands by name.
        prog: name of the command, for messages.
        name: of the subcommand.
    """
    module = importlib.import_module(table[name].module)
    parser = argparse.ArgumentParser(
        prog=f"{prog} {name}",
        description=module.HELP,
        epilog=module.EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    return parser
