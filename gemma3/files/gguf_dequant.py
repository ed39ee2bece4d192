"""The quantised block formats of GGUF tensors, and their expansion to float32.

Owns the byte layout of one block of each type, and vectorised numpy that turns blocks into values. It knows nothing of
files: the bytes are already checked by ``gemma3.files.gguf``. Safe from any thread; numpy releases the GIL, so two threads
that each expand their own rows run side by side.

Source of the layouts: the GGML quantisation formats (``ggml-common.h``, ``ggml-quants.c``). The order of the float32
operations is GGML's, so results are equal to the last bit.

Shape key: ``n`` blocks; a block holds 32 values, or 256 (a "K" type, cut into groups of 16 or 32 with scales of their
own).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gemma3.files.ggml_types import GGMLType

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Blocks = npt.NDArray[np.void]

# Values expanded at a time: 512 KiB of float32 and its 8-bit temporaries stay in a core's L2 cache.
_CHUNK_VALUES = 131_072


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """A type: values in a block, fields of a block in file order, and ``expand(blocks, out)`` with out (n, values)."""

    num_values: int
    layout: np.dtype[np.void]
    expand: Callable[[Blocks, Floats], None]


def dequantize(raw: Bytes, ggml_type: GGMLType) -> Floats:
    """Expand the bytes of whole blocks to a new flat float32 array."""
    block_format = BLOCK_FORMATS[ggml_type]
    blocks = raw.view(block_format.layout)
    values = np.empty((blocks.size, block_format.num_values), np.float32)
    step = _CHUNK_VALUES // block_format.num_values
    # A damaged scale may be inf or NaN: it passes through as such, without a warning for each block.
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, blocks.size, step):
            block_format.expand(blocks[start : start + step], values[start : start + step])
    return values.reshape(-1)


def _ieee(blocks: Blocks, out: Floats) -> None:
    """F32 and F16: single and half precision."""
    out[:, 0] = blocks["x"]


def _bf16(blocks: Blocks, out: Floats) -> None:
    """The upper 16 bits of a float32."""
    bits = out.view(np.uint32)
    bits[:, 0] = blocks["x"]
    bits <<= 16


def _q8_0(blocks: Blocks, out: Floats) -> None:
    """``d * q``: q is 32 x int8."""
    _store(out, _bytes(blocks["q"]))
    _multiply(out, _f32s(blocks["d"]))


def _q4_0(blocks: Blocks, out: Floats) -> None:
    """``d * (q - 8)``: q is 4 bits, values [0, 16) in the low nibbles and [16, 32) in the high ones."""
    q = _planes(_bytes(blocks["q"]), 4, 16)
    q -= 8
    _store(out, q)
    _multiply(out, _f32s(blocks["d"]))


def _q4_1(blocks: Blocks, out: Floats) -> None:
    """``d * q + m``: q packed as in Q4_0."""
    _store(out, _planes(_bytes(blocks["q"]), 4, 16))
    _multiply(out, _f32s(blocks["d"]))
    _add(out, _f32s(blocks["m"]))


def _q5_0(blocks: Blocks, out: Floats) -> None:
    """``d * (q - 16)``: the low 4 bits of q as in Q4_0, the fifth of value i is bit i of ``high``."""
    q = _five_bits(blocks)
    q -= 16
    _store(out, q)
    _multiply(out, _f32s(blocks["d"]))


def _q5_1(blocks: Blocks, out: Floats) -> None:
    """``d * q + m``: q packed as in Q5_0."""
    _store(out, _five_bits(blocks))
    _multiply(out, _f32s(blocks["d"]))
    _add(out, _f32s(blocks["m"]))


def _q2_k(blocks: Blocks, out: Floats) -> None:
    """``d * scale * q - dmin * min``: q is 2 bits, each of 16 bytes of ``scales`` has 4 bits of scale, then of min.

    Each 32 bytes of ``q`` hold 128 values: those at bits 0 and 1, then at bits 2 and 3, and so on.
    """
    scales = _bytes(blocks["scales"]).reshape(-1, 16)
    _store(out, _planes(_bytes(blocks["q"]), 2, 32))
    _multiply(out, _f32s(blocks["d"])[:, None] * (scales & 15))
    _add(out, _f32s(blocks["dmin"])[:, None] * -(scales >> 4).astype(np.float32))


def _q3_k(blocks: Blocks, out: Floats) -> None:
    """``d * (scale - 32) * q``: q is 2 bits as in Q2_K, minus 4 where the bit in ``high`` (as in Q5_K) is clear.

    16 scales of 6 bits: the low 4 bits of scales j and j + 8 share byte j of ``scales_low``, the upper 2 bits of
    scales j, j + 4, j + 8 and j + 12 share byte j of ``scales_high``.
    """
    scales = _planes(_bytes(blocks["scales_low"]), 4, 8)
    scales |= 16 * _planes(_bytes(blocks["scales_high"]), 2, 4)
    scales -= 32
    q = _planes(_bytes(blocks["q"]), 2, 32)
    q |= 4 * _planes(_bytes(blocks["high"]), 1, 32)
    q -= 4
    _store(out, q)
    _multiply(out, _f32s(blocks["d"])[:, None] * scales.view(np.int8).reshape(-1, 16))


def _q4_k(blocks: Blocks, out: Floats) -> None:
    """``d * scale * q - dmin * min``: q is 4 bits, each 32 bytes hold a group of 32 low, then of 32 high nibbles."""
    _store(out, _planes(_bytes(blocks["q"]), 4, 32))
    _scale_and_shift(blocks, out)


def _q5_k(blocks: Blocks, out: Floats) -> None:
    """As Q4_K; the fifth bit of value i of group g is bit g of byte i of ``high``."""
    q = _planes(_bytes(blocks["q"]), 4, 32)
    q |= 16 * _planes(_bytes(blocks["high"]), 1, 32)
    _store(out, q)
    _scale_and_shift(blocks, out)


def _q6_k(blocks: Blocks, out: Floats) -> None:
    """``d * scale * (q - 32)``: 128 values have 64 bytes of low nibbles, and 32 bytes of their upper 2 bits."""
    q = _planes(_bytes(blocks["q"]), 4, 64)
    q |= 16 * _planes(_bytes(blocks["high"]), 2, 32)
    q -= 32
    _store(out, q)
    _multiply(out, _f32s(blocks["d"])[:, None] * _bytes(blocks["scales"]).view(np.int8).reshape(-1, 16))


def _scale_and_shift(blocks: Blocks, out: Floats) -> None:
    """Q4_K and Q5_K: 8 groups of 32 values, each with a scale and a min of 6 bits.

    In the 12 bytes of ``scales`` byte j < 4 has scale j in its low 6 bits, byte 4 + j has min j, and byte 8 + j has
    the low 4 bits of scale 4 + j, then of min 4 + j; their upper 2 bits are on top of bytes j and 4 + j.
    """
    a, b, c = _bytes(blocks["scales"]).view(np.uint32).reshape(-1, 3).T
    scales = np.stack((a & 0x3F3F3F3F, (c & 0x0F0F0F0F) | ((a >> 2) & 0x30303030)), axis=1)
    mins = np.stack((b & 0x3F3F3F3F, ((c >> 4) & 0x0F0F0F0F) | ((b >> 2) & 0x30303030)), axis=1)
    _multiply(out, _f32s(blocks["d"])[:, None] * scales.view(np.uint8))
    _add(out, -_f32s(blocks["dmin"])[:, None] * mins.view(np.uint8))


def _five_bits(blocks: Blocks) -> Bytes:
    """The flat 5-bit values of Q5_0 and Q5_1."""
    q = np.unpackbits(_bytes(blocks["high"]), bitorder="little")
    q *= 16
    q |= _planes(_bytes(blocks["q"]), 4, 16)
    return q


def _planes(packed: Bytes, num_bits: int, width: int) -> Bytes:
    """Each ``width`` bytes become their lowest ``num_bits``, then the next ones, ...: flat, one value a byte.

    The bytes are shifted four at a time, and moved ``width`` at a time: numpy shifts single bytes 10 times slower.
    """
    words, mask = packed.view(np.uint32), (1 << num_bits) - 1
    planes = np.empty((packed.size // width, 8 // num_bits), f"V{width}")
    for k in range(planes.shape[1]):
        planes[:, k] = ((words >> (k * num_bits)).view(np.uint8) & mask).view(planes.dtype)
    return planes.reshape(-1).view(np.uint8)


def _bytes(field: Blocks) -> Bytes:
    """One field of all blocks, copied to a flat array: fields are "V" types because numpy moves those whole."""
    return field.copy().view(np.uint8)


def _f32s(field: npt.NDArray[Any]) -> Floats:
    return field.astype(np.float32)


def _store(out: Floats, q: Bytes) -> None:
    out[...] = q.view(np.int8).reshape(out.shape)


def _multiply(out: Floats, scales: Floats) -> None:
    """Scale equal runs of ``out``; repeating the scales beats broadcasting them over runs this short."""
    flat = out.reshape(-1)
    flat *= np.repeat(scales, out.size // scales.size)


def _add(out: Floats, offsets: Floats) -> None:
    flat = out.reshape(-1)
    flat += np.repeat(offsets, out.size // offsets.size)


def _layout(**fields: str) -> np.dtype[np.void]:
    return np.dtype(list(fields.items()))


BLOCK_FORMATS = {
    GGMLType.F32: BlockFormat(1, _layout(x="<f4"), _ieee),
    GGMLType.F16: BlockFormat(1, _layout(x="<f2"), _ieee),
    GGMLType.BF16: BlockFormat(1, _layout(x="<u2"), _bf16),
    GGMLType.Q4_0: BlockFormat(32, _layout(d="<f2", q="V16"), _q4_0),
    GGMLType.Q4_1: BlockFormat(32, _layout(d="<f2", m="<f2", q="V16"), _q4_1),
    GGMLType.Q5_0: BlockFormat(32, _layout(d="<f2", high="V4", q="V16"), _q5_0),
    GGMLType.Q5_1: BlockFormat(32, _layout(d="<f2", m="<f2", high="V4", q="V16"), _q5_1),
    GGMLType.Q8_0: BlockFormat(32, _layout(d="<f2", q="V32"), _q8_0),
    GGMLType.Q2_K: BlockFormat(256, _layout(scales="V16", q="V64", d="<f2", dmin="<f2"), _q2_k),
    GGMLType.Q3_K: BlockFormat(256, _layout(high="V32", q="V64", scales_low="V8", scales_high="V4", d="<f2"), _q3_k),
    GGMLType.Q4_K: BlockFormat(256, _layout(d="<f2", dmin="<f2", scales="V12", q="V128"), _q4_k),
    GGMLType.Q5_K: BlockFormat(256, _layout(d="<f2", dmin="<f2", scales="V12", high="V32", q="V128"), _q5_k),
    GGMLType.Q6_K: BlockFormat(256, _layout(q="V128", high="V64", scales="V16", d="<f2"), _q6_k),
}
