"""Pages of memory that take the place of others: system calls that Python has no name for.

The pages are of 2 MiB where the system has such, and where they go lies at a multiple of that: from
pages of 4 KiB a model's weights are read a fifth more slowly on some machines.

Imports ctypes, which a start does without. Linux only. One thread at a time.
"""

import ctypes
import mmap
import os

_MAY_MOVE, _FIXED = 1, 2  # MREMAP_MAYMOVE, MREMAP_FIXED
_HUGE = 14  # MADV_HUGEPAGE
_FAILED = ctypes.c_void_p(-1).value
HUGE_BYTES = 2 << 20


def address_of(view: memoryview) -> int:
    """Where a writable view begins."""
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


class Pages:
    """``view`` is ``num_bytes`` of memory, whole pages. Mutable: they move once, or are freed."""

    def __init__(self, num_bytes: int) -> None:
        """Take the memory.

        Raises:
            OSError: a limit of this process does not allow so much.
        """
        self._libc = ctypes.CDLL(None, use_errno=True)
        for call in (self._libc.mmap, self._libc.mremap):
            call.restype = ctypes.c_void_p
        self._size = ctypes.c_size_t(num_bytes)
        address = self._aligned(num_bytes)
        self._libc.madvise(ctypes.c_void_p(address), self._size, _HUGE)  # refused, pages are small: as good
        self.view = memoryview((ctypes.c_char * num_bytes).from_address(address)).cast("B")
        self._address, self._is_ours = ctypes.c_void_p(address), True

    def _aligned(self, num_bytes: int) -> int:
        """The address of new memory, at a multiple of ``HUGE_BYTES``: from more of it both ends are given back."""
        protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        size = ctypes.c_size_t(num_bytes + HUGE_BYTES)
        first = _checked(self._libc.mmap(None, size, protection, flags, -1, ctypes.c_long(0)))
        start = -(-first // HUGE_BYTES) * HUGE_BYTES
        end = start + -(-num_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        for begin, stop in ((first, start), (end, first + size.value)):
            if stop > begin:
                self._libc.munmap(ctypes.c_void_p(begin), ctypes.c_size_t(stop - begin))
        return start

    def move_over(self, target: memoryview) -> None:
        """Stand where ``target`` does, pages of a private mapping, in one step for all who read there.

        Whoever ends that mapping frees these pages. ``view`` may be used no more.

        Raises:
            OSError: the system refuses.
        """
        address = ctypes.c_void_p(address_of(target))
        flags = _MAY_MOVE | _FIXED
        _checked(self._libc.mremap(self._address, self._size, self._size, flags, address))
        self._is_ours = False

    def free(self) -> None:
        """Give the memory back, unless it has moved."""
        if self._is_ours:
            self._libc.munmap(self._address, self._size)
            self._is_ours = False


def _checked(address: int | None) -> int:
    if address in (None, _FAILED):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    assert address is not None
    return address
