"""``CpuModel``: the forward of ``gemma3/torch_model/model.py`` on packed weights, from token ids to chosen tokens in one call.

A thin face of the compiled module, which owns KV storage, scratch memory and a team of threads. One thread calls it at a time,
and a second gets a ``RuntimeError``; other Python runs meanwhile, since a step releases the GIL. Imports neither torch nor numpy.
"""

import math
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gemma3.config import Gemma3TextConfig
from gemma3.cpu._native import Model, RowRequest, Sampled, Segment
from gemma3.cpu.packed_layout import PackedWeights
from gemma3.progress import Progress, no_progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BLOCK_SIZE", "CpuModel", "RowRequest", "Sampled", "Segment", "num_cores"]

BLOCK_SIZE = 16
"""Tokens in a block of the KV cache: fixed, the core's attention is written for it."""

_CPU_FOLDER = Path("/sys/devices/system/cpu")
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class CpuModel:
    """The model of a configuration and its packed weights. Keys and values have no room before ``allocate_kv``.

    Worked example, a prompt of three tokens in block 0 of both pools, and the likeliest next token::

        model = CpuModel(config, load_packed(checkpoint, "int8"))
        model.allocate_kv(num_global_blocks=1, num_sliding_blocks=1)
        (sampled,) = model.step([2, 818, 5279], [Segment(0, 3, [0], [0], 0)], [RowRequest(2)])
        sampled.token_id
    """

    def __init__(
        self, config: Gemma3TextConfig, weights: PackedWeights, *, num_threads: int | None = None, isa: str = "auto"
    ) -> None:
        self.config = config
        self.scheme = weights.scheme
        self._model = Model(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_layers=config.num_hidden_layers,
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            rms_norm_eps=config.rms_norm_eps,
            query_scale=config.query_pre_attn_scalar**-0.5,
            rope_theta=config.rope_theta,
            rope_local_theta=config.rope_local_theta,
            sliding_window=config.sliding_window,
            is_sliding=[config.window(i) is not None for i in range(config.num_hidden_layers)],
            tensors=weights.tensors,
            num_threads=num_cores() if num_threads is None else num_threads,
            isa=isa,
        )

    @property
    def isa(self) -> str:
        """The kernels in use: "portable", "avx2", ..."""
        return self._model.isa

    @property
    def num_threads(self) -> int:
        return self._model.num_threads

    def allocate_kv(self, num_global_blocks: int, num_sliding_blocks: int) -> None:
        """Make room for so many blocks of 16 tokens in the global and in the sliding layers; what was there is forgotten."""
        self._model.allocate_kv(num_global_blocks, num_sliding_blocks)

    def copy_block(self, source: int, target: int, *, is_sliding: bool) -> None:
        """Copy keys and values from block to block of the sliding or of the global layers' pool.

        Raises:
            ValueError: a block does not exist.
        """
        self._model.copy_block(source, target, is_sliding)

    def release_blocks(self, block_ids: Sequence[int], *, is_sliding: bool) -> None:
        """Give back the memory of blocks of a pool, whose contents are lost; it is taken anew when they are written.

        Raises:
            ValueError: a block does not exist.
        """
        self._model.release_blocks(block_ids, is_sliding)

    def step(self, token_ids: Sequence[int], segments: Sequence[Segment], rows: Sequence[RowRequest]) -> list[Sampled]:
        """Compute every token of every segment, in their order, and choose a token for each of ``rows``.

        Raises:
            ValueError: an id, a row or a block is out of range; nothing was written then.
        """
        return self._model.step(token_ids, segments, rows)

    def logits(
        self, token_ids: Sequence[int], segments: Sequence[Segment], rows: Sequence[int]
    ) -> "NDArray[np.float32]":
        """The same step, but the float32 logits (rows, vocabulary): for tests and measurements."""
        return self._model.logits(token_ids, segments, rows)

    def observe_inputs(self, token_ids: Sequence[int], progress: Progress = no_progress) -> dict[str, bytes]:
        """Mean squares, float32 by channel, of the inputs of every matrix over one text: the same bits for any number of
        threads. ``progress`` counts tokens. Keys and values are forgotten."""
        return self._model.observe_inputs(token_ids, lambda num_done: progress(num_done, len(token_ids)))


def num_cores() -> int:
    """Processor cores this process may use: two threads of one core share what the matrix products need."""
    return max(1, min(len({_siblings(cpu) for cpu in _cpus()}), _quota()))


def _cpus() -> Iterable[int]:
    """Logical processors; only some systems tell which of them this process may use."""
    try:
        return os.sched_getaffinity(0)
    except AttributeError:
        return range(os.cpu_count() or 1)


def _siblings(cpu: int) -> str:
    """Names the core that a logical processor belongs to."""
    try:
        return (_CPU_FOLDER / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def _quota() -> int:
    """Whole processors that a container's limit allows."""
    try:
        quota_us, period_us = _CPU_QUOTA.read_text().split()
        return sys.maxsize if quota_us == "max" else math.ceil(int(quota_us) / int(period_us))
    except (OSError, ValueError):
        return sys.maxsize
