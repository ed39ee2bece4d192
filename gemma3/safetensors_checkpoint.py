"""A directory in the layout of the Hugging Face Hub: ``config.json``, ``*.safetensors``, ``tokenizer.json``."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from safetensors import SafetensorError, safe_open

from gemma3.config import Gemma3TextConfig
from gemma3.errors import CheckpointError, ConfigError
from gemma3.file_kinds import impostor
from gemma3.tensors import Progress, check_shapes, expected_shapes
from gemma3.tokenizer import Gemma3Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

_INDEX = "model.safetensors.index.json"
_DTYPES = ("BF16", "F16", "F32")
_MAX_JSON_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class SafetensorsCheckpoint:
    """``files`` says in which file each tensor is; ``generation_config`` may be empty."""

    folder: Path
    config: Gemma3TextConfig
    files: dict[str, Path]
    generation_config: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the headers of every file and check names, shapes and dtypes against ``config.json``."""
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{folder.name}/ has no config.json.")
        config = Gemma3TextConfig.from_hf_dict(_read_json(folder / "config.json"))
        shapes: dict[str, tuple[int, ...]] = {}
        files: dict[str, Path] = {}
        for path in _weight_files(folder):
            for name, shape in _read_header(path).items():
                if name in files:
                    raise CheckpointError(f"{name!r:.120} is both in {files[name].name} and in {path.name}.")
                files[name], shapes[name] = path, shape
        check_shapes(shapes, expected_shapes(config), where=f"{folder.name}/")
        generation = folder / "generation_config.json"
        return cls(folder, config, files, _read_json(generation) if generation.is_file() else {})

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def quantization(self) -> str:
        return "none"

    def is_instruction_tuned(self, tokenizer: Gemma3Tokenizer) -> bool:
        """A checkpoint that ships a chat template was trained on turns."""
        return tokenizer.chat_template is not None

    def load_tokenizer(self) -> Gemma3Tokenizer:
        return Gemma3Tokenizer.from_local_path(self.folder)

    def load_tensors(self, dtype: str, progress: Progress) -> "dict[str, Tensor]":
        """All tensors, norms as float32 and the rest as ``dtype``; what is stored so stays memory-mapped, uncopied."""
        import torch

        tensors: dict[str, Tensor] = {}
        for path in sorted(set(self.files.values())):
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a dict)
                    stored = file.get_tensor(name)
                    if not torch.isfinite(stored.sum(dtype=torch.float32)):
                        raise CheckpointError(f"{path.name}: {name!r:.120} holds NaN or infinite values.")
                    tensors[name] = stored.to(torch.float32 if stored.ndim == 1 else getattr(torch, dtype))
                    progress(len(tensors), len(self.files))
        return tensors


def _weight_files(folder: Path) -> list[Path]:
    """The shards the index names, or every ``*.safetensors`` file when there is no index."""
    if not (folder / _INDEX).is_file():
        return sorted(folder.glob("*.safetensors"))
    weight_map = _read_json(folder / _INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{_INDEX} has no 'weight_map' from tensor names to file names.")
    paths = [folder / name for name in sorted(set(weight_map.values()))]
    for path in paths:
        if path.parent != folder or path.suffix != ".safetensors":
            raise CheckpointError(f"{_INDEX} names {path.name!r:.120}, which is not a .safetensors file beside it.")
        if not path.is_file():
            raise CheckpointError(f"{_INDEX} names {path.name!r:.120}, which is not there.")
    return paths


def _read_header(path: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of one file."""
    with path.open("rb") as start:
        disguise = impostor(start.read(32))
    if disguise is not None:
        raise CheckpointError(f"{path.name}: {disguise}.")
    shapes = {}
    try:
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                entry = file.get_slice(name)
                if entry.get_dtype() not in _DTYPES:
                    raise CheckpointError(
                        f"{path.name}: {name!r:.120} is {entry.get_dtype()}; allowed are {', '.join(_DTYPES)}."
                    )
                shapes[name] = tuple(entry.get_shape())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path.name} is damaged or not safetensors: {' '.join(str(error).split())[:200]}."
        ) from error
    return shapes


def _read_json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise ConfigError(f"{path.name} has {path.stat().st_size:,} bytes; at most {_MAX_JSON_BYTES:,} are read.")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise ConfigError(f"{path.name} is not valid JSON.") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path.name} is not a JSON object.")
    return content
