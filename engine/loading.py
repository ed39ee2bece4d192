"""From options to an engine that can serve: weights, tokenizer, KV cache, runner, scheduler.

The only place of this package that knows how a model comes into being. Runs on the engine thread.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.engine_core import EngineCore
from engine.errors import RequestError
from engine.kv_cache_manager import BlockCounts, KVCacheLayout, KVCacheManager, num_blocks_for
from engine.model_info import ModelInfo
from engine.model_runner import ModelRunner
from engine.scheduler import Scheduler, SchedulerConfig
from engine.sequence import Sequence as EngineSequence
from gemma3 import __version__
from gemma3.chat import ChatPrompt, ChatStyle, Message, render_chat
from gemma3.checkpoint import Checkpoint, load_all, open_checkpoint
from gemma3.config import Gemma3TextConfig
from gemma3.errors import ChatError
from gemma3.locate import TERMS, Located, locate_weights
from gemma3.tokenizer import Gemma3Tokenizer

if TYPE_CHECKING:
    from gemma3.model import Gemma3ForCausalLM

BLOCK_SIZE = 16
# A chunk is held beside the window while it is computed: with this one a 32,768-token sequence stays below 110 MiB.
MAX_PREFILL_CHUNK_TOKENS = 384
_FINGERPRINT_BYTES = 1 << 20

log = logging.getLogger("gemma3")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What a person may choose. ``kv_cache_memory`` is in bytes; ``None`` everywhere means the default.

    Attributes:
        max_num_batched_tokens: of one step; also how long a decode waits behind a prefill.
        generation_config: ``auto`` takes sampling defaults from the checkpoint's generation_config.json, ``none`` does not.
    """

    model: str | None = None
    served_model_name: str | None = None
    max_model_len: int | None = None
    max_num_seqs: int = 32
    max_num_batched_tokens: int = 512
    kv_cache_memory: int = 1 << 30
    dtype: str = "auto"
    device: str = "auto"
    threads: int | None = None
    generation_config: str = "auto"
    prefix_caching: bool = True
    max_num_waiting: int = 1_024


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """``core`` belongs to the thread that loaded it; the rest is plain and immutable."""

    core: EngineCore
    info: ModelInfo
    tokenizer: Gemma3Tokenizer
    chat_style: ChatStyle

    def render_chat(
        self,
        messages: Sequence[tuple[str, str]],
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
            raise RequestError(str(error), param="messages") from None


def load_engine(options: EngineOptions) -> LoadedEngine:
    """Load everything.

    Raises:
        ValueError: no weights, damaged weights, or options that do not fit them; the text says what to do.
    """
    began_s = time.perf_counter()
    located = locate_weights(options.model, beside=Path.cwd())
    checkpoint = open_checkpoint(located.path)
    log.info("Weights: %s (%s)", located.path, located.reason)
    if located.is_first_use:
        log.info(TERMS)
    options = replace(options, max_model_len=_max_model_len(options, checkpoint.config))
    dtype = "bfloat16" if options.dtype == "auto" else options.dtype
    counts = _block_counts(options, checkpoint.config, num_bytes_per_value=2 if dtype == "bfloat16" else 4)
    model, tokenizer = load_all(checkpoint, dtype=dtype, device=options.device)
    is_tuned = checkpoint.is_instruction_tuned(tokenizer)
    core = EngineCore(
        _scheduler(options, counts, checkpoint.config),
        _make_torch_runner(options, model, counts),
        token_to_bytes=tokenizer.token_to_bytes,
        vocab_size=checkpoint.config.vocab_size,
        eos_token_ids=_eos_token_ids(checkpoint, tokenizer, is_tuned=is_tuned),
    )
    info = _info(options, checkpoint, located, dtype, is_tuned=is_tuned)
    log.info(
        "Loaded %s (%s, %s) in %.1f s", info.model_id, info.dtype, info.quantization, time.perf_counter() - began_s
    )
    return LoadedEngine(core, info, tokenizer, ChatStyle.GEMMA_TURNS if is_tuned else ChatStyle.TRANSCRIPT)


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
            enable_prefix_caching=options.prefix_caching,
        ),
    )


MakeRunner = Callable[[Callable[[EngineSequence], frozenset[int]]], ModelRunner]


def _make_torch_runner(options: EngineOptions, model: "Gemma3ForCausalLM", counts: BlockCounts) -> MakeRunner:
    """The reference path; torch is loaded by now."""
    import torch

    from engine.sampler import Sampler
    from engine.torch_runner import TorchRunner

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    return lambda end_token_ids: TorchRunner(model, Sampler(end_token_ids), counts, block_size=BLOCK_SIZE)


def _block_counts(options: EngineOptions, config: Gemma3TextConfig, *, num_bytes_per_value: int) -> BlockCounts:
    assert options.max_model_len is not None
    windows = [config.window(i) for i in range(config.num_hidden_layers)]
    layout = KVCacheLayout(
        block_size=BLOCK_SIZE,
        window=config.sliding_window,
        num_global_layers=windows.count(None),
        num_sliding_layers=len(windows) - windows.count(None),
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
    """``<eos>``, the end of a turn where turns were trained, and what generation_config.json adds."""
    configured = checkpoint.generation_config.get("eos_token_id", [])
    extra = [configured] if isinstance(configured, int) else configured
    ids = {tokenizer.eos_token_id, *(i for i in extra if isinstance(i, int))}
    return frozenset(ids | {tokenizer.end_of_turn_id} if is_tuned else ids)


def _info(options: EngineOptions, checkpoint: Checkpoint, located: Located, dtype: str, *, is_tuned: bool) -> ModelInfo:
    assert options.max_model_len is not None
    return ModelInfo(
        model_id=options.served_model_name or located.name,
        created=int(located.path.stat().st_mtime),
        owned_by="google",
        max_model_len=options.max_model_len,
        vocab_size=checkpoint.config.vocab_size,
        quantization=checkpoint.quantization,
        dtype=dtype,
        is_instruction_tuned=is_tuned,
        system_fingerprint=f"{_weights_hash(located.path)}-{dtype}-{__version__}",
        default_sampling=_default_sampling(checkpoint.generation_config) if options.generation_config == "auto" else {},
    )


def _default_sampling(generation_config: Mapping[str, object]) -> dict[str, float]:
    found = {name: generation_config.get(name) for name in ("temperature", "top_k", "top_p")}
    return {name: value for name, value in found.items() if isinstance(value, int | float) and value >= 0}


def _weights_hash(path: Path) -> str:
    """Of the size, the first and the last MiB of every weight file: told apart in milliseconds."""
    digest = hashlib.sha256()
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    for file_path in files:
        num_bytes = file_path.stat().st_size
        digest.update(str(num_bytes).encode())
        with file_path.open("rb") as file:
            digest.update(file.read(_FINGERPRINT_BYTES))
            file.seek(max(0, num_bytes - _FINGERPRINT_BYTES))
            digest.update(file.read())
    return digest.hexdigest()[:12]
