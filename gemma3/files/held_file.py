"""A mapped file that others may write to without harm: it is held by a lease, then taken into memory.

A file that is truncated under its mapping kills the process (SIGBUS), and one that is overwritten
changes what is read. Copying it first would cost 0.15 to 0.4 s of every start. So a read lease makes
writers wait (in ``open``, for at most 45 s) until ``take`` has moved every page into memory of this
process, in its place. Mapping and taking may run on different threads.

Leases and moving pages are Linux's. Where a lease is refused (the file of another user, a network
file system) only the time before ``take`` has come by is without it. Windows refuses such writers
by itself.
"""

import mmap
import os
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CHUNK_BYTES = 4 << 20
_PAUSE_S = 0.03  # 270 MB in 3 s, with a fifth of one core
_POLL_S = 0.05


class HeldFile:
    """``view`` is the whole file. Mutable: what lies behind it is taken once."""

    def __init__(self, path: Path) -> None:
        """Map the file, and hold it.

        Raises:
            OSError: it cannot be read.
            ValueError: it is empty.
        """
        self._path, self._handle = path, os.open(path, os.O_RDONLY)
        self._is_leased = _lease(self._handle)
        self._let_go = weakref.finalize(self, _let_go, self._handle, is_leased=self._is_leased)
        self._let_go.atexit = False  # a thread may still be taking it; the system closes what a process has open
        # Private, so that moved pages fit in; nobody writes to them.
        self.view = memoryview(mmap.mmap(self._handle, 0, access=mmap.ACCESS_COPY))

    def take(self, delay_s: float) -> Iterator[memoryview]:
        """After a while, move the file into memory, slowly, and yield it chunk by chunk as it is there then. Once.

        As soon as a writer waits it does not. The file is let go at the end.

        Raises:
            OSError: the memory is not given, or, without a number, the file has become shorter.
        """
        try:
            self._wait(delay_s)
            start = 0
            for end in self._chunk_ends():
                chunk = self.view[start:end]
                self._move(chunk, start)
                yield chunk
                self._wait(_PAUSE_S)
                start = end
        finally:
            self._let_go()

    def _chunk_ends(self) -> Iterator[int]:
        """So that all chunks but the first begin where a large page may."""
        first = _CHUNK_BYTES
        if sys.platform == "linux":
            from gemma3.files.page_moves import HUGE_BYTES, address_of

            first -= address_of(self.view) % min(HUGE_BYTES, _CHUNK_BYTES)
        yield from range(first, len(self.view), _CHUNK_BYTES)
        yield len(self.view)

    def _move(self, chunk: memoryview, start: int) -> None:
        """Whoever reads in ``chunk`` sees no change: the same addresses, the same bytes."""
        if sys.platform != "linux":
            return
        from gemma3.files.page_moves import Pages

        pages = Pages(len(chunk))
        try:
            if os.preadv(self._handle, [pages.view], start) != len(chunk):
                raise OSError(0, "it has become shorter", str(self._path))
            pages.move_over(chunk)
        finally:
            pages.free()

    def _wait(self, pause_s: float) -> None:
        end_s = time.monotonic() + pause_s
        while (left_s := end_s - time.monotonic()) > 0 and not self._is_wanted():
            time.sleep(min(left_s, _POLL_S))

    def _is_wanted(self) -> bool:
        """Whether a writer waits: the system then takes the lease back, and gives 45 s for that."""
        if sys.platform != "linux" or not self._is_leased:
            return False
        import fcntl

        return fcntl.fcntl(self._handle, fcntl.F_GETLEASE) == fcntl.F_UNLCK


def _lease(handle: int) -> bool:
    if sys.platform != "linux":
        return False
    with suppress(OSError, ImportError):  # refused: another's file, an open writer, a file system without leases
        import fcntl

        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(handle, fcntl.F_SETOWN, 0)  # no signal when a writer comes: it would end the process
        return True
    return False


def _let_go(handle: int, *, is_leased: bool) -> None:
    """The lease would not end with ``close``: a mapping has a copy of the handle."""
    if sys.platform == "linux" and is_leased:
        import fcntl

        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    os.close(handle)
