"""Where the keys and values of one sequence live, as the model sees it, and the plain cache of the teaching loop.

The model knows only the ``KVCache`` protocol; the engine brings its own kind, over shared blocks.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gemma3.config import Gemma3TextConfig


@dataclass(frozen=True, slots=True)
class KeysValues:
    """The keys and values that the new tokens of one sequence may see, oldest first: ``k_SKH`` and ``v_SKH``.

    The last rows are the new tokens' own. In a sliding layer rows no new token can see are left out.
    """

    k_SKH: Tensor
    v_SKH: Tensor


class KVCache(Protocol):
    """The cache of one sequence."""

    def update(self, layer_idx: int, k_TKH: Tensor, v_TKH: Tensor) -> KeysValues:
        """Store the new tokens' keys and values of a layer and return all that these tokens may see."""


class ContiguousKVCache:
    """One sequence in contiguous memory that doubles as it fills; a sliding layer keeps the last window only.

    Worked example, window 4: after tokens 0..5 a sliding layer holds keys [3, 6), since token 6 sees (2, 6], itself
    included. Storing tokens 6 and 7 returns keys [3, 8) and leaves [5, 8).
    """

    def __init__(self, config: Gemma3TextConfig) -> None:
        self._windows = [config.window(i) for i in range(config.num_hidden_layers)]
        self._layers: list[_LayerBuffer] = []
        self.num_tokens = 0

    def update(self, layer_idx: int, k_TKH: Tensor, v_TKH: Tensor) -> KeysValues:
        if layer_idx == len(self._layers):
            self._layers.append(_LayerBuffer(k_TKH, self._windows[layer_idx]))
        if layer_idx == 0:
            self.num_tokens += k_TKH.shape[0]
        return self._layers[layer_idx].append(k_TKH, v_TKH)


class _LayerBuffer:
    """Rows [start, end) of two buffers are live; old rows are dropped by moving ``start``."""

    def __init__(self, like_TKH: Tensor, window: int | None) -> None:
        self._k = like_TKH.new_empty((0, *like_TKH.shape[1:]))
        self._v = self._k
        self._window = window
        self._start = self._end = 0

    def append(self, k_TKH: Tensor, v_TKH: Tensor) -> KeysValues:
        num_new = k_TKH.shape[0]
        if self._window is not None:
            self._start = max(self._start, self._end - (self._window - 1))
        if self._end + num_new > self._k.shape[0]:
            self._move(self._end - self._start + num_new)
        self._k[self._end : self._end + num_new] = k_TKH
        self._v[self._end : self._end + num_new] = v_TKH
        self._end += num_new
        return KeysValues(self._k[self._start : self._end], self._v[self._start : self._end])

    def _move(self, num_needed: int) -> None:
        """Copy the live rows to the front of new buffers with room for twice what is needed."""
        num_live = self._end - self._start
        for name in ("_k", "_v"):
            old: Tensor = getattr(self, name)
            new = old.new_empty((max(64, 2 * num_needed), *old.shape[1:]))
            new[:num_live] = old[self._start : self._end]
            setattr(self, name, new)
        self._start, self._end = 0, num_live


def visible(num_new: int, num_keys: int, window: int | None, device: torch.device) -> Tensor:
    """Which keys each new token sees: ``(num_new, num_keys)`` booleans.

    The new tokens are the last ``num_new`` of the keys. Row i stands at key ``p = num_keys - num_new + i`` and sees
    ``(p - window, p]``, itself included.
    """
    p = torch.arange(num_keys - num_new, num_keys, device=device)[:, None]
    key = torch.arange(num_keys, device=device)[None, :]
    seen = key <= p
    return seen if window is None else seen & (key > p - window)
