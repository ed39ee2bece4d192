"""What every benchmark prints beside its figures: the machine, and how fast it reads memory."""

import platform
import time
from pathlib import Path

import torch

ROW_BYTES = 1 << 28


def describe() -> str:
    """Processor, cores and the instruction sets that decide the speed."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    model = next(
        (line.partition(": ")[2] for line in text.splitlines() if line.startswith("model name")), platform.machine()
    )
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    known = [name for name in ("avx2", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16") if name in flags]
    return f"{model}, {torch.get_num_threads()} threads, {' '.join(known)}, torch {torch.__version__}"


def read_bandwidth() -> float:
    """Bytes per second that all threads together read from memory: the best of ten sums over 256 MiB."""
    data = torch.ones(ROW_BYTES // 4)
    best_s = min(_timed(data) for _ in range(10))
    return ROW_BYTES / best_s


def _timed(data: torch.Tensor) -> float:
    began = time.perf_counter()
    data.sum()
    return time.perf_counter() - began
