"""Runs the steps of an experiment with doit: each once, again after a kill, side by side where they may be."""

import fcntl
import json
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from doit.cmd_base import TaskLoader2
from doit.doit_cmd import DoitMain
from doit.exceptions import TaskFailed
from doit.reporter import ZeroReporter
from doit.task import Task

# what a log shows of a long step: fairseq-train's validations
PROGRESS = "{ grep --line-buffered -oE 'valid on .* num_updates [0-9]+|^update [0-9]+ of .*' || true; }"
QUIET = {"PYTHONWARNINGS": "ignore", "TOKENIZERS_PARALLELISM": "true", "TRANSFORMERS_VERBOSITY": "error"}


@dataclass(frozen=True)
class Step:
    """A command that runs once in the experiment's folder.

    Attributes:
        name: name of its log, and of its line in ``steps.jsonl``.
        command: line of bash.
        after: names of the steps that it needs.
        resumes: goes on where it was killed, so its log and its time go on too.
        parallel: runs beside others, with its share of the cores.
        screen: filter of what is shown of its output.
        always: runs at every start.
        files: JSON files that describe it, written when it starts.
    """

    name: str
    command: str
    after: Sequence[str] = ()
    resumes: bool = False
    parallel: bool = False
    screen: str = PROGRESS
    always: bool = False
    files: dict[str, dict[str, Any]] = field(default_factory=dict)


class Workflow(TaskLoader2):
    """Steps of one folder, as doit loads them; ``jobs`` of them run at once."""

    def __init__(self, out: Path, steps: Sequence[Step], jobs: int) -> None:
        super().__init__()
        self.out, self.steps, self.jobs = out, steps, jobs
        self._noting = threading.Lock()

    def show(self) -> None:
        """Print what would run."""
        for step in self.steps:
            print(
                f"\n== {step.name}: done before"
                if self._is_done(step)
                else f"\n== {step.name}\n$ {step.command}"
            )

    def run(self) -> int:
        """Run what is not done; 0 unless a step failed, and then all that does not need it is done all the same.

        Raises:
            BlockingIOError: another start is at work in the folder.
        """
        # children inherit the lock, so it lasts as long as they do
        with open(self.out / "lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlockingIOError(
                    f"{self.out} is in use by another start, or by a step that outlived one. Wait until it ends, or end it"
                ) from None
            self._inherited = [lock.fileno()]
            options = [
                "--process",
                str(self.jobs),
                "--backend",
                "json",
                "--db-file",
                str(self.out / "doit.json"),
            ]
            return int(DoitMain(self).run(["run", "--continue", "--parallel-type", "thread", *options]))

    def load_doit_config(self) -> dict[str, Any]:
        return {"reporter": _FailuresOnly, "verbosity": 2}

    def load_tasks(self, cmd: Any, pos_args: Any) -> list[Task]:
        return [
            Task(
                step.name,
                [(self.run_step, [step])],
                task_dep=list(step.after),
                uptodate=[(self._is_up_to_date, [step])],
            )
            for step in self.steps
        ]

    def run_step(self, step: Step) -> TaskFailed | None:
        """Run a step's command and note it, or say why it failed."""
        log, begun = self.out / "logs" / f"{step.name}.log", self.out / "begun" / step.name
        for path in (log, begun, self._done(step), *(self.out / name for name in step.files)):
            path.parent.mkdir(parents=True, exist_ok=True)
        for name, record in step.files.items():
            (self.out / name).write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
        earlier, start = 0.0, time.time()
        if (
            step.resumes and begun.exists() and log.exists()
        ):  # the start before this one ended when its log did
            before, begun_at = json.loads(begun.read_text(encoding="utf-8"))
            earlier = before + max(0.0, log.stat().st_mtime - begun_at)
        begun.write_text(json.dumps([earlier, start]), encoding="utf-8")
        print(f"\n== {step.name}\n$ {step.command}", flush=True)
        cores = os.cpu_count() or 1
        threads = os.environ.get(
            "OMP_NUM_THREADS", str(max(1, cores // self.jobs if step.parallel else cores))
        )
        script = (
            f"(set -e; {step.command}\n) 2>&1 | tee {'-a' if step.resumes else ''} '{log}' | {step.screen}"
        )
        environment = {**os.environ, **QUIET, "OMP_NUM_THREADS": threads}
        command = ["bash", "-o", "pipefail", "-c", script]
        status = subprocess.run(
            command, cwd=self.out, env=environment, pass_fds=self._inherited, check=False
        ).returncode
        if status:
            end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
            return TaskFailed(
                f"{step.name} failed (exit status {status}); the end of {log}:\n{end}\n"
                "What is done stays done. Correct the cause and give the same command again."
            )
        note = {"step": step.name, "seconds": round(earlier + time.time() - start), "command": step.command}
        note["ended"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with self._noting, open(self.out / "steps.jsonl", "a", encoding="utf-8") as steps:
            steps.write(json.dumps(note) + "\n")
        self._done(step).write_text(step.command, encoding="utf-8")
        print(f"== {step.name}: {note['seconds']} s", flush=True)
        return None

    def _is_up_to_date(self, step: Step) -> bool:
        """Whether a step is done; says so, and if another command did it."""
        if not self._is_done(step):
            return False
        before = self._done(step).read_text(encoding="utf-8")
        other = f" by another command, whose result is kept (remove {self._done(step)} to run it anew):\n   {before}"
        print(f"== {step.name}: done before{'' if before == step.command else other}", flush=True)
        return True

    def _is_done(self, step: Step) -> bool:
        return self._done(step).exists() and not step.always

    def _done(self, step: Step) -> Path:
        return self.out / "done" / step.name


class _FailuresOnly(ZeroReporter):
    """Prints failures; steps tell of themselves."""

    def add_failure(self, task: Task, fail: Any) -> None:
        print(
            f"\n== {fail.message if isinstance(fail, TaskFailed) else f'{task.name}: {fail.get_msg()}'}",
            flush=True,
        )
