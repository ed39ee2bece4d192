"""How much an engine can hold at a time: context, tokens of a step, blocks of memory.

Turns options and a model's shape into the bounds of scheduler and KV cache; loads nothing. Any thread.
"""

from collections.abc import Mapping

from engine.engine_options import EngineOptions
from engine.kv_cache_manager import KVCacheManager
from engine.kv_cache_sizes import BlockCounts, KVCacheLayout, num_blocks_for
from engine.prefill_pace import PrefillPace
from engine.scheduler import Scheduler
from engine.scheduler_config import SchedulerConfig
from gemma3.config import Gemma3TextConfig

BLOCK_SIZE = 16
# A chunk is held beside the window while it is computed: with this one a 32,768-token sequence stays below 110 MiB.
MAX_PREFILL_CHUNK_TOKENS = 384


def max_model_len(options: EngineOptions, config: Gemma3TextConfig) -> int:
    """Tokens of prompt and output together.

    Raises:
        ValueError: more are asked for than the model's context has.
    """
    if options.max_model_len is None:
        return config.context_length
    if options.max_model_len > config.context_length:
        raise ValueError(
            f"max_model_len={options.max_model_len} is above the model's context, {config.context_length}."
        )
    return options.max_model_len


def prefill_chunk_tokens(options: EngineOptions) -> int:
    """What one sequence may prefill in a step while every other one decodes.

    Raises:
        ValueError: the step has no room for that.
    """
    chunk = options.max_num_batched_tokens - options.max_num_seqs
    if chunk < BLOCK_SIZE:
        raise ValueError(
            f"max_num_batched_tokens={options.max_num_batched_tokens} must be at least max_num_seqs="
            f"{options.max_num_seqs} + {BLOCK_SIZE}: every sequence decodes in each step, and a prefill goes on beside them."
        )
    return min(chunk, MAX_PREFILL_CHUNK_TOKENS)


def new_scheduler(
    options: EngineOptions, counts: BlockCounts, config: Gemma3TextConfig, *, pace: PrefillPace
) -> Scheduler:
    """A scheduler and its memory of ``counts`` blocks; ``options.max_model_len`` must be known."""
    assert options.max_model_len is not None
    return Scheduler(
        SchedulerConfig(
            max_num_seqs=options.max_num_seqs,
            max_num_batched_tokens=options.max_num_batched_tokens,
            max_model_len=options.max_model_len,
            prefill_chunk_tokens=prefill_chunk_tokens(options),
        ),
        KVCacheManager(
            counts,
            block_size=BLOCK_SIZE,
            window=config.sliding_window,
        ),
        pace=pace,
    )


def kv_cache_layout(config: Gemma3TextConfig, *, num_bytes_per_value: int) -> KVCacheLayout:
    """What decides the size of a block."""
    windows = [config.window(i) for i in range(config.num_hidden_layers)]
    return KVCacheLayout(
        block_size=BLOCK_SIZE,
        window=config.sliding_window,
        # Both pools hand out blocks also to a model of fewer than six layers, which has no global one.
        num_global_layers=max(1, windows.count(None)),
        num_sliding_layers=max(1, len(windows) - windows.count(None)),
        num_bytes_per_token=2 * config.num_key_value_heads * config.head_dim * num_bytes_per_value,
    )


def block_counts(options: EngineOptions, layout: KVCacheLayout) -> BlockCounts:
    """How many blocks the budget of ``options`` buys in both pools; ``options.max_model_len`` must be known.

    Raises:
        ValueError: not even one sequence has room.
    """
    assert options.max_model_len is not None
    return num_blocks_for(
        options.kv_cache_memory,
        layout,
        max_num_seqs=options.max_num_seqs,
        max_model_len=options.max_model_len,
        prefill_chunk_tokens=prefill_chunk_tokens(options),
    )


def cache_config(
    options: EngineOptions, counts: BlockCounts, config: Gemma3TextConfig, *, num_bytes_per_value: int
) -> Mapping[str, str]:
    """What monitoring shows of the KV cache, by vLLM's names. Blocks are on whatever device computes; those of the
    sliding layers, a pool of their own, have a name of their own.
    """
    return {
        "block_size": str(BLOCK_SIZE),
        "cache_dtype": {2: "bfloat16", 4: "float32"}[num_bytes_per_value],
        "enable_prefix_caching": str(options.prefix_caching),
        "kv_cache_memory_bytes": str(options.kv_cache_memory),
        "num_gpu_blocks": str(counts.num_global),
        "num_sliding_blocks": str(counts.num_sliding),
        "sliding_window": str(config.sliding_window),
    }
