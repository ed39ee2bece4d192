"""The block formats of GGUF tensors that are plain numbers, and the expansion of all formats to float32.

Owns the byte layout of one block of each type, and vectorised numpy that turns blocks into values. It knows nothing of
files: the bytes are already checked by ``gemma3.files.gguf``. Safe from any thread; numpy releases the GIL, so two threads
that each expand their own rows run side by side.

Source of the layouts: the GGML quantisation formats (``ggml-common.h``, ``ggml-quants.c``). The order of the float32
operations is GGML's, so results are equal to the last bit.

Shape key: ``n`` blocks; a block holds 32 values, or 256 (a "K" type, cut into groups of 16 or 32 with scales of their
own).
"""

import numpy as np

from gemma3.files.block_format import (
    BlockFormat,
    Blocks,
    Bytes,
    Floats,
    add,
    as_float32,
    bytes_of,
    layout,
    multiply,
    planes,
    store,
)
from gemma3.files.ggml_types import GGMLType

# Values expanded at a time: 512 KiB of float32 and its 8-bit temporaries stay in a core's L2 cache.
_CHUNK_VALUES = 131_072


def dequantize(raw: Bytes, ggml_type: GGMLType) -> Floats:
    """Expand the bytes of whole blocks to a new flat float32 array."""
    block_format = format_of(ggml_type)
    blocks = raw.view(block_format.layout)
    values = np.empty((blocks.size, block_format.num_values), np.float32)
    step = _CHUNK_VALUES // block_format.num_values
    # A damaged scale may be inf or NaN: it passes through as such, without a warning for each block.
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, blocks.size, step):
            block_format.expand(blocks[start : start + step], values[start : start + step])
    return values.reshape(-1)


def format_of(ggml_type: GGMLType) -> BlockFormat:
    """The tables of the types with a codebook are loaded with the first of these types that is met."""
    if ggml_type in _FORMATS:
        return _FORMATS[ggml_type]
    from gemma3.files.gguf_codebooks import CODEBOOK_FORMATS

    return CODEBOOK_FORMATS[ggml_type]


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
    store(out, bytes_of(blocks["q"]))
    multiply(out, as_float32(blocks["d"]))


def _q4_0(blocks: Blocks, out: Floats) -> None:
    """``d * (q - 8)``: q is 4 bits, values [0, 16) in the low nibbles and [16, 32) in the high ones."""
    q = planes(bytes_of(blocks["q"]), 4, 16)
    q -= 8
    store(out, q)
    multiply(out, as_float32(blocks["d"]))


def _q4_1(blocks: Blocks, out: Floats) -> None:
    """``d * q + m``: q packed as in Q4_0."""
    store(out, planes(bytes_of(blocks["q"]), 4, 16))
    multiply(out, as_float32(blocks["d"]))
    add(out, as_float32(blocks["m"]))


def _q5_0(blocks: Blocks, out: Floats) -> None:
    """``d * (q - 16)``: the low 4 bits of q as in Q4_0, the fifth of value i is bit i of ``high``."""
    q = _five_bits(blocks)
    q -= 16
    store(out, q)
    multiply(out, as_float32(blocks["d"]))


def _q5_1(blocks: Blocks, out: Floats) -> None:
    """``d * q + m``: q packed as in Q5_0."""
    store(out, _five_bits(blocks))
    multiply(out, as_float32(blocks["d"]))
    add(out, as_float32(blocks["m"]))


def _q2_k(blocks: Blocks, out: Floats) -> None:
    """``d * scale * q - dmin * min``: q is 2 bits, each of 16 bytes of ``scales`` has 4 bits of scale, then of min.

    Each 32 bytes of ``q`` hold 128 values: those at bits 0 and 1, then at bits 2 and 3, and so on.
    """
    scales = bytes_of(blocks["scales"]).reshape(-1, 16)
    store(out, planes(bytes_of(blocks["q"]), 2, 32))
    multiply(out, as_float32(blocks["d"])[:, None] * (scales & 15))
    add(out, as_float32(blocks["dmin"])[:, None] * -(scales >> 4).astype(np.float32))


def _q3_k(blocks: Blocks, out: Floats) -> None:
    """``d * (scale - 32) * q``: q is 2 bits as in Q2_K, minus 4 where the bit in ``high`` (as in Q5_K) is clear.

    16 scales of 6 bits: the low 4 bits of scales j and j + 8 share byte j of ``scales_low``, the upper 2 bits of
    scales j, j + 4, j + 8 and j + 12 share byte j of ``scales_high``.
    """
    scales = planes(bytes_of(blocks["scales_low"]), 4, 8)
    scales |= 16 * planes(bytes_of(blocks["scales_high"]), 2, 4)
    scales -= 32
    q = planes(bytes_of(blocks["q"]), 2, 32)
    q |= 4 * planes(bytes_of(blocks["high"]), 1, 32)
    q -= 4
    store(out, q)
    multiply(out, as_float32(blocks["d"])[:, None] * scales.view(np.int8).reshape(-1, 16))


def _q4_k(blocks: Blocks, out: Floats) -> None:
    """``d * scale * q - dmin * min``: q is 4 bits, each 32 bytes hold a group of 32 low, then of 32 high nibbles."""
    store(out, planes(bytes_of(blocks["q"]), 4, 32))
    _scale_and_shift(blocks, out)


def _q5_k(blocks: Blocks, out: Floats) -> None:
    """As Q4_K; the fifth bit of value i of group g is bit g of byte i of ``high``."""
    q = planes(bytes_of(blocks["q"]), 4, 32)
    q |= 16 * planes(bytes_of(blocks["high"]), 1, 32)
    store(out, q)
    _scale_and_shift(blocks, out)


def _q6_k(blocks: Blocks, out: Floats) -> None:
    """``d * scale * (q - 32)``: 128 values have 64 bytes of low nibbles, and 32 bytes of their upper 2 bits."""
    q = planes(bytes_of(blocks["q"]), 4, 64)
    q |= 16 * planes(bytes_of(blocks["high"]), 2, 32)
    q -= 32
    store(out, q)
    multiply(out, as_float32(blocks["d"])[:, None] * bytes_of(blocks["scales"]).view(np.int8).reshape(-1, 16))


def _scale_and_shift(blocks: Blocks, out: Floats) -> None:
    """Q4_K and Q5_K: 8 groups of 32 values, each with a scale and a min of 6 bits.

    In the 12 bytes of ``scales`` byte j < 4 has scale j in its low 6 bits, byte 4 + j has min j, and byte 8 + j has
    the low 4 bits of scale 4 + j, then of min 4 + j; their upper 2 bits are on top of bytes j and 4 + j.
    """
    a, b, c = bytes_of(blocks["scales"]).view(np.uint32).reshape(-1, 3).T
    scales = np.stack((a & 0x3F3F3F3F, (c & 0x0F0F0F0F) | ((a >> 2) & 0x30303030)), axis=1)
    mins = np.stack((b & 0x3F3F3F3F, ((c >> 4) & 0x0F0F0F0F) | ((b >> 2) & 0x30303030)), axis=1)
    multiply(out, as_float32(blocks["d"])[:, None] * scales.view(np.uint8))
    add(out, -as_float32(blocks["dmin"])[:, None] * mins.view(np.uint8))


def _five_bits(blocks: Blocks) -> Bytes:
    """The flat 5-bit values of Q5_0 and Q5_1."""
    q = np.unpackbits(bytes_of(blocks["high"]), bitorder="little")
    q *= 16
    q |= planes(bytes_of(blocks["q"]), 4, 16)
    return q


_FORMATS = {
    GGMLType.F32: BlockFormat(1, layout(x="<f4"), _ieee),
    GGMLType.F16: BlockFormat(1, layout(x="<f2"), _ieee),
    GGMLType.BF16: BlockFormat(1, layout(x="<u2"), _bf16),
    GGMLType.Q4_0: BlockFormat(32, layout(d="<f2", q="V16"), _q4_0),
    GGMLType.Q4_1: BlockFormat(32, layout(d="<f2", m="<f2", q="V16"), _q4_1),
    GGMLType.Q5_0: BlockFormat(32, layout(d="<f2", high="V4", q="V16"), _q5_0),
    GGMLType.Q5_1: BlockFormat(32, layout(d="<f2", m="<f2", high="V4", q="V16"), _q5_1),
    GGMLType.Q8_0: BlockFormat(32, layout(d="<f2", q="V32"), _q8_0),
    GGMLType.Q2_K: BlockFormat(256, layout(scales="V16", q="V64", d="<f2", dmin="<f2"), _q2_k),
    GGMLType.Q3_K: BlockFormat(256, layout(high="V32", q="V64", scales_low="V8", scales_high="V4", d="<f2"), _q3_k),
    GGMLType.Q4_K: BlockFormat(256, layout(d="<f2", dmin="<f2", scales="V12", q="V128"), _q4_k),
    GGMLType.Q5_K: BlockFormat(256, layout(d="<f2", dmin="<f2", scales="V12", high="V32", q="V128"), _q5_k),
    GGMLType.Q6_K: BlockFormat(256, layout(q="V128", high="V64", scales="V16", d="<f2"), _q6_k),
}
