"""From options to an engine that can serve: weights, tokenizer, KV cache, runner, scheduler.

The only place of this package that knows how a model comes into being. Runs on the engine thread.
"""

import logging
import time
from collections import abc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from engine.engine_core import EngineCore
from engine.engine_info import ModelInfo
from engine.errors import RequestError
from engine.kv_cache_manager import BlockCounts, KVCacheLayout, KVCacheManager, num_blocks_for
from engine.precision import Precision, choose_precision
from engine.runners.model_runner import ModelRunner
from engine.sampling_params import SETTINGS
from engine.scheduler import Scheduler, SchedulerConfig
from gemma3 import __version__
from gemma3.checkpoints.checkpoint import Checkpoint, content_hash, open_checkpoint
from gemma3.checkpoints.locate import TERMS, Located, locate_weights
from gemma3.config import Gemma3TextConfig
from gemma3.errors import ChatError
from gemma3.progress import Progress, no_progress
from gemma3.text.chat import ChatPrompt, ChatStyle, Message, render_chat
from gemma3.text.tokenizer import Gemma3Tokenizer

BLOCK_SIZE = 16
# A chunk is held beside the window while it is computed: with this one a 32,768-token sequence stays below 110 MiB.
MAX_PREFILL_CHUNK_TOKENS = 384

log = logging.getLogger("gemma3")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What a person may choose. ``kv_cache_memory`` is in bytes; ``None`` everywhere means the default.

    Attributes:
        max_num_batched_tokens: of one step; also how long a decode waits behind a prefill.
        quantization: ``int8`` and ``int4`` are the native CPU core, ``none`` is torch in ``dtype``; see ``precision.py``.
        threads: of the model; by default one for each core.
        generation_config: ``auto`` takes sampling defaults from the checkpoint's generation_config.json, ``none`` does not.
    """

    model: str | None = None
    served_model_name: str | None = None
    max_model_len: int | None = None
    max_num_seqs: int = 32
    max_num_batched_tokens: int = 512
    kv_cache_memory: int = 1 << 30
    quantization: str = "auto"
    dtype: str = "auto"
    device: str = "auto"
    threads: int | None = None
    generation_config: str = "auto"
    prefix_caching: bool = True
    max_num_waiting: int = 1_024


class EngineKeywords(TypedDict, total=False):
    """The fields of ``EngineOptions`` but the model, as keywords of ``LLMEngine``. A test holds the two equal."""

    served_model_name: str | None
    max_model_len: int | None
    max_num_seqs: int
    max_num_batched_tokens: int
    kv_cache_memory: int
    quantization: str
    dtype: str
    device: str
    threads: int | None
    generation_config: str
    prefix_caching: bool
    max_num_waiting: int


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """``core`` belongs to the thread that loaded it; the rest is plain and immutable."""

    core: EngineCore
    info: ModelInfo
    tokenizer: Gemma3Tokenizer
    chat_style: ChatStyle

    def render_chat(
        self,
        messages: abc.Sequence[tuple[str, str]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> ChatPrompt:
        """Pairs of role and content as token ids, in the form the checkpoint was trained on. Any thread."""
        try:
            return render_chat(
                [Message(role, content) for role, content in messages],
                self.tokenizer,
                self.chat_style,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
            )
        except ChatError as error:
            raise RequestError(str(error), param=error.param) from None


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What became of the weights. ``arithmetic`` tells apart what may differ in the last bits."""

    runner: ModelRunner
    tokenizer: Gemma3Tokenizer
    quantization: str
    arithmetic: str


def load_engine(
    options: EngineOptions, *, beside: Path | None = None, progress: Progress = no_progress
) -> LoadedEngine:
    """Load everything. The default search for weights begins in the folder ``beside``, or in the current one.

    Raises:
        ValueError: no weights, damaged weights, or options that do not fit them; the text says what to do.
    """
    began_s = time.perf_counter()
    precision = choose_precision(quantization=options.quantization, dtype=options.dtype, device=options.device)
    located = locate_weights(options.model, beside=beside or Path.cwd())
    checkpoint = open_checkpoint(located.path)
    log.info("Weights: %s (%s)", located.path, located.reason)
    if located.is_first_use:
        log.info(TERMS)
    options = replace(options, max_model_len=_max_model_len(options, checkpoint.config))
    counts = _block_counts(options, checkpoint.config, num_bytes_per_value=_kv_value_bytes(precision))
    scheduler = _scheduler(options, counts, checkpoint.config)
    load = _load_native if precision.scheme is not None else _load_torch
    loaded = load(options, checkpoint, precision, counts, progress)
    tokenizer = loaded.tokenizer
    is_tuned = checkpoint.is_instruction_tuned(tokenizer)
    core = EngineCore(
        scheduler,
        loaded.runner,
        token_to_bytes=tokenizer.token_to_bytes,
        vocab_size=_vocab_size(checkpoint, tokenizer),
        eos_token_ids=_eos_token_ids(checkpoint, tokenizer, is_tuned=is_tuned),
        enable_prefix_caching=options.prefix_caching,
    )
    info = _info(options, checkpoint, located, precision, loaded, is_tuned=is_tuned)
    log.info("Loaded %s (%s) in %.1f s", info.model_id, loaded.arithmetic, time.perf_counter() - began_s)
    return LoadedEngine(core, info, tokenizer, ChatStyle.GEMMA_TURNS if is_tuned else ChatStyle.TRANSCRIPT)


def _vocab_size(checkpoint: Checkpoint, tokenizer: Gemma3Tokenizer) -> int:
    """Ids that have both a row of the embedding and a piece of text: nobody may name others, and none is chosen.

    An embedding is often padded with rows, to a multiple of 64.
    """
    return min(checkpoint.config.vocab_size, tokenizer.vocab_size)


def _kv_value_bytes(precision: Precision) -> int:
    """The native core keeps keys and values in bfloat16."""
    return 4 if precision.scheme is None and precision.dtype == "float32" else 2


def _load_native(
    options: EngineOptions, checkpoint: Checkpoint, precision: Precision, counts: BlockCounts, progress: Progress
) -> _Loaded:
    """The native core; the tokenizer is built in a thread while weights are mapped or packed."""
    from engine.runners.cpu_runner import CpuRunner
    from gemma3.cpu.load import load_packed
    from gemma3.cpu.model import BLOCK_SIZE as CORE_BLOCK_SIZE
    from gemma3.cpu.model import CpuModel

    assert precision.scheme is not None
    assert BLOCK_SIZE == CORE_BLOCK_SIZE
    with ThreadPoolExecutor(max_workers=1) as pool:
        loading_tokenizer = pool.submit(checkpoint.load_tokenizer)
        packed = load_packed(checkpoint, precision.scheme, progress=progress)
        tokenizer = loading_tokenizer.result()
        config = replace(checkpoint.config, vocab_size=_vocab_size(checkpoint, tokenizer))
        model = CpuModel(config, packed, num_threads=options.threads)
        return _Loaded(
            CpuRunner(model, counts),
            tokenizer,
            quantization=model.scheme,
            arithmetic=f"{model.scheme}-{model.isa}",
        )


def _load_torch(
    options: EngineOptions, checkpoint: Checkpoint, precision: Precision, counts: BlockCounts, progress: Progress
) -> _Loaded:
    """The reference path."""
    from gemma3.torch_model.parallel_load import load_model_and_tokenizer

    loaded = load_model_and_tokenizer(
        checkpoint,
        dtype=precision.dtype,
        device=precision.device,
        num_threads=options.threads,
        progress=progress,
    )
    from engine.runners.torch_runner import TorchRunner

    return _Loaded(
        TorchRunner(
            loaded.model,
            counts,
            block_size=BLOCK_SIZE,
            vocab_size=_vocab_size(checkpoint, loaded.tokenizer),
        ),
        loaded.tokenizer,
        quantization=checkpoint.quantization,
        arithmetic=precision.dtype,
    )


def _max_model_len(options: EngineOptions, config: Gemma3TextConfig) -> int:
    if options.max_model_len is None:
        return config.context_length
    if options.max_model_len > config.context_length:
        raise ValueError(
            f"max_model_len={options.max_model_len} is above the model's context, {config.context_length}."
        )
    return options.max_model_len


def _prefill_chunk_tokens(options: EngineOptions) -> int:
    """What one sequence may prefill in a step while every other one decodes."""
    chunk = options.max_num_batched_tokens - options.max_num_seqs
    if chunk < BLOCK_SIZE:
        raise ValueError(
            f"max_num_batched_tokens={options.max_num_batched_tokens} must be at least max_num_seqs="
            f"{options.max_num_seqs} + {BLOCK_SIZE}: every sequence decodes in each step, and a prefill goes on beside them."
        )
    return min(chunk, MAX_PREFILL_CHUNK_TOKENS)


def _scheduler(options: EngineOptions, counts: BlockCounts, config: Gemma3TextConfig) -> Scheduler:
    assert options.max_model_len is not None
    return Scheduler(
        SchedulerConfig(
            max_num_seqs=options.max_num_seqs,
            max_num_batched_tokens=options.max_num_batched_tokens,
            max_model_len=options.max_model_len,
            prefill_chunk_tokens=_prefill_chunk_tokens(options),
        ),
        KVCacheManager(
            counts,
            block_size=BLOCK_SIZE,
            window=config.sliding_window,
        ),
    )


def _block_counts(options: EngineOptions, config: Gemma3TextConfig, *, num_bytes_per_value: int) -> BlockCounts:
    assert options.max_model_len is not None
    windows = [config.window(i) for i in range(config.num_hidden_layers)]
    layout = KVCacheLayout(
        block_size=BLOCK_SIZE,
        window=config.sliding_window,
        # Both pools hand out blocks also to a model of fewer than six layers, which has no global one.
        num_global_layers=max(1, windows.count(None)),
        num_sliding_layers=max(1, len(windows) - windows.count(None)),
        num_bytes_per_token=2 * config.num_key_value_heads * config.head_dim * num_bytes_per_value,
    )
    return num_blocks_for(
        options.kv_cache_memory,
        layout,
        max_num_seqs=options.max_num_seqs,
        max_model_len=options.max_model_len,
        prefill_chunk_tokens=_prefill_chunk_tokens(options),
    )


def _eos_token_ids(checkpoint: Checkpoint, tokenizer: Gemma3Tokenizer, *, is_tuned: bool) -> frozenset[int]:
    """``<eos>``, the end of a turn where turns were trained, and what generation_config.json adds of the vocabulary."""
    configured = checkpoint.generation_config.get("eos_token_id", [])
    extra = [configured] if isinstance(configured, int) else configured
    ids = {tokenizer.eos_token_id, *(i for i in extra if isinstance(i, int))}
    if is_tuned:
        ids.add(tokenizer.end_of_turn_id)
    return frozenset(ids.intersection(range(_vocab_size(checkpoint, tokenizer))))


def _info(
    options: EngineOptions,
    checkpoint: Checkpoint,
    located: Located,
    precision: Precision,
    loaded: _Loaded,
    *,
    is_tuned: bool,
) -> ModelInfo:
    assert options.max_model_len is not None
    return ModelInfo(
        model_id=options.served_model_name or located.name,
        created=int(located.path.stat().st_mtime),
        owned_by="google",
        max_model_len=options.max_model_len,
        vocab_size=_vocab_size(checkpoint, loaded.tokenizer),
        quantization=loaded.quantization,
        dtype=precision.dtype,
        is_instruction_tuned=is_tuned,
        system_fingerprint=f"{content_hash(checkpoint.weight_files)[:12]}-{loaded.arithmetic}-{__version__}",
        default_sampling=_default_sampling(checkpoint.generation_config) if options.generation_config == "auto" else {},
    )


def _default_sampling(generation_config: abc.Mapping[str, object]) -> dict[str, float]:
    found = {name: generation_config.get(name) for name, setting in SETTINGS.items() if setting.from_checkpoint}
    return {name: value for name, value in found.items() if isinstance(value, int | float) and value >= 0}
