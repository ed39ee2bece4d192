"""What every benchmark prints beside its figures: the machine, and how fast it reads memory."""

import os
import platform
import sys
from pathlib import Path

from engine.doctor import bandwidth

FLAGS = (
    *("avx2", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimddp", "i8mm", "sve"),
)


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> str:
    """Processor, cores, the instruction sets that decide the speed, and torch where it is loaded."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    lines = dict(line.replace("\t", "").split(":", 1) for line in text.splitlines() if ":" in line)
    flags = lines.get("flags", lines.get("Features", "")).split()
    parts = [
        lines.get("model name", platform.machine()).strip(),
        f"{num_cores()} cores",
        " ".join(name for name in FLAGS if name in flags),
        f"Python {platform.python_version()}",
    ]
    if torch := sys.modules.get("torch"):
        parts.append(f"torch {torch.__version__} with {torch.get_num_threads()} threads")
    return ", ".join(part for part in parts if part)


def read_bandwidth(num_threads: int | None = None) -> float:
    """Bytes per second that all threads together read from memory: the best of twenty passes."""
    return bandwidth.read_bandwidth(num_threads or num_cores(), num_passes=20)
