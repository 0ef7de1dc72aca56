"""One writer a file: a lock that the system gives back when its process dies."""

from typing import Any

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]


def lock_exclusively(file: Any) -> bool:
    """Whether the open file is now ours alone, until it is closed; always True where there are no locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(file: Any) -> None:
    """Give the lock back, although a forked process may still hold the file open."""
    if fcntl is not None:
        fcntl.flock(file.fileno(), fcntl.LOCK_UN)
