"""A process with torch, fairseq and transformers loaded, which forks for every command that a client sends.

``python server.py FOLDER SESSION``: listens on ``FOLDER/socket`` until the process SESSION (the test session) ends.
Our own package is not loaded, so a command imports and registers it as always.
"""

import atexit
import builtins
import contextlib
import gc
import importlib
import json
import logging
import os
import random
import runpy
import selectors
import shutil
import signal
import socket
import struct
import sys
import time
import traceback
import warnings
from functools import partial
from pathlib import Path
from unittest import mock

# Not `fairseq_cli`: its modules set up logging when they are imported.
PRELOADED = (
    "torch", "fairseq.options", "fairseq.trainer", "fairseq.sequence_scorer", "fairseq.quantization_utils",
    "fairseq.dataclass.initialize", "hydra.experimental", "transformers", "transformers.models.bert.modeling_bert",
    "transformers.models.auto.modeling_auto", "sacrebleu", "scipy.stats", "numpy.random",
)  # fmt: skip
OPTIONAL = ("jinja2", "matplotlib.figure", "matplotlib.backends.backend_agg", "rouge_score.rouge_scorer")
# what a new Python process does on a signal; all others end it
HANDLERS = {signal.SIGINT: signal.default_int_handler, signal.SIGPIPE: signal.SIG_IGN}


def preload() -> list[partial]:
    """Import the libraries; what importing them did to logging, to be repeated in each command."""
    calls: list[partial] = []
    configure = logging.basicConfig

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name.startswith("fairseq"):
                calls.append(partial(_log, record))

    collect = Collect()
    logging.root.addHandler(collect)
    logging.root.setLevel(logging.INFO)
    record_call = lambda **settings: calls.append(partial(configure, **settings))  # noqa: E731
    with mock.patch.object(logging, "basicConfig", record_call):
        for name in PRELOADED:
            importlib.import_module(name)
        for name in OPTIONAL:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    runpy.run_path(str(Path(__file__).with_name("quick_settings.py")))["set_up"]()
    logging.root.removeHandler(collect)
    logging.root.setLevel(logging.WARNING)
    gc.collect()
    gc.freeze()  # the children then share these pages
    return calls


def _log(record: logging.LogRecord) -> None:
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


def receive(connection: socket.socket) -> dict:
    """A command with its three streams and working folder as file descriptors."""
    connection.settimeout(10)
    head, fds, _, _ = socket.recv_fds(connection, 4, 4)
    (size,) = struct.unpack("<I", head)
    with connection.makefile("rb") as stream:
        request = json.loads(stream.read(size))
    connection.settimeout(None)
    return request | {"fds": fds}


def serve(listener: socket.socket, session: int) -> dict | None:
    """Fork for each request until the session ends; in a fork, the request that it is for."""
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ, "request")
    selector.register(os.pidfd_open(session), selectors.EVENT_READ, "session ended")
    running: dict[int, socket.socket] = {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        while True:
            for key, _ in selector.select():
                if key.data == "session ended":
                    return None
                if key.data == "request":
                    connection, _ = listener.accept()
                    try:
                        request = receive(connection)
                    except (OSError, ValueError, struct.error):
                        connection.close()  # the client was killed meanwhile
                        continue
                    child = os.fork()
                    if not child:
                        for other in list(selector.get_map().values()):
                            os.close(other.fd)
                        selector.close()
                        connection.detach()
                        running.clear()
                        return request
                    for fd in request["fds"]:
                        os.close(fd)
                    print("started", child, flush=True)
                    running[child] = connection
                    selector.register(os.pidfd_open(child), selectors.EVENT_READ, ("ended", child))
                    selector.register(connection, selectors.EVENT_READ, ("signal", child))
                    continue
                what, child = key.data
                if child not in running:  # ended a moment ago
                    continue
                connection = running[child]
                if what == "signal":
                    numbers = _read(connection)
                    if not numbers:  # the client is gone
                        selector.unregister(connection)
                        kill(child)
                    for number in numbers:
                        os.kill(child, number)
                    continue
                _, status = os.waitpid(child, 0)
                selector.unregister(key.fileobj)
                os.close(key.fd)
                if connection in {other.fileobj for other in selector.get_map().values()}:
                    selector.unregister(connection)
                with contextlib.suppress(OSError):
                    connection.sendall(struct.pack("<i", os.waitstatus_to_exitcode(status)))
                connection.close()
                del running[child]
    finally:
        for child in running:
            kill(child)


def _read(connection: socket.socket) -> bytes:
    try:
        return connection.recv(64)
    except OSError:
        return b""


def kill(child: int) -> None:
    """End a command and what it started."""
    for end in (os.killpg, os.kill):  # it leads a process group, unless it was forked a moment ago
        with contextlib.suppress(ProcessLookupError):
            end(child, signal.SIGKILL)


def become(request: dict, calls: list[partial], own_path: list[str]) -> None:
    """Take on the streams, folder, environment, signals and arguments of the client's process."""
    os.setsid()
    *streams, folder = request["fds"]
    os.fchdir(folder)
    for target, fd in enumerate(streams):
        os.dup2(fd, target)
    for fd in request["fds"]:
        os.close(fd)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.umask(request["umask"])
    time.tzset()
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError):  # two numbers belong to the C library
            ignored = number in request["ignored"]
            signal.signal(number, signal.SIG_IGN if ignored else HANDLERS.get(number, signal.SIG_DFL))
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty(), write_through=request["unbuffered"])
    sys.argv = request["argv"]
    first = os.getcwd() if request["module"] else str(Path(sys.argv[0]).resolve().parent)
    search = [path for path in request["environment"].get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [first, *search, *own_path]
    random.seed()
    sys.modules["numpy"].random.seed()
    threads = request["environment"].get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))
    sys.modules["torch"].set_num_threads(int(threads))
    quieten(request["environment"])
    repeat_at_first_import(calls)


def quieten(environment: dict[str, str]) -> None:
    """What Python and transformers do at their start with the two variables of `client.QUIET`."""
    if option := environment.get("PYTHONWARNINGS"):
        action, _, rest = option.partition(":")
        sys.warnoptions[:] = [option]
        warnings.filterwarnings(action, rest.partition(":")[0], UserWarning if rest else Warning)
    if environment.get("TRANSFORMERS_VERBOSITY") == "error":
        sys.modules["transformers"].logging.set_verbosity_error()


def repeat_at_first_import(calls: list[partial]) -> None:
    """Set up logging when the command first imports fairseq, which does so in a process of its own.

    The first to configure the root logger wins, so the moment matters: `fairseq-train` is there before fairseq.
    """
    original = builtins.__import__

    def hooked(name, *rest, **named):
        if name.split(".")[0] == "fairseq":
            builtins.__import__ = original
            for call in calls:
                call()
        return original(name, *rest, **named)

    builtins.__import__ = hooked


def run(request: dict) -> None:
    try:
        if request["module"]:
            runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(request["argv"][0], run_name="__main__")
    except Exception as error:
        frames = error.__traceback__
        while frames.tb_next and frames.tb_frame.f_code.co_filename in (
            __file__,
            runpy.__file__,
            "<frozen runpy>",
        ):
            frames = frames.tb_next
        sys.stdout.flush()
        traceback.print_exception(type(error), error, frames)
        sys.exit(1)


class QuickEnd:
    """Ends a command once its exit functions have run.

    Python would then take apart all that was preloaded, which takes longer than many a command.
    """

    def __init__(self) -> None:
        self.status: int | None = None  # unknown: Python ends the process
        atexit.register(self.leave)  # before any other, so it is called last

    def leave(self) -> None:
        if self.status is not None:
            with contextlib.suppress(OSError, ValueError):  # of streams that are closed; Python says it
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(self.status)

    def run(self, request: dict) -> None:
        try:
            run(request)
            self.status = 0
        except SystemExit as end:
            if end.code is None or isinstance(end.code, int):  # Python prints what is no number
                self.status = (end.code or 0) & 0xFF
            raise


def main() -> None:
    end = QuickEnd()
    folder, session = Path(sys.argv[1]), int(sys.argv[2])
    searched = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    own_path = [path for path in sys.path[1:] if path not in searched]
    listener = socket.socket(socket.AF_UNIX)
    os.chdir(folder)  # a socket's path is short
    listener.bind("socket")
    listener.listen(64)  # clients wait there meanwhile
    Path("pid").write_text(str(os.getpid()), encoding="utf-8")
    calls = preload()
    request = serve(listener, session)
    if request is None:  # what was to remove the folder may have been killed
        shutil.rmtree(folder, ignore_errors=True)
        return
    become(request, calls, own_path)
    end.run(request)


if __name__ == "__main__":
    main()
