"""``fairseq-bert-kd options``: our options of fairseq's commands, whose ``--help`` does not show them."""

import argparse
import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from enum import EnumMeta
from typing import Any

from fairseq_bert_kd.compat import require_fairseq

HELP = """Our options of fairseq-train, fairseq-generate and the like, by the task, criterion, architecture, optimizer or bpe that has
them. fairseq's own --help stops before it knows these."""
EXAMPLE = """examples:
  fairseq-bert-kd options                                               which choices there are
  fairseq-bert-kd options label_smoothed_cross_entropy_with_distillation
  fairseq-bert-kd options kd-weight                                     options with this in their name"""
PACKAGE = "fairseq_bert_kd"

Field = dataclasses.Field[Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="a task, criterion, architecture, optimizer or bpe of ours, or a part of an option's name (default: list the choices)",
    )


def main(args: argparse.Namespace) -> None:
    """Print the list, or options with their help.

    Raises:
        ValueError: nothing has the name.
    """
    require_fairseq()
    from fairseq.models import ARCH_MODEL_NAME_REGISTRY  # preset -> model

    import fairseq_bert_kd.tasks  # noqa: F401  registers all of ours

    choices = configs()
    if not args.name:
        for choice, config in choices:
            print(f"{choice}\n    {summary(config)}")
        return
    names = {args.name, ARCH_MODEL_NAME_REGISTRY.get(args.name)}
    found = {choice: our_fields(config) for choice, config in choices if choice.split()[1] in names}
    part = args.name.replace("-", "_")
    found = found or {
        choice: [field for field in our_fields(config) if part in field.name] for choice, config in choices
    }
    if not any(found.values()):
        raise ValueError(
            f"no choice and no option of ours is called `{args.name}`; `fairseq-bert-kd options` lists the choices"
        )
    print(described(found), end="")


def described(found: Mapping[str, Sequence[Field]]) -> str:
    """Help of options by choice; what several choices have in the same words stands once, below all of them."""
    owners: dict[tuple[str, str, str], list[str]] = {}
    for choice, fields in found.items():
        for field in fields:
            owners.setdefault((field.name, field.metadata["help"], default_of(field)), []).append(choice)
    by_choices: dict[str, list[Field]] = {}
    for choice, fields in found.items():
        for field in fields:
            sharing = owners[field.name, field.metadata["help"], default_of(field)]
            if sharing[0] == choice:
                by_choices.setdefault(", ".join(sharing), []).append(field)
    return "\n".join(_help(title, fields) for title, fields in by_choices.items())


def _help(title: str, fields: Sequence[Field]) -> str:
    """Options below a title, as argparse sets them."""
    parser = argparse.ArgumentParser(add_help=False, usage=argparse.SUPPRESS)
    group = parser.add_argument_group(title)
    for field in fields:
        values, default, text = ",".join(choices_of(field)), default_of(field), field.metadata["help"]
        said = f"{text} (default: {default})" if default and "default" not in text else text
        shown: dict[str, Any] = {"metavar": f"{{{values}}}" if values else "VALUE"}
        if field.default is False:
            shown = {"action": "store_true"}
        group.add_argument(f"--{field.name.replace('_', '-')}", help=said.replace("%", "%%"), **shown)
    return parser.format_help()


def configs() -> list[tuple[str, type]]:
    """Pairs of a choice (such as ``--task NAME``) and the dataclass of its options; `fairseq_bert_kd.tasks` has been imported."""
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
        if config is not None and config.__module__.startswith(PACKAGE) and our_fields(config)
    ]


def our_fields(config: type) -> list[Field]:
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


def choices_of(field: Field) -> list[str]:
    """What an option may be, as the user writes it; empty where it is free."""
    return [str(member.value) for member in field.type] if isinstance(field.type, EnumMeta) else []


def default_of(field: Field) -> str:
    """The default as the user writes it; empty for a switch and where there is none."""
    value = getattr(field.default, "value", field.default)
    unsaid = value is None or value is False or value is dataclasses.MISSING
    return "" if unsaid or value == "???" else str(value)  # omegaconf's mark of what must be given


def summary(documented: Any) -> str:
    """A docstring as one paragraph."""
    return " ".join((inspect.getdoc(documented) or "").replace("``", "`").split())
