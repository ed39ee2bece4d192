"""How many KV cache blocks a sequence needs, and how a budget of bytes is split over the two pools.

Owns the arithmetic of memory, and no blocks: ``kv_cache_manager`` hands those out. Pure functions, for any thread.

Worked example, Gemma 3 270M: 3 global and 15 sliding layers, K and V of 256 bfloat16 values, 1 KiB per token and layer;
window 512, blocks of 16 tokens. A token costs 3 KiB in the global pool (48 KiB a block) and 15 KiB in the
sliding pool (240 KiB a block) while it is in the window, where a sequence holds at most 33 blocks: 7.5 MiB
for the window itself and 0.2 MiB because it rarely begins where a block does. A prefill chunk is held beside the
window while it is computed: 57 blocks with chunks of 384 tokens.

* 32,768 tokens: 96 MiB global + 7.7 MiB sliding = 103.7 MiB; at most 109.4 MiB while prefilling.
* 16 sequences of 2,000 tokens: 16 x (5.9 + 7.7) MiB = 217.5 MiB.
"""

from dataclasses import dataclass

from engine.block_pool import max_blocks_touched

TYPICAL_WINDOWS = 4  # length, in windows, of the sequences for which both pools run full together


@dataclass(frozen=True, slots=True, kw_only=True)
class KVCacheLayout:
    """What decides the size of a block. ``num_bytes_per_token`` is K and V of one token in one layer."""

    block_size: int
    window: int
    num_global_layers: int
    num_sliding_layers: int
    num_bytes_per_token: int

    @property
    def global_block_bytes(self) -> int:
        return self.block_size * self.num_global_layers * self.num_bytes_per_token

    @property
    def sliding_block_bytes(self) -> int:
        return self.block_size * self.num_sliding_layers * self.num_bytes_per_token


@dataclass(frozen=True, slots=True)
class BlockCounts:
    """How many blocks each pool has, or needs."""

    num_global: int
    num_sliding: int


NO_BLOCKS = BlockCounts(0, 0)


def blocks_for_one_sequence(num_tokens: int, *, block_size: int, window: int, prefill_chunk_tokens: int) -> BlockCounts:
    """The most that one sequence ever holds until it has ``num_tokens``.

    The sliding part is what the queries of one chunk see together: ``window - 1`` keys before it and the chunk itself.
    """
    num_blocks = -(-num_tokens // block_size)
    num_visible_tokens = window - 1 + prefill_chunk_tokens
    return BlockCounts(num_blocks, min(num_blocks, max_blocks_touched(num_visible_tokens, block_size)))


def num_blocks_for(
    kv_cache_bytes: int,
    layout: KVCacheLayout,
    *,
    max_num_seqs: int,
    max_model_len: int,
    prefill_chunk_tokens: int,
) -> BlockCounts:
    """Split a budget so that one sequence of ``max_model_len`` fits and, beyond that, both pools run full together.

    They do so for ``max_num_seqs`` sequences of equal length if those use up the budget, or for sequences of
    ``TYPICAL_WINDOWS`` windows if not: what is left over then keeps prefixes for reuse, and a prefix is reusable only
    while its part in both pools is there.
    """
    floor = blocks_for_one_sequence(
        max_model_len, block_size=layout.block_size, window=layout.window, prefill_chunk_tokens=prefill_chunk_tokens
    )
    global_floor_bytes = floor.num_global * layout.global_block_bytes
    sliding_floor_bytes = floor.num_sliding * layout.sliding_block_bytes
    if kv_cache_bytes < global_floor_bytes + sliding_floor_bytes:
        raise ValueError(
            f"kv_cache_memory={kv_cache_bytes} cannot hold one sequence of max_model_len={max_model_len} tokens: "
            f"that needs {global_floor_bytes + sliding_floor_bytes} bytes, {global_floor_bytes} in the global and "
            f"{sliding_floor_bytes} in the sliding layers with prefill_chunk_tokens={prefill_chunk_tokens}."
        )
    sliding_bytes = int(
        kv_cache_bytes * _sliding_share(kv_cache_bytes / max_num_seqs, layout, max_model_len=max_model_len)
    )
    sliding_bytes = max(sliding_floor_bytes, min(sliding_bytes, kv_cache_bytes - global_floor_bytes))
    num_sliding = sliding_bytes // layout.sliding_block_bytes
    rest_bytes = kv_cache_bytes - num_sliding * layout.sliding_block_bytes
    return BlockCounts(rest_bytes // layout.global_block_bytes, num_sliding)


def _sliding_share(bytes_per_seq: float, layout: KVCacheLayout, *, max_model_len: int) -> float:
    """The sliding layers' part of the memory of a sequence as long as ``bytes_per_seq`` allows."""
    global_bytes = layout.num_global_layers * layout.num_bytes_per_token
    sliding_bytes = layout.num_sliding_layers * layout.num_bytes_per_token
    longest = min(TYPICAL_WINDOWS * layout.window, max_model_len)
    room_beyond_window = (bytes_per_seq - layout.window * sliding_bytes) / global_bytes
    num_tokens = min(longest, max(layout.window, room_beyond_window))
    sliding_part = min(num_tokens, layout.window) * sliding_bytes
    return sliding_part / (sliding_part + num_tokens * global_bytes)
