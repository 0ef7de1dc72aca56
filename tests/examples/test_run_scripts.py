"""The examples' scripts from end to end, on very little text and with very few updates."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.tiny_chain import build_teacher_folder, write_corpus

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script, *arguments, **settings):
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        **settings,
    }
    result = subprocess.run(
        ["bash", EXAMPLES / script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]
    return result.stdout


def test_quickstart_runs_and_a_second_run_reuses_what_is_there(tmp_path):
    settings = {"TRAIN_PAIRS": "200", "TEACHER_UPDATES": "3", "STUDENT_UPDATES": "2"}
    printed = run("quickstart/run.sh", tmp_path, **settings)
    assert "distilled against plain: " in printed
    commands = (tmp_path / "commands.sh").read_text(encoding="utf-8")
    for command in (
        "tokenize",
        "fairseq-preprocess",
        "conditional_masked_lm",
        "dump",
        "--kd-weight 0.5",
        "fairseq-generate",
    ):
        assert command in commands
    assert len(json.loads((tmp_path / "scores.json").read_text())["systems"]) == 2
    again = run("quickstart/run.sh", tmp_path, **settings)
    assert again.count(": done before") == commands.count("# ")
    assert "$ fairseq" not in again


def test_multi30k_runs_on_packed_text(tmp_path):
    write_corpus(tmp_path / "raw", train=60)
    for path in (tmp_path / "raw").iterdir():
        (path.parent / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    bert = build_teacher_folder("bert", tmp_path / "bert")
    run(
        "multi30k/run.sh", tmp_path / "raw", bert, tmp_path / "out",
        SEEDS="1 2", TEACHER_UPDATES="2", STUDENT_UPDATES="2",
    )  # fmt: skip
    systems = json.loads((tmp_path / "out" / "scores.json").read_text())["systems"]
    assert {label: len(runs) for label, runs in systems.items()} == {"plain": 2, "distilled": 2}
