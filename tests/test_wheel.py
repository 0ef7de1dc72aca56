"""The wheel in an environment of its own: the command, the report's templates and the plugin for --user-dir."""

import os
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.preloaded.commands import REAL_BIN
from tests.report.small_experiments import write_experiment
from tests.tiny_chain import PLUGIN

ROOT = PLUGIN.parent
METADATA = ("setup.py", "pyproject.toml", "README.md")

pytestmark = pytest.mark.slow


def run(*command, cwd, **settings):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-1000:] + result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Commands of an environment with the wheel; the requirements are those of the environment that runs the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"  # a copy, since a build writes beside its sources
    shutil.copytree(PLUGIN, sources / PLUGIN.name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in METADATA:
        shutil.copy(ROOT / name, sources)
    pip = [REAL_BIN / "python", "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, sources, cwd=folder)  # fmt: skip
    [wheel] = folder.glob("*.whl")
    venv.create(folder / "environment", with_pip=False, symlinks=True)
    python = folder / "environment" / "bin" / "python"
    run(*pip, "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    packages = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    )
    (packages / "requirements.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python.parent


def test_command_and_user_dir_are_those_of_the_wheel(chain, installed, tmp_path):
    assert run(installed / "fairseq-bert-kd", "--version", cwd=tmp_path).startswith("fairseq-bert-kd ")
    user_dir = Path(run(installed / "fairseq-bert-kd", "--user-dir", cwd=tmp_path).strip())
    assert installed.parent in user_dir.parents
    run(
        installed / "python", "-m", "fairseq_cli.train", chain.data, "--user-dir", user_dir, "--task",
        "translation_with_teacher", "--arch", "distilled_transformer_small", "--encoder-layers", 1, "--decoder-layers",
        1, "--criterion", "label_smoothed_cross_entropy_with_distillation", "--max-tokens", 512, "--max-update", 1,
        "--optimizer", "adam", "--save-dir", tmp_path / "student", "--num-workers", 0, "--cpu", cwd=tmp_path,
    )  # fmt: skip
    assert (tmp_path / "student" / "checkpoint_last.pt").is_file()


def test_report_finds_its_templates(installed, tmp_path):
    write_experiment(tmp_path / "toy")
    run(
        installed / "fairseq-bert-kd",
        "report",
        tmp_path / "toy",
        "--out",
        tmp_path / "report.html",
        cwd=tmp_path,
    )
    assert "Toy German-English" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_every_module_is_in_the_wheel(installed, tmp_path):
    user_dir = Path(run(installed / "fairseq-bert-kd", "--user-dir", cwd=tmp_path).strip())
    files = {
        path.relative_to(PLUGIN)
        for path in PLUGIN.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    missing = {path for path in files if not (user_dir / path).is_file()}
    assert missing == set()
