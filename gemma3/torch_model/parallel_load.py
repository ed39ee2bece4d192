"""The model and its tokenizer, made in threads while torch is being imported, which takes as long.

Owns the order of a start on the torch path, and imports torch only when called. One thread calls it.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemma3.checkpoints.checkpoint import Checkpoint, check_dtype
from gemma3.checkpoints.verified import verified
from gemma3.progress import Progress, no_progress
from gemma3.text.tokenizer import Gemma3Tokenizer

if TYPE_CHECKING:
    from gemma3.torch_model.model import Gemma3ForCausalLM


@dataclass(frozen=True, slots=True)
class ModelAndTokenizer:
    """What a checkpoint holds, ready to run."""

    model: "Gemma3ForCausalLM"
    tokenizer: Gemma3Tokenizer


def load_model_and_tokenizer(
    checkpoint: Checkpoint,
    *,
    dtype: str,
    device: str,
    num_threads: int | None = None,
    progress: Progress = no_progress,
) -> ModelAndTokenizer:
    """Load both; ``num_threads`` of torch on the CPU (``None``: its own choice).

    Raises:
        Gemma3Error, ValueError: as ``load.load_model`` and the checkpoint's ``load_tokenizer``.
    """
    check_dtype(dtype)
    # Read once, when torch loads its thread library. Threads that spin at a barrier stand still while another process has
    # their core: 1 to 4 tokens/s instead of 11 to 16 on two cores, one of them busy (docs/decisions.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    with ThreadPoolExecutor(max_workers=2) as pool:
        arrays = pool.submit(lambda: verified(checkpoint).load_arrays(dtype, progress))
        tokenizer = pool.submit(checkpoint.load_tokenizer)
        from gemma3.torch_model.load import as_tensors, build_model, pick_device, set_num_threads

        torch_device = pick_device(device)
        set_num_threads(num_threads)
        model = build_model(checkpoint, as_tensors(arrays.result()), torch_device)
        return ModelAndTokenizer(model, tokenizer.result())
