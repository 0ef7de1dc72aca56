"""Runs the steps of an experiment with doit: each once, again after a kill, side by side where they may be."""

import fcntl
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from doit.api import run_tasks
from doit.cmd_base import ModuleTaskLoader
from doit.exceptions import TaskFailed

from fairseq_bert_kd.output_files import write_text

# what a log shows of a long step: fairseq-train's validations
PROGRESS = "{ grep --line-buffered -oE 'valid on .* num_updates [0-9]+|^update [0-9]+ of .*' || true; }"
QUIET = {"PYTHONWARNINGS": "ignore", "TOKENIZERS_PARALLELISM": "true", "TRANSFORMERS_VERBOSITY": "error"}


@dataclass(frozen=True)
class Step:
    """A line of bash that runs once in the experiment's folder; its name is that of its log, too."""

    name: str
    command: str
    after: Sequence[str] = ()  # names of the steps that it needs
    resumes: bool = False  # goes on where it was killed, so its log and its time go on too
    checkpoints: str = (
        ""  # folder of what a training goes on from; while it has none, another command may begin
    )
    parallel: bool = False  # runs beside others, with its share of the cores
    screen: str = PROGRESS  # filter of what is shown of its output
    always: bool = False  # runs at every start
    files: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # JSON about it, written when it starts, and again while its command stays


class Gpus:
    """GPUs of the machine, of which each step sees some: those that the fewest others use."""

    def __init__(self, names: Sequence[str]) -> None:
        self._steps = dict.fromkeys(names, 0)  # that use each
        self._lock = threading.Lock()

    @contextmanager
    def lent(self, count: int) -> Iterator[dict[str, str]]:
        """Environment in which a program sees ``count`` of them; empty where there are none."""
        with self._lock:
            chosen = sorted(self._steps, key=self._steps.__getitem__)[:count]
            self._steps |= {name: self._steps[name] + 1 for name in chosen}
        try:
            yield {"CUDA_VISIBLE_DEVICES": ",".join(chosen)} if chosen else {}
        finally:
            with self._lock:
                self._steps |= {name: self._steps[name] - 1 for name in chosen}


class Workflow:
    """Steps of one folder; ``jobs`` of them run at once, each on ``gpus`` GPUs where there are any.

    Without a limit fairseq-train takes all GPUs that it sees, and its batches are as many times as large.
    """

    def __init__(self, out: Path, steps: Sequence[Step], jobs: int, gpus: int = 1) -> None:
        self.out, self.steps, self.jobs, self.gpus = out, steps, jobs, gpus
        self._names = visible_gpus()
        self._lender = Gpus(self._names)

    def check(self) -> None:
        """Check that steps can run, and can have their GPUs where there are any: training would wait for the others without end.

        Raises:
            ValueError: no step may run, or there are fewer GPUs.
        """
        if self.jobs < 1:
            raise ValueError(f"jobs={self.jobs} is the number of steps side by side; give 1 or more")
        if self._names and not 1 <= self.gpus <= len(self._names):
            raise ValueError(
                f"gpus={self.gpus}, and the GPUs that are visible here are {', '.join(self._names)}; give gpus=1 to "
                f"{len(self._names)}, and change --update-freq so that the product, and with it the batch, stays"
            )

    def show(self) -> None:
        """Print what would run."""
        for step in self.steps:
            if not self._is_up_to_date(step):
                print(f"\n== {step.name}\n$ {step.command}")

    def run(self) -> int:
        """Run what is not done; 0 unless a step failed, and then all that does not need it is done all the same.

        Raises:
            BlockingIOError: another start is at work in the folder.
        """
        with open(self.out / "lock", "w") as self._lock:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlockingIOError(
                    f"{self.out} is in use by another start, or by a step that outlived one. Wait until it ends, or end it"
                ) from None
            doit: Any = {"verbosity": 2, "continue": True, "reporter": "error-only", "backend": "json"}
            for step in self.steps:  # labels and groups may have changed
                if self.is_done(step) and _command_in(self.out / "done" / step.name) == _plain(step.command):
                    self._write_records(step)
            records = self.out / "doit.json"
            # `done` says what is done; a full disk can leave this file cut short
            records.unlink(missing_ok=True)
            doit |= {"num_process": self.jobs, "par_type": "thread", "dep_file": str(records)}
            return int(run_tasks(ModuleTaskLoader({"DOIT_CONFIG": doit, "task_steps": self._tasks}), {}))

    def _tasks(self) -> Iterator[dict[str, Any]]:
        """The steps in doit's words."""
        for step in self.steps:
            ready = {"task_dep": list(step.after), "uptodate": [(self._is_up_to_date, [step])]}
            yield {"basename": step.name, "actions": [(self._run_step, [step])], **ready}

    def _run_step(self, step: Step) -> TaskFailed | None:
        """Run a step's command and note it, or say why it failed."""
        log = self.out / "logs" / f"{step.name}.log"
        started, done, begun = (self.out / folder / step.name for folder in ("started", "done", "begun"))
        goes_on = self._has_work(step)
        if goes_on and (before := _command_in(begun)) not in ("", _plain(step.command)):
            print(
                f"\n== {step.name} was begun by another command, and would go on from its work:\n   {before}\nGive its settings "
                f"again; or, to run it anew, remove what it wrote, {begun} and {done}"
            )
            return TaskFailed(step.name, report=False)
        for path in (log, started, done, begun):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._write_records(step)
        print(f"\n== {step.name}\n$ {step.command}", flush=True)
        start = time.time()
        if goes_on and started.exists() and log.exists():  # the earlier start ended when its log did
            start -= max(0.0, log.stat().st_mtime - float(started.read_text(encoding="utf-8")))
        started.write_text(str(start), encoding="utf-8")
        begun.write_text(step.command, encoding="utf-8")
        threads = max(1, (os.cpu_count() or 1) // (self.jobs if step.parallel else 1))
        script = (
            f"(set -e; {step.command}\n) 2>&1 | tee {'-a' * goes_on} {shlex.quote(str(log))} | {step.screen}"
        )
        command, lock = ["bash", "-o", "pipefail", "-c", script], self._lock.fileno()  # which lasts as long
        with self._lender.lent(self.gpus) as gpus:
            environment = {
                "OMP_NUM_THREADS": str(threads),
                **os.environ,
                "PATH": search_path(),
                **gpus,
                **QUIET,
            }
            status = subprocess.run(
                command, cwd=self.out, env=environment, pass_fds=[lock], check=False
            ).returncode
        if status:
            end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
            print(f"\n== {step.name} failed (exit status {status}); the end of {log}:\n{end}")
            print("What is done stays done. Correct the cause and give the same command again.", flush=True)
            return TaskFailed(step.name, report=False)
        seconds = round(time.time() - start)
        with open(self.out / "steps.jsonl", "a", encoding="utf-8") as steps:
            steps.write(json.dumps({"step": step.name, "seconds": seconds, "command": step.command}) + "\n")
        done.write_text(step.command, encoding="utf-8")
        print(f"== {step.name}: {seconds} s", flush=True)
        return None

    def _has_work(self, step: Step) -> bool:
        """Whether a step would go on from what an earlier start left."""
        return step.resumes and (not step.checkpoints or any((self.out / step.checkpoints).glob("*.pt")))

    def _write_records(self, step: Step) -> None:
        for name, record in step.files.items():
            (self.out / name).parent.mkdir(parents=True, exist_ok=True)
            write_text(self.out / name, json.dumps(record, indent=1, ensure_ascii=False))

    def is_done(self, step: Step) -> bool:
        """Whether a step was done by an earlier start, and is not one that runs at every start."""
        return not step.always and (self.out / "done" / step.name).exists()

    def _is_up_to_date(self, step: Step) -> bool:
        """Whether a step is done; says so, and if another command did it."""
        if not self.is_done(step):
            return False
        done = self.out / "done" / step.name
        before = _command_in(done)
        other = (
            f" by another command, whose result is kept (to run it anew, remove what it wrote, {done}, {self.out / 'begun' / step.name} "
            f"and the same of the steps that read it):\n   {before}"
        )
        print(f"== {step.name}: done before{'' if before == _plain(step.command) else other}", flush=True)
        return True


def search_path() -> str:
    """Where steps look for programs: first beside the Python that runs this, whose environment need not be activated."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def visible_gpus() -> list[str]:
    """Names of the GPUs that programs see, as CUDA_VISIBLE_DEVICES has them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name not in ("", "-1")]
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [line.strip() for line in listed.splitlines() if line.strip().isdecimal()]


def _command_in(path: Path) -> str:
    """The command that a mark holds; empty without one."""
    return _plain(path.read_text(encoding="utf-8")) if path.exists() else ""


def _plain(command: str) -> str:
    """A command with single spaces, in which a setting that is empty leaves no trace."""
    return " ".join(command.split())
