"""A command whose behaviour is compared: started by itself and by the preloaded process."""

import atexit
import json
import logging
import os
import signal
import sys
import time


def describe():
    """What a process can see of how it was started."""
    import torch

    return {
        "arguments": sys.argv[1:],
        "program": os.path.basename(sys.argv[0]),
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "path": sys.path,
        "executable": os.path.realpath(sys.executable),
        "main": sys.modules["__main__"].__name__,
        "terminal": [stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)],
        "buffering": [sys.stdout.line_buffering, sys.stderr.line_buffering],
        "encoding": [sys.stdout.encoding, sys.stderr.errors],
        "umask": os.umask(0o22),
        "ignored": [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGHUP)
                    if signal.getsignal(n) is signal.SIG_IGN],
        "threads": torch.get_num_threads(),
        "handlers": len(logging.root.handlers),
        "level": logging.root.level,
    }  # fmt: skip


def fairseq_sets_up_logging():
    from fairseq import options  # noqa: F401

    return [str(logging.root.handlers), logging.root.level]


def warn():
    """How the process warns, and from which level transformers logs."""
    import warnings

    from transformers.utils import logging as transformers_logging

    warnings.warn("a warning", UserWarning, stacklevel=1)
    return [sys.warnoptions, transformers_logging.get_verbosity()]


def work_in_processes():
    """A pool of processes and one of threads: neither may hang in a fork."""
    import multiprocessing

    import torch

    torch.set_num_threads(2)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        lengths = pool.map(len, ["a", "bb"])
    return [lengths, float((torch.ones(400, 400) @ torch.ones(400, 400)).sum())]


def main():
    action, *rest = sys.argv[1:]
    if action == "describe":
        print(json.dumps(describe(), sort_keys=True))
    elif action == "logging":
        print(json.dumps(fairseq_sets_up_logging()))
    elif action == "warn":
        print(json.dumps(warn()))
    elif action == "processes":
        print(json.dumps(work_in_processes()))
    elif action == "streams":
        atexit.register(print, "the end")
        print("out", sys.stdin.read())
        print("error", file=sys.stderr)
    elif action == "exit":
        sys.exit(int(rest[0]) if rest[0].isdigit() else rest[0])
    elif action == "fail":
        raise ValueError("as intended")
    elif action == "signal":
        os.kill(os.getpid(), int(rest[0]))
        time.sleep(60)
    elif action == "wait":
        print(os.getpid(), flush=True)
        time.sleep(60)
    elif action == "leave":
        import random

        import torch

        print(json.dumps([random.random(), getattr(torch, "left_behind", None), "torch" in sys.modules]))
        torch.left_behind = True


main()
