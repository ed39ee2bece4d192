"""Every tensor of a checkpoint as numpy arrays, decoded chunk by chunk on every core; no torch.

Owns how values are rounded and where the arrays lie. A checkpoint's ``read_rows`` knows how they are stored, checks that
they are finite and has the one rule for norms. numpy releases the GIL, so this may run in a thread while others import.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from gemma3.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    ReadRows = Callable[[str, slice], NDArray[np.float32]]

# 2,048 rows of the embedding are 5 MB as float32: decoded, rounded and stored before they leave the L2 cache.
_CHUNK_ELEMENTS = 2_048 * 640
_CACHE_LINE_BYTES = 64


def decode_all(
    shapes: Mapping[str, tuple[int, ...]],
    read_rows: "ReadRows",
    *,
    dtype: str,
    progress: Progress,
    stored: "Mapping[str, NDArray[Any]] | None" = None,
) -> "dict[str, NDArray[Any]]":
    """The tensors named in ``shapes``: vectors as float32, the others as ``dtype``. Bfloat16 is its bits as ``uint16``.

    ``stored`` has those that the file holds in just this form: they are checked, and returned uncopied.

    Raises:
        CheckpointError: a value is NaN or infinite.
    """
    stored = stored or {}
    arrays = {name: _new(shape, dtype) for name, shape in shapes.items() if name not in stored}
    work: dict[str, Callable[[str, slice], object]] = {
        name: partial(_fill, array, read_rows) for name, array in arrays.items()
    }
    jobs = [
        partial(work.get(name, read_rows), name, rows) for name, shape in shapes.items() for rows in _row_chunks(shape)
    ]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for num_done, job in enumerate([pool.submit(job) for job in jobs], start=1):
            job.result()
            progress(num_done, len(jobs))
    return {**arrays, **stored}


def _fill(out: "NDArray[Any]", read_rows: "ReadRows", name: str, rows: slice) -> None:
    values = read_rows(name, rows)
    out[rows] = values if out.dtype == values.dtype else bfloat16_bits(values)


def bfloat16_bits(values: "NDArray[np.float32]") -> "NDArray[np.uint16]":
    """Round finite float32 values to the nearest bfloat16, ties to even. ``values`` is used up as working space."""
    import numpy as np

    bits = values.view(np.uint32)
    odd = bits >> 16
    odd &= 1
    bits += odd
    bits += 0x7FFF
    return bits.view(np.uint16)[..., 1::2]


def _new(shape: tuple[int, ...], dtype: str) -> "NDArray[Any]":
    """An array that begins with a cache line: numpy's 16 bytes cost the matrix products 10 to 15 %."""
    import numpy as np

    item = np.dtype(np.uint16 if dtype == "bfloat16" and len(shape) > 1 else np.float32)
    num_bytes = math.prod(shape) * item.itemsize
    buffer = np.empty(num_bytes + _CACHE_LINE_BYTES, np.uint8)
    start = -buffer.ctypes.data % _CACHE_LINE_BYTES
    return buffer[start : start + num_bytes].view(item).reshape(shape)


def _row_chunks(shape: tuple[int, ...]) -> Iterator[slice]:
    columns = shape[1] if len(shape) > 1 else 1
    step = max(1, _CHUNK_ELEMENTS // columns)
    return (slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step))
