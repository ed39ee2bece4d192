"""From an opened checkpoint to a model that is ready to run: the only place where weights become tensors.

Owns dtype and device of a model. Knows nothing of how files store values. One thread loads a model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gemma3.checkpoints.checkpoint import Checkpoint, check_dtype, open_checkpoint
from gemma3.checkpoints.locate import locate_weights
from gemma3.checkpoints.tensor_names import EMBEDDING, HEAD, check_shapes, expected_shapes
from gemma3.errors import CheckpointError, DeviceError
from gemma3.progress import Progress, no_progress
from gemma3.torch_model.model import Gemma3ForCausalLM

if TYPE_CHECKING:
    from numpy.typing import NDArray


def load_model(
    checkpoint: Checkpoint, *, dtype: str = "bfloat16", device: str = "cpu", progress: Progress = no_progress
) -> Gemma3ForCausalLM:
    """Build the model of a checkpoint.

    Raises:
        CheckpointError: a tensor holds NaN or infinite values, or a second copy of the head differs from the embedding.
        ValueError: ``dtype`` is neither bfloat16 nor float32 (float16 overflows in this model).
    """
    check_dtype(dtype)
    return build_model(checkpoint, load_tensors(checkpoint, dtype, progress), pick_device(device))


def load_tensors(checkpoint: Checkpoint, dtype: str, progress: Progress = no_progress) -> dict[str, Tensor]:
    """All tensors of a checkpoint by name: vectors (norms) as float32, matrices as ``dtype``.

    Raises:
        CheckpointError: a value is NaN or infinite.
    """
    return as_tensors(checkpoint.load_arrays(dtype, progress))


def as_tensors(arrays: "Mapping[str, NDArray[Any]]") -> dict[str, Tensor]:
    """The same memory as tensors; ``uint16`` is the bits of bfloat16."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return {name: t.view(torch.bfloat16) if t.dtype == torch.uint16 else t for name, t in tensors.items()}


def build_model(checkpoint: Checkpoint, tensors: dict[str, Tensor], device: torch.device) -> Gemma3ForCausalLM:
    """A model of these tensors; its own memory, which they replace, was never touched."""
    return _assign(Gemma3ForCausalLM(checkpoint.config), checkpoint, tensors, device)


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


def set_num_threads(num_threads: int | None) -> None:
    """Threads of every matrix product on the CPU; ``None`` leaves torch's own choice."""
    if num_threads is not None:
        torch.set_num_threads(num_threads)


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
    tensors = load_tensors(checkpoint, str(weight.dtype).removeprefix("torch."))
    return _assign(model, checkpoint, tensors, torch.device(device) if device is not None else weight.device)


def _assign(
    model: Gemma3ForCausalLM, checkpoint: Checkpoint, tensors: dict[str, Tensor], device: torch.device
) -> Gemma3ForCausalLM:
    head = tensors.pop(HEAD, None)
    if head is not None and not torch.equal(head, tensors[EMBEDDING]):
        raise CheckpointError(f"{checkpoint.name}: {HEAD} differs from {EMBEDDING}; this model ties them.")
    model.load_state_dict({name: tensor.to(device) for name, tensor in tensors.items()}, assign=True)
    # No checkpoint has the buffers: they are still where the model was made.
    return model.to(device).requires_grad_(requires_grad=False).eval()
