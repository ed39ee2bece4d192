"""A checkpoint on disk: what model it holds and whether its tensors are complete, told from headers alone.

Opening one reads no weights and imports neither numpy nor torch, so bad input is answered at once. ``cpu/load.py`` and
``torch_model/load.py`` make models of an opened checkpoint. Any thread.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from gemma3.checkpoints.embedded_weights import is_in_memory
from gemma3.checkpoints.gguf_checkpoint import GGUFCheckpoint
from gemma3.checkpoints.safetensors_checkpoint import SafetensorsCheckpoint
from gemma3.checkpoints.weight_files import PICKLES, model_files, no_weights_error
from gemma3.errors import CheckpointError, WeightsNotFoundError
from gemma3.files.gguf_parts import gguf_models, is_gguf

Checkpoint = SafetensorsCheckpoint | GGUFCheckpoint

DTYPES = ("bfloat16", "float32")

_MAX_LISTED = 8
_SAMPLE_BYTES = 4_096
_NUM_SAMPLES = 64


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a directory or a GGUF file and check that it holds a complete Gemma 3 text model.

    Raises:
        WeightsNotFoundError: there are no weights at ``path``.
        ConfigError: the model is not Gemma 3 text.
        CheckpointError: a file is damaged, a pickle, or a tensor is missing, unknown or of the wrong shape.
    """
    try:
        if not path.exists():
            raise WeightsNotFoundError(f"{path}: no such file or directory.")
        return _open_directory(path) if path.is_dir() else _open_file(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}.") from error


def _open_file(path: Path) -> Checkpoint:
    if is_in_memory(path) or is_gguf(path):
        return GGUFCheckpoint.open(path)
    if path.suffix in PICKLES:
        raise CheckpointError(
            f"{path.name} is a pickle, which can run code when it is read; only safetensors and GGUF are."
        )
    if path.suffix == ".safetensors":
        raise CheckpointError(f"{path.name}: give the directory, which also holds config.json and tokenizer.json.")
    raise CheckpointError(f"{path.name}: unknown kind of file; a directory or a GGUF file is needed.")


def _open_directory(folder: Path) -> Checkpoint:
    if model_files(folder):
        return SafetensorsCheckpoint.open(folder)
    ggufs = gguf_models(folder)
    if len(ggufs) == 1:
        return GGUFCheckpoint.open(ggufs[0])
    if len(ggufs) > 1:
        names = ", ".join(path.name for path in ggufs[:_MAX_LISTED]) + (", ..." if len(ggufs) > _MAX_LISTED else "")
        raise CheckpointError(f"{folder.name}/ holds {len(ggufs)} GGUF models ({names}); give the path of one.")
    raise no_weights_error(folder)


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
