"""How fast this machine reads memory, which bounds every decoded token. The benchmarks measure with it too.

Needs numpy, and nothing of the core.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

READ_BYTES = 1 << 28


def read_bandwidth(num_threads: int, *, num_passes: int) -> float:
    """Bytes per second that all threads together read from memory: the best of some passes over 256 MiB.

    The largest value of an array is numpy's cheapest pass: one vector instruction a load.
    """
    import numpy as np

    parts = np.array_split(np.ones(READ_BYTES // 4, np.float32), num_threads)
    with ThreadPoolExecutor(num_threads) as pool:
        return READ_BYTES / min(_pass_s(pool, parts) for _ in range(num_passes))


def _pass_s(pool: ThreadPoolExecutor, parts: "list[NDArray[np.float32]]") -> float:
    began_s = time.perf_counter()
    list(pool.map(lambda part: part.max(), parts))
    return time.perf_counter() - began_s
