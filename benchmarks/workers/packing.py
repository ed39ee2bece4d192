"""Packs the default weights once, in a process of its own, and prints what that took as a line of JSON.

    python benchmarks/workers/packing.py int8

Seconds of processor time by stage: each stage is timed on the thread that runs it, but for observing, which has all threads and
nothing beside it. What is left over is copies, norms, page faults and the threads' waiting. No file is written.
"""

import hashlib
import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from gemma3.checkpoints.checkpoint import open_checkpoint
from gemma3.checkpoints.embedded_weights import embedded_gguf
from gemma3.cpu import _native, packing
from gemma3.cpu.packed_layout import PackedLayout


class Stages:
    """Processor seconds by the stage's name. Mutable; more threads than one may add."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def watch(self, owner: Any, function: str, stage: str, clock: Callable[[], float] = time.thread_time) -> None:
        """From now on ``owner.function`` is timed."""
        call = getattr(owner, function)

        def timed(*args: object, **keywords: object) -> object:
            began_s = clock()
            try:
                return call(*args, **keywords)
            finally:
                self.seconds[stage] += clock() - began_s

        setattr(owner, function, timed)


def main() -> None:
    scheme, stages = sys.argv[1], Stages()
    checkpoint = open_checkpoint(embedded_gguf()[0])
    stages.watch(packing, "calibration_token_ids", "tokenizer")
    stages.watch(packing, "observe_inputs", "observe", time.process_time)
    stages.watch(type(checkpoint), "read_rows", "dequantise")
    for kind in ("int8", "int4", "embedding"):
        stages.watch(_native, f"quantize_{kind}", f"quantise {kind}")
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    packed = packing.pack_balanced(checkpoint, PackedLayout.of(checkpoint.config, scheme))
    took = {"processor": time.process_time() - began_cpu_s, "wall": time.perf_counter() - began_s}
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    sha256 = hashlib.sha256(packed).hexdigest()
    print(json.dumps({"seconds": took | stages.seconds, "peak_mb": peak_mb, "sha256": sha256}))


if __name__ == "__main__":
    main()
