"""Directives whose content comes from the code: commands' --help, options' defaults, modules' docstrings.

They run while the site is built, so that nothing on those pages can go stale. Links to folders, which GitHub shows, become
links to their README files.
"""

import contextlib
import dataclasses
import inspect
import io
import os
import pkgutil
import re
from collections.abc import Iterator
from enum import EnumMeta
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import fairseq_bert_kd
from fairseq_bert_kd.cli import main as command_line
from fairseq_bert_kd.cli import store_tools

PACKAGE = "fairseq_bert_kd"
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
            yield from ("", f"## `{choice}`", "", summary(config), "")
            for option in our_fields(config):
                yield from (f"`--{option.name.replace('_', '-')}`{default_of(option)}", "")
                yield from (f": {markdown(option.metadata['help'])}", "")


def configs() -> list[tuple[str, type]]:
    """Pairs of a choice (such as ``--task NAME``) and the dataclass of its options, ours only."""
    from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
    from fairseq.models import MODEL_DATACLASS_REGISTRY
    from fairseq.registry import REGISTRIES
    from fairseq.tasks import TASK_DATACLASS_REGISTRY

    registries = {
        "--task": TASK_DATACLASS_REGISTRY,
        "--criterion": CRITERION_DATACLASS_REGISTRY,
        "--arch": MODEL_DATACLASS_REGISTRY,
        "--optimizer": REGISTRIES["optimizer"]["dataclass_registry"],
        "--bpe": REGISTRIES["bpe"]["dataclass_registry"],
    }
    return [
        (f"{option} {name}", config)
        for option, registry in registries.items()
        for name, config in registry.items()
        if config is not None and config.__module__.startswith(PACKAGE) and any(our_fields(config))
    ]


def our_fields(config: type) -> list[dataclasses.Field[Any]]:
    """Fields with a help text that fairseq's own parents of the dataclass do not have."""
    theirs = {
        field.name
        for parent in config.__mro__[1:]
        if dataclasses.is_dataclass(parent) and not parent.__module__.startswith(PACKAGE)
        for field in dataclasses.fields(parent)
    }
    return [
        field for field in dataclasses.fields(config) if field.name not in theirs and "help" in field.metadata
    ]


def default_of(field: dataclasses.Field[Any]) -> str:
    """Choices and default as the user writes them."""
    said = ""
    if isinstance(field.type, EnumMeta):
        said += " {" + ", ".join(str(member.value) for member in field.type) + "}"
    if field.default is False:
        return f"{said} (a switch, off by default)"
    missing = field.default in (None, dataclasses.MISSING)
    return said if missing else f"{said} (default: {getattr(field.default, 'value', field.default)})"


class AllArchitectures(Generated):
    """``{all-architectures}``: our presets of fairseq's models, with their docstrings."""

    def lines(self) -> Iterator[str]:
        from fairseq.models import ARCH_CONFIG_REGISTRY

        for name, preset in ARCH_CONFIG_REGISTRY.items():
            if preset.__module__.startswith(PACKAGE) and inspect.getdoc(preset):
                yield from (f"`--arch {name}`", "", f": {summary(preset)}", "")


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


def summary(documented: Any) -> str:
    """A docstring as one paragraph of Markdown."""
    return markdown(" ".join((inspect.getdoc(documented) or "").replace("``", "`").split()))


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
