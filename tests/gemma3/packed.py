"""The packed layouts read back in plain numpy, from their description alone (``gemma3/cpu/packed_layout.py``).

Shapes: ``N`` outputs, ``K`` inputs, ``P`` panels of 16 outputs.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def rotation(num_inputs: int) -> Floats:
    """(K, K): Sylvester's matrix in blocks of the largest power of two up to 128 that divides K; its own inverse."""
    block = np.ones((1, 1), np.float32)
    while len(block) < 128 and num_inputs % (2 * len(block)) == 0:
        block = np.block([[block, block], [block, -block]])
    return np.kron(np.eye(num_inputs // len(block), dtype=np.float32), block / np.sqrt(len(block)))


def unpack_int8(panels: bytes | memoryview, scales: bytes | memoryview, shape: tuple[int, int]) -> Floats:
    """The rotated rows (N, K) of int8 panels."""
    num_outputs, num_inputs = shape
    lines = np.frombuffer(panels, np.uint8).reshape(-1, (num_inputs + 63) // 64 * 16, 16, 4)
    return _scaled(lines.transpose(0, 2, 1, 3).astype(np.float32) - 128, scales, shape, num_outputs)


def unpack_embedding(high: memoryview, low: memoryview, scales: memoryview, shape: tuple[int, int]) -> Floats:
    """The rotated rows of the two nibble planes."""
    return unpack_int8((_nibbles(high) * 16 + _nibbles(low)).tobytes(), scales, shape)


def unpack_int4(panels: memoryview, multipliers: memoryview, scales: memoryview, shape: tuple[int, int]) -> Floats:
    """The rotated rows of nibble panels with a multiplier for each row and group of 64 inputs."""
    num_outputs, num_inputs = shape
    num_groups = (num_inputs + 63) // 64
    factors_PGO = np.frombuffer(multipliers, np.int8).reshape(-1, num_groups, 16)
    lines = _nibbles(panels).reshape(len(factors_PGO), num_groups * 16, 16, 4).transpose(0, 2, 1, 3)
    values = lines.reshape(-1, 16, num_groups, 64).astype(np.float32) - 8
    return _scaled(values * factors_PGO.transpose(0, 2, 1)[..., None], scales, shape, num_outputs)


def _nibbles(panels: memoryview) -> NDArray[np.uint8]:
    """Nibble lines as int8 lines: the low nibbles of a line, then its high ones."""
    lines = np.frombuffer(panels, np.uint8).reshape(-1, 64)
    return np.stack([lines & 15, lines >> 4], axis=1).reshape(-1)


def _scaled(values: Floats, scales: bytes | memoryview, shape: tuple[int, int], num_outputs: int) -> Floats:
    factors_N = np.frombuffer(scales, np.float32)
    rows = values.reshape(len(factors_N), -1) * factors_N[:, None]
    assert not rows[num_outputs:].any(), "the rows that fill up the last panel are zero"
    assert not rows[:, shape[1] :].any(), "so are the inputs that fill up the last group"
    return rows[:num_outputs, : shape[1]]
