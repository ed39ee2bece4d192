"""From an opened checkpoint to a model that is ready to run: the only place where weights become tensors of a model."""

from pathlib import Path

import torch

from gemma3.checkpoint import Checkpoint, open_checkpoint
from gemma3.errors import CheckpointError, DeviceError
from gemma3.locate import locate_weights
from gemma3.model import Gemma3ForCausalLM
from gemma3.tensors import EMBEDDING, HEAD, Progress, check_shapes, expected_shapes

DTYPES = (torch.bfloat16, torch.float32)


def no_progress(num_done: int, num_steps: int) -> None:
    """Say nothing."""


def load_model(
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    progress: Progress = no_progress,
) -> Gemma3ForCausalLM:
    """Build the model without memory of its own and hand it the checkpoint's tensors.

    Raises:
        CheckpointError: a tensor holds NaN or infinite values, or a second copy of the head differs from the embedding.
        ValueError: ``dtype`` is neither bfloat16 nor float32 (float16 overflows in this model).
    """
    with torch.device("meta"):
        model = Gemma3ForCausalLM(checkpoint.config)
    return _assign(model, checkpoint, dtype, torch.device(device), progress)


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where torch sees a GPU, else the CPU.

    Raises:
        DeviceError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind == "cpu" and not index:
        return torch.device("cpu")
    if kind != "cuda" or (index and not index.isdigit()):
        raise DeviceError(f"device={name!r:.60} is not allowed: auto, cpu, cuda or cuda:N is.")
    if int(index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"device={name!r:.60}: torch sees {torch.cuda.device_count()} GPUs here.")
    return torch.device(name)


def load_weights_into(
    model: Gemma3ForCausalLM, *, repo_or_path: str | Path | None = None, device: torch.device | str | None = None
) -> Gemma3ForCausalLM:
    """Replace the weights of ``model`` by those of a repository, directory or GGUF file (``None``: the default search).

    The model keeps its dtype and, unless ``device`` is given, its device.

    Raises:
        Gemma3Error: nothing to load, damaged files, or another shape than ``model.config``.
    """
    located = locate_weights(None if repo_or_path is None else str(repo_or_path), beside=Path.cwd())
    checkpoint = open_checkpoint(located.path)
    check_shapes(expected_shapes(checkpoint.config), expected_shapes(model.config), where=checkpoint.name)
    weight = model.model.embed_tokens.weight
    return _assign(model, checkpoint, weight.dtype, torch.device(device) if device is not None else weight.device)


def _assign(
    model: Gemma3ForCausalLM,
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: torch.device,
    progress: Progress = no_progress,
) -> Gemma3ForCausalLM:
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype} is not allowed: torch.bfloat16 or torch.float32 is (float16 overflows here).")
    # Threads fill the tensors, and they do not inherit a caller's inference mode.
    with torch.inference_mode(mode=False):
        tensors = checkpoint.load_tensors(dtype, progress)
    head = tensors.pop(HEAD, None)
    if head is not None and not torch.equal(head, tensors[EMBEDDING]):
        raise CheckpointError(f"{checkpoint.name}: {HEAD} differs from {EMBEDDING}; this model ties them.")
    model.load_state_dict({name: tensor.to(device) for name, tensor in tensors.items()}, assign=True)
    return model.requires_grad_(requires_grad=False).eval()
