"""The page of advice says nothing that the tables do not show: every figure of it stands on the page that its sentence names."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
FIGURE = re.compile(r"[+−]\d+\.\d+(?: ± \d+\.\d+)?|\d+\.\d+")
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


def missing_figures(line, folder=DOCS):
    """Figures of a table's row that no page linked in it has."""
    sources = "\n".join((folder / page).read_text("utf-8") for page in LINK.findall(line))
    return [figure for figure in FIGURE.findall(LINK.sub("", line)) if figure not in sources]


def rows(text):
    return [line for line in text.splitlines() if line.startswith("|") and LINK.search(line)]


def test_every_figure_stands_on_the_page_that_its_row_names():
    text = (DOCS / "advice.md").read_text("utf-8")
    found = {line: missing_figures(line) for line in rows(text)}
    assert len(found) > 15
    assert {line: missing for line, missing in found.items() if missing} == {}


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("| a | [page](page.md): +1.42 ± 0.32 BLEU |", []),
        ("| a | [page](page.md#part): +1.43 ± 0.32 BLEU |", ["+1.43 ± 0.32"]),
        ("| a | [page](page.md): 2.87 gives −0.61 |", ["−0.61"]),
    ],
)
def test_a_figure_of_another_table_is_found(tmp_path, line, missing):
    (tmp_path / "page.md").write_text("gain +1.42 ± 0.32, perplexity 2.87", "utf-8")
    assert missing_figures(line, tmp_path) == missing
