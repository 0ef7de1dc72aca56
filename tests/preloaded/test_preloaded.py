"""Commands behind the preloaded process behave as those that start by themselves."""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import pytest

from tests.preloaded import commands

ROOT = commands.ROOT
PROBE = ["-m", "tests.preloaded.probe"]
QUIET = {"PYTHONWARNINGS": "ignore", "TRANSFORMERS_VERBOSITY": "error"}  # as `examples/run.py` has it
OF_FAIRSEQ = {"PYTHONWARNINGS": "ignore:semaphore_tracker:UserWarning"}  # left in this process by a training


@pytest.fixture(scope="module")
def shims(tmp_path_factory):
    with mock.patch.dict(os.environ):
        os.environ.pop("PYTHONWARNINGS", None)
        folder = commands.set_up(modules=("tests",))
    yield folder / "bin"
    commands.tear_down(folder)


@pytest.fixture(params=["real", "preloaded"])
def python(request, shims):
    return (commands.REAL_BIN if request.param == "real" else shims) / "python"


def environment(**settings):
    ours = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | settings
    return {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"} | ours


def run(python, *arguments, **settings):
    settings = {"env": environment(), "capture_output": True, "text": True, "timeout": 120} | settings
    return subprocess.run([python, *PROBE, *arguments], check=False, **settings)


def test_a_process_sees_the_same(shims, tmp_path):
    """Arguments, folder, environment, streams, search path, umask, threads and logging."""
    folder = tmp_path / "with spaces"
    folder.mkdir()
    seen = []
    for bin_folder in (commands.REAL_BIN, shims):
        printed = run(bin_folder / "python", "describe", "a b", "", "*", cwd=folder, stdin=subprocess.DEVNULL,
                      env=environment(ONE="1 2", OMP_NUM_THREADS="2"), umask=0o27)  # fmt: skip
        assert printed.returncode == 0, printed.stderr
        seen.append(json.loads(printed.stdout))
        seen[-1]["environment"].pop("PWD", None)  # the shim is a shell's script, which corrects it
    assert seen[0] == seen[1]
    assert seen[1]["arguments"] == ["describe", "a b", "", "*"]
    assert seen[1]["threads"] == 2
    assert seen[1]["umask"] == 0o27


def test_fairseq_sets_up_logging_when_it_is_imported(shims):
    real, preloaded = (run(folder / "python", "logging") for folder in (commands.REAL_BIN, shims))
    assert real.stdout == preloaded.stdout
    assert "StreamHandler" in real.stdout
    assert len(real.stderr.splitlines()) == len(preloaded.stderr.splitlines())


@pytest.mark.parametrize("settings", [{}, QUIET, OF_FAIRSEQ])
def test_a_process_is_as_quiet_as_its_environment_asks(shims, settings):
    started = (shims.parent / "log").read_text().count("started") if (shims.parent / "log").exists() else 0
    real, preloaded = (
        run(folder / "python", "warn", env=environment(**settings)) for folder in (commands.REAL_BIN, shims)
    )
    assert (shims.parent / "log").read_text().count("started") == started + 1  # it was preloaded indeed
    assert real.stdout == preloaded.stdout
    assert [("a warning" in done.stderr) for done in (real, preloaded)] == [settings is not QUIET] * 2


def test_forks_and_threads_of_a_command_do_not_hang(python):
    assert json.loads(run(python, "processes").stdout) == [[1, 2], 400.0**3]


def test_streams_reach_the_caller(python):
    done = run(python, "streams", input="in")
    assert (done.stdout, done.stderr, done.returncode) == ("out in\nthe end\n", "error\n", 0)


@pytest.mark.parametrize(("how", "status", "error"), [("0", 0, ""), ("7", 7, ""), ("words", 1, "words\n")])
def test_exit_status_is_that_of_the_command(python, how, status, error):
    done = run(python, "exit", how)
    assert (done.returncode, done.stderr) == (status, error)


def test_traceback_begins_in_the_command(python):
    done = run(python, "fail")
    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: as intended\n")
    assert "server.py" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGABRT])
def test_command_that_dies_of_a_signal_says_so(python, number):
    assert run(python, "signal", str(int(number))).returncode == -number


def default_signals():
    """In the child: what a job in the background of a shell ignores, and would hand on."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start_waiting(python, **settings):
    process = subprocess.Popen([python, *PROBE, "wait"], env=environment(), text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, preexec_fn=default_signals, **settings)  # fmt: skip
    return process, int(process.stdout.readline())


def gone(pid, seconds=20):
    for _ in range(seconds * 20):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                time.sleep(0.05)
                continue
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGHUP])
def test_signal_to_the_client_ends_the_command(python, number):
    process, pid = start_waiting(python)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == -number
    assert gone(pid)


def test_signal_to_the_group_ends_the_command(python):
    process, pid = start_waiting(python, start_new_session=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    assert gone(pid)


def test_nothing_stays_from_one_command_to_the_next(shims):
    first, second = (json.loads(run(shims / "python", "leave").stdout) for _ in range(2))
    assert first[1] is second[1] is None
    assert first[0] != second[0]  # random numbers


def test_broken_pipe_is_met_by_the_command(shims):
    script = f"'{shims}/python' -m tests.preloaded.probe describe | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], env=environment(), capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr or "BrokenPipeError" in done.stderr


def test_what_is_read_at_the_start_asks_for_a_real_one(shims, tmp_path):
    """A folder in front of the installed packages, another hash seed: what is loaded would be wrong."""
    (tmp_path / "jinja2.py").write_text("", encoding="utf-8")
    code = "import tests.preloaded.probe"  # `python -c` is never preloaded
    assert not preloaded(shims, ["-c", f"import sys; sys.argv[1:] = ['leave']; {code}"])
    assert preloaded(shims, [*PROBE, "leave"])
    for changed in ({"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}, {"PYTHONHASHSEED": "3"}):
        assert not preloaded(shims, [*PROBE, "leave"], **changed)


def preloaded(shims, arguments, **changed):
    """Whether the preloaded process, which has loaded torch before a command starts, answers."""
    before = answered(shims)
    done = subprocess.run([shims / "python", *arguments], env=environment(**changed), capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return answered(shims) > before


def answered(shims):
    log = shims.parent / "log"
    return log.read_text().count("started ") if log.exists() else 0


def test_repository_may_lie_in_a_folder_with_spaces(tmp_path, monkeypatch):
    here = tmp_path / "a repository" / "tests" / "preloaded"
    shutil.copytree(commands.HERE, here, ignore=shutil.ignore_patterns("__pycache__"))
    spec = importlib.util.spec_from_file_location("copied_commands", here / "commands.py")
    copied = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copied)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "a repository"))
    monkeypatch.setenv("PYTHONPATH", str(here.parents[1]))
    folder = copied.set_up(modules=("tests",))
    try:
        assert preloaded(folder / "bin", [*PROBE, "leave"], PYTHONPATH=str(here.parents[1]))
    finally:
        copied.tear_down(folder)


@pytest.mark.skipif("KD_PRELOADED_COMMANDS" not in os.environ, reason="KD_PRELOADED=0")
@pytest.mark.parametrize(
    "command", [["fairseq-bert-kd", "--version"], ["python", "-m", "fairseq_bert_kd", "--version"]]
)
def test_tests_of_this_session_reach_it(command):
    """Through PATH and beside ``sys.executable``, with the variables that imports have set meanwhile."""
    import sklearn  # noqa: F401
    import torch._inductor.runtime.cache_dir_utils
    import transformers  # noqa: F401

    torch._inductor.runtime.cache_dir_utils.cache_dir()
    assert {"KMP_INIT_AT_FORK", "TORCHINDUCTOR_CACHE_DIR"} <= os.environ.keys()

    shims = Path(os.environ["KD_PRELOADED_COMMANDS"]) / "bin"
    assert Path(sys.executable).parent == shims
    assert shutil.which(command[0]) == str(shims / command[0])
    before = answered(shims)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("fairseq-bert-kd ")
    assert answered(shims) > before  # another worker's commands may count meanwhile


def test_it_ends_with_its_session():
    session = subprocess.Popen(["sleep", "60"])
    folder = commands.set_up(modules=("tests",), session=session.pid)
    try:
        assert run(folder / "bin" / "python", "exit", "0").returncode == 0
        server = int((folder / "pid").read_text())
        session.kill()
        session.wait()
        assert gone(server)
        assert not folder.exists()
    finally:
        commands.tear_down(folder)


# ---- the commands themselves, each once as it is installed ------------------------------------------------


STARTED = {"fairseq-bert-kd", "fairseq-train"}  # fairseq's other commands are set up as fairseq-train is
ALL = {*commands.SHIMMED} - {"ct2-fairseq-converter", "torchrun"}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ALL if os.environ.get("KD_LONG_TESTS") else STARTED))
def test_installed_command_and_shim_print_the_same_help(shims, tmp_path, name):
    """A real start of every command."""
    settings = {"env": environment(), "capture_output": True, "text": True, "cwd": tmp_path}
    printed = [
        subprocess.run([folder / name, "--help"], check=False, **settings)
        for folder in (commands.REAL_BIN, shims)
    ]
    assert printed[0].returncode == printed[1].returncode == 0, printed[0].stderr
    real, preloaded = (re.sub(r"^[\d-]+ [\d:]+ ", "", done.stdout, flags=re.M) for done in printed)
    assert real == preloaded
    assert re.search(rf"{name}|Hydra", real)
