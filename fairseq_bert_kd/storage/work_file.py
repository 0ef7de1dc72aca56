"""An unfinished file: locked, given its size at once, written by position, published in one step."""

import ctypes
import errno
import fcntl
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fairseq_bert_kd.storage.store_file import pread


def work_path(path: str | os.PathLike[str]) -> Path:
    """Path of the unfinished file beside a store."""
    path = Path(path)
    return path.with_name(path.name + ".partial")


class WorkFile:
    """The unfinished file of a store, ours alone until it is closed; created when it is absent.

    Args:
        final: final path of the store.

    Attributes:
        path: path of the unfinished file.
        file: open for reading and writing.

    Raises:
        FileExistsError: another process is writing it.
        OSError: no permission, for example.
    """

    def __init__(self, final: Path):
        self.final, self.path = final, work_path(final)
        self._file: BinaryIO | None = _open_locked(self.path)

    @property
    def file(self) -> BinaryIO:
        assert self._file is not None, f"{self.final} was finished or closed before"
        return self._file

    @property
    def size(self) -> int:
        """Bytes of the file as it is."""
        return os.fstat(self.file.fileno()).st_size

    def read(self, start: int, end: int) -> bytes:
        """Bytes by position, see `store_file.pread`."""
        return pread(self.file, self.path)(start, end)

    def write(self, place: int, content: Any) -> None:
        """Write an array or bytes at a position; OSError with the path when the disk is full."""
        view = memoryview(content.tobytes() if isinstance(content, (np.ndarray, np.generic)) else content)
        try:
            while view:
                written = os.pwrite(self.file.fileno(), view, place)
                place, view = place + written, view[written:]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    def clear(self) -> None:
        """Throw the content away."""
        self.file.truncate(0)

    def reserve(self, size: int) -> None:
        """Give the file its size, new bytes zero; a full disk fails here rather than hours later."""
        try:
            self.file.truncate(size)
            allocate(self.file.fileno(), size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                self.clear()
                reason = os.strerror(error.errno)
                raise OSError(error.errno, f"no room for {size:,} bytes ({reason})", str(self.path)) from None
            # file systems and kernels that cannot reserve
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise

    def sync(self) -> None:
        """Bring everything written so far to disk."""
        os.fsync(self.file.fileno())

    def publish(self) -> None:
        """Give the file its final name."""
        os.replace(self.path, self.final)
        sync_folder(self.final.parent)
        self.close()

    def close(self) -> None:
        """Release the file, which stays for the next run."""
        if self._file is not None:
            # a forked process may still hold the file open, and the lock with it
            fcntl.flock(self._file.fileno(), fcntl.LOCK_UN)
            self._file.close()
            self._file = None

    def discard(self) -> None:
        """Remove the file; nothing happens after `publish`."""
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            self.close()


def allocate(descriptor: int, size: int) -> None:
    """Reserve room on the disk for a file's first bytes; OSError where there is none, or where the file system cannot.

    Nothing happens on systems other than Linux. ``os.posix_fallocate`` is not for this: where the file system cannot reserve
    (NFS), glibc reads and writes a byte of every 4 KiB instead, for minutes of a large store.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "fallocate"):
        return
    while library.fallocate(descriptor, 0, ctypes.c_long(0), ctypes.c_long(size)):
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def _open_locked(path: Path) -> BinaryIO:
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        try:
            # the system gives the lock back when this process dies
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except BlockingIOError:
            file.close()
            raise FileExistsError(
                f"another process is writing {path}; wait for it, or stop it and run this command again"
            ) from None
        except BaseException:
            file.close()
            raise
        file.close()  # published or removed between opening and locking


def sync_folder(folder: Path) -> None:
    """Make a new name in the folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
