"""From a checkpoint of any kind to packed weights, slab by slab: the model never stands in memory as float32.

Reading and dequantising (numpy) and quantising (C++) release the GIL, so a thread per core does it. Runs once for each
checkpoint and scheme; ``load`` has the result kept.

Some input channels are much larger than others, and rounding a row spends its 8 bits on those. ``balancing`` observes the
channels. Packing multiplies each column of a matrix by its channel's factor, and divides the producer of that input by the
same factor: the norm before it, or rows of v (for o) or of up (for down). Only the lookup of an embedding is left to do at
run time.

Shapes: ``N`` outputs, ``K`` inputs.
"""

import logging
import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gemma3.checkpoints.checkpoint import Checkpoint
from gemma3.checkpoints.tensor_names import EMBEDDING, HEAD
from gemma3.cpu import _native
from gemma3.cpu.balancing import (
    EMBEDDING_INPUTS,
    calibration_token_ids,
    channel_factors,
    observe_inputs,
    shared_factors,
)
from gemma3.cpu.packed_layout import NORMS, PANEL, PackedLayout, padded
from gemma3.errors import CheckpointError
from gemma3.progress import Progress, no_progress

_SLAB_ROWS = 1_024  # of the embedding, in each thread: 2.6 MB as float32
_MAX_THREADS = 8
_EMBEDDING_SAMPLE_ROWS = 16_384  # enough to know the mean squares of its columns

Floats = NDArray[np.float32]

log = logging.getLogger("gemma3")


def pack(
    checkpoint: Checkpoint,
    layout: PackedLayout,
    progress: Progress = no_progress,
    *,
    observed: Mapping[str, Floats] | None = None,
    token_ids: Sequence[int] | None = None,
) -> memoryview:
    """All packed data, in memory of its own. ``observed``: the inputs' mean squares by matrix, as of ``balancing``; without them
    nothing is balanced. With ``token_ids`` only these tokens have an embedding, which saves two thirds of the work.

    Raises:
        CheckpointError: a tensor holds NaN or infinite values, or a second copy of the head differs from the embedding.
    """
    packer = _Packer(checkpoint, layout, observed or {})
    jobs = list(packer.jobs(token_ids))
    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, _MAX_THREADS)) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            for num_done, future in enumerate(futures, start=1):
                future.result()
                checkpoint.drop_pages()
                progress(num_done, len(jobs))
        finally:
            for future in futures:
                future.cancel()
    return packer.data


class _Packer:
    """``data`` fills up as the jobs run; each writes bytes of its own, so they may run in any order on any thread."""

    def __init__(self, checkpoint: Checkpoint, layout: PackedLayout, observed: Mapping[str, Floats]) -> None:
        self._checkpoint, self._config = checkpoint, checkpoint.config
        self._observed = observed
        # Begins with a page; each page is taken when it is first written.
        self.data = memoryview(mmap.mmap(-1, layout.num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        self._views = layout.views(self.data)
        num_sample_rows = min(checkpoint.config.vocab_size, _EMBEDDING_SAMPLE_ROWS if observed else 1)
        sample_NK = checkpoint.read_rows(EMBEDDING, slice(0, num_sample_rows))
        self._embedding_factors_K = self._factors(EMBEDDING_INPUTS, sample_NK)

    def _factors(self, name: str, rows_NK: Floats) -> Floats:
        """By input channel of a matrix; all 1 if its inputs were not observed."""
        squares_K = self._observed.get(name)
        return np.ones(rows_NK.shape[1], np.float32) if squares_K is None else channel_factors(squares_K, rows_NK)

    def jobs(self, token_ids: Sequence[int] | None) -> Iterator[Callable[[], None]]:
        vocab_size = self._config.vocab_size
        if token_ids is None:
            slabs = [(start, start + _SLAB_ROWS) for start in range(0, vocab_size, _SLAB_ROWS)]
        else:
            slabs = [(panel * PANEL, (panel + 1) * PANEL) for panel in sorted({i // PANEL for i in token_ids})]
        for start, stop in slabs:
            yield partial(self._pack_embedding, start, min(stop, vocab_size))
        for i in range(self._config.num_hidden_layers):
            yield partial(self._pack_layer, i)
        yield self._pack_ends

    def _pack_embedding(self, start: int, stop: int) -> None:
        """Rows ``[start, stop)``; ``start`` is the first of a panel."""
        rows_NK = self._checkpoint.read_rows(EMBEDDING, slice(start, stop))
        if HEAD in self._checkpoint.tensor_names:
            self._check_head(rows_NK, start, stop)
        room = {name: self._embedding_room(name, start, stop) for name in ("high", "low", "scales")}
        _native.quantize_embedding(rows_NK, self._embedding_factors_K, **room)

    def _embedding_room(self, name: str, start: int, stop: int) -> memoryview:
        view = self._views[f"embedding.{name}"]
        panel_bytes = len(view) * PANEL // padded(self._config.vocab_size, PANEL)
        return view[start // PANEL * panel_bytes : padded(stop, PANEL) // PANEL * panel_bytes]

    def _check_head(self, rows_NK: Floats, start: int, stop: int) -> None:
        if not np.array_equal(rows_NK, self._checkpoint.read_rows(HEAD, slice(start, stop))):
            raise CheckpointError(f"{self._checkpoint.name}: {HEAD} differs from {EMBEDDING}; this model ties them.")

    def _pack_ends(self) -> None:
        self._pack_norm("final_norm", "model.norm.weight", self._embedding_factors_K)
        scale = np.float32(self._config.hidden_size) ** np.float32(0.5)
        self._views["embedding.factors"][:] = (scale / self._embedding_factors_K).tobytes()

    def _pack_layer(self, layer: int) -> None:
        ours, theirs = f"layers.{layer}", f"model.layers.{layer}"

        def read(name: str) -> Floats:
            return self._checkpoint.read_rows(f"{theirs}.{name}.weight", slice(None))

        # One matrix at a time, changed in place: each is up to 10 MB, in every thread.
        rows_NK = read("self_attn.o_proj")
        v_factors, o_factors = self._o_factors(f"{ours}.o", rows_NK)
        self._pack_matrix(f"{ours}.o", rows_NK, o_factors)
        rows_NK = np.concatenate([read(f"self_attn.{part}_proj") for part in "qkv"])
        qkv_factors = self._factors(f"{ours}.qkv", rows_NK)
        rows_NK[-len(v_factors) :] /= v_factors
        self._pack_matrix(f"{ours}.qkv", rows_NK, qkv_factors)
        rows_NK = read("mlp.down_proj")
        down_factors = self._factors(f"{ours}.down", rows_NK)
        self._pack_matrix(f"{ours}.down", rows_NK, down_factors)
        rows_NK = np.concatenate([read("mlp.gate_proj"), read("mlp.up_proj")])
        gate_up_factors = self._factors(f"{ours}.gate_up", rows_NK)
        rows_NK[-len(down_factors) :] /= down_factors[:, None]
        self._pack_matrix(f"{ours}.gate_up", _alternated(rows_NK), gate_up_factors)
        divisors = {"input_norm": qkv_factors, "pre_mlp_norm": gate_up_factors}
        for name, inner in NORMS.items():
            self._pack_norm(f"{ours}.{name}", f"{theirs}.{inner}.weight", divisors.get(name))

    def _o_factors(self, name: str, rows_NK: Floats) -> tuple[Floats, Floats]:
        """Factors of the rows of v (a column), and of the columns of o: query heads that share a KV head share factors."""
        squares_K, num_kv_heads = self._observed.get(name), self._config.num_key_value_heads
        if squares_K is None:
            return np.ones((num_kv_heads * self._config.head_dim, 1), np.float32), np.ones(rows_NK.shape[1], np.float32)
        shared_KH = shared_factors(squares_K, rows_NK, num_kv_heads, self._config.head_dim)
        heads = self._config.num_attention_heads // num_kv_heads
        return shared_KH.reshape(-1, 1), shared_KH.repeat(heads, axis=0).reshape(-1)

    def _pack_matrix(self, name: str, rows_NK: Floats, factors_K: Floats) -> None:
        panels, scales = self._views[f"{name}.panels"], self._views[f"{name}.scales"]
        multipliers = self._views.get(f"{name}.multipliers")
        if multipliers is None:
            _native.quantize_int8(rows_NK, factors_K, panels, scales)
        else:
            _native.quantize_int4(rows_NK, factors_K, panels, multipliers, scales)

    def _pack_norm(self, name: str, inner: str, divisors: Floats | None = None) -> None:
        """The core adds 1 to the weight of a norm, as the reference does."""
        weight = self._checkpoint.read_rows(inner, slice(None))
        self._views[name][:] = (weight if divisors is None else (weight + 1) / divisors - 1).tobytes()


def pack_balanced(checkpoint: Checkpoint, layout: PackedLayout, progress: Progress = no_progress) -> memoryview:
    """The same, balanced: packed twice, since the model that is observed is a packed one too. ``progress`` is told per cent."""
    observed = _observed(checkpoint, _part(progress, 0, 25), _part(progress, 25, 60))
    return pack(checkpoint, layout, _part(progress, 60, 100), observed=observed)


def _observed(checkpoint: Checkpoint, packing: Progress, observing: Progress) -> Mapping[str, Floats]:
    """The inputs' mean squares; what is packed for them is gone when this returns."""
    plain, token_ids = PackedLayout.of(checkpoint.config, "int8"), calibration_token_ids(checkpoint)
    packed = pack(checkpoint, plain, packing, token_ids=token_ids)
    log.debug("Observing the model on %d tokens", len(token_ids))
    return observe_inputs(checkpoint.config, plain.views(packed), token_ids, observing)


def _part(progress: Progress, first: int, last: int) -> Progress:
    """Tells the steps of one part of the work as the per cent from ``first`` to ``last``."""
    return lambda num_done, num_steps: progress(first + (last - first) * num_done // num_steps, 100)


def _alternated(gate_up_NK: Floats) -> Floats:
    """A panel of gate, a panel of up, and so on: one pass makes both halves of ``gelu(gate) * up``."""
    num_rows, num_inputs = len(gate_up_NK) // 2, gate_up_NK.shape[1]
    num_whole, num_left = divmod(num_rows, PANEL)
    panels = np.zeros((padded(num_rows, PANEL) // PANEL, 2, PANEL, num_inputs), np.float32)
    for part, rows_NK in enumerate(np.split(gate_up_NK, 2)):
        panels[:num_whole, part] = rows_NK[: num_whole * PANEL].reshape(-1, PANEL, num_inputs)
        panels[num_whole:, part, :num_left] = rows_NK[num_whole * PANEL :]
    return panels.reshape(-1, num_inputs)
