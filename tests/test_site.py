"""The documentation's site: it builds without a warning, holds what the code says, and no link in it is dead."""

import dataclasses
import html
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from fairseq_bert_kd.cli import main as command_line
from fairseq_bert_kd.cli import store_tools
from tests.tiny_chain import PLUGIN

ROOT = PLUGIN.parent


class Page(HTMLParser):
    """Ids, and links to anything."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = re.search(
        r"^docs: setup\n\t\$\(BIN\)/python (.*)$", (ROOT / "Makefile").read_text(), flags=re.M
    )[1]
    assert " -W " in command  # warnings are errors
    for name in ("build/doctrees", "build/docs"):
        assert name in command
        command = command.replace(name, str(folder / Path(name).name))
    result = subprocess.run(
        [sys.executable, *command.split()], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return folder / "docs"


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def text(site, name):
    """What a page shows, without tags."""
    content = (site / name).read_text(encoding="utf-8")
    return html.unescape(re.sub(r"<[^>]+>", "", content))


def test_no_link_inside_is_dead(site, pages):
    dead = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = pages[target].ids if target in pages else None
            if not target.exists() or (
                parts.fragment and known is not None and unquote(parts.fragment) not in known
            ):
                dead.append(f"{path.relative_to(site)}: {link}")
    assert dead == []


def test_nothing_outside_is_needed_to_show_it(pages):
    for path in pages:
        loaded = re.findall(
            r"""<(?:script|img|link)[^>]*(?:src|href)=["'](https?:[^"']*)""", path.read_text("utf-8")
        )
        assert loaded == [], path


def test_every_page_of_the_repository_is_there(site):
    sources = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("README.md")]
    for path in sources:
        assert (site / path.relative_to(ROOT)).with_suffix(".html").is_file(), path
    assert "docs/index.html" in (site / "index.html").read_text()


def test_commands_are_those_of_the_command_line(site):
    shown = text(site, "docs/commands.html")
    for name in command_line.COMMANDS:
        assert f"usage: fairseq-bert-kd {name} " in shown
    for tool in store_tools.TOOLS:
        assert f"usage: fairseq-bert-kd store {tool} " in shown
    assert "--passes PASSES" in shown


def test_options_are_those_of_the_dataclasses(site):
    from fairseq_bert_kd.criterions.distillation_options import DistillationConfig
    from fairseq_bert_kd.models.masked_lm_teacher import HfMaskedLMConfig
    from fairseq_bert_kd.tasks.conditional_masked_lm import ConditionalMaskedLMConfig
    from fairseq_bert_kd.tasks.translation_with_teacher import TranslationWithTeacherConfig

    shown = text(site, "docs/options.html")
    ours = [
        field
        for config in (
            DistillationConfig, HfMaskedLMConfig, ConditionalMaskedLMConfig, TranslationWithTeacherConfig,
        )
        for field in dataclasses.fields(config)
        if field.name.startswith(("kd_", "cmlm_", "teacher_")) and "help" in field.metadata
    ]  # fmt: skip
    assert len(ours) > 20
    for field in ours:
        assert f"--{field.name.replace('_', '-')}" in shown
    assert "--kd-weight (default: 0.5)" in shown
    assert (
        "--kd-objective {paper, renormalised, conditional, tail-bucket, sampled, full} (default: paper)"
        in shown
    )
    assert "--kd-square-temperature (a switch, off by default)" in shown
    assert "--arch distilled_lstm_small" in shown
    assert "Shared embeddings need fairseq-preprocess --joined-dictionary." in shown
    assert "--label-smoothing" not in shown  # fairseq's own


def test_every_module_has_its_docstring_there(site):
    for part in PLUGIN.iterdir():
        modules = sorted(part.glob("[!_]*.py")) if part.is_dir() else [part]
        for module in modules:
            if module.suffix != ".py" or module.name.startswith("__"):
                continue
            shown = text(site, f"docs/api/{part.stem}.html")
            first = re.match(r'"""(.*?)[.\n]', module.read_text(encoding="utf-8"))[1]
            assert first.replace("`", "") in shown, module
