"""A directory in the layout of the Hugging Face Hub: ``config.json``, ``*.safetensors``, ``tokenizer.json``.

Owns which files belong together and how their values are read. Opening reads headers only; nothing here imports torch. Any
thread may read once it is open.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from gemma3.checkpoints.decoding import decode_all
from gemma3.checkpoints.tensor_names import check_shapes, expected_shapes
from gemma3.config import Gemma3TextConfig
from gemma3.errors import CheckpointError, ConfigError
from gemma3.files.safetensors_file import SafetensorsFile
from gemma3.progress import Progress
from gemma3.text.tokenizer import Gemma3Tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_INDEX = "model.safetensors.index.json"
_NUMPY_TYPES = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}
_STORED_AS = {"bfloat16": "BF16", "float32": "F32"}
_MAX_JSON_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class SafetensorsCheckpoint:
    """``files`` says in which file each tensor is; ``generation_config`` may be empty."""

    folder: Path
    config: Gemma3TextConfig
    files: dict[str, SafetensorsFile]
    generation_config: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the headers of every file and check names, shapes and dtypes against ``config.json``."""
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{folder.name}/ has no config.json.")
        config = Gemma3TextConfig.from_hf_dict(_read_json(folder / "config.json"))
        files: dict[str, SafetensorsFile] = {}
        for path in _weight_files(folder):
            for name, file in _open(path).items():
                if name in files:
                    raise CheckpointError(f"{name!r:.120} is both in {files[name].path.name} and in {path.name}.")
                files[name] = file
        shapes = {name: file.tensors[name].shape for name, file in files.items()}
        check_shapes(shapes, expected_shapes(config), where=f"{folder.name}/")
        generation = folder / "generation_config.json"
        return cls(folder, config, files, _read_json(generation) if generation.is_file() else {})

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def weight_files(self) -> list[Path]:
        return sorted({file.path for file in self.files.values()})

    @property
    def tensor_names(self) -> frozenset[str]:
        """What the files hold, in the model's words."""
        return frozenset(self.files)

    @property
    def quantization(self) -> str:
        return "none"

    def is_instruction_tuned(self, tokenizer: Gemma3Tokenizer) -> bool:
        """A checkpoint that ships a chat template was trained on turns."""
        return tokenizer.chat_template is not None

    def load_tokenizer(self) -> Gemma3Tokenizer:
        return Gemma3Tokenizer.from_local_path(self.folder)

    def load_arrays(self, dtype: str, progress: Progress) -> "dict[str, NDArray[Any]]":
        """All tensors as ``decode_all`` makes them; what is stored so stays memory-mapped, uncopied.

        Raises:
            CheckpointError: a value is NaN or infinite.
        """
        shapes = {name: file.tensors[name].shape for name, file in self.files.items()}
        stored = {
            name: self._stored(name)
            for name, file in self.files.items()
            if file.tensors[name].dtype == ("F32" if len(shapes[name]) == 1 else _STORED_AS[dtype])
        }
        return decode_all(shapes, self.read_rows, dtype=dtype, progress=progress, stored=stored)

    def read_rows(self, name: str, rows: slice) -> "NDArray[np.float32]":
        """Rows ``[start, stop)`` of a tensor as new float32 values.

        Raises:
            CheckpointError: a value is NaN or infinite.
        """
        import numpy as np

        stored = self._stored(name)[rows]
        # A bfloat16 is the upper half of a float32.
        values = (stored.astype(np.uint32) << 16).view(np.float32) if stored.dtype == "<u2" else stored.astype("f4")
        if not np.isfinite(values.sum(dtype=np.float32)):
            raise CheckpointError(f"{self.files[name].path.name}: {name!r:.120} holds NaN or infinite values.")
        return values

    def _stored(self, name: str) -> "NDArray[Any]":
        """A view on the file; bfloat16 as its bits."""
        import numpy as np

        file = self.files[name]
        tensor = file.tensors[name]
        return np.frombuffer(file.view(name), _NUMPY_TYPES[tensor.dtype]).reshape(tensor.shape)

    def drop_pages(self) -> None:
        """Let go of what was read so far: mapped pages count as this process's memory."""
        for file in set(self.files.values()):
            file.drop_pages()


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


def _open(path: Path) -> dict[str, SafetensorsFile]:
    """The file under the name of each of its tensors, which all have a type that is read."""
    file = SafetensorsFile.open(path)
    for name, tensor in file.tensors.items():
        if tensor.dtype not in _NUMPY_TYPES:
            allowed = ", ".join(_NUMPY_TYPES)
            raise CheckpointError(f"{path.name}: {name!r:.120} is {tensor.dtype:.40}; allowed are {allowed}.")
    return dict.fromkeys(file.tensors, file)


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
