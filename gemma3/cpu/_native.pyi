"""The compiled module (nanobind, C++ in ``gemma3/cpu/src``). Its callers are the modules of ``gemma3.cpu``.

Shapes: ``N`` outputs, ``K`` inputs, ``R`` rows whose logits are wanted, ``V`` vocabulary. Packed bytes are as
``packed_layout.py`` describes them. ``quantize_*``, ``Model.step`` and ``Model.observe_inputs`` release the GIL while they
compute; the others, which tests call, hold it.
"""

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Room = memoryview | bytearray
"""Writable bytes."""

kernels: ModuleType
"""The floating-point kernels one by one, for tests: ``src/kernel_binding.cpp``."""

def supported_isas() -> list[str]:
    """What runs on this processor, the best last: of "portable", "avx2", "avx512", "amx"."""

def quantize_int8(rows: Floats, factors: Floats, panels: Room, scales: Room) -> None:
    """``rows`` (N, K) times ``factors`` (K), rotated and rounded, into panels and scales.

    Raises:
        ValueError: ``factors`` or the room, padded as the layout is, does not fit the rows. So do the other two.
    """

def quantize_int4(rows: Floats, factors: Floats, panels: Room, multipliers: Room, scales: Room) -> None:
    """The same in 4 bits, into panels of nibbles, multipliers and scales."""

def quantize_embedding(rows: Floats, factors: Floats, high: Room, low: Room, scales: Room) -> None:
    """The same as int8, cut into a high and a low plane."""

class Segment:
    """One sequence's rows of a step: positions ``[start_position, start_position + num_tokens)``.

    Position p lives in ``global_blocks[p // 16]`` and in ``sliding_blocks[p // 16 - first_sliding_block]``.
    """

    def __init__(
        self,
        start_position: int,
        num_tokens: int,
        global_blocks: Sequence[int],
        sliding_blocks: Sequence[int],
        first_sliding_block: int,
    ) -> None: ...

class RowRequest:
    """A row of the step whose logits are wanted, by its number among the step's tokens. As it is made it is greedy.

    Every setting of ``engine/sampling_params.py`` that shapes a row is an attribute of the same name, which holds the
    value that changes nothing until it is set.

    Attributes:
        num_logprobs: how many of the likeliest to report; -1 reports no log probability at all.
        target: 0 or more chooses nothing and reports the log probability of this token.
        wants_rank: report the target's rank too.
        uniform: the random number in [0, 1) of a row with a temperature.
        seen: the distinct ids of prompt and output; asked for only by ``repetition_penalty``.
        output_counts: the distinct ids of the output and how often each is there; only for the other penalties.
        logit_bias: ids, and what is added to their logits.
        banned: ids that cannot be chosen.
        allowed: the ids that alone can be chosen, as bits: little-endian uint32 words, id i being bit i % 32 of word
            i // 32; at most as many words as the vocabulary needs, and no bit beyond it. Empty allows all. A target is
            reported whatever it says.
        reported: ids whose log probabilities are reported instead of the likeliest ones', in this order.
    """

    uniform: float
    seen: Sequence[int]
    output_counts: Sequence[tuple[int, int]]
    logit_bias: Sequence[tuple[int, float]]
    banned: Sequence[int]
    allowed: bytes
    reported: Sequence[int]

    def __init__(self, row: int, *, num_logprobs: int = -1, target: int = -1, wants_rank: bool = False) -> None: ...
    def __getattr__(self, name: str) -> float: ...
    def __setattr__(self, name: str, value: object) -> None: ...

class Sampled:
    """What came of a ``RowRequest``."""

    @property
    def token_id(self) -> int: ...
    @property
    def is_finite(self) -> bool: ...
    @property
    def logprob(self) -> float: ...
    @property
    def rank(self) -> int:
        """Of the target, the likeliest id being 1, ties by id; 0 unless asked for."""

    @property
    def top(self) -> list[tuple[int, float]]: ...

class Model:
    """The whole model over packed weights; ``isa`` "auto" takes the best. Keeps references to the buffers in ``tensors``.

    Raises:
        RuntimeError: from any method, if another thread is in one: a model computes for one thread at a time.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        hidden_size: int,
        intermediate_size: int,
        num_layers: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        rms_norm_eps: float,
        query_scale: float,
        rope_theta: float,
        rope_local_theta: float,
        sliding_window: int,
        is_sliding: Sequence[bool],
        tensors: Mapping[str, memoryview],
        num_threads: int,
        isa: str,
    ) -> None: ...
    @property
    def isa(self) -> str: ...
    @property
    def num_threads(self) -> int: ...
    def allocate_kv(self, num_global_blocks: int, num_sliding_blocks: int) -> None:
        """Storage for that many blocks of 16 tokens, bfloat16; what was there before is gone."""

    def copy_block(self, source: int, target: int, sliding: bool) -> None:
        """Copy keys and values from block to block of the sliding or of the global layers' pool."""

    def release_blocks(self, blocks: Sequence[int], sliding: bool) -> None:
        """Give back the memory of blocks of a pool. Runs of them that follow one another go in one piece."""

    def step(self, token_ids: Sequence[int], segments: Sequence[Segment], rows: Sequence[RowRequest]) -> list[Sampled]:
        """Compute all rows of all segments, writing K and V into their blocks, and choose for ``rows``, in their order."""

    def logits(self, token_ids: Sequence[int], segments: Sequence[Segment], rows: Sequence[int]) -> NDArray[np.float32]:
        """The same step, but the float32 logits (R, V) of ``rows``: for tests and measurements."""

    def observe_inputs(self, token_ids: Sequence[int], progress: Callable[[int], None]) -> dict[str, bytes]:
        """Mean squares (K, float32) of the inputs of each matrix over one text. ``progress`` is told how many tokens are done.
        Storage is dropped."""

def multiply(
    isa: str, kind: str, panels: bytes, multipliers: bytes, scales: bytes, values: NDArray[np.int8]
) -> NDArray[np.float32]:
    """One kernel's product (R, N) of ``values`` (R, K) with packed rows, for tests: "int8", "int4", or the sums of "nibbles"."""

def sample(logits: NDArray[np.float32], row: RowRequest) -> Sampled:
    """Choose from one row of logits, which are changed, for tests."""
