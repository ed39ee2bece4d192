"""From options to an engine that can serve: weights, tokenizer, KV cache, runner, scheduler.

The only place of this package that knows how a model comes into being. Runs on the engine thread.
"""

import logging
import math
import time
from collections import abc
from dataclasses import dataclass, replace
from pathlib import Path

from engine.capacity import block_counts, cache_config, max_model_len, new_scheduler
from engine.chat_format import ChatFormat, choose_chat_format
from engine.default_sampling import default_sampling
from engine.engine_core import EngineCore
from engine.engine_info import ModelInfo, WeightsInfo
from engine.engine_options import EngineOptions
from engine.errors import RequestError
from engine.grammar.compiler import GrammarCompiler
from engine.load_failures import in_words
from engine.load_model import LoadedModel, kv_value_bytes, load_model, usable_vocab_size
from engine.precision import Precision, choose_precision
from engine.prefill_pace import PrefillPace
from engine.scheduler import Scheduler
from gemma3 import __version__
from gemma3.checkpoints.checkpoint import Checkpoint, open_checkpoint
from gemma3.checkpoints.end_tokens import end_token_ids
from gemma3.checkpoints.gguf_checkpoint import GGUFCheckpoint
from gemma3.checkpoints.locate import TERMS, Located, locate_weights
from gemma3.checkpoints.tensor_names import expected_shapes
from gemma3.errors import ChatError, TokenizerError
from gemma3.progress import Progress, no_progress
from gemma3.text.chat import ChatPrompt, ChatStyle, Message
from gemma3.text.tokenizer import Gemma3Tokenizer
from gemma3.text.tool_form import ToolForm, Tools

log = logging.getLogger("gemma3")


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """``core`` belongs to the thread that loaded it; the rest is plain and immutable.

    ``check_weights(delay_s)``, on any thread and once, reads for seconds what a start only samples, and raises ``ValueError``
    if what was loaded is damaged. ``None``: there is no doubt.
    """

    core: EngineCore
    info: ModelInfo
    tokenizer: Gemma3Tokenizer
    chat_format: ChatFormat
    grammars: GrammarCompiler
    check_weights: abc.Callable[[float], None] | None = None

    @property
    def tool_form(self) -> ToolForm:
        """How the model writes calls of tools."""
        return self.chat_format.tool_form

    def render_chat(
        self,
        messages: abc.Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Tools | None = None,
    ) -> ChatPrompt:
        """A conversation as token ids, in the form the checkpoint was trained on. Any thread.

        Raises:
            RequestError: the messages, or these with the flags or the tools, cannot be a prompt.
        """
        try:
            return self.chat_format.render(
                messages,
                self.tokenizer,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                tools=tools,
            )
        except ChatError as error:
            raise RequestError(str(error), param=error.param) from None
        except TokenizerError as error:
            raise RequestError(f"messages cannot be encoded: {error}", param="messages") from None


@in_words()
def load_engine(
    options: EngineOptions,
    *,
    beside: Path | None = None,
    progress: Progress = no_progress,
    pace: PrefillPace | None = None,
) -> LoadedEngine:
    """Load everything. The default search for weights begins in the folder ``beside``, or in the current one.

    ``pace`` bounds what prefill may cost those that decode; the default is for streams with readers.

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
    options = replace(options, max_model_len=max_model_len(options, checkpoint.config))
    num_bytes = kv_value_bytes(precision)
    counts = block_counts(options, checkpoint.config, num_bytes_per_value=num_bytes)
    scheduler = new_scheduler(options, counts, checkpoint.config, pace=pace or PrefillPace())
    loaded = load_model(options, checkpoint, precision, counts, progress)
    tokenizer = loaded.tokenizer
    log.info("Tokenizer: %s", tokenizer.pipeline_note)
    chat = choose_chat_format(options.chat_template, checkpoint, tokenizer)
    log.info("Chat: %s (%s)", chat.name, chat.reason)
    end_ids = end_token_ids(
        checkpoint.end_tokens,
        tokenizer,
        vocab_size=usable_vocab_size(checkpoint, tokenizer),
        ends_turns=chat.form is ChatStyle.GEMMA_TURNS,
    )
    core = _core(options, checkpoint, scheduler, loaded, end_token_ids=end_ids)
    info = _info(options, checkpoint, located, precision, loaded, chat=chat)
    info = replace(info, cache_config=cache_config(options, counts, checkpoint.config, num_bytes_per_value=num_bytes))
    log.info("Loaded %s (%s) in %.1f s", info.model_id, loaded.arithmetic, time.perf_counter() - began_s)
    grammars = GrammarCompiler(
        token_to_bytes=tokenizer.token_to_bytes,
        encode=tokenizer.encode,
        special_ids=tokenizer.special_ids,
        end_token_ids=end_ids,
        vocab_size=usable_vocab_size(checkpoint, tokenizer),
    )
    return LoadedEngine(core, info, tokenizer, chat, grammars, loaded.check_weights)


def _core(
    options: EngineOptions,
    checkpoint: Checkpoint,
    scheduler: Scheduler,
    loaded: LoadedModel,
    *,
    end_token_ids: frozenset[int],
) -> EngineCore:
    return EngineCore(
        scheduler,
        loaded.runner,
        token_to_bytes=loaded.tokenizer.token_to_bytes,
        vocab_size=usable_vocab_size(checkpoint, loaded.tokenizer),
        eos_token_ids=end_token_ids,
        enable_prefix_caching=options.prefix_caching,
    )


def _info(
    options: EngineOptions,
    checkpoint: Checkpoint,
    located: Located,
    precision: Precision,
    loaded: LoadedModel,
    *,
    chat: ChatFormat,
) -> ModelInfo:
    assert options.max_model_len is not None
    return ModelInfo(
        model_id=options.served_model_name or located.name,
        created=int(located.path.stat().st_mtime),
        owned_by="google",
        max_model_len=options.max_model_len,
        vocab_size=usable_vocab_size(checkpoint, loaded.tokenizer),
        quantization=loaded.quantization,
        dtype=precision.dtype,
        is_instruction_tuned=chat.is_tuned,
        system_fingerprint=f"{loaded.weights_hash[:12]}-{loaded.arithmetic}-{__version__}",
        default_sampling=default_sampling(checkpoint.generation_config) if options.generation_config == "auto" else {},
        chat_format=chat.name,
        chat_template=chat.template,
        weights=_weights(checkpoint, loaded),
    )


def _weights(checkpoint: Checkpoint, loaded: LoadedModel) -> WeightsInfo:
    config = checkpoint.config
    return WeightsInfo(
        file_format="gguf" if isinstance(checkpoint, GGUFCheckpoint) else "safetensors",
        num_bytes=sum(path.stat().st_size for path in checkpoint.weight_files),
        num_parameters=sum(math.prod(shape) for shape in expected_shapes(config).values()),
        sha256=loaded.weights_hash,
        device=loaded.device,
        shape={
            "block_count": config.num_hidden_layers,
            "embedding_length": config.hidden_size,
            "feed_forward_length": config.intermediate_size,
            "attention.head_count": config.num_attention_heads,
            "attention.head_count_kv": config.num_key_value_heads,
            "attention.key_length": config.head_dim,
            "attention.sliding_window": config.sliding_window,
        },
    )
