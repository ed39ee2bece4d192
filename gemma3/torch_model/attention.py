"""Attention of a ragged batch: each sequence's new tokens against that sequence's own keys.

Shapes: ``T`` new tokens, ``S`` keys in reach, ``N`` query heads, ``K`` KV heads, ``G = N / K``, ``H`` head size, ``D`` hidden.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gemma3.config import Gemma3TextConfig
from gemma3.torch_model.kv_cache import KeysValues, KVCache, visible
from gemma3.torch_model.layers import Linear, RMSNorm, rotate


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows [start, end) of the step's flat token row belong to the sequence whose keys are in ``cache``."""

    start: int
    end: int
    cache: KVCache


class Attention(nn.Module):
    """Grouped-query attention with normalised queries and keys (Gemma 3 report, section 2.1)."""

    def __init__(self, config: Gemma3TextConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.layer_type = config.layer_types[layer_idx]
        self.window = config.window(layer_idx)
        self.head_dim = config.head_dim
        self.scale = config.query_pre_attn_scalar**-0.5
        q_size = config.num_attention_heads * config.head_dim
        kv_size = config.num_key_value_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, q_size)
        self.k_proj = Linear(config.hidden_size, kv_size)
        self.v_proj = Linear(config.hidden_size, kv_size)
        self.o_proj = Linear(q_size, config.hidden_size)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)

    def forward(self, x_TD: Tensor, cos_T1H: Tensor, sin_T1H: Tensor, segments: Sequence[Segment]) -> Tensor:
        q_TNH = rotate(self.q_norm(self._heads(self.q_proj(x_TD))), cos_T1H, sin_T1H)
        k_TKH = rotate(self.k_norm(self._heads(self.k_proj(x_TD))), cos_T1H, sin_T1H)
        v_TKH = self._heads(self.v_proj(x_TD))
        out_TNH = torch.cat([self._attend(q_TNH, k_TKH, v_TKH, segment) for segment in segments])
        out_TD: Tensor = self.o_proj(out_TNH.flatten(1))
        return out_TD

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], -1, self.head_dim)

    def _attend(self, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, segment: Segment) -> Tensor:
        rows = slice(segment.start, segment.end)
        seen = segment.cache.update(self.layer_idx, k_TKH[rows], v_TKH[rows])
        if segment.end - segment.start == 1:
            return decode_attention(q_TNH[rows], seen, self.scale)
        return prefill_attention(q_TNH[rows], seen, self.window, self.scale)


def decode_attention(q_1NH: Tensor, seen: KeysValues, scale: float) -> Tensor:
    """One token against all keys in reach. Query heads that share a KV head become rows of one product: K is read once."""
    _, num_kv_heads, head_dim = seen.k_SKH.shape
    q_KGH = q_1NH.reshape(num_kv_heads, -1, head_dim)
    out_KGH = _sdpa(q_KGH, seen.k_SKH.transpose(0, 1), seen.v_SKH.transpose(0, 1), scale)
    return out_KGH.flatten(0, 1)[None]


def prefill_attention(q_TNH: Tensor, seen: KeysValues, window: int | None, scale: float) -> Tensor:
    """Many tokens of one sequence; in a sliding layer in chunks of one window, so that the work grows with T, not T squared."""
    num_new, num_keys = q_TNH.shape[0], seen.k_SKH.shape[0]
    if window is None or num_keys <= window:
        return _prefill_chunk(q_TNH, seen, None, scale)
    chunks = []
    for start in range(0, num_new, window):
        end = min(start + window, num_new)
        last_key = num_keys - num_new + end
        first_key = max(0, last_key - (end - start) - (window - 1))
        reach = KeysValues(seen.k_SKH[first_key:last_key], seen.v_SKH[first_key:last_key])
        chunks.append(_prefill_chunk(q_TNH[start:end], reach, window, scale))
    return torch.cat(chunks)


def _prefill_chunk(q_TNH: Tensor, seen: KeysValues, window: int | None, scale: float) -> Tensor:
    num_new, num_keys = q_TNH.shape[0], seen.k_SKH.shape[0]
    group = q_TNH.shape[1] // seen.k_SKH.shape[1]
    k_NSH, v_NSH = (x.transpose(0, 1).repeat_interleave(group, dim=0) for x in (seen.k_SKH, seen.v_SKH))
    plain_causal = num_new == num_keys and window is None
    mask = None if plain_causal else visible(num_new, num_keys, window, q_TNH.device)
    return _sdpa(q_TNH.transpose(0, 1), k_NSH, v_NSH, scale, mask=mask, is_causal=plain_causal).transpose(0, 1)


def _sdpa(
    q: Tensor, k: Tensor, v: Tensor, scale: float, *, mask: Tensor | None = None, is_causal: bool = False
) -> Tensor:
    """``softmax(q k^T * scale) v`` over ``(heads, rows, H)``; torch wants a leading batch axis for its fused kernels."""
    return F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask, is_causal=is_causal, scale=scale)[
        0
    ]
