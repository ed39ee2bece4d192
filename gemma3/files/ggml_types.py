"""The tensor types of GGUF files: their ids, and the bytes that a block of values takes.

Apart from ``gguf_dequant``, which expands them, because opening a file is part of every start and
needs no numpy. Also owns the names of the types that are not expanded, so that an error can say
what a file holds.
"""

import enum
from dataclasses import dataclass


class GGMLType(enum.IntEnum):
    """The tensor types this package expands, by their id in the file."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    IQ2_XXS = 16
    IQ2_XS = 17
    IQ3_XXS = 18
    IQ1_S = 19
    IQ4_NL = 20
    IQ3_S = 21
    IQ2_S = 22
    IQ4_XS = 23
    IQ1_M = 29
    BF16 = 30
    TQ1_0 = 34
    TQ2_0 = 35
    MXFP4 = 39
    NVFP4 = 40


@dataclass(frozen=True, slots=True)
class BlockSize:
    """``num_values`` that follow one another in a row take ``num_bytes`` together."""

    num_values: int
    num_bytes: int


BLOCK_SIZES = {
    GGMLType.F32: BlockSize(1, 4),
    GGMLType.F16: BlockSize(1, 2),
    GGMLType.BF16: BlockSize(1, 2),
    GGMLType.Q4_0: BlockSize(32, 18),
    GGMLType.Q4_1: BlockSize(32, 20),
    GGMLType.Q5_0: BlockSize(32, 22),
    GGMLType.Q5_1: BlockSize(32, 24),
    GGMLType.Q8_0: BlockSize(32, 34),
    GGMLType.Q2_K: BlockSize(256, 84),
    GGMLType.Q3_K: BlockSize(256, 110),
    GGMLType.Q4_K: BlockSize(256, 144),
    GGMLType.Q5_K: BlockSize(256, 176),
    GGMLType.Q6_K: BlockSize(256, 210),
    GGMLType.IQ1_S: BlockSize(256, 50),
    GGMLType.IQ1_M: BlockSize(256, 56),
    GGMLType.IQ2_XXS: BlockSize(256, 66),
    GGMLType.IQ2_XS: BlockSize(256, 74),
    GGMLType.IQ2_S: BlockSize(256, 82),
    GGMLType.IQ3_XXS: BlockSize(256, 98),
    GGMLType.IQ3_S: BlockSize(256, 110),
    GGMLType.IQ4_NL: BlockSize(32, 18),
    GGMLType.IQ4_XS: BlockSize(256, 136),
    GGMLType.TQ1_0: BlockSize(256, 54),
    GGMLType.TQ2_0: BlockSize(256, 66),
    GGMLType.MXFP4: BlockSize(32, 17),
    GGMLType.NVFP4: BlockSize(64, 36),
}
EXPANDED = "F32, F16, BF16, Q4_0 to Q8_0, Q2_K to Q6_K, IQ1_S to IQ4_XS, TQ1_0, TQ2_0, MXFP4 or NVFP4"

# ggml.h, enum ggml_type: what weights are not stored in, and the newest types.
_OTHER = {9: "Q8_1", 15: "Q8_K", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 41: "Q1_0", 42: "Q2_0"}
_REMOVED = {
    4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8",
    36: "IQ4_NL_4_4", 37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8",
}  # fmt: skip
# The types that the fork ik_llama.cpp has in addition (its ggml.h).
_OF_A_FORK = {
    133: "Q6_0", 134: "IQ1_BN", 135: "IQ2_BN", 137: "IQ2_K", 138: "IQ3_K", 139: "IQ4_K", 140: "IQ5_K", 141: "IQ6_K",
    144: "IQ4_KS", 145: "IQ2_KS", 146: "IQ4_KSS", 151: "Q8_KV", 152: "IQ5_KS", 153: "IQ2_KT", 154: "IQ3_KT",
    155: "IQ4_KT", 156: "IQ3_KS", 157: "IQ2_KL", 158: "IQ1_KT",
}  # fmt: skip


def name_of_foreign_type(type_id: int) -> str:
    """What an id that is none of ``GGMLType`` stands for, in words for a message."""
    if type_id in _REMOVED:
        return f"{_REMOVED[type_id]} ({type_id}), which ggml has removed"
    if type_id in _OF_A_FORK:
        return f"{_OF_A_FORK[type_id]} ({type_id}) of the fork ik_llama.cpp"
    return f"{_OTHER.get(type_id, 'unknown to ggml')} ({type_id})"
