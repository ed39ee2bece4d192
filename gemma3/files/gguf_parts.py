"""GGUF models in one file or in several, as llama.cpp's ``gguf-split`` cuts them; and how a GGUF
file is told.

Owns the names of parts and the checks that parts belong together. They are mapped one by one:
nothing is joined on disk or in memory. Any thread may read once they are open.

Source: ``llama_split_path`` and ``llama_model_loader`` of llama.cpp. ``NAME-00002-of-00003.gguf``
has ``split.no`` = 1 and ``split.count`` = 3; the first part has the metadata of the model and may
have no tensor.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from gemma3.errors import GGUFError
from gemma3.files.gguf import GGUFFile, GGUFTensor
from gemma3.files.gguf_header import MAGIC, MAX_TENSORS, shown

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SUFFIX = ".gguf"
_PART = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)?", re.IGNORECASE)
_MAX_PARTS = 99_999  # five digits
_MAX_LOOKED_INTO = 1_000  # files without a suffix in one folder


def is_gguf(path: Path) -> bool:
    """Told by the suffix in any case, else by the first bytes: Ollama's blobs and files of the
    Hub's cache have none.

    Raises:
        OSError: the file cannot be read.
    """
    if path.suffix.lower() == SUFFIX:
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def whole_name(path: Path) -> str:
    """The name of the model without the suffix and, of a part, without its number."""
    part = _PART.fullmatch(path.name)
    stem = path.stem if path.suffix.lower() == SUFFIX else path.name
    return part["name"] if part else stem


def first_parts(names: Iterable[str]) -> list[str]:
    """The models among the names of files, in order: of a split one its first part that is there.

    The image part of a multimodal model (``mmproj``) is no model.
    """
    firsts: dict[str, str] = {}
    for name in sorted(names):
        if name.lower().endswith(SUFFIX) and not name.rpartition("/")[2].lower().startswith("mmproj"):
            part = _PART.fullmatch(name)
            firsts.setdefault(f"{part['name']}/{part['count']}" if part else name, name)
    return list(firsts.values())


def parts_of(name: str) -> list[str]:
    """The names of all parts of the model that a file belongs to, told from its own: itself alone
    if it is no part."""
    part = _PART.fullmatch(name)
    if part is None:
        return [name]
    count = int(part["count"])
    return [f"{part['name']}-{i:05d}-of-{count:05d}{part['suffix'] or ''}" for i in range(1, count + 1)] or [name]


def gguf_models(folder: Path) -> list[Path]:
    """The GGUF models that lie in a folder: of a split one its first part.

    Files without the suffix count where no file has it.

    Raises:
        OSError: the folder cannot be read.
    """
    files = [path for path in folder.iterdir() if path.is_file()]
    models = [folder / name for name in first_parts(path.name for path in files)]
    bare = sorted(path for path in files if not path.suffix)
    return models or [path for path in bare[:_MAX_LOOKED_INTO] if is_gguf(path)]


class GGUFParts:
    """The parts of a model, or its only file. ``first`` has the metadata; ``tensors`` are those of
    all parts."""

    first: GGUFFile
    paths: Sequence[Path]
    tensors: Mapping[str, GGUFTensor]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Map a file and, of a split model, the other parts beside it; any part may be given.

        Raises:
            GGUFError: a file is damaged, a part is missing, or a file beside it is of another model.
        """
        given = GGUFFile.open(path)
        count = given.get_int("split.count", minimum=0, maximum=_MAX_PARTS, default=1)
        if count <= 1:
            return cls([path], [given])
        paths = _paths_of_parts(path, given, count)
        return cls(paths, [given if other == path else GGUFFile.open(other) for other in paths])

    def __init__(self, paths: Sequence[Path], files: Sequence[GGUFFile]) -> None:
        self.paths, self._files, self.first = paths, files, files[0]
        self._holders: dict[str, GGUFFile] = {}
        for number, file in enumerate(files):
            if len(files) > 1:
                _check_part(file, self.first, number, len(files))
            for name in file.tensors:
                if name in self._holders:
                    raise GGUFError(f"{file.name}: tensor {shown(name)} is there and in {self._holders[name].name}.")
                self._holders[name] = file
        self.tensors = MappingProxyType({name: file.tensors[name] for name, file in self._holders.items()})
        _check_number(self.first, len(self.tensors))

    def dequantize(self, name: str, rows: slice) -> "npt.NDArray[np.float32]":
        """As ``GGUFFile.dequantize``, from whichever part holds the tensor."""
        return self._holders[name].dequantize(name, rows)

    def drop_pages(self) -> None:
        """Let go of the pages read so far, in all parts."""
        for file in self._files:
            file.drop_pages()


def _paths_of_parts(path: Path, given: GGUFFile, count: int) -> list[Path]:
    """Where all parts of a split model lie, the given one among them."""
    number = given.get_int("split.no", minimum=0, maximum=count - 1) + 1
    part = _PART.fullmatch(path.name)
    if part is None or (int(part["number"]), int(part["count"])) != (number, count):
        raise GGUFError(
            f"{given.name}: is part {number} of {count} of a split model, so its name must end in "
            f"-{number:05d}-of-{count:05d}{SUFFIX}, as those of the other parts beside it."
        )
    return list(_existing(path))


def _existing(path: Path) -> Iterator[Path]:
    for name in parts_of(path.name):
        other = path.with_name(name)
        if not other.is_file():
            raise GGUFError(f"{shown(name)[1:-1]}: this part of the split model {path.name} belongs to is missing.")
        yield other


def _check_part(file: GGUFFile, first: GGUFFile, number: int, count: int) -> None:
    """The other parts have little metadata; what they say must be what the first says."""
    found = [file.metadata.get("split.no"), file.metadata.get("split.count")]
    if found != [number, count]:
        raise GGUFError(
            f"{file.name}: has split.no={found[0]!r:.20} and split.count={found[1]!r:.20}, must be {number} and {count}: "
            f"it does not belong to {first.name}."
        )
    for key in ("general.architecture", "general.name", "split.tensors.count"):
        ours, theirs = first.metadata.get(key), file.metadata.get(key)
        if None not in (ours, theirs) and theirs != ours:
            raise GGUFError(
                f"{file.name}: {key} is {shown(theirs)}, but {shown(ours)} in {first.name}: it is of another model."
            )


def _check_number(first: GGUFFile, num_tensors: int) -> None:
    expected = first.get_int("split.tensors.count", minimum=0, maximum=MAX_TENSORS, default=num_tensors)
    if expected != num_tensors:
        raise GGUFError(f"{first.name}: split.tensors.count is {expected}, but its parts hold {num_tensors} tensors.")
