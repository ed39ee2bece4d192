"""What the expansions of all block formats share: how a format is described, and numpy on many
blocks at once.

Knows no format. Safe from any thread; numpy releases the GIL, so two threads that each expand their
own rows run side by side.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Blocks = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """A type: values in a block, fields of a block in file order, and ``expand(blocks, out)`` with
    out (n, values)."""

    num_values: int
    layout: np.dtype[np.void]
    expand: Callable[[Blocks, Floats], None]


def planes(packed: Bytes, num_bits: int, width: int) -> Bytes:
    """Each ``width`` bytes become their lowest ``num_bits``, then the next ones, ...: flat, one
    value a byte.

    The bytes are shifted four at a time, and moved ``width`` at a time: numpy shifts single bytes
    10 times slower.
    """
    words, mask = packed.view(np.uint32), (1 << num_bits) - 1
    found = np.empty((packed.size // width, 8 // num_bits), f"V{width}")
    for k in range(found.shape[1]):
        found[:, k] = ((words >> (k * num_bits)).view(np.uint8) & mask).view(found.dtype)
    return found.reshape(-1).view(np.uint8)


def bytes_of(field: Blocks) -> Bytes:
    """One field of all blocks, copied to a flat array: fields are "V" types because numpy moves
    those whole."""
    return field.copy().view(np.uint8)


def as_float32(field: npt.NDArray[Any]) -> Floats:
    """One number of each block."""
    return field.astype(np.float32)


def store(out: Floats, q: npt.NDArray[Any]) -> None:
    """The integers ``q``, one byte each and signed, as floats in ``out``."""
    out[...] = q.view(np.int8).reshape(out.shape)


def multiply(out: Floats, scales: Floats) -> None:
    """Scale equal runs of ``out``; repeating the scales beats broadcasting them over runs this
    short."""
    flat = out.reshape(-1)
    flat *= np.repeat(scales, out.size // scales.size)


def add(out: Floats, offsets: Floats) -> None:
    """Shift equal runs of ``out``."""
    flat = out.reshape(-1)
    flat += np.repeat(offsets, out.size // offsets.size)


def layout(**fields: str) -> np.dtype[np.void]:
    """The fields of a block in the order of the file, without gaps."""
    return np.dtype(list(fields.items()))
