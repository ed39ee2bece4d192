"""The machine: cores, memory, how fast it reads, and the share of that which one stream reaches.

Owns these measurements, a second or two each. Names of the core are imported where they are used: it
may be missing, which is a finding of its own.
"""

import os
import platform
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from engine.doctor.bandwidth import read_bandwidth
from engine.doctor.finding import Finding, State

if TYPE_CHECKING:
    from gemma3.cpu.model import CpuModel

NUM_PASSES = 8
NUM_TOKENS = 48
# A step computes from the packed weights, keys and values, and Python itself.
LEAST_MEMORY_BYTES = 700 << 20
LEAST_SHARE = 0.25


def check_cores() -> Iterator[Finding]:
    """How many may be used, by this process's mask and the container's quota."""
    from gemma3.cpu.model import num_cores

    used, there = num_cores(), os.cpu_count() or 1
    yield Finding("cores", State.OK, f"{used} used of {there} logical processors, {platform.machine()}")


def check_memory(num_bytes: int | None) -> Iterator[Finding]:
    """``num_bytes``: the lowest limit that holds here; ``None`` if the system tells none."""
    if num_bytes is None:
        yield Finding("memory", State.NOTE, "this system does not tell how much there is")
    elif num_bytes < LEAST_MEMORY_BYTES:
        says = f"{num_bytes >> 20} MiB; the model needs about {LEAST_MEMORY_BYTES >> 20} MiB"
        yield Finding("memory", State.WRONG, says, "raise the limit of the container, or ulimit -v")
    else:
        yield Finding("memory", State.OK, f"{num_bytes / (1 << 30):.1f} GiB")


def check_speed(model: "CpuModel", token_ids: Sequence[int], step_bytes: int) -> Iterator[Finding]:
    """One greedy stream beside the memory's bandwidth, which bounds it: ``step_bytes`` are read for each token."""
    bandwidth = read_bandwidth(model.num_threads, num_passes=NUM_PASSES)
    tokens_per_s = _tokens_per_s(model, token_ids)
    share = tokens_per_s * step_bytes / bandwidth
    says = (
        f"{tokens_per_s:.0f} tokens/s on {model.num_threads} threads ({model.scheme}, {model.isa}): {share:.0%} of what "
        f"{bandwidth / 1e9:.1f} GB/s allow"
    )
    if share >= LEAST_SHARE:
        yield Finding("speed", State.OK, says)
    else:
        yield Finding(
            "speed", State.NOTE, says, "something else may use the cores; or give --threads the number of them"
        )


def _tokens_per_s(model: "CpuModel", token_ids: Sequence[int]) -> float:
    """Of a greedy text behind ``token_ids``."""
    from gemma3.cpu.model import BLOCK_SIZE, RowRequest, Segment

    blocks = list(range(-(-(len(token_ids) + NUM_TOKENS) // BLOCK_SIZE)))
    model.allocate_kv(len(blocks), len(blocks))
    segment = Segment(0, len(token_ids), blocks, blocks, 0)
    (chosen,) = model.step(token_ids, [segment], [RowRequest(len(token_ids) - 1)])
    began_s = time.perf_counter()
    for position in range(len(token_ids), len(token_ids) + NUM_TOKENS):
        (chosen,) = model.step([chosen.token_id], [Segment(position, 1, blocks, blocks, 0)], [RowRequest(0)])
    return NUM_TOKENS / (time.perf_counter() - began_s)
