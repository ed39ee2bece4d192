"""The block formats of GGUF tensors whose bits are an index into a table: the IQ, TQ and FP4 types.

Imported when a tensor of such a type is read, and only then. ``gguf_dequant`` is the door; what it
says of sources, exactness and threads holds here too (``dequantize_row_iq2_xxs`` and its kin in
``ggml-quants.c``).

Shape key: ``n`` blocks. An IQ1 or IQ2 index names 8 values, an IQ3 index 4; a sign byte has a bit
for each of 8 values.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from gemma3.files import iq_grids
from gemma3.files.block_format import (
    BlockFormat,
    Blocks,
    Bytes,
    Floats,
    as_float32,
    bytes_of,
    layout,
    multiply,
    planes,
    store,
)
from gemma3.files.ggml_types import GGMLType

Words = npt.NDArray[np.integer[Any]]
Rows = Words  # of a codebook: 8 or 4 values of int8, moved as one number


def _grid(packed: str, values: tuple[int, ...], *, num_bits: int) -> npt.NDArray[np.int8]:
    """The flat values of a codebook."""
    shifts = np.arange(0, 8, num_bits, dtype=np.uint8)
    ranks = np.frombuffer(bytes.fromhex(packed), np.uint8)[:, None] >> shifts & ((1 << num_bits) - 1)
    flat: npt.NDArray[np.int8] = np.array(values, np.int8)[ranks].reshape(-1)
    return flat


_IQ2_VALUES = (0x08, 0x19, 0x2B)
_IQ3_XXS_VALUES = (0x04, 0x0C, 0x14, 0x1C, 0x24, 0x2C, 0x34, 0x3E)
# Eight times what GGML multiplies by: -1, 0 or 1, plus or minus 1/8. So all are integers; dividing
# by 8 is exact.
_IQ1_GRID = _grid(iq_grids.IQ1, (-8, 0, 8), num_bits=2).view(np.uint64)
_IQ1_GRIDS = np.concatenate([(_IQ1_GRID.view(np.int8) + delta).astype(np.int8).view(np.uint64) for delta in (1, -1)])
_IQ2_XXS_GRID = _grid(iq_grids.IQ2_XXS, _IQ2_VALUES, num_bits=2).view(np.uint64)
_IQ2_XS_GRID = _grid(iq_grids.IQ2_XS, _IQ2_VALUES, num_bits=2).view(np.uint64)
_IQ2_S_GRID = _grid(iq_grids.IQ2_S, _IQ2_VALUES, num_bits=2).view(np.uint64)
_IQ3_XXS_GRID = _grid(iq_grids.IQ3_XXS, _IQ3_XXS_VALUES, num_bits=4).view(np.uint32)
_IQ3_S_GRID = _grid(iq_grids.IQ3_S, tuple(range(1, 16, 2)), num_bits=4).view(np.uint32)
_IQ4_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
# E2M1, doubled: GGML halves the scales instead.
_FP4_VALUES = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)

# -1 where the bit is set. Seven bits stand for eight: the eighth makes the number of set bits even.
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
_SIGNS = (1 - 2 * _BITS.astype(np.int8)).view(np.uint64).reshape(-1)
_EVEN = np.arange(128, dtype=np.uint8) | (_BITS[:128].sum(axis=1, dtype=np.uint8) & 1) << 7
_POWERS_OF_3 = np.array((1, 3, 9, 27, 81), np.uint8)[:, None]


def _iq2_xxs(blocks: Blocks, out: Floats) -> None:
    """``d * (0.5 + scale) / 4 * grid``: 32 values have 4 bytes of index, then 4 x 7 bits of sign
    and 4 bits of scale."""
    words = bytes_of(blocks["q"]).view(np.uint32).reshape(-1, 2)
    _store_signed(out, _IQ2_XXS_GRID[words[:, 0].copy().view(np.uint8)], _signs_of_7_bits(words[:, 1]))
    _multiply_half(out, blocks, words[:, 1] >> 28, 0.25)


def _iq2_xs(blocks: Blocks, out: Floats) -> None:
    """As IQ2_XXS: 8 values have 9 bits of index and 7 of sign, 16 values a scale."""
    words = bytes_of(blocks["q"]).view(np.uint16)
    _store_signed(out, _IQ2_XS_GRID[words & 511], _EVEN[words >> 9])
    _multiply_half(out, blocks, _nibbles(blocks["scales"]), 0.25)


def _iq2_s(blocks: Blocks, out: Floats) -> None:
    """As IQ2_XS: an index has 8 bits in ``q`` and 2 in ``high``; all 8 signs are written."""
    index = bytes_of(blocks["q"]) | _fields(bytes_of(blocks["high"]), 2) << 8
    _store_signed(out, _IQ2_S_GRID[index], bytes_of(blocks["signs"]))
    _multiply_half(out, blocks, _nibbles(blocks["scales"]), 0.25)


def _iq3_xxs(blocks: Blocks, out: Floats) -> None:
    """``d * (0.5 + scale) / 2 * grid``: a byte of index for 4 values; signs and scales as in
    IQ2_XXS."""
    words = bytes_of(blocks["scales"]).view(np.uint32)
    _store_signed(out, _IQ3_XXS_GRID[bytes_of(blocks["q"])], _signs_of_7_bits(words))
    _multiply_half(out, blocks, words >> 28, 0.5)


def _iq3_s(blocks: Blocks, out: Floats) -> None:
    """``d * (1 + 2 * scale) * grid``: the ninth bit of an index is in ``high``; 32 values have a
    scale."""
    index = bytes_of(blocks["q"]) | _fields(bytes_of(blocks["high"]), 1) << 8
    _store_signed(out, _IQ3_S_GRID[index], bytes_of(blocks["signs"]))
    multiply(out, as_float32(blocks["d"])[:, None] * (1 + 2 * _nibbles(blocks["scales"])).reshape(len(out), -1))


def _iq1_s(blocks: Blocks, out: Floats) -> None:
    """``d * (2 * scale + 1) * (grid + delta)``: 32 values have 4 x 3 high bits of index, a scale
    and the sign of delta."""
    words = bytes_of(blocks["high"]).view(np.uint16)[:, None]
    high = words >> np.array((0, 3, 6, 9), np.uint16) & 7 | words >> 15 << 3
    store(out, _IQ1_GRIDS[bytes_of(blocks["q"]) | high.reshape(-1) << 8].view(np.int8))
    scales = (2 * (words >> 12 & 7) + 1).reshape(len(out), -1)
    multiply(out, as_float32(blocks["d"])[:, None] * scales * np.float32(0.125))


def _iq1_m(blocks: Blocks, out: Floats) -> None:
    """As IQ1_S: 8 values have 3 high bits of index and a delta, 16 a scale; d is spread over the
    top nibbles of scales."""
    high = _fields(bytes_of(blocks["high"]), 4)
    store(out, _IQ1_GRIDS[bytes_of(blocks["q"]) | high << 8].view(np.int8))
    words = bytes_of(blocks["scales"]).view(np.uint16).reshape(-1, 4)
    d = ((words & 0xF000) >> np.array((12, 8, 4, 0), np.uint16)).sum(axis=1, dtype=np.uint16).view(np.float16)
    scales = 2 * (words[:, :, None] >> np.array((0, 3, 6, 9), np.uint16) & 7) + 1
    multiply(out, as_float32(d)[:, None] * scales.reshape(len(out), -1) * np.float32(0.125))


def _iq4_nl(blocks: Blocks, out: Floats) -> None:
    """``d * table[q]``: q packed as in Q4_0."""
    _store_named(out, planes(bytes_of(blocks["q"]), 4, 16), _IQ4_VALUES)
    multiply(out, as_float32(blocks["d"]))


def _iq4_xs(blocks: Blocks, out: Floats) -> None:
    """``d * (scale - 32) * table[q]``: 32 values have 6 bits of scale, their upper 2 bits together
    in ``high``."""
    _store_named(out, planes(bytes_of(blocks["q"]), 4, 16), _IQ4_VALUES)
    high = blocks["high"][:, None] >> np.arange(0, 16, 2, dtype=np.uint16) & 3
    scales = _nibbles(blocks["scales"]).reshape(len(out), -1) + 16.0 * high - 32
    multiply(out, as_float32(blocks["d"])[:, None] * scales.astype(np.float32))


def _tq1_0(blocks: Blocks, out: Floats) -> None:
    """``d * (q - 1)``: a byte holds 5 base-3 digits as a fraction; multiplied by 3 ** k its upper
    bits are digit k."""
    q = bytes_of(blocks["q"]).reshape(-1, 48)
    parts = [_digits(q[:, :32], 5), _digits(q[:, 32:], 5), _digits(bytes_of(blocks["high"]).reshape(-1, 4), 4)]
    store(out, np.concatenate(parts, axis=1) - 1)
    multiply(out, as_float32(blocks["d"]))


def _tq2_0(blocks: Blocks, out: Floats) -> None:
    """``d * (q - 1)``: q is 2 bits as in Q2_K."""
    store(out, planes(bytes_of(blocks["q"]), 2, 32) - 1)
    multiply(out, as_float32(blocks["d"]))


def _mxfp4(blocks: Blocks, out: Floats) -> None:
    """``2 ** (e - 128) * table[q]``: q packed as in Q4_0, OCP's MXFP4. The two smallest scales are
    subnormal."""
    _store_named(out, planes(bytes_of(blocks["q"]), 4, 16), _FP4_VALUES)
    e = blocks["e"].astype(np.uint32)
    multiply(out, np.where(e < 2, 0x00200000 << e, (e - 1) << 23).astype(np.uint32).view(np.float32))


def _nvfp4(blocks: Blocks, out: Floats) -> None:
    """``scale / 2 * table[q]``: 16 values have 8 bytes of q and a scale in E4M3; its sign is not
    looked at, NaN is 0."""
    _store_named(out, planes(bytes_of(blocks["q"]), 4, 8), _FP4_VALUES)
    e4m3 = bytes_of(blocks["scales"])
    exponent, mantissa = (e4m3 >> 3 & 15).astype(np.int32), as_float32(e4m3 & 7)
    scales = np.where(exponent == 0, np.ldexp(mantissa, -10), np.ldexp(8 + mantissa, exponent - 11))
    multiply(out, np.where(e4m3 == 0x7F, 0, scales).astype(np.float32))


def _store_named(out: Floats, nibbles: Bytes, values: tuple[int, ...]) -> None:
    """``values[nibble]``; translating bytes halves the time of the whole against an index."""
    table = bytes(value % 256 for value in values).ljust(256, b"\0")
    store(out, np.frombuffer(nibbles.tobytes().translate(table), np.int8))


def _store_signed(out: Floats, rows: Rows, signs: Bytes) -> None:
    """Codebook rows with a sign for each value; ``signs`` has a byte for 8 values."""
    values = rows.view(np.int8)
    values *= _SIGNS[signs].view(np.int8)
    store(out, values)


def _signs_of_7_bits(words: Words) -> Bytes:
    """Four sign bytes for each word of 4 x 7 bits."""
    signs: Bytes = _EVEN[words[:, None] >> np.array((0, 7, 14, 21), np.uint32) & 127].reshape(-1)
    return signs


def _multiply_half(out: Floats, blocks: Blocks, scales: Words, factor: float) -> None:
    """By ``d * (0.5 + scale) * factor``, in this order."""
    by_group = (np.float32(0.5) + as_float32(scales)).reshape(len(out), -1)
    multiply(out, as_float32(blocks["d"])[:, None] * by_group * np.float32(factor))


def _nibbles(field: Blocks) -> Words:
    return _fields(bytes_of(field), 4)


def _fields(packed: Bytes, num_bits: int) -> Words:
    """Each byte becomes its lowest ``num_bits``, then the next ones, ...: flat, wide enough to be
    shifted further."""
    shifts = np.array(range(0, 8, num_bits), np.uint16)
    return (packed.astype(np.uint16)[:, None] >> shifts & ((1 << num_bits) - 1)).reshape(-1)


def _digits(packed: Bytes, num_digits: int) -> Bytes:
    """(n, w) bytes to their base-3 digits (n, num_digits * w): the first digit of all, then the
    second, ..."""
    fractions = packed[:, None] * _POWERS_OF_3[:num_digits]
    return (fractions.astype(np.uint16) * 3 >> 8).astype(np.uint8).reshape(len(packed), -1)


CODEBOOK_FORMATS = {
    GGMLType.IQ1_S: BlockFormat(256, layout(d="<f2", q="V32", high="V16"), _iq1_s),
    GGMLType.IQ1_M: BlockFormat(256, layout(q="V32", high="V16", scales="V8"), _iq1_m),
    GGMLType.IQ2_XXS: BlockFormat(256, layout(d="<f2", q="V64"), _iq2_xxs),
    GGMLType.IQ2_XS: BlockFormat(256, layout(d="<f2", q="V64", scales="V8"), _iq2_xs),
    GGMLType.IQ2_S: BlockFormat(256, layout(d="<f2", q="V32", signs="V32", high="V8", scales="V8"), _iq2_s),
    GGMLType.IQ3_XXS: BlockFormat(256, layout(d="<f2", q="V64", scales="V32"), _iq3_xxs),
    GGMLType.IQ3_S: BlockFormat(256, layout(d="<f2", q="V64", high="V8", signs="V32", scales="V4"), _iq3_s),
    GGMLType.IQ4_NL: BlockFormat(32, layout(d="<f2", q="V16"), _iq4_nl),
    GGMLType.IQ4_XS: BlockFormat(256, layout(d="<f2", high="<u2", scales="V4", q="V128"), _iq4_xs),
    GGMLType.TQ1_0: BlockFormat(256, layout(q="V48", high="V4", d="<f2"), _tq1_0),
    GGMLType.TQ2_0: BlockFormat(256, layout(q="V64", d="<f2"), _tq2_0),
    GGMLType.MXFP4: BlockFormat(32, layout(e="u1", q="V16"), _mxfp4),
    GGMLType.NVFP4: BlockFormat(64, layout(scales="V4", q="V32"), _nvfp4),
}
