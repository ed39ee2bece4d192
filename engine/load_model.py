"""From an opened checkpoint to a runner and a tokenizer: the native core's way and torch's.

Owns which of the two is imported, and that the tokenizer is built beside the weights. Knows nothing
of chat, of sampling or of the scheduler. Runs on the engine thread.
"""

from collections import abc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from engine.capacity import BLOCK_SIZE
from engine.engine_options import EngineOptions
from engine.kv_cache_sizes import BlockCounts
from engine.precision import Precision
from engine.runners.model_runner import ModelRunner
from gemma3.checkpoints.checkpoint import Checkpoint, content_hash
from gemma3.checkpoints.kept_vocabulary import load_tokenizer
from gemma3.progress import Progress
from gemma3.text.tokenizer import Gemma3Tokenizer


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """What became of the weights. ``weights_hash`` tells them apart, ``arithmetic`` what may differ in the last bits."""

    runner: ModelRunner
    tokenizer: Gemma3Tokenizer
    quantization: str
    arithmetic: str
    weights_hash: str
    check_weights: abc.Callable[[float], None] | None = None
    device: str = "cpu"


def usable_vocab_size(checkpoint: Checkpoint, tokenizer: Gemma3Tokenizer) -> int:
    """Ids that have both a row of the embedding and a piece of text: nobody may name others, and none is chosen.

    An embedding is often padded with rows, to a multiple of 64.
    """
    return min(checkpoint.config.vocab_size, tokenizer.vocab_size)


def kv_value_bytes(precision: Precision) -> int:
    """The native core keeps keys and values in bfloat16."""
    return 4 if precision.scheme is None and precision.dtype == "float32" else 2


def load_model(
    options: EngineOptions, checkpoint: Checkpoint, precision: Precision, counts: BlockCounts, progress: Progress
) -> LoadedModel:
    """By the native core if ``precision`` has a scheme of it, else by torch.

    Raises:
        ValueError: damaged weights or options that do not fit them; the text says what to do.
    """
    load = _load_torch if precision.scheme is None else _load_native
    return load(options, checkpoint, precision, counts, progress)


def _load_native(
    options: EngineOptions, checkpoint: Checkpoint, precision: Precision, counts: BlockCounts, progress: Progress
) -> LoadedModel:
    """The native core; the tokenizer is built in a thread while weights are mapped or packed."""
    from engine.runners.cpu_runner import CpuRunner
    from gemma3.cpu.load import load_packed
    from gemma3.cpu.model import BLOCK_SIZE as CORE_BLOCK_SIZE
    from gemma3.cpu.model import CpuModel

    assert precision.scheme is not None
    assert BLOCK_SIZE == CORE_BLOCK_SIZE
    with ThreadPoolExecutor(max_workers=1) as pool:
        loading_tokenizer = pool.submit(load_tokenizer, checkpoint)
        packed = load_packed(checkpoint, precision.scheme, progress=progress)
        tokenizer = loading_tokenizer.result()
        config = replace(checkpoint.config, vocab_size=usable_vocab_size(checkpoint, tokenizer))
        model = CpuModel(config, packed, num_threads=options.threads, isa=options.isa)
        return LoadedModel(
            CpuRunner(model, counts),
            tokenizer,
            quantization=model.scheme,
            arithmetic=f"{model.scheme}-{model.isa}",
            weights_hash=packed.sha256,
            check_weights=packed.check,
        )


def _load_torch(
    options: EngineOptions, checkpoint: Checkpoint, precision: Precision, counts: BlockCounts, progress: Progress
) -> LoadedModel:
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

    return LoadedModel(
        TorchRunner(
            loaded.model,
            counts,
            block_size=BLOCK_SIZE,
            vocab_size=usable_vocab_size(checkpoint, loaded.tokenizer),
        ),
        loaded.tokenizer,
        quantization=checkpoint.quantization,
        arithmetic=precision.dtype,
        weights_hash=content_hash(checkpoint.weight_files),
        device=next(loaded.model.parameters()).device.type,
    )
