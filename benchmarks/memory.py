"""Peak resident memory of a stretch of work."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def peak_growth() -> Iterator[list[float]]:
    """A list that holds, after the block, the MiB that the process's resident memory rose above its start.

    The kernel's high-water mark (VmHWM) is set back first; ``ru_maxrss`` would not do, a new process inherits its
    parent's. Mapped pages count.
    """
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
    before, grown = _status("VmRSS"), [0.0]
    yield grown
    grown[0] = (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    """A field of /proc/self/status in KiB."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(f"{name}:"))
