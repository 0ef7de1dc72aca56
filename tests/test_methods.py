"""docs/methods.md against the registries, the files and the results."""

import re
from pathlib import Path

import pytest
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY
from fairseq.tasks import TASK_REGISTRY

from fairseq_bert_kd.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fairseq_bert_kd"
PAGE = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
NOT_RUN = "not run yet"
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if not path.stem.startswith("__")]


def rows():
    header, _, *lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    names = [cell.strip() for cell in header.strip("|").split("|")]
    return [
        dict(zip(names, (cell.strip() for cell in line.strip("|").split("|")), strict=True)) for line in lines
    ]


def names_in(cell):
    return re.findall(r"`([^`]+)`", cell)


def shared():
    """Paths of the shared files as the page lists them, within the package and without ending."""
    listed = PAGE.split("## Shared files")[1].split("\n## ")[0]
    found = set()
    for item in re.split(r"^- ", listed, flags=re.M)[1:]:
        where, names = item.split(":", 1)
        folder = "".join(names_in(where))  # empty for the package itself
        found |= {f"{folder}{name}" for name in names_in(names)}
    return found


def inner(path):
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def ours(registry):
    """Names that our files registered."""
    return {name for name, value in registry.items() if value.__module__.startswith(PACKAGE.name)}


@pytest.mark.parametrize("row", rows(), ids=lambda row: names_in(row["stems"])[0])
def test_a_row_names_what_exists(row):
    assert row["paper"].startswith("[")
    assert set(names_in(row["tasks"])) <= ours(TASK_REGISTRY)
    assert set(names_in(row["criterions"])) <= CRITERION_REGISTRY.keys()
    assert set(names_in(row["architectures"])) <= ARCH_MODEL_REGISTRY.keys() | MODEL_REGISTRY.keys()
    assert set(names_in(row["commands"])) <= COMMANDS.keys()
    for stem in names_in(row["stems"]):
        assert any(stem in inner(path) for path in FILES), stem


@pytest.mark.parametrize("row", rows(), ids=lambda row: names_in(row["stems"])[0])
def test_the_figure_is_the_experiment_s(row):
    """The experiment's page is filled from its results files, which another test holds."""
    [link] = re.findall(r"\]\(([^)]+)\)", row["experiment"])
    page = ROOT / "docs" / link
    results = list(page.parent.glob("results/*.json"))
    if row["reached"] == NOT_RUN:
        assert not results
        return
    assert results
    figure = re.match(r"[+−]?[\d.]+( ± [\d.]+)?", row["reached"])[
        0
    ]  # without a spread where there is one seed
    assert " ± " in figure or "one seed" in row["reached"]
    assert figure in page.read_text(encoding="utf-8")
    assert figure in (ROOT / "docs/results.md").read_text(encoding="utf-8"), (
        "docs/results.md tells another result"
    )


def test_every_registered_name_is_in_a_row():
    """Or it is that of a file that serves several methods."""
    stated = {name for row in rows() for kind in ("tasks", "criterions") for name in names_in(row[kind])}
    stated |= {Path(path).name for path in shared()} & ours(TASK_REGISTRY)
    assert ours(TASK_REGISTRY) | ours(CRITERION_REGISTRY) == stated


def test_every_file_is_of_a_method_or_shared():
    """A file that fails here needs the stem of its method in its name, or a place in the page's list."""
    stems = {stem for row in rows() for stem in names_in(row["stems"])}
    of_methods = {inner(path) for path in FILES if any(stem in inner(path) for stem in stems)}
    assert {inner(path) for path in FILES} - of_methods == shared()
