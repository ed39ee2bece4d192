"""A directory in the layout of the Hugging Face Hub: ``config.json``, ``*.safetensors``, ``tokenizer.json``.

Owns which files belong together and how their values are read. Opening reads headers only; nothing here imports torch. Any
thread may read once it is open.
"""

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from gemma3.checkpoints.decoding import decode_all
from gemma3.checkpoints.end_tokens import EndTokens, end_tokens_of_folder
from gemma3.checkpoints.folder_config import FolderConfig
from gemma3.checkpoints.foreign_names import is_adapter, is_vision, names_in_model, quantization_of
from gemma3.checkpoints.tensor_names import EMBEDDING, HEAD, check_shapes, expected_shapes
from gemma3.checkpoints.weight_files import adapter_beside, adapter_error, model_files
from gemma3.config import Gemma3TextConfig
from gemma3.errors import CheckpointError
from gemma3.files.json_file import read_json_object_if_there
from gemma3.files.safetensors_file import SafetensorsFile, StoredTensor
from gemma3.progress import Progress
from gemma3.text.template_files import ChatTemplates, read_templates
from gemma3.text.tokenizer import Gemma3Tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger("gemma3")

_NUMPY_TYPES = {"BF16": "<u2", "F16": "<f2", "F32": "<f4", "F64": "<f8"}
_STORED_AS = {"bfloat16": "BF16", "float32": "F32"}


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where a tensor is: its file, and the name that the file gives it."""

    file: SafetensorsFile
    inner: str

    @property
    def stored(self) -> StoredTensor:
        return self.file.tensors[self.inner]


@dataclass(frozen=True, slots=True)
class SafetensorsCheckpoint:
    """``places`` has every tensor by the model's name; ``generation_config`` may be empty."""

    folder: Path
    config: Gemma3TextConfig
    places: dict[str, TensorPlace]
    generation_config: dict[str, Any]
    end_tokens: EndTokens

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the headers of the model's files and check names, shapes and dtypes against ``config.json``.

        Raises:
            CheckpointError: a file is damaged, or a tensor missing, unknown, doubled or of the wrong shape.
            ConfigError: a JSON file is none, or describes something else than Gemma 3 text.
        """
        files = _open_files(folder)
        settings = FolderConfig.read(folder)
        places = _places(files)
        _settle_head(places, is_untied=settings.is_untied)
        shapes = {name: place.stored.shape for name, place in places.items()}
        check_shapes(shapes, expected_shapes(settings.config), where=f"{folder.name}/")
        _check_dtypes(places)
        generation_config = read_json_object_if_there(folder / "generation_config.json")
        end_tokens = end_tokens_of_folder(
            generation_config, settings.raw, read_json_object_if_there(folder / "tokenizer_config.json")
        )
        return cls(folder, settings.config, places, generation_config, end_tokens)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def weight_files(self) -> list[Path]:
        return sorted({place.file.path for place in self.places.values()})

    @property
    def tensor_names(self) -> frozenset[str]:
        """What the files hold, in the model's words."""
        return frozenset(self.places)

    @property
    def quantization(self) -> str:
        return "none"

    def tuned_mark(self, tokenizer: Gemma3Tokenizer) -> str | None:
        """Where a folder without a chat template says that its model was trained on turns.

        Its name has ``it`` in it, or the end of a turn is among its end tokens: Google's base models end with ``<eos>`` alone.
        """
        if "it" in self.folder.name.lower().replace("-", " ").replace("_", " ").split():
            return "the folder's name says 'it'"
        end_of_turn = tokenizer.token_to_id("<end_of_turn>")
        if end_of_turn in self.end_tokens.token_ids or self.end_tokens.piece == "<end_of_turn>":
            return "its answers end with <end_of_turn>"
        return None

    def chat_templates(self) -> ChatTemplates:
        """Those of its files.

        Raises:
            ChatTemplateError: a file cannot be read or holds something else.
        """
        return read_templates(self.folder)

    def load_tokenizer(self) -> Gemma3Tokenizer:
        return Gemma3Tokenizer.from_local_path(self.folder, num_rows=self.config.vocab_size)

    def load_arrays(self, dtype: str, progress: Progress) -> "dict[str, NDArray[Any]]":
        """All tensors as ``decode_all`` makes them; what is stored so stays memory-mapped, uncopied.

        Raises:
            CheckpointError: a value is NaN or infinite.
        """
        shapes = {name: place.stored.shape for name, place in self.places.items()}
        stored = {
            name: self._stored(name)
            for name, place in self.places.items()
            if place.stored.dtype == ("F32" if len(shapes[name]) == 1 else _STORED_AS[dtype])
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
        with np.errstate(over="ignore", invalid="ignore"):  # what a float32 cannot hold, and sums of it
            values = (stored.astype(np.uint32) << 16).view(np.float32) if stored.dtype == "<u2" else stored.astype("f4")
            is_finite = np.isfinite(values.sum(dtype=np.float32))
        if not is_finite:
            raise CheckpointError(f"{self.places[name].file.path.name}: {name!r:.120} holds NaN or infinite values.")
        return values

    def _stored(self, name: str) -> "NDArray[Any]":
        """A view on the file; bfloat16 as its bits."""
        import numpy as np

        place = self.places[name]
        return np.frombuffer(place.file.view(place.inner), _NUMPY_TYPES[place.stored.dtype]).reshape(place.stored.shape)

    def drop_pages(self) -> None:
        """Let go of what was read so far: mapped pages count as this process's memory."""
        for file in {place.file for place in self.places.values()}:
            file.drop_pages()


def _open_files(folder: Path) -> list[SafetensorsFile]:
    """The files that hold the model; what else lies in the folder is named in the log."""
    paths = model_files(folder)
    files = [SafetensorsFile.open(path) for path in paths]
    models = [file for file in files if not is_adapter(file.tensors)]
    if not models:
        raise adapter_error(folder)
    adapters = [file.path.name for file in files if file not in models]
    adapter = adapters[0] if adapters else adapter_beside(folder)
    if adapter is not None:
        log.warning(
            "%s/ holds an adapter, too (%s): it is not applied, the model is served as it is.", folder.name, adapter
        )
    return models


def _places(files: Iterable[SafetensorsFile]) -> dict[str, TensorPlace]:
    """Every tensor by the model's name.

    Raises:
        CheckpointError: two tensors have one name, or some are of no plain text model.
    """
    found: dict[str, SafetensorsFile] = {}
    for file in files:
        for name in file.tensors:
            if name in found:
                raise CheckpointError(f"{name!r:.120} is both in {found[name].path.name} and in {file.path.name}.")
            found[name] = file
    _check_kind(found)
    places: dict[str, TensorPlace] = {}
    for inner, name in names_in_model(found).items():
        if name in places:
            raise CheckpointError(f"{places[name].inner!r:.120} and {inner!r:.120} are both {name:.120} of the model.")
        places[name] = TensorPlace(found[inner], inner)
    return places


def _settle_head(places: dict[str, TensorPlace], *, is_untied: bool) -> None:
    """See that the embedding is there, which is the head, too; whether a second copy is equal is seen when it is read.

    Raises:
        CheckpointError: ``config.json`` promises a head of its own, and there is none.
    """
    if is_untied and HEAD not in places:
        raise CheckpointError(f"config.json has tie_word_embeddings=false, but there is no {HEAD}.")
    # Of two names of one tensor safetensors' save_model keeps the one that sorts first.
    if not is_untied and HEAD in places and EMBEDDING not in places:
        places[EMBEDDING] = places.pop(HEAD)


def _check_kind(found: Collection[str]) -> None:
    """Raise ``CheckpointError`` for tensors that belong to no plain text model, in words that say whose they are."""
    kind = quantization_of(found)
    if kind is not None:
        raise CheckpointError(
            f"the tensors are quantised by {kind}, which is not read: give the unquantised model or a GGUF."
        )
    vision = [name for name in found if is_vision(name)]
    if vision:
        raise CheckpointError(
            f"{len(vision)} tensors are of the multimodal Gemma 3, which sees ({vision[0]!r:.120}); only text runs here."
        )


def _check_dtypes(places: Mapping[str, TensorPlace]) -> None:
    for place in places.values():
        if place.stored.dtype not in _NUMPY_TYPES:
            allowed, file = ", ".join(_NUMPY_TYPES), place.file.path.name
            raise CheckpointError(f"{file}: {place.inner!r:.120} is {place.stored.dtype:.40}; allowed are {allowed}.")
