"""How packed weights lie in memory and on disk: names, shapes and offsets, from the model's sizes and the scheme alone.

A *panel* is 16 outputs, a *group* 64 inputs; outputs and inputs are padded to whole ones. Shapes: ``P`` panels, ``K`` padded
inputs.

* ``int8`` panels, bytes (P, K / 4, 16, 4): one 64-byte line holds four inputs of each output, as ``q + 128``.
* nibble panels, bytes (P, K / 8, 64): one line holds two int8 lines, the first in its low nibbles.
* multipliers of ``int4``, signed bytes (P, K / 64, 16): for each output and group one of 1 to 15, or of -1 to -15.
* scales, float32 (16 P).

The embedding, which is also the head, is int8 in both schemes, cut into two nibble panels: high and low. ``qkv`` is the rows of q,
k and v; ``gate_up`` alternates a panel of gate with a panel of up. ``embedding.factors`` multiply what is looked up, by channel.

The file is ``.safetensors``: data begins at a multiple of 4,096, every tensor at a multiple of 64.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Self

from gemma3.config import Gemma3TextConfig
from gemma3.files.safetensors_file import METADATA

SCHEMES = ("int8", "int4")
PANEL = 16
GROUP = 64
# The matrices of a layer that are int4 in the scheme of that name.
INT4_MATRICES = ("gate_up", "down")
# The norms of a layer, and what a checkpoint calls them.
NORMS = {
    "input_norm": "input_layernorm",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "pre_mlp_norm": "pre_feedforward_layernorm",
    "post_mlp_norm": "post_feedforward_layernorm",
}
_DATA_ALIGNMENT = 4_096  # a page
_TENSOR_ALIGNMENT = 64  # a cache line
_ITEM_BYTES = {"U8": 1, "F32": 4}

_Contents = dict[str, tuple[str, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class PackedTensor:
    """The bytes ``[start, start + num_bytes)`` of the data."""

    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * _ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class PackedLayout:
    """``tensors`` by name, in the order of the data, which has ``num_bytes``."""

    scheme: str
    tensors: dict[str, PackedTensor]

    @classmethod
    def of(cls, config: Gemma3TextConfig, scheme: str) -> Self:
        assert scheme in SCHEMES
        tensors: dict[str, PackedTensor] = {}
        end = 0
        filler_names = (f"filler.{num}" for num in count())
        for name, (dtype, shape) in _contents(config, scheme).items():
            gap = -end % _TENSOR_ALIGNMENT
            if gap:  # the format allows no gaps; Gemma 3 270M has none to fill
                tensors[next(filler_names)] = PackedTensor("U8", (gap,), end)
            tensors[name] = PackedTensor(dtype, shape, end + gap)
            end += gap + tensors[name].num_bytes
        return cls(scheme, tensors)

    @property
    def num_bytes(self) -> int:
        last = next(reversed(self.tensors.values()))
        return last.start + last.num_bytes

    def views(self, data: memoryview) -> dict[str, memoryview]:
        """The bytes of every tensor within ``data``."""
        assert len(data) == self.num_bytes
        return {name: data[tensor.start : tensor.start + tensor.num_bytes] for name, tensor in self.tensors.items()}

    def header(self, metadata: Mapping[str, str]) -> bytes:
        """All that stands before the data in a file."""
        entries: dict[str, object] = {METADATA: dict(metadata)}
        for name, tensor in self.tensors.items():
            offsets = [tensor.start, tensor.start + tensor.num_bytes]
            entries[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets}
        text = json.dumps(entries, separators=(",", ":")).encode()
        padded = text + b" " * (-(8 + len(text)) % _DATA_ALIGNMENT)
        return len(padded).to_bytes(8, "little") + padded


@dataclass(frozen=True, slots=True)
class PackedWeights:
    """Ready for the core: the bytes of every tensor, mapped from a file or in memory.

    ``sha256`` is of all packed bytes when they were packed (empty if they are no file's). ``check(delay_s)`` tells whether
    they still are those: it takes seconds, and raises ``CheckpointError`` if not. ``None``: there is no doubt.
    """

    scheme: str
    tensors: dict[str, memoryview]
    sha256: str = ""
    check: Callable[[float], None] | None = None

    @property
    def step_bytes(self) -> int:
        """What a greedy step reads: all but the low plane of the embedding, of which it wants single rows."""
        return sum(len(view) for name, view in self.tensors.items() if name != "embedding.low")


def padded(count: int, unit: int) -> int:
    """``count`` rounded up to whole units."""
    return -(-count // unit) * unit


def _contents(config: Gemma3TextConfig, scheme: str) -> _Contents:
    """Type and shape of every tensor."""
    hidden, mlp = config.hidden_size, padded(config.intermediate_size, PANEL)
    q_size, kv_size = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    contents: _Contents = {}
    for i in range(config.num_hidden_layers):
        for name, (num_outputs, num_inputs) in {
            "qkv": (q_size + 2 * kv_size, hidden),
            "o": (hidden, q_size),
            "gate_up": (2 * mlp, hidden),
            "down": (hidden, config.intermediate_size),
        }.items():
            is_int4 = scheme == "int4" and name in INT4_MATRICES
            contents |= _matrix(f"layers.{i}.{name}", num_outputs, num_inputs, is_int4=is_int4)
        for norm in NORMS:
            size = config.head_dim if norm in ("q_norm", "k_norm") else hidden
            contents[f"layers.{i}.{norm}"] = ("F32", (size,))
    contents["final_norm"] = ("F32", (hidden,))
    for plane in ("high", "low"):
        contents[f"embedding.{plane}"] = ("U8", _nibbles_shape(config.vocab_size, hidden))
    contents["embedding.scales"] = ("F32", (padded(config.vocab_size, PANEL),))
    contents["embedding.factors"] = ("F32", (hidden,))
    return contents


def _matrix(name: str, num_outputs: int, num_inputs: int, *, is_int4: bool) -> _Contents:
    num_panels, inputs = padded(num_outputs, PANEL) // PANEL, padded(num_inputs, GROUP)
    scales: _Contents = {f"{name}.scales": ("F32", (num_panels * PANEL,))}
    if not is_int4:
        return {f"{name}.panels": ("U8", (num_panels, inputs // 4, PANEL, 4))} | scales
    panels: _Contents = {f"{name}.panels": ("U8", _nibbles_shape(num_outputs, num_inputs))}
    return panels | {f"{name}.multipliers": ("U8", (num_panels, inputs // GROUP, PANEL))} | scales


def _nibbles_shape(num_outputs: int, num_inputs: int) -> tuple[int, ...]:
    return (padded(num_outputs, PANEL) // PANEL, padded(num_inputs, GROUP) // 8, 4 * PANEL)
