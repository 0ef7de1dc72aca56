"""What stands behind a command on the tests' PATH: hands it to the preloaded process, or starts it as it is.

``python -IS client.py FOLDER NAME ARGUMENTS...``, where NAME is a console command or `python`.
"""

import fcntl
import json
import os
import signal
import socket
import struct
import sys

# Read by Python, its libraries or the loader when they start: where one differs, so may what was loaded.
READ_AT_START = (
    "PYTHON",
    "LD_",
    "LC_",
    "LANG",
    "HF_",
    "TRANSFORMERS_",
    "OPENBLAS_",
    "MKL_",
    "MPL",
    "TORCH_LOGS",
)
# Of these, what `examples/run.py` sets for its steps, and fairseq when it has read batches; the preloaded process sets
# them itself (`server.quieten`).
QUIET = {
    "PYTHONWARNINGS": ("ignore", "ignore:semaphore_tracker:UserWarning"),
    "TRANSFORMERS_VERBOSITY": ("error",),
}
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def read_at_start(environment, root):
    """The variables that must be the same; our own folder on the path changes nothing that is loaded."""
    chosen = {name: value for name, value in environment.items() if name.startswith(READ_AT_START)}
    chosen.pop("PYTHON_EXEC", None)  # torchrun's, not Python's
    paths = [path for path in chosen.pop("PYTHONPATH", "").split(os.pathsep) if path not in ("", root)]
    return chosen | {"PYTHONPATH": paths}


def fits(environment, started, root):
    """Whether a command of this environment may run in a process that was started in the other."""
    wanted, there = read_at_start(environment, root), read_at_start(started, root)
    for name, values in QUIET.items():
        if wanted.get(name) in values:
            there.setdefault(name, wanted[name])
    return wanted == there


def connect(folder, settings):
    """A connection to the preloaded process, which the first client starts."""
    os.chdir(folder)  # a socket's path is short
    with open("lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect("socket")
        except OSError:
            start(settings)
            connection.connect("socket")
    return connection


def start(settings):
    """Start the preloaded process, apart from this one's group and streams; return when it listens."""
    if os.path.exists("socket"):
        os.remove("socket")
    ready, written = os.pipe()
    if not os.fork():
        os.setsid()
        if os.fork():
            os._exit(0)
        null, log = (
            os.open(os.devnull, os.O_RDWR),
            os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        )
        for target, fd in enumerate((null, log, log)):
            os.dup2(fd, target)
        os.closerange(3, written)
        os.closerange(written + 1, os.sysconf("SC_OPEN_MAX"))  # a caller's lock must not last as long
        os.set_inheritable(written, False)
        server = os.path.join(os.path.dirname(os.path.abspath(__file__)), "server.py")
        os.execve(settings["python"], [settings["python"], server, os.getcwd(), str(settings["session"])],
                  settings["environment"])  # fmt: skip
    os.close(written)
    os.read(ready, 1)  # the end of file comes with the exec
    os.close(ready)
    import time

    for _ in range(600):
        if os.path.exists("pid") and os.path.exists("socket"):
            return
        time.sleep(0.05)


def hand_over(connection, request, folder):
    """Send the command; its exit status, or minus the signal that ended it."""
    content = json.dumps(request).encode()
    socket.send_fds(connection, [struct.pack("<I", len(content))], [0, 1, 2, folder])
    connection.sendall(content)
    for number in FORWARDED:
        if number not in request["ignored"]:
            signal.signal(number, lambda number, _: connection.sendall(bytes([number])))
    answer = connection.recv(4, socket.MSG_WAITALL)
    if len(answer) < 4:
        sys.exit("the preloaded process ended before its command did")
    return struct.unpack("<i", answer)[0]


def main():
    store, name, *arguments = sys.argv[1:]
    with open(os.path.join(store, "settings.json")) as file:
        settings = json.load(file)
    real = settings["python"] if name == "python" else os.path.join(settings["bin"], name)
    command = [real, *arguments]
    module, unbuffered = None, False
    if name == "python":
        if unbuffered := arguments[:1] == ["-u"]:  # torchrun starts its workers so
            del arguments[0]
        if arguments[:1] == ["-m"] and arguments[1:] and arguments[1].split(".")[0] in settings["modules"]:
            module = arguments[1]
        elif not (arguments and arguments[0] in settings["scripts"]):
            os.execv(real, command)
    root = settings["root"]
    try:
        folder = os.open(".", os.O_RDONLY)
        for fd in range(3):
            os.fstat(fd)
        if not fits(os.environ, settings["environment"], root):
            raise OSError
        connection = connect(store, settings)
        os.fchdir(folder)
    except OSError:
        os.execv(real, command)
    if name != "python":
        argv = [real, *arguments]
    elif module:
        argv = ["-m", *arguments[2:]]  # runpy puts the module's file in the first place
    else:
        argv = arguments
    umask = os.umask(0)
    os.umask(umask)
    ignored = [n for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN]
    request = {
        "argv": argv,
        "module": module,
        "environment": dict(os.environ),
        "umask": umask,
        "ignored": ignored,
        "unbuffered": unbuffered,
    }
    status = hand_over(connection, request, folder)
    if status < 0:
        if -status not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


main()
