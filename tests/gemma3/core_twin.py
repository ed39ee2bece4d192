"""The native core's model in numpy and float64: the same packed weights, the same roundings to int8 and bfloat16, in plain order.

What is left between the two is float32 against float64, and now and then a value that lies so near the middle of two integers
that they round it apart. Shapes: ``T`` tokens, ``N`` heads, ``H`` head size, ``D`` hidden, ``K`` inputs of a matrix.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gemma3.config import Gemma3TextConfig
from tests.gemma3 import bfloat16, packed

Doubles = NDArray[np.float64]


class CoreTwin:
    """One text at a time, all of it at once. ``isa`` matters for AMX alone, whose attention rounds its weights to bfloat16."""

    def __init__(self, config: Gemma3TextConfig, tensors: Mapping[str, memoryview], isa: str = "portable") -> None:
        self.config = config
        self._rounds_weights = isa == "amx"
        self._tensors = tensors
        shape = (config.vocab_size, config.hidden_size)
        planes = (tensors[f"embedding.{name}"] for name in ("high", "low", "scales"))
        self._embedding_VD = packed.unpack_embedding(*planes, shape).astype(np.float64)

    def logits(self, token_ids: Sequence[int], start: int = 0) -> Doubles:
        """(T, V) of a text whose first token stands at position ``start``, behind keys and values that are all zero."""
        return self.head_inputs(token_ids, start) @ self._embedding_VD.T

    def head_inputs(self, token_ids: Sequence[int], start: int = 0) -> Doubles:
        """What the head multiplies with its rows: (T, D), rotated and rounded to int8."""
        x_TD = self._embedding_VD[list(token_ids)] @ packed.rotation(self.config.hidden_size)
        x_TD = x_TD * self._vector("embedding.factors")
        for i in range(self.config.num_hidden_layers):
            x_TD = self._layer(i, x_TD, start)
        return quantised(self._norm("final_norm", x_TD))

    def _layer(self, i: int, x_TD: Doubles, start: int) -> Doubles:
        name = f"layers.{i}"
        normed_TD = self._norm(f"{name}.input_norm", x_TD)
        attended_TK = self._attend(i, self._product(f"{name}.qkv", normed_TD, self._qkv_size), start)
        out_TD = self._product(f"{name}.o", attended_TK, self.config.hidden_size)
        x_TD = x_TD + self._norm(f"{name}.post_attention_norm", out_TD)
        normed_TD = self._norm(f"{name}.pre_mlp_norm", x_TD)
        out_TD = self._product(f"{name}.down", self._gated(name, normed_TD), self.config.hidden_size)
        return x_TD + self._norm(f"{name}.post_mlp_norm", out_TD)

    @property
    def _qkv_size(self) -> int:
        return (self.config.num_attention_heads + 2 * self.config.num_key_value_heads) * self.config.head_dim

    def _vector(self, name: str) -> Doubles:
        return np.frombuffer(self._tensors[name], np.float32).astype(np.float64)

    def _norm(self, name: str, x: Doubles) -> Doubles:
        mean = np.square(x).mean(-1, keepdims=True)
        return x / np.sqrt(mean + self.config.rms_norm_eps) * (1 + self._vector(name))

    def _product(self, name: str, x_TK: Doubles, num_outputs: int) -> Doubles:
        views, shape = self._tensors, (num_outputs, x_TK.shape[1])
        panels, scales, multipliers = (views.get(f"{name}.{part}") for part in ("panels", "scales", "multipliers"))
        if multipliers is None:
            rows_NK = packed.unpack_int8(panels, scales, shape)
        else:
            rows_NK = packed.unpack_int4(panels, multipliers, scales, shape)
        return quantised(x_TK) @ rows_NK.T.astype(np.float64)

    def _gated(self, name: str, x_TD: Doubles) -> Doubles:
        size = self.config.intermediate_size
        num_padded = size + -size % 16
        both = self._product(f"{name}.gate_up", x_TD, 2 * num_padded).reshape(len(x_TD), -1, 2, 16)
        gate, up = (both[:, :, part].reshape(len(x_TD), -1)[:, :size] for part in (0, 1))
        return gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3))) / 2 * up

    def _attend(self, layer: int, qkv_TK: Doubles, start: int) -> Doubles:
        config, name = self.config, f"layers.{layer}"
        heads_TNH = qkv_TK.reshape(len(qkv_TK), -1, config.head_dim)
        q, k, v = np.split(heads_TNH, np.cumsum([config.num_attention_heads, config.num_key_value_heads]), axis=1)
        scale = config.query_pre_attn_scalar**-0.5
        q = to_bfloat16(self._turned(layer, self._norm(f"{name}.q_norm", q), start) * scale)
        k = to_bfloat16(self._turned(layer, self._norm(f"{name}.k_norm", k), start))
        before = np.zeros((start, *k.shape[1:]))
        k, v = np.concatenate([before, k]), np.concatenate([before, to_bfloat16(v)])
        group = config.num_attention_heads // config.num_key_value_heads
        scores = np.einsum("tnh,snh->nts", q, k.repeat(group, 1))
        ages = np.arange(start, len(k))[:, None] - np.arange(len(k))
        scores[:, (ages < 0) | (ages >= (config.window(layer) or len(k)))] = -np.inf
        return np.einsum("nts,snh->tnh", self._weights(scores), v.repeat(group, 1)).reshape(len(q), -1)

    def _weights(self, scores: Doubles) -> Doubles:
        """Softmax; what AMX rounds is exp(score - the peak of a chunk of 128 keys), before the sum is taken out."""
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        totals = weights.sum(-1, keepdims=True)
        if self._rounds_weights:
            for first in range(0, scores.shape[-1], 128):
                chunk = weights[..., first : first + 128]
                peaks = chunk.max(-1, keepdims=True) + np.finfo(np.float64).tiny
                chunk[:] = to_bfloat16(chunk / peaks) * peaks
        return weights / totals

    def _turned(self, layer: int, x_TNH: Doubles, start: int) -> Doubles:
        """RoPE, whose frequencies are float32, as in the reference."""
        config, size = self.config, self.config.head_dim
        theta = config.rope_theta if config.window(layer) is None else config.rope_local_theta
        frequencies = 1 / (theta ** (np.arange(0, size, 2) / size)).astype(np.float32)
        angles = np.arange(start, start + len(x_TNH))[:, None, None] * frequencies.astype(np.float64)
        low, high = np.split(x_TNH, 2, axis=-1)
        cos, sin = np.cos(angles), np.sin(angles)
        return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)


def quantised(x_TK: Doubles) -> Doubles:
    """Rotated, and rounded to 127 steps each way of its row's largest."""
    rotated_TK = x_TK @ packed.rotation(x_TK.shape[1]).astype(np.float64)
    steps = np.abs(rotated_TK).max(-1, keepdims=True) / 127
    return np.rint(rotated_TK / steps) * steps


def to_bfloat16(x: Doubles) -> Doubles:
    return bfloat16.widened(bfloat16.rounded(x))
