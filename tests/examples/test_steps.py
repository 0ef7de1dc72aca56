"""What the examples' scripts do when a step is killed, fails, or is asked for twice; the commands are stand-ins."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def bash(script, **settings):
    """A finished ``bash -c``, with lib.sh."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f'. "{EXAMPLES}/lib.sh"\n{script}'],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": PATH, **settings},
        check=False,
        timeout=120,
    )


def steps(out):
    return {
        record["step"]: record for record in map(json.loads, (out / "steps.jsonl").read_text().splitlines())
    }


def test_a_step_that_was_killed_keeps_its_log_and_its_time(tmp_path):
    trainer = tmp_path / "trainer.sh"
    trainer.write_text('echo "line of start $1"; sleep 2; [ "$1" = 2 ] || kill -9 $PPID; echo end', "utf-8")
    script = f"RESUMES=1 QUIET=1 run_step teacher bash {trainer} $START"
    killed = bash(script, OUT=str(tmp_path / "out"), START="1")
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "done" / "teacher").exists()
    again = bash(script, OUT=str(tmp_path / "out"), START="2")
    assert again.returncode == 0, again.stderr
    assert "was begun by another command" in again.stderr  # 1 became 2
    log = (tmp_path / "out" / "logs" / "teacher.log").read_text(encoding="utf-8")
    assert log.splitlines()[0] == "line of start 1"
    assert log.splitlines()[-2:] == ["line of start 2", "end"]
    assert steps(tmp_path / "out")["teacher"]["seconds"] >= 3  # two starts of two seconds, in whole ones


def test_a_start_that_was_killed_before_its_first_line_adds_no_time(tmp_path):
    out = tmp_path / "out"
    for folder in ("begun", "logs"):
        (out / folder).mkdir(parents=True)
    (out / "logs" / "teacher.log").write_text("of the start before\n", encoding="utf-8")
    os.utime(out / "logs" / "teacher.log", (1000, 1000))
    (out / "begun" / "teacher").write_text(
        "7 2000 true\n", encoding="utf-8"
    )  # 7 s before, this start after the log
    assert bash("RESUMES=1 QUIET=1 run_step teacher true", OUT=str(out)).returncode == 0
    assert 7 <= steps(out)["teacher"]["seconds"] < 60


def test_a_step_that_does_not_resume_begins_its_log_anew(tmp_path):
    script = 'QUIET=1 run_step preprocess bash -c "echo $START; exit $STATUS"'
    failed = bash(script, OUT=str(tmp_path / "out"), START="first", STATUS="3")
    assert failed.returncode == 3
    assert "preprocess failed (exit status 3)\nthe end of" in failed.stdout
    assert bash(script, OUT=str(tmp_path / "out"), START="second", STATUS="0").returncode == 0
    assert (tmp_path / "out" / "logs" / "preprocess.log").read_text() == "second\n"


def test_a_step_that_another_start_is_at_is_waited_for_and_not_repeated(tmp_path):
    script = f'run_step once bash -c "echo x >> {tmp_path}/count; sleep 2"'
    both = f"({script}) & sleep 0.5; ({script}); wait"
    printed = bash(both, OUT=str(tmp_path / "out"))
    assert printed.returncode == 0, printed.stderr
    assert "is running already, from another start of this script" in printed.stdout
    assert "== once: done before" in printed.stdout
    assert (tmp_path / "count").read_text() == "x\n"


STAND_INS = {
    "fairseq-preprocess": 'mkdir -p "${@: -3:1}"',
    "fairseq-generate": "echo",
    "fairseq-bert-kd": "case $1 in --user-dir) echo plugin ;; report) touch report-was-made ;; esac",
    "fairseq-train": """
        save=$(sed -n 's/.*--save-dir \\([^ ]*\\).*/\\1/p' <<< "$*"); mkdir -p "$save"; touch "$save/checkpoint_best.pt"
        case $save in
            *plain.1) if [ -n "${FAILS:-}" ]; then exit 7; fi ;;
            *distilled.1) sleep 2; touch "$save/ended" ;;
        esac""",
}


@pytest.fixture
def experiment(tmp_path):
    """Runs multi30k/run.sh with stand-ins for all that trains."""
    for name, body in STAND_INS.items():
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/usr/bin/env bash\nset -e\n{body}\n", encoding="utf-8")
        file.chmod(0o755)
    raw = tmp_path / "raw"
    raw.mkdir()
    for split in ("train", "valid", "test"):
        for language in ("de", "en"):
            (raw / f"{split}.{language}").write_text("a b\n" * 4, encoding="utf-8")

    def run(**settings):
        path = f"{tmp_path / 'bin'}{os.pathsep}{PATH}"
        return subprocess.run(
            ["bash", EXAMPLES / "multi30k/run.sh", raw, tmp_path / "bert", tmp_path / "out", "main"],
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": path, "PAIRS": "4", "SEEDS": "1", "REPORT": "0", **settings},
            check=False,
            timeout=120,
        )

    return run


def test_beside_a_student_that_fails_the_others_end_before_the_script_does(experiment, tmp_path):
    students = tmp_path / "out" / "students"
    failed = experiment(JOBS="2", FAILS="1")
    assert failed.returncode == 1
    assert "student plain.1 failed, see" in failed.stdout
    assert (students / "distilled.1" / "ended").exists()
    ended = (students / "distilled.1" / "ended").stat().st_mtime
    mended = experiment(JOBS="2")
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert "== students/distilled.1: done before" in mended.stdout
    assert (students / "distilled.1" / "ended").stat().st_mtime == ended


def test_a_trained_student_stays_described_as_it_was_trained(experiment, tmp_path):
    described = tmp_path / "out" / "students" / "distilled.1" / "run.json"
    assert experiment(DRY_RUN="1", WEIGHT="0.3").returncode == 0
    assert "--kd-weight 0.3" in json.loads(described.read_text())["options"]
    assert experiment(WEIGHT="0.5").returncode == 0  # nothing was trained: the settings are these
    assert "--kd-weight 0.5" in json.loads(described.read_text())["options"]
    for settings in ({"DRY_RUN": "1"}, {}):
        again = experiment(WEIGHT="0.9", STUDENT_UPDATES="9", **settings)
        assert again.returncode == 0, again.stdout + again.stderr
        assert "by another command, whose result is kept" in again.stdout
        record = json.loads(described.read_text())
        assert "--kd-weight 0.5" in record["options"]
        assert record["updates"] == 2000
