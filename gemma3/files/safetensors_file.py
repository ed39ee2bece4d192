"""A bounded reader of ``.safetensors`` files: the table of tensors, and each tensor's bytes as a view on the mapped file.

Everything is checked against the bytes that are there before it is used. Needs neither numpy nor torch, since opening a
file is part of every start; knows nothing of Gemma. The file must not change while it is open.

Source of the format: the safetensors README. ``N`` u64, little-endian | ``N`` bytes of JSON | tensor data. The data is covered
by the tensors without gaps or overlaps.
"""

import json
import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeGuard

from gemma3.errors import CheckpointError
from gemma3.files.file_kinds import impostor
from gemma3.files.mapped_file import drop_pages

MAX_HEADER_BYTES = 100_000_000  # the library's limit
METADATA = "__metadata__"
_LENGTH_BYTES = 8
_ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8, "U8": 1}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """``dtype`` in the file's words; the bytes ``[start, end)`` of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class SafetensorsFile:
    """An open file: ``tensors`` by name, and the strings of ``metadata``."""

    path: Path
    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]
    _mapping: mmap.mmap

    @classmethod
    def open(cls, path: Path) -> Self:
        """Map the file and check its header.

        Raises:
            CheckpointError: the file cannot be read, is damaged, or is something else.
        """
        try:
            with path.open("rb") as file:
                start = file.read(32)
                disguise = impostor(start)
                if disguise is not None:
                    raise CheckpointError(f"{path.name}: {disguise}.")
                if len(start) < _LENGTH_BYTES:
                    raise _damaged(path, "the file ends inside the length of its header")
                mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # torch wants memory it could write
        except OSError as error:
            raise CheckpointError(f"{path.name} cannot be read: {error.strerror}.") from error
        header, data_start = _read_header(mapping, path)
        metadata = header.pop(METADATA, {})
        if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
            raise _damaged(path, f"{METADATA} is not a table of strings")
        tensors = {name: _stored(name, entry, data_start, path) for name, entry in header.items()}
        _check_cover(tensors, data_start, len(mapping), path)
        return cls(path, MappingProxyType(tensors), MappingProxyType(metadata), mapping)

    @property
    def num_bytes(self) -> int:
        return len(self._mapping)

    def view(self, name: str) -> memoryview:
        """The bytes of a tensor, uncopied; the mapping lives as long as any view."""
        tensor = self.tensors[name]
        return memoryview(self._mapping)[tensor.start : tensor.end]

    def drop_pages(self) -> None:
        """Let go of the pages read so far, which count as this process's memory; reading brings them back."""
        drop_pages(self._mapping)


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path.name} is damaged or not safetensors: {reason}.")


def _read_header(mapping: mmap.mmap, path: Path) -> tuple[dict[str, Any], int]:
    """The JSON object, and where the data begins."""
    num_bytes = int.from_bytes(mapping[:_LENGTH_BYTES], "little")
    data_start = _LENGTH_BYTES + num_bytes
    if num_bytes > MAX_HEADER_BYTES or data_start > len(mapping):
        raise _damaged(path, f"a header of {num_bytes} bytes in a file of {len(mapping)}")
    try:
        header = json.loads(mapping[_LENGTH_BYTES:data_start], object_pairs_hook=_without_doubles)
    except _DoubledNameError as error:
        raise _damaged(path, f"the header names {error.args[0]!r:.120} twice") from None
    except (ValueError, RecursionError):
        raise _damaged(path, "the header is not JSON") from None
    if not isinstance(header, dict):
        raise _damaged(path, "the header is not a JSON object")
    return header, data_start


class _DoubledNameError(ValueError):
    """A name that stands twice in one object; JSON would take the later."""


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _DoubledNameError(name)
        found[name] = value
    return found


def _stored(name: str, entry: object, data_start: int, path: Path) -> StoredTensor:
    """One entry of the header; a dtype this package never reads has no size to check."""
    fields = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not (isinstance(dtype, str) and _are_counts(shape) and _are_counts(offsets) and len(offsets) == 2):
        raise _damaged(path, f"the entry of {name[:80]!r} is malformed")
    start, end = offsets
    if dtype in _ITEM_BYTES and end - start != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise _damaged(path, f"{name[:80]!r} has {end - start} bytes, which is not its shape")
    return StoredTensor(dtype, tuple(shape), data_start + start, data_start + end)


def _are_counts(values: object) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _check_cover(tensors: Mapping[str, StoredTensor], data_start: int, file_end: int, path: Path) -> None:
    end = data_start
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.end)):
        if tensor.start != end:
            raise _damaged(path, f"its tensors leave a gap or overlap at byte {end}")
        end = tensor.end
    if end != file_end:
        raise _damaged(path, f"its tensors end at byte {end}, the file at {file_end}")
