"""The machine in a few words, for people who watch the server.

Owns where each system says what its processor is called. Reads it once and measures nothing. Any
thread.
"""

import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from openai_api.machine_memory import memory_limit

_CPU_INFO = Path("/proc/cpuinfo")
_NAMES = ("model name", "Hardware", "cpu model", "Model")  # x86, ARM, MIPS, and boards


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """``memory_bytes``: what this process may have; ``None`` if the system does not tell."""

    processor: str
    architecture: str
    num_processors: int
    memory_bytes: int | None


@cache
def this_machine() -> Machine:
    """Logical processors that this process may use, the others as they are called."""
    limit = memory_limit()
    return Machine(
        processor=_processor(),
        architecture=platform.machine(),
        num_processors=_num_processors(),
        memory_bytes=None if limit is None else limit.num_bytes,
    )


def _num_processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def _processor() -> str:
    """Of many processors the first is read: the file is made while it is read, and slowly."""
    with suppress(OSError), _CPU_INFO.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() in _NAMES and value.strip():
                return value.strip()
            if not line.strip():
                break
    return platform.processor() or platform.machine()
