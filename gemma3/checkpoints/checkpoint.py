"""A checkpoint on disk: what model it holds and whether its tensors are complete, told from headers alone.

Opening one reads no weights and imports no torch, so bad input is answered at once. ``weights.py`` turns an opened checkpoint
into tensors.
"""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from gemma3.checkpoints.gguf_checkpoint import GGUFCheckpoint
from gemma3.checkpoints.safetensors_checkpoint import SafetensorsCheckpoint
from gemma3.checkpoints.tensor_names import Progress, no_progress
from gemma3.errors import CheckpointError, WeightsNotFoundError
from gemma3.text.tokenizer import Gemma3Tokenizer

if TYPE_CHECKING:
    from gemma3.torch_model.model import Gemma3ForCausalLM

Checkpoint = SafetensorsCheckpoint | GGUFCheckpoint

DTYPES = ("bfloat16", "float32")

_SAMPLE_BYTES = 4_096
_NUM_SAMPLES = 64

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a directory or a ``.gguf`` file and check that it holds a complete Gemma 3 text model.

    Raises:
        WeightsNotFoundError: there are no weights at ``path``.
        ConfigError: the model is not Gemma 3 text.
        CheckpointError: a file is damaged, a pickle, or a tensor is missing, unknown or of the wrong shape.
    """
    if not path.exists():
        raise WeightsNotFoundError(f"{path}: no such file or directory.")
    if path.is_dir():
        return _open_directory(path)
    if path.suffix == ".gguf":
        return GGUFCheckpoint.open(path)
    if path.suffix in _PICKLES:
        raise CheckpointError(
            f"{path.name} is a pickle, which can run code when it is read; only safetensors and GGUF are."
        )
    if path.suffix == ".safetensors":
        raise CheckpointError(f"{path.name}: give the directory, which also holds config.json and tokenizer.json.")
    raise CheckpointError(f"{path.name}: unknown kind of file; a directory or a .gguf file is needed.")


def _open_directory(folder: Path) -> Checkpoint:
    if any(folder.glob("*.safetensors")):
        return SafetensorsCheckpoint.open(folder)
    ggufs = sorted(folder.glob("*.gguf"))
    if len(ggufs) == 1:
        return GGUFCheckpoint.open(ggufs[0])
    if len(ggufs) > 1:
        raise CheckpointError(f"{folder.name}/ holds {len(ggufs)} .gguf files; give the path of one.")
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickles:
        raise CheckpointError(
            f"{folder.name}/ holds only pickles ({pickles[0]}), which can run code when they are read; convert to safetensors."
        )
    raise WeightsNotFoundError(f"{folder.name}/ holds no weights: neither *.safetensors nor *.gguf.")


def content_hash(paths: Sequence[Path]) -> str:
    """Tells weights apart in milliseconds: SHA-256 of the size of each file and of samples from its first byte to its last."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            num_bytes = os.stat(file.fileno()).st_size
            digest.update(str(num_bytes).encode())
            for i in range(_NUM_SAMPLES):
                file.seek(max(0, num_bytes - _SAMPLE_BYTES) * i // (_NUM_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def check_dtype(dtype: str) -> None:
    """Raise ``ValueError`` unless the model runs in ``dtype``."""
    if dtype not in DTYPES:
        raise ValueError(
            f"dtype={dtype!r:.60} is not allowed: bfloat16 or float32 is (float16 overflows in this model)."
        )


def load_all(
    checkpoint: Checkpoint, *, dtype: str, device: str, progress: Progress = no_progress
) -> "tuple[Gemma3ForCausalLM, Gemma3Tokenizer]":
    """The model and its tokenizer: both are made in threads while this one imports torch, which takes as long.

    Raises:
        Gemma3Error, ValueError: as ``weights.load_model``.
    """
    check_dtype(dtype)
    # Read once, when torch loads its thread library. Threads that spin at a barrier stand still while another process has
    # their core: 1 to 4 tokens/s instead of 11 to 16 on two cores, one of them busy (docs/decisions.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    with ThreadPoolExecutor(max_workers=2) as pool:
        tensors = pool.submit(checkpoint.load_tensors, dtype, progress)
        tokenizer = pool.submit(checkpoint.load_tokenizer)
        from gemma3.torch_model.load import build_model, pick_device

        torch_device = pick_device(device)
        return build_model(checkpoint, tensors.result(), torch_device), tokenizer.result()
