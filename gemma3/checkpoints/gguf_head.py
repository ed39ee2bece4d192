"""Whether ``output.weight`` is the embedding once more, rounded in another way.

Owns the bounds. Gemma 3 ties its head; some tools write it a second time, and llama.cpp quantises
the two apart: another type, another importance matrix. A head that was trained by itself is another
one. Plain functions, any thread.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gemma3.files.ggml_types import BLOCK_SIZES, GGMLType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# One way to round a value, so that two copies of one type are equal; the others depend on an
# importance matrix.
_ROUNDED_ALIKE = frozenset((GGMLType.F32, GGMLType.F16, GGMLType.BF16, GGMLType.Q8_0))
_FLOAT_ERRORS = {GGMLType.F32: 0.0, GGMLType.F16: 2.0**-11, GGMLType.BF16: 2.0**-8}  # at most, of one value
# Rounding a row of normal values to a type of b bits a value changes it by 2 to 3.6 times 2 ** -b
# of its length (test_gguf_checkpoint.py, with the quantisation of the ``gguf`` package); unrelated rows
# differ by 1.4 of it.
_STEPS = 4.0
_MAX_ERROR = 0.9
# Rows this much shorter than the average are padding, whose rounding is of another kind.
_SHORT = 1e-3


def is_same_up_to_rounding(
    one_VD: "NDArray[np.float32]", other_VD: "NDArray[np.float32]", kinds: Sequence[GGMLType]
) -> bool:
    """Whether each row differs by no more than the two types round; ``kinds`` are the types that
    they come from."""
    import numpy as np

    if kinds[0] == kinds[1] and kinds[0] in _ROUNDED_ALIKE:
        return np.array_equal(one_VD, other_VD)
    bound = min(_MAX_ERROR, sum(map(_error, kinds)))
    lengths = np.linalg.norm(one_VD, axis=1)
    floor = _SHORT * float(np.sqrt(np.mean(lengths**2)))
    differences = np.linalg.norm(one_VD - other_VD, axis=1)
    return bool((differences <= bound * np.maximum(lengths, floor)).all())


def _error(kind: GGMLType) -> float:
    """How much of a row's length its rounding may change."""
    if kind in _FLOAT_ERRORS:
        return _FLOAT_ERRORS[kind]
    block = BLOCK_SIZES[kind]
    bits_per_value = 8 * block.num_bytes / block.num_values
    error: float = _STEPS * 2.0**-bits_per_value
    return error
