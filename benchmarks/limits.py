"""How many integer products the kernels do when nothing waits for memory: the limit beside which prefill is held.

It is our own kernel on weights that stay in the second cache, in one process for each thread, since the function for
tests holds Python's lock. The processor's limit lies above it: by as much as loads, scales and sums cost the kernel.
"""

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from gemma3.cpu import _native

ROWS, INPUTS = 96, 2_048
FEW_OUTPUTS, MANY_OUTPUTS = 32, 192  # 393 KB of weights at most
MEASURED_S = 0.5


def product_limit(isa: str, num_threads: int) -> float:
    """Multiply-adds per second of all threads together, int8 by int8."""
    if isa == "auto":
        isa = _native.supported_isas()[-1]
    with ProcessPoolExecutor(num_threads, mp_context=get_context("spawn")) as pool:
        return sum(pool.map(_products_per_s, [isa] * num_threads))


def _products_per_s(isa: str) -> float:
    """What more outputs cost: the time to hand over the rows is in both products."""
    more_s = _product_s(isa, MANY_OUTPUTS) - _product_s(isa, FEW_OUTPUTS)
    return ROWS * INPUTS * (MANY_OUTPUTS - FEW_OUTPUTS) / more_s


def _product_s(isa: str, num_outputs: int) -> float:
    """The best of many calls, by the thread's own time: a call computes on one thread."""
    rng = np.random.default_rng(0)
    panels = rng.integers(1, 256, num_outputs * INPUTS, dtype=np.uint8).tobytes()
    scales = np.ones(num_outputs, np.float32).tobytes()
    values = rng.integers(-127, 128, (ROWS, INPUTS), dtype=np.int8)
    best_s, end_s = float("inf"), time.perf_counter() + MEASURED_S
    while time.perf_counter() < end_s or best_s == float("inf"):
        began_s = time.thread_time()
        _native.multiply(isa, "int8", panels, b"", scales, values)
        best_s = min(best_s, time.thread_time() - began_s)
    return best_s
