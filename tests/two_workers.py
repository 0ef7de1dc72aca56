"""fairseq's commands in two processes on a CPU, one job after another.

Run as a script it is the processes' parent: it imports fairseq once, which takes longer than a tiny training,
and forks two workers for each job. Whatever it and its workers start dies with its process group.
"""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.tiny_chain import PLUGIN

LIMIT = 300  # seconds for one job
WORLD = 2


class TwoWorkers:
    """Runs jobs in two workers; use it as a context."""

    def __init__(self, logs: Path):
        self.logs = logs
        self.jobs = 0

    def __enter__(self):
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": str(PLUGIN.parent),
        }
        self.parent = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment, start_new_session=True,
        )  # fmt: skip
        return self

    def __exit__(self, *_):
        os.killpg(self.parent.pid, signal.SIGKILL)
        self.parent.wait()

    def run(self, tool: str, *arguments: object, pytorch_ddp: bool = False, group: bool = True) -> list[str]:
        """What the workers of ``fairseq-<tool>`` wrote, by rank.

        Args:
            tool: ``train``, for example.
            arguments: arguments of the command, the same for both.
            pytorch_ddp: let torch's DistributedDataParallel wrap a model on a CPU.
            group: form a process group; otherwise each worker only knows its rank (decoding).
        """
        self.jobs += 1
        logs = [self.logs / f"{self.jobs}.{rank}.log" for rank in range(WORLD)]
        job = {
            "tool": tool,
            "arguments": list(map(str, arguments)),
            "logs": list(map(str, logs)),
            "pytorch_ddp": pytorch_ddp,
            "port": free_port() if group else None,
        }
        self.parent.stdin.write(json.dumps(job) + "\n")
        self.parent.stdin.flush()
        answer = self.parent.stdout.readline().strip()
        output = [log.read_text(encoding="utf-8") for log in logs]
        assert answer == "0 0", "\n".join(text[-3000:] for text in output)
        return output


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def serve() -> None:
    """Read jobs from standard input, answer each with the exit statuses of its workers."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # fairseq logs there
    import fairseq_cli.train  # noqa: F401
    from transformers import AutoTokenizer, BertForMaskedLM  # noqa: F401

    for line in sys.stdin:
        job = json.loads(line)
        workers = [fork(rank, job) for rank in range(WORLD)]
        # a job that hangs takes everything down; the test then reads an empty answer
        signal.signal(signal.SIGALRM, lambda *_: os.killpg(0, signal.SIGKILL))
        signal.alarm(LIMIT)
        statuses = wait_for(workers)
        signal.alarm(0)
        print(*statuses, file=answers, flush=True)


def wait_for(workers: list[int]) -> list[int]:
    """Exit statuses, in order; when one worker fails the other, which would wait for it, is ended."""
    statuses: dict[int, int] = {}
    while len(statuses) < len(workers):
        ended, status = os.wait()
        statuses[ended] = os.waitstatus_to_exitcode(status)
        for other in set(workers) - set(statuses) if statuses[ended] else ():
            os.kill(other, signal.SIGKILL)
    return [statuses[worker] for worker in workers]


def fork(rank: int, job: dict) -> int:
    """Start a worker; its process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        with open(job["logs"][rank], "w", encoding="utf-8") as log:
            for stream in (1, 2):
                os.dup2(log.fileno(), stream)
        work(rank, job)
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def work(rank: int, job: dict) -> None:
    if job["pytorch_ddp"]:
        wrap_models_on_a_cpu()
    options = ["--distributed-world-size", str(WORLD), "--distributed-rank", str(rank)]
    if job["port"]:
        options += ["--distributed-init-method", f"tcp://localhost:{job['port']}", "--distributed-no-spawn",
                    "--distributed-backend", "gloo"]  # fmt: skip
    sys.argv = [f"fairseq-{job['tool']}", *job["arguments"], *options]
    importlib.import_module(f"fairseq_cli.{job['tool']}").cli_main()


def wrap_models_on_a_cpu() -> None:
    """fairseq gives torch a GPU's number even with --cpu; without it torch takes a model on a CPU."""
    from fairseq.models import distributed_fairseq_model

    wrapper = distributed_fairseq_model.DistributedDataParallel
    distributed_fairseq_model.DistributedDataParallel = lambda device_ids, output_device, **rest: wrapper(
        **rest
    )


if __name__ == "__main__":
    serve()
