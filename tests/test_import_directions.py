"""Who may import whom: the table of the architecture, held by reading the syntax trees."""

import ast
import graphlib
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "fairseq_bert_kd"
FILES = sorted((ROOT / PACKAGE).rglob("*.py"))
# imported where they are used, never when a module of ours is imported
LAZY = {"safetensors", "transformers", "tokenizers", "matplotlib", "jinja2", "rouge_score", "triton"}

# part -> what else of the package it may import, lowest part first; files of one part may import each other
INSIDE = {
    "root": set(),
    "batch": set(),
    "compat": set(),
    "text_lines": set(),
    "output_files": set(),
    "storage": {"text_lines", "output_files", "compat"},
    "functional": {"batch"},
    "evaluation": {"text_lines", "compat"},
    "data": {"functional", "storage", "batch", "compat"},
    "tokenization": {"functional", "storage", "text_lines", "compat"},
    "modules": {"functional", "storage", "batch", "compat"},
    "teachers": {"data", "tokenization", "modules", "functional", "storage", "batch", "compat"},
    "rewards": {"modules", "tokenization", "data", "evaluation", "functional", "storage", "compat"},
    "models": {"modules", "functional", "storage", "batch", "compat"},
    "criterions": {"modules", "functional", "batch"},
    "optim": set(),
    "tasks": {
        "rewards", "teachers", "modules", "evaluation", "data", "tokenization", "functional", "storage", "batch", "compat",
        "optim",
    },
    "report": {"evaluation", "tokenization", "storage", "text_lines", "output_files", "compat", "root"},
    "cli": {
        "report", "tasks", "rewards", "teachers", "modules", "evaluation", "tokenization", "data", "functional", "storage",
        "text_lines", "output_files", "batch", "compat", "root",
    },
    "__main__": {"cli"},
}  # fmt: skip
REGISTRATION = f"{PACKAGE}.tasks"  # this file alone also imports what fairseq finds by name
REGISTERED = {"models", "criterions", "tokenization"}
# part -> modules of others, by prefix; the standard library is free
OUTSIDE = {
    "root": set(),
    "batch": {"torch"},
    "compat": {"torch", "numpy"},
    "text_lines": set(),
    "output_files": set(),
    "storage": {"numpy", "safetensors"},
    "functional": {"torch", "numpy", "triton"},  # triton where there is a GPU
    "evaluation": {"numpy", "sacrebleu", "scipy", "sklearn"},  # rouge-score comes through compat.import_extra
    "data": {"torch", "numpy", "fairseq.data", "fairseq.utils"},
    "tokenization": {"numpy", "fairseq.data", "fairseq.dataclass", "omegaconf", "tokenizers", "transformers"},
    "modules": {"torch", "numpy", "fairseq.dataclass", "fairseq.distributed", "fairseq.logging", "fairseq.models", "fairseq.modules", "fairseq.utils", "omegaconf", "transformers"},
    "teachers": {"torch", "numpy", "omegaconf", "fairseq"},
    "rewards": {
        "torch", "numpy", "fairseq.checkpoint_utils", "fairseq.dataclass", "fairseq.logging", "fairseq.utils", "omegaconf",
    },
    "models": {"torch", "fairseq.models", "fairseq.dataclass", "transformers"},
    "criterions": {
        "torch", "fairseq.criterions", "fairseq.dataclass", "fairseq.distributed", "fairseq.logging", "fairseq.models",
        "fairseq.modules", "fairseq.utils",
    },
    "optim": {"torch", "fairseq.optim"},
    "tasks": {
        "torch", "numpy", "fairseq.checkpoint_utils", "fairseq.data", "fairseq.dataclass", "fairseq.logging", "fairseq.tasks",
        "fairseq.utils", "omegaconf",
    },
    "report": {"numpy"},  # its other packages come through compat.import_extra
    "cli": {"torch", "numpy", "tqdm", "fairseq"},
    "__main__": set(),
}  # fmt: skip


class Import(NamedTuple):
    """An import of ``module`` (a file or package) or of ``name`` in it.

    Attributes:
        module: dotted.
        name: taken from the module; empty for the module itself.
        top: whether it runs when the importing module is imported.
    """

    module: str
    name: str
    top: bool


def module_of(path):
    """Dotted name of a file; a package's ``__init__`` has the package's name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(dotted):
    path = ROOT / Path(*dotted.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def imports(tree):
    """Every import of a syntax tree, in functions too; ``from package import file`` is an import of the file."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    nested = {id(inner) for node in ast.walk(tree) if isinstance(node, functions) for inner in ast.walk(node)}
    found = []
    for node in ast.walk(tree):
        top = id(node) not in nested
        if isinstance(node, ast.Import):
            found += [Import(alias.name, "", top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                ours = node.module.split(".")[0] == PACKAGE
                # of others we cannot know: `from fairseq import utils` may be a file or a name
                whole = is_module(inner) if ours else node.module == "fairseq"
                found.append(Import(inner, "", top) if whole else Import(node.module, alias.name, top))
        elif is_import_module(node) and node.args[0].value.split(".")[0] == PACKAGE:
            found.append(Import(node.args[0].value, "", False))
    return found


def is_import_module(node):
    """Whether the node is ``importlib.import_module("a literal")``."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "import_module"
        and isinstance(node.args[0], ast.Constant)
    )


def part_of(dotted):
    """``fairseq_bert_kd.data.store_rows`` is in ``data``; the package itself is ``root``."""
    return [*dotted.split("."), "root"][1]


def faults(module, tree):
    """Imports of a module that the table does not permit."""
    part, wrong = part_of(module), []
    permitted = INSIDE[part] | {part} | (REGISTERED if module == REGISTRATION else set())
    for imported, name, top in imports(tree):
        shown = f"{imported}: {name}" if name else imported
        if imported.split(".")[0] == PACKAGE:
            if part_of(imported) not in permitted:
                wrong.append(shown)
        elif imported.split(".")[0] not in sys.stdlib_module_names:
            allowed = any(imported == prefix or imported.startswith(f"{prefix}.") for prefix in OUTSIDE[part])
            if not allowed or (top and imported.split(".")[0] in LAZY):
                wrong.append(shown)
    return wrong


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def test_imports_go_down():
    found = {module_of(path): faults(module_of(path), parsed(path)) for path in FILES}
    assert {module: wrong for module, wrong in found.items() if wrong} == {}


def test_the_table_goes_down():
    parts = list(INSIDE)
    for place, part in enumerate(parts):
        assert INSIDE[part] <= set(parts[:place]), part
    assert OUTSIDE.keys() == INSIDE.keys()
    assert {part_of(module_of(path)) for path in FILES} == set(parts)  # no folder is left out


def import_graph(trees):
    """Module -> modules of ours that it imports, in functions too."""
    return {
        module: {imported for imported, _, _ in imports(tree) if imported in trees} - {module}
        for module, tree in trees.items()
    }


def test_no_cycle():
    graphlib.TopologicalSorter(import_graph({module_of(path): parsed(path) for path in FILES})).prepare()


def test_a_cycle_through_a_function_is_seen():
    a, b = f"{PACKAGE}.data.a", f"{PACKAGE}.data.b"
    trees = {a: ast.parse(f"def f():\n    import {b}"), b: ast.parse(f'importlib.import_module("{a}")')}
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(import_graph(trees)).prepare()


WRONG = [
    ("functional.x", "import fairseq", "fairseq"),
    ("functional.x", "from fairseq_bert_kd.data.store_rows import x", f"{PACKAGE}.data.store_rows: x"),
    ("storage.x", "import torch", "torch"),
    ("criterions.x", "import fairseq_bert_kd.models.student_presets", f"{PACKAGE}.models.student_presets"),
    (
        "tasks.x",
        "from fairseq_bert_kd.criterions import conditional_masked_lm",
        f"{PACKAGE}.criterions.conditional_masked_lm",
    ),
    ("tasks.x", "def f():\n    import fairseq_bert_kd.models", f"{PACKAGE}.models"),
    ("teachers.x", 'importlib.import_module("fairseq_bert_kd.tasks")', f"{PACKAGE}.tasks"),
    ("report.x", "import torch", "torch"),
    ("report.x", "import matplotlib", "matplotlib"),
    ("data.x", "import fairseq_bert_kd", PACKAGE),
    ("data.x", "from fairseq_bert_kd.cli import main", f"{PACKAGE}.cli.main"),
    ("data.x", "from fairseq.models import x", "fairseq.models: x"),
    ("data.x", "from fairseq import models", "fairseq.models"),
    ("models.x", "import transformers", "transformers"),
    ("tokenization.x", "if True:\n    from tokenizers import Tokenizer", "tokenizers: Tokenizer"),
]
RIGHT = [
    ("models.x", "def f():\n    import transformers"),
    ("data.x", "from fairseq_bert_kd.storage.topk_store import TopKReader"),
    ("data.x", "from fairseq_bert_kd.data.store_rows import StoreRows"),
    ("models.x", "from fairseq_bert_kd import compat"),
    ("tasks", "import fairseq_bert_kd.models.student_presets"),
    ("storage.x", "import os, json"),
    ("cli.x", "import fairseq_bert_kd"),
]


@pytest.mark.parametrize(("module", "line", "wrong"), WRONG)
def test_wrong_directions_are_seen(module, line, wrong):
    assert faults(f"{PACKAGE}.{module}", ast.parse(line)) == [wrong]


def test_right_directions_are_not():
    assert [faults(f"{PACKAGE}.{module}", ast.parse(line)) for module, line in RIGHT] == [[]] * len(RIGHT)


def names_defined(tree):
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Assign):
            named = (part for target in node.targets for part in ast.walk(target))  # of `A, B = C = ...` too
            yield from (part.id for part in named if isinstance(part, ast.Name))
        elif isinstance(node, ast.AnnAssign):
            yield node.target.id


def test_names_come_from_the_file_that_defines_them():
    trees = {module_of(path): parsed(path) for path in FILES}
    for module, tree in trees.items():
        for imported, name, _ in imports(tree):
            if name and imported.split(".")[0] == PACKAGE:
                assert name in names_defined(trees[imported]), f"{module}: {imported} does not define {name}"


def test_what_fairseq_imports_by_itself_registers_something():
    for path in FILES:
        if part_of(module_of(path)) not in ("tasks", "models") or path.name == "__init__.py":
            continue
        decorators = [
            decorator.func.id
            for node in parsed(path).body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef))
            for decorator in node.decorator_list
            if isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name)
        ]
        assert any(name.startswith("register_") for name in decorators), path


def test_every_file_that_registers_is_registered():
    registering = {
        module_of(path)
        for path in FILES
        if any(name.startswith("register_") for _, name, _ in imports(parsed(path)))
    }
    named = {module for module, _, _ in imports(parsed(ROOT / PACKAGE / "tasks" / "__init__.py"))}
    assert registering <= named


def test_only_the_registration_imports_in_a_package():
    """Names come from the file that defines them, so a package's ``__init__`` is empty."""
    for path in FILES:
        if path.name == "__init__.py" and module_of(path) != REGISTRATION:
            assert imports(parsed(path)) == [], path


QUIET = """
import json, logging, sys
before = (logging.root.level, list(logging.root.handlers), logging.root.disabled)
import fairseq_bert_kd
import fairseq_bert_kd.storage.topk_store
after = (logging.root.level, list(logging.root.handlers), logging.root.disabled)
heavy = sorted({"torch", "fairseq", "transformers", "tokenizers", "omegaconf"} & set(sys.modules))
sys.stdout.write(json.dumps({"heavy": heavy, "logging": before == after}))
"""


def test_importing_the_package_and_its_store_is_light_and_quiet(tmp_path):
    child = subprocess.run(
        [sys.executable, "-c", QUIET], env={"PYTHONPATH": str(ROOT)}, cwd=tmp_path,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert child.stderr == ""
    assert json.loads(child.stdout) == {"heavy": [], "logging": True}  # and nothing else was printed
