"""A bounded reader of GGUF files: metadata, the table of tensors, and their values as float32.

Owns the file format. Every count, length, type and offset is checked against the bytes that are there before anything
is allocated for it or loops over it, so a damaged or hostile file costs a ``GGUFError`` of one line and nothing else.
It knows nothing of Gemma or torch, nor what a key or a tensor means; numpy is imported with the first values that are read.

The file is mapped, not read, and must not change while it is open; the mapping ends with the last array that views it.
Any thread may read once ``open`` has returned.

Source of the format: the GGUF specification, versions 2 and 3 (one layout, little-endian)::

    "GGUF" | version u32 | number of tensors u64 | number of keys u64 | keys | tensor table | padding | tensor data
"""

import math
import mmap
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from gemma3.errors import GGUFError
from gemma3.files.ggml_types import BLOCK_SIZES, GGMLType
from gemma3.files.gguf_header import (
    MAX_KEYS,
    MAX_TENSORS,
    MIN_KEY_BYTES,
    MIN_TENSOR_BYTES,
    GGUFNumbers,
    GGUFStrings,
    GGUFTensor,
    Header,
    MetadataValue,
    check_magic,
    check_version,
    read_metadata,
    read_tensors,
    shown,
)
from gemma3.files.mapped_file import drop_pages

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["GGMLType", "GGUFFile", "GGUFNumbers", "GGUFStrings", "GGUFTensor", "MetadataValue"]

MIN_ALIGNMENT = 8  # the specification's limit
MAX_ALIGNMENT = 65_536
MAX_FLOAT = sys.float_info.max

T = TypeVar("T")

_KIND_NAMES: dict[type, str] = {
    int: "an integer",
    float: "a float",
    bool: "a bool",
    str: "a string",
    GGUFStrings: "an array of strings",
    GGUFNumbers: "an array of numbers",
}


class GGUFFile:
    """An open GGUF file: ``metadata`` by key and ``tensors`` by name, both in the order of the file."""

    name: str
    metadata: Mapping[str, MetadataValue]
    tensors: Mapping[str, GGUFTensor]

    @classmethod
    def open(cls, path: Path) -> "GGUFFile":
        """Map the file and check its whole header; ``GGUFError`` names the file and what is wrong."""
        name = shown(path.name)[1:-1]
        try:
            if not path.is_file():
                raise GGUFError(f"{name}: there is no such file, or it is not a regular one.")
            with path.open("rb") as file:
                is_empty = path.stat().st_size == 0  # which mmap refuses
                data = b"" if is_empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise GGUFError(f"{name}: cannot be read: {error.strerror}.") from error
        return cls(data, name=name)

    def __init__(self, data: mmap.mmap | bytes, *, name: str) -> None:
        """Check a whole file in memory; ``name`` stands in front of every message."""
        header = Header(data, name)
        check_magic(header)
        check_version(header)
        num_tensors = header.count("tensors", item_bytes=MIN_TENSOR_BYTES, maximum=MAX_TENSORS)
        num_keys = header.count("metadata keys", item_bytes=MIN_KEY_BYTES, maximum=MAX_KEYS)
        self.name, self._data, self._view = name, data, header.view
        self.metadata = MappingProxyType(read_metadata(header, num_keys))
        self.tensors = MappingProxyType(read_tensors(header, num_tensors, self._alignment()))

    def raw(self, name: str) -> "npt.NDArray[np.uint8]":
        """The bytes of a tensor: a read-only view on the file, nothing is copied."""
        import numpy as np

        tensor = self._tensor(name)
        return np.frombuffer(self._view[tensor.offset : tensor.offset + tensor.num_bytes], np.uint8)

    def dequantize(self, name: str, rows: slice | None = None) -> "npt.NDArray[np.float32]":
        """The values of a tensor, or of its rows [start, stop), as a new array of its shape."""
        from gemma3.files.gguf_dequant import dequantize

        tensor, raw = self._tensor(name), self.raw(name)
        if rows is None:
            return dequantize(raw, tensor.ggml_type).reshape(tensor.shape)
        start, stop, step = rows.indices(tensor.shape[0])
        assert step == 1, "rows are read in order, without gaps"
        shape = (max(stop - start, 0), *tensor.shape[1:])
        block = BLOCK_SIZES[tensor.ggml_type]
        first, count = start * math.prod(shape[1:]), math.prod(shape)
        if first % block.num_values or count % block.num_values:  # only a vector can be cut so
            raise GGUFError(f"{self.name}: {shown(name)}[{start}:{stop}] cuts a block of {block.num_values} values.")
        first_byte, num_bytes = (n // block.num_values * block.num_bytes for n in (first, count))
        return dequantize(raw[first_byte : first_byte + num_bytes], tensor.ggml_type).reshape(shape)

    def drop_pages(self) -> None:
        """Let go of the pages read so far, which count as this process's memory; reading brings them back."""
        if isinstance(self._data, mmap.mmap):
            drop_pages(self._data)

    def get(self, key: str, kind: type[T], *, default: T | None = None) -> T:
        """The value of ``key``, which must be of exactly this kind; without a default the key must be there."""
        value: Any = self.metadata.get(key, default)
        if value is None:
            raise GGUFError(f"{self.name}: metadata {shown(key)} is missing, must be {_KIND_NAMES[kind]}.")
        if type(value) is not kind:
            raise self._wrong_value(key, value, _KIND_NAMES[kind])
        return value

    def get_int(self, key: str, *, minimum: int, maximum: int, default: int | None = None) -> int:
        value = self.get(key, int, default=default)
        if not minimum <= value <= maximum:
            raise self._wrong_value(key, value, f"in [{minimum}, {maximum}]")
        return value

    def get_float(self, key: str, *, minimum: float = -MAX_FLOAT, maximum: float = MAX_FLOAT) -> float:
        value = self.get(key, float)
        if not minimum <= value <= maximum:  # also refuses NaN
            raise self._wrong_value(key, value, f"in [{minimum}, {maximum}]")
        return value

    def _wrong_value(self, key: str, value: object, allowed: str) -> GGUFError:
        return GGUFError(f"{self.name}: metadata {shown(key)} is {shown(value)}, must be {allowed}.")

    def _tensor(self, name: str) -> GGUFTensor:
        if name not in self.tensors:
            raise GGUFError(f"{self.name}: tensor {shown(name)} is missing.")
        return self.tensors[name]

    def _alignment(self) -> int:
        alignment = self.get_int("general.alignment", minimum=MIN_ALIGNMENT, maximum=MAX_ALIGNMENT, default=32)
        if alignment.bit_count() != 1:
            raise self._wrong_value("general.alignment", alignment, "a power of two")
        return alignment
