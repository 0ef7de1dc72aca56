"""Directives whose content comes from the code: commands' --help, options' defaults, modules' docstrings.

They run while the site is built, so that nothing on those pages can go stale. Links to folders, which GitHub shows, become
links to their README files.
"""

import contextlib
import inspect
import io
import os
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import fairseq_bert_kd
from fairseq_bert_kd.cli import main as command_line
from fairseq_bert_kd.cli import store_tools
from fairseq_bert_kd.cli.options import PACKAGE, Field, choices_of, configs, default_of, our_fields, summary

HELP_WIDTH = "88"  # characters


class Generated(SphinxDirective):
    """A directive that parses the Markdown which `lines` yields."""

    def lines(self) -> Iterator[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n".join(self.lines()), allow_section_headings=True)


class AllCommands(Generated):
    """``{all-commands}``: what each command prints for ``--help``."""

    def lines(self) -> Iterator[str]:
        for words in commands():
            yield from ("", f"## {' '.join(['fairseq-bert-kd', *words])}", "", "```text")
            yield from (help_of(words).rstrip(), "```")


def commands() -> list[list[str]]:
    """The command itself, its subcommands, and theirs."""
    found: list[list[str]] = [[]]
    for name in command_line.COMMANDS:
        found.append([name])
        if name == "store":
            found += [[name, tool] for tool in store_tools.TOOLS]
    return found


def help_of(words: list[str]) -> str:
    """Standard output of ``fairseq-bert-kd WORDS --help``."""
    out, before = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = HELP_WIDTH
    try:
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            command_line.cli_main([*words, "--help"])
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    return out.getvalue()


class AllOptions(Generated):
    """``{all-options}``: our options of fairseq's commands, by what has to be chosen to get them."""

    def lines(self) -> Iterator[str]:
        for choice, config in configs():
            yield from ("", f"## `{choice}`", "", markdown(summary(config)), "")
            for option in our_fields(config):
                yield from (f"`--{option.name.replace('_', '-')}`{values_of(option)}", "")
                yield from (f": {markdown(option.metadata['help'])}", "")


def values_of(option: Field) -> str:
    """Choices and default of an option, after its name."""
    choices, default = ", ".join(choices_of(option)), default_of(option)
    said = f" {{{choices}}}" if choices else ""
    if option.default is False:
        return f"{said} (a switch, off by default)"
    return f"{said} (default: {default})" if default else said


class AllArchitectures(Generated):
    """``{all-architectures}``: our presets of fairseq's models, with their docstrings."""

    def lines(self) -> Iterator[str]:
        from fairseq.models import ARCH_CONFIG_REGISTRY

        for name, preset in ARCH_CONFIG_REGISTRY.items():
            if preset.__module__.startswith(PACKAGE) and inspect.getdoc(preset):
                yield from (f"`--arch {name}`", "", f": {markdown(summary(preset))}", "")


class ModulesOf(Generated):
    """``{modules-of} PART``: autodoc of every module of a part of the package."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        for name in modules_of(self.arguments[0]):
            yield from ("", f"## {name.removeprefix(PACKAGE + '.')}", "", "```{eval-rst}")
            yield from (f".. automodule:: {name}", "   :members:", "```")


def modules_of(part: str) -> list[str]:
    """Dotted names, sorted; a part is a folder of the package or a single file."""
    (root,) = fairseq_bert_kd.__path__
    folder = Path(root, part)
    if not folder.is_dir():
        return [f"{PACKAGE}.{part}"]
    return sorted(f"{PACKAGE}.{part}.{module.name}" for module in pkgutil.iter_modules([str(folder)]))


def markdown(text: str) -> str:
    """Plain text in Markdown: no tags, options as code; what is code already stays."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [
        re.sub(r"(?<![\w-])--[a-z][a-z-]+\b", r"`\g<0>`", part.replace("<", "\\<")) for part in parts[::2]
    ]
    return "".join(parts)


def follow_folders(app: Sphinx, docname: str, source: list[str]) -> None:
    """``[text](folder)`` becomes a link to the folder's README.md, or the text alone where there is none."""
    here = (app.srcdir / docname).parent

    def followed(link: re.Match[str]) -> str:
        text, folder = link.groups()
        if not (here / folder).is_dir():
            return link[0]
        return (
            f"[{text}]({folder.rstrip('/')}/README.md)" if (here / folder / "README.md").is_file() else text
        )

    source[0] = re.sub(r"\[([^\]\n]+)\]\(([^)\s:#]+)\)", followed, source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("all-commands", AllCommands)
    app.add_directive("all-options", AllOptions)
    app.add_directive("all-architectures", AllArchitectures)
    app.add_directive("modules-of", ModulesOf)
    app.connect("source-read", follow_folders)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
