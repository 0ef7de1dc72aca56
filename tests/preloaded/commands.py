"""The commands that tests start, answered by one preloaded process (see server.py): a start costs about 0.1 s, not 6."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
REAL_BIN = Path(sysconfig.get_path("scripts"))  # the commands as installed
SHIMMED = (
    "fairseq-train", "fairseq-generate", "fairseq-preprocess", "fairseq-interactive", "fairseq-validate",
    "fairseq-hydra-train", "fairseq-bert-kd", "ct2-fairseq-converter", "torchrun",
)  # fmt: skip
MODULES = ("fairseq_cli", "fairseq_bert_kd", "benchmarks", "sacrebleu", "sphinx", "torch")  # of `python -m`
SCRIPTS = ("tests/without_plugin.py", *(
    f"examples/{script}.py"
    for script in (
        "paraphrase/judge_evaluator", "quickstart/make_teacher", "recipes/check_teacher_text", "recipes/moses_bleu",
        "recipes/rouge_scores", "recipes/unknown_words", "sentence_lstm/compare_speed", "sentence_lstm/make_corpus",
        "sentence_lstm/prepare_text", "sentence_lstm/static_vectors", "serving/compare", "tinybert/compare_sizes",
        "tinybert/prepare_text",
    )
))  # fmt: skip
SHIM = """#!/bin/sh
exec {python} -IS {client} {folder} {name} "$@"
"""


def set_up(modules: tuple[str, ...] = MODULES, session: int | None = None) -> Path:
    """A folder of commands; whoever calls this removes it with :func:`tear_down`.

    Args:
        modules: packages whose modules are run preloaded by ``python -m``.
        session: process whose end is the end of the preloaded process, by default this one.
    """
    folder = Path(tempfile.mkdtemp(prefix="preloaded-"))
    (folder / "bin").mkdir()
    python = str(REAL_BIN / "python")
    settings = {
        "python": python,
        "bin": str(REAL_BIN),
        "root": str(ROOT),
        "modules": modules,
        "scripts": [str(ROOT / script) for script in SCRIPTS],
        "session": session or os.getpid(),
        "environment": dict(os.environ),
    }
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    shimmed = {name for name in SHIMMED if (REAL_BIN / name).exists()}
    for path in REAL_BIN.iterdir():
        if path.name not in shimmed and not path.name.startswith("python"):
            (folder / "bin" / path.name).symlink_to(path)
    paths = {"python": shlex.quote(python), "client": shlex.quote(str(HERE / "client.py"))}
    for name in (*shimmed, "python", "python3"):
        shim = folder / "bin" / name
        called = "python" if name == "python3" else name
        shim.write_text(SHIM.format(folder=shlex.quote(str(folder)), name=called, **paths), encoding="utf-8")
        shim.chmod(0o755)
    return folder


def use(folder: Path) -> None:
    """Let tests of this process find the commands where they look: beside ``sys.executable``, and on PATH."""
    os.environ["PATH"] = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    sys.executable = str(folder / "bin" / "python")


def tear_down(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
        os.kill(int((folder / "pid").read_text(encoding="utf-8")), signal.SIGTERM)
    shutil.rmtree(folder, ignore_errors=True)
