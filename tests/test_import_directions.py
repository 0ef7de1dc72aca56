"""Who may import whom: the table of the architecture, held by reading the syntax trees."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "fairseq_bert_kd"
FILES = sorted((ROOT / PACKAGE).rglob("*.py"))
# asked for where they are used, never when a module is imported
LAZY = {"transformers", "tokenizers", "matplotlib", "jinja2", "rouge_score"}

# part -> what else of the package it may import; files of the same part may import each other
INSIDE = {
    "batch": set(),
    "compat": set(),
    "storage": set(),
    "functional": {"batch"},
    "data": {"functional", "storage", "batch"},
    "tokenization": {
        "compat",
        "functional",
        "storage",
    },  # dictionary.py gives the teacher's pair format and digests
    "models": {"functional", "batch", "compat"},
    "criterions": {"functional", "batch"},
    "tasks": {"scoring", "data", "tokenization", "functional", "storage", "batch", "compat"},
    "scoring": {"data", "tokenization", "functional", "storage", "batch", "compat", ""},
    "report": {"storage", ""},
    "cli": {
        "report",
        "scoring",
        "tasks",
        "data",
        "tokenization",
        "functional",
        "storage",
        "batch",
        "compat",
        "",
    },
    "__init__": {"tasks", "models", "criterions", "tokenization", "compat"},
    "__main__": {"cli"},
}
# part -> modules of others, by prefix; the standard library is free
OUTSIDE = {
    "batch": {"torch"},
    "compat": {"torch", "numpy"},
    "storage": {"numpy"},
    "functional": {"torch", "numpy"},
    "data": {"torch", "numpy", "fairseq.data"},
    "tokenization": {"numpy", "fairseq.data", "fairseq.dataclass", "tokenizers"},
    "models": {"torch", "fairseq.models", "fairseq.dataclass", "transformers"},
    "criterions": {
        "torch",
        "fairseq.criterions",
        "fairseq.dataclass",
        "fairseq.distributed",
        "fairseq.logging",
        "fairseq.models",
        "fairseq.modules",
        "fairseq.utils",
    },
    "tasks": {"numpy", "fairseq.tasks", "fairseq.data", "fairseq.dataclass", "fairseq.utils", "omegaconf"},
    "scoring": {"torch", "numpy", "omegaconf", "fairseq"},
    "report": {"numpy", "sacrebleu"},  # its other packages come through report/extras.py
    "cli": {"torch", "numpy", "tqdm", "sacrebleu", "fairseq"},
    "__init__": set(),
    "__main__": set(),
}


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
    return found


def part_of(dotted):
    """``fairseq_bert_kd.data.complete_batches`` is in ``data``; the package root is ``""``."""
    return [*dotted.split("."), ""][1]


def faults(part, tree):
    """What a file of ``part`` imports and may not."""
    wrong = []
    for module, name, top in imports(tree):
        shown = f"{module}: {name}" if name else module
        if module.split(".")[0] == PACKAGE:
            if part_of(module) not in INSIDE[part] | {part}:
                wrong.append(shown)
        elif module.split(".")[0] not in sys.stdlib_module_names:
            allowed = any(module == prefix or module.startswith(f"{prefix}.") for prefix in OUTSIDE[part])
            if not allowed or (top and module.split(".")[0] in LAZY):
                wrong.append(shown)
    return wrong


def name_of(path):
    return str(path.relative_to(ROOT))


def part_of_file(path):
    relative = path.relative_to(ROOT / PACKAGE)
    return relative.parts[0].removesuffix(".py")


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_down(path):
    assert faults(part_of_file(path), parsed(path)) == []


@pytest.mark.parametrize(
    ("part", "line", "wrong"),
    [
        ("functional", "import fairseq", "fairseq"),
        (
            "functional",
            "from fairseq_bert_kd.data.complete_batches import x",
            f"{PACKAGE}.data.complete_batches: x",
        ),
        ("storage", "import torch", "torch"),
        ("criterions", "import fairseq_bert_kd.models.student_presets", f"{PACKAGE}.models.student_presets"),
        ("tasks", "from fairseq_bert_kd.criterions import cmlm_loss", f"{PACKAGE}.criterions.cmlm_loss"),
        ("tasks", "def f():\n    import fairseq_bert_kd.models", f"{PACKAGE}.models"),
        (
            "scoring",
            "def f():\n    import fairseq_bert_kd.tasks.translation_with_teacher",
            f"{PACKAGE}.tasks.translation_with_teacher",
        ),
        ("report", "import torch", "torch"),
        ("report", "import matplotlib", "matplotlib"),
        ("report", "from fairseq_bert_kd import compat", f"{PACKAGE}.compat"),
        ("data", "import fairseq_bert_kd", PACKAGE),
        ("data", "from fairseq_bert_kd import register", f"{PACKAGE}: register"),
        ("data", "from fairseq_bert_kd.cli import main", f"{PACKAGE}.cli.main"),
        ("data", "from fairseq.models import x", "fairseq.models: x"),
        ("data", "from fairseq import models", "fairseq.models"),
        ("models", "import transformers", "transformers"),
        ("tokenization", "if True:\n    from tokenizers import Tokenizer", "tokenizers: Tokenizer"),
    ],
)
def test_wrong_directions_are_seen(part, line, wrong):
    assert faults(part, ast.parse(line)) == [wrong]


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("models", "def f():\n    import transformers"),
        ("data", "from fairseq_bert_kd.storage.topk_store import TopKReader"),
        ("data", "from fairseq_bert_kd.data.complete_batches import complete_batches"),
        ("models", "from fairseq_bert_kd import compat"),
        ("tasks", "from fairseq_bert_kd.scoring.live_teacher import load_live_teacher"),
        ("storage", "import os, json"),
        ("cli", "import fairseq_bert_kd"),
    ],
)
def test_right_directions_are_not(part, line):
    assert faults(part, ast.parse(line)) == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_names_come_from_the_file_that_defines_them(path):
    for module, name, _ in imports(parsed(path)):
        if module.split(".")[0] != PACKAGE or not name:
            continue
        source = (ROOT / Path(*module.split("."))).with_suffix(".py")
        defined = set()
        for node in parsed(source).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                defined.add(node.name)
            elif isinstance(node, ast.Assign):
                defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
            elif isinstance(node, ast.AnnAssign):
                defined.add(node.target.id)
        assert name in defined, f"{module} does not define {name}"


@pytest.mark.parametrize(
    "path", [path for path in FILES if part_of_file(path) in ("tasks", "models")], ids=name_of
)
def test_what_the_host_imports_by_itself_registers_something(path):
    if path.name == "__init__.py":
        assert path.read_text(encoding="utf-8") == ""
        return
    decorators = [
        decorator.func.id
        for node in parsed(path).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name)
    ]
    assert any(name.startswith("register_") for name in decorators)


def test_every_file_that_registers_is_registered():
    registering = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in FILES
        if any(name.startswith("register_") for _, name, _ in imports(parsed(path)))
    }
    named = {module for module, _, _ in imports(parsed(ROOT / PACKAGE / "__init__.py"))}
    assert registering <= named


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
