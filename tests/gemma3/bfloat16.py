"""bfloat16 in numpy, which has no such type: 16-bit words that are the upper halves of float32."""

import numpy as np
from numpy.typing import NDArray


def rounded(x: NDArray[np.floating]) -> NDArray[np.uint16]:
    """To nearest, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def widened(words: NDArray[np.uint16]) -> NDArray[np.float64]:
    return (words.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
