"""Files that are there whole or not at all.

Owns the temporary file, its lock, and the rename. Any number of processes and threads may write one
path: each writes a file of its own, and the later rename wins. A writer holds a lock on its file, so
a file whose lock is free belongs to a process that was killed.
"""

import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_SUFFIX = ".tmp"
_MODE = 0o644  # less the umask; whoever shares the cache may read it
_RANDOM_BYTES = 4
_STALE_S = 3_600.0  # where there are no locks, a file this old has lost its process


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file beside ``path`` to write to; it takes that name when every byte is on the disk, and goes after an error.

    Raises:
        OSError: it cannot be written.
    """
    temporary, file = _create(path)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if sys.platform != "win32":  # the lock is held until the name is changed
                temporary.replace(path)
        if sys.platform == "win32":
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of writers in ``folder`` that were killed. What cannot be removed stays."""
    with suppress(OSError):
        for entry in os.scandir(folder):
            if entry.name.endswith(_SUFFIX):
                with suppress(OSError):
                    _remove_if_abandoned(Path(entry.path))


def _create(path: Path) -> tuple[Path, BinaryIO]:
    while True:
        temporary = path.with_name(f"{path.name}.{os.urandom(_RANDOM_BYTES).hex()}{_SUFFIX}")
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(temporary, flags, _MODE), "wb")
        with suppress(OSError):  # some network file systems have no locks
            _lock(file.fileno(), wait=True)
        if os.fstat(file.fileno()).st_nlink:
            return temporary, file
        file.close()  # taken for abandoned before it was locked


def _remove_if_abandoned(path: Path) -> None:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        return
    if sys.platform == "win32":
        if time.time() - status.st_mtime > _STALE_S:
            path.unlink()
        return
    with path.open("rb") as file:
        if _lock(file.fileno(), wait=False):
            path.unlink()


def _lock(handle: int, *, wait: bool) -> bool:
    """Whether this open file has the lock now; it goes with the file, also when the process is killed."""
    try:
        import fcntl  # importing it is not worth its while at a start that writes nothing
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True
