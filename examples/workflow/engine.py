"""Runs the steps of an experiment with doit: each once, again after a kill, side by side where they may be."""

import fcntl
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from doit.cmd_base import TaskLoader2
from doit.doit_cmd import DoitMain
from doit.exceptions import TaskFailed
from doit.reporter import ZeroReporter
from doit.task import Task, dict_to_task

PROGRESS = re.compile(r"num_updates=(?P<update>\d+)|^update (?P<first>\d+) of|(?P<percent>\d+)%\|")
SHOW_EVERY = 20.0  # seconds between two lines of progress
QUIET = {"PYTHONWARNINGS": "ignore", "TOKENIZERS_PARALLELISM": "true", "TRANSFORMERS_VERBOSITY": "error"}
_notes_lock = threading.Lock()


@dataclass(frozen=True)
class Step:
    """A command that runs once in the experiment's folder.

    Attributes:
        name: name of its log, and of its line in ``steps.jsonl``.
        command: line of bash.
        after: names of the steps that it needs.
        resumes: goes on where it was killed, so its log and its time go on too.
        parallel: runs beside others, with its share of the cores.
        shown: its output is shown, not only logged.
        always: runs at every start.
        files: JSON files that describe it, written when it starts.
    """

    name: str
    command: str
    after: Sequence[str] = ()
    resumes: bool = False
    parallel: bool = False
    shown: bool = False
    always: bool = False
    files: dict[str, dict[str, Any]] = field(default_factory=dict)


class Workflow:
    """Steps of one folder.

    Attributes:
        out: the folder.
        steps: in an order in which they could run.
        jobs: number of steps that may run at once.
    """

    def __init__(self, out: Path, steps: Sequence[Step], jobs: int) -> None:
        self.out, self.steps, self.jobs = out, steps, jobs
        self._lock: IO[str] | None = None

    def is_done(self, step: Step) -> bool:
        return self._done(step).exists() and not step.always

    def show(self) -> None:
        """Print what would run."""
        for step in self.steps:
            print(f"\n== {step.name}: done before" if self.is_done(step) else f"\n== {step.name}\n$ {step.command}")

    def run(self) -> int:
        """Run all that is not done.

        Returns:
            0, or another number when a step failed; what does not need it is done all the same.

        Raises:
            BlockingIOError: another start is at work in the folder.
        """
        self._lock = open(self.out / "lock", "w")  # noqa: SIM115  open until the last step ends
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(
                f"{self.out} is in use by another start, or by a step that outlived one. Wait until it ends, or end it"
            ) from None
        options = ["run", "--continue", "--process", str(self.jobs), "--parallel-type", "thread"]
        return int(DoitMain(_Loader(self)).run([*options, "--backend", "json", "--db-file", str(self.out / "doit.json")]))

    def run_step(self, step: Step) -> TaskFailed | None:
        """Run a step's command and note it, or say why it failed."""
        log, begun = self.out / "logs" / f"{step.name}.log", self.out / "begun" / step.name
        for path in (log, begun, self._done(step)):
            path.parent.mkdir(parents=True, exist_ok=True)
        for name, record in step.files.items():
            (self.out / name).parent.mkdir(parents=True, exist_ok=True)
            _write_json(self.out / name, record)
        earlier = _earlier_seconds(begun, log) if step.resumes else 0.0
        start = time.time()
        begun.write_text(json.dumps([earlier, start]), encoding="utf-8")
        print(f"\n== {step.name}\n$ {step.command}", flush=True)
        cores = os.cpu_count() or 1
        threads = os.environ.get("OMP_NUM_THREADS", str(max(1, cores // self.jobs if step.parallel else cores)))
        assert self._lock is not None
        with open(log, "a" if step.resumes else "w", encoding="utf-8") as file:
            child = subprocess.Popen(
                ["bash", "-eo", "pipefail", "-c", step.command], cwd=self.out, text=True, errors="replace",
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=[self._lock.fileno()],
                env={**os.environ, **QUIET, "OMP_NUM_THREADS": threads},
            )  # fmt: skip
            assert child.stdout is not None
            _follow(child.stdout, file, step)
        if child.wait():
            end = "".join(log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[-20:])
            return TaskFailed(f"{step.name} failed (exit status {child.returncode}); the end of {log}:\n{end}"
                              "What is done stays done: correct the cause and give the same command again.")  # fmt: skip
        seconds = round(earlier + time.time() - start)
        ended = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        note = {"step": step.name, "seconds": seconds, "command": step.command, "ended": ended}
        with _notes_lock, open(self.out / "steps.jsonl", "a", encoding="utf-8") as steps:
            steps.write(json.dumps(note) + "\n")
        self._done(step).write_text(step.command + "\n", encoding="utf-8")
        print(f"== {step.name}: {seconds} s", flush=True)
        return None

    def up_to_date(self, step: Step) -> bool:
        """Whether a step is done; one that was done by another command says so."""
        if not self.is_done(step):
            return False
        before = self._done(step).read_text(encoding="utf-8").strip()
        other = f" by another command, whose result is kept (remove {self._done(step)} to run it anew):\n   {before}"
        print(f"== {step.name}: done before{other if before and before != step.command else ''}", flush=True)
        return True

    def _done(self, step: Step) -> Path:
        return self.out / "done" / step.name


class _Loader(TaskLoader2):  # type: ignore[misc]
    """Gives doit the steps of a workflow."""

    def __init__(self, workflow: Workflow) -> None:
        super().__init__()
        self.workflow = workflow

    def load_doit_config(self) -> dict[str, Any]:
        return {"reporter": _Reporter, "verbosity": 2}

    def load_tasks(self, cmd: Any, pos_args: Any) -> list[Task]:
        return [dict_to_task(self._task(step)) for step in self.workflow.steps]

    def _task(self, step: Step) -> dict[str, Any]:
        check: Callable[[], bool] = lambda: self.workflow.up_to_date(step)  # noqa: E731  doit asks for no arguments
        return {
            "name": step.name,
            "actions": [(self.workflow.run_step, [step])],
            "task_dep": list(step.after),
            "uptodate": [check],
        }


class _Reporter(ZeroReporter):  # type: ignore[misc]
    """Prints failures alone; steps tell of themselves."""

    def add_failure(self, task: Task, fail: Any) -> None:
        print(f"\n== {fail.message}" if isinstance(fail, TaskFailed) else f"== {task.name}: {fail.get_msg()}", flush=True)


def _follow(output: IO[str], log: IO[str], step: Step) -> None:
    """Copy a command's output to its log, and show it, or now and then how far it is."""
    shown_at = time.monotonic()
    for line in output:
        log.write(line)
        log.flush()
        if step.shown:
            print(line, end="", flush=True)
        elif (found := PROGRESS.search(line)) and time.monotonic() - shown_at > SHOW_EVERY:
            shown_at = time.monotonic()
            print(f"   {step.name}: {found[0].replace('num_updates=', 'update ').rstrip('|')}", flush=True)


def _earlier_seconds(begun: Path, log: Path) -> float:
    """Time of all starts before this one; the last of them ended when its log did."""
    if not begun.exists() or not log.exists():
        return 0.0
    before, start = json.loads(begun.read_text(encoding="utf-8"))
    return before + max(0.0, log.stat().st_mtime - start)  # it may have been killed before its first line


def _write_json(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
