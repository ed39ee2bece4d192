"""How much memory this process may have: the machine's, a container's, or what ``ulimit -v`` leaves.

Owns where each system says so. Knows nothing of what the memory is for. Main thread, at start.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# Version 2 and version 1; without a limit they hold "max" or a number beyond all memory.
_CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """``source`` in words that a size follows."""

    num_bytes: int
    source: str


def memory_limit() -> MemoryLimit | None:
    """The lowest limit, or ``None`` where the system tells none (Windows)."""
    found = [limit for limit in (_machine(), _container(), _process()) if limit is not None]
    return min(found, key=lambda limit: limit.num_bytes, default=None)


def _machine() -> MemoryLimit | None:
    try:
        num_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf, others not every name
        return None
    return MemoryLimit(num_bytes, "this machine's memory") if num_bytes > 0 else None


def _container() -> MemoryLimit | None:
    for path in _CONTAINER_LIMITS:
        with suppress(OSError, ValueError):
            return MemoryLimit(int(path.read_text()), "this container's memory")
    return None


def _process() -> MemoryLimit | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else MemoryLimit(soft, "the limit of this process (ulimit -v)")
