"""The header of a GGUF file: metadata and the table of tensors, taken from front to back within the bytes that are there.

Every count, length, type and offset is checked before anything is allocated for it or loops over it. ``gguf.py`` is the
door; nothing else uses this module. Imports no numpy: opening a file is part of every start.
"""

import math
import mmap
import struct
from array import array
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

from gemma3.errors import GGUFError
from gemma3.files.file_kinds import impostor
from gemma3.files.ggml_types import BLOCK_SIZES, EXPANDED, GGMLType, name_of_foreign_type

MAGIC = b"GGUF"
# Far above any real file (Gemma 3 27B has 808 tensors), and low enough that so many are read within 100 ms.
MAX_KEYS = 2048
MAX_TENSORS = 2048
MAX_KEY_BYTES = 65_535  # the specification's limit
MAX_TENSOR_NAME_BYTES = 64  # the specification's limit
MAX_STRING_BYTES = 64 * 2**20  # some files carry a whole tokenizer.json (33 MB) as one string
MAX_ARRAY_ITEMS = 2**22  # 16 times Gemma's vocabulary
MAX_DIMS = 4

MIN_KEY_BYTES = 8 + 4 + 1  # length, type, one byte of value
MIN_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8  # length, number of dimensions, one dimension, type, offset

_STRING, _ARRAY = 8, 9
# Value types as formats of memoryview; like every processor this package runs on, the file is little-endian.
_NUMBERS: dict[int, "NumberFormat"] = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"
}  # fmt: skip

_MAX_SHOWN = 64  # characters of a name or a value in a message


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """One tensor of the table: ``shape`` in torch's order, rows first; ``offset`` from the start of the file."""

    name: str
    shape: tuple[int, ...]
    ggml_type: GGMLType
    offset: int
    num_bytes: int


class GGUFStrings:
    """An array of strings, decoded when asked for: that costs more than the rest of the header of a real file.

    Each string follows the 8 bytes of its length, so string i is ``data[ends[i] + 8 : ends[i + 1]]``.
    """

    def __init__(self, data: mmap.mmap | bytes, ends: "array[int]", *, where: str) -> None:
        self._data, self._ends, self._where = data, ends, where

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[str]:
        return iter(self.tolist())

    def tolist(self) -> list[str]:
        data = self._data
        try:
            return [data[before + 8 : end].decode() for before, end in pairwise(self._ends)]
        except UnicodeDecodeError as error:
            raise GGUFError(f"{self._where} has a string that is not UTF-8: {shown(error.object)}.") from None


GGUFNumbers = memoryview
"""An array of numbers or bools: a typed view on the file, nothing is copied."""
NumberFormat = Literal["B", "b", "H", "h", "I", "i", "f", "?", "Q", "q", "d"]
MetadataValue = int | float | bool | str | GGUFStrings | GGUFNumbers


class Header:
    """Takes the header from front to back; what is taken is first compared with the bytes that are left."""

    def __init__(self, data: mmap.mmap | bytes, name: str) -> None:
        self.data, self.view, self.name = data, memoryview(data), name
        self.position, self.num_bytes = 0, len(data)

    def error(self, problem: str) -> GGUFError:
        return GGUFError(f"{self.name}: {problem}")

    def take(self, num_bytes: int, what: str) -> slice:
        """Step over the next bytes and say where they are."""
        start, end = self.position, self.position + num_bytes
        if end > self.num_bytes:
            raise self.error(f"the file ends at byte {self.num_bytes}, inside {what}.")
        self.position = end
        return slice(start, end)

    def integer(self, num_bytes: int, what: str) -> int:
        return int.from_bytes(self.data[self.take(num_bytes, what)], "little")

    def numbers(self, number_format: NumberFormat, count: int, what: str) -> "memoryview[Any]":
        return self.view[self.take(count * struct.calcsize(number_format), what)].cast(number_format)

    def count(self, what: str, *, item_bytes: int, maximum: int) -> int:
        count = self.integer(8, f"the number of {what}")
        num_left = (self.num_bytes - self.position) // item_bytes
        if count > min(maximum, num_left):
            raise self.error(f"has {count} {what}, must be at most {maximum}; {num_left} fit in the rest of the file.")
        return count

    def text(self, what: str, *, maximum: int) -> str:
        size = self.count(f"bytes in {what}", item_bytes=1, maximum=maximum)
        encoded = self.data[self.take(size, what)]
        try:
            return encoded.decode()
        except UnicodeDecodeError:
            raise self.error(f"{what} is not UTF-8: {shown(encoded)}.") from None

    def strings(self, what: str) -> GGUFStrings:
        count = self.count(f"strings in {what}", item_bytes=8, maximum=MAX_ARRAY_ITEMS)
        data, end, size = self.data, self.position, self.num_bytes
        ends, length_at = array("Q", [end]), struct.Struct("<Q").unpack_from
        with suppress(struct.error):  # no 8 bytes are left for a length
            for _ in range(count):
                end += 8 + length_at(data, end)[0]
                if end > size:
                    break
                ends.append(end)
        if len(ends) <= count:
            raise self.error(f"the file ends at byte {size}, inside {what}.")
        self.position = end
        return GGUFStrings(data, ends, where=f"{self.name}: {what}")


def check_magic(header: Header) -> None:
    start = bytes(header.data[:32])
    if not start:
        raise header.error("the file is empty; was its download interrupted?")
    disguise = impostor(start)
    if disguise is not None:
        raise header.error(f"{disguise}.")
    if not start.startswith(MAGIC):
        raise header.error(f"not a GGUF file: it starts with {shown(start[:8])}, must be {MAGIC!r}.")


def check_version(header: Header) -> None:
    header.integer(4, "the magic")
    version = header.integer(4, "the version")
    if version in (2 << 24, 3 << 24):
        raise header.error("a big-endian GGUF file, must be little-endian; convert the model again.")
    if version not in (2, 3):
        raise header.error(f"has GGUF version {version}, must be 2 or 3; convert the model again.")


def read_metadata(header: Header, num_keys: int) -> dict[str, MetadataValue]:
    metadata: dict[str, MetadataValue] = {}
    for index in range(num_keys):
        key = header.text(f"metadata key {index}", maximum=MAX_KEY_BYTES)
        if key in metadata:
            raise header.error(f"metadata {shown(key)} is there twice.")
        metadata[key] = _read_value(header, f"metadata {shown(key)}")
    return metadata


def _read_value(header: Header, what: str) -> MetadataValue:
    type_id = header.integer(4, what)
    if type_id == _STRING:
        return header.text(what, maximum=MAX_STRING_BYTES)
    if type_id == _ARRAY:
        return _read_array(header, what)
    if type_id not in _NUMBERS:
        raise header.error(f"{what} has value type {type_id}, must be in [0, 12].")
    value: int | float | bool = _read_numbers(header, _NUMBERS[type_id], 1, what)[0]
    return value


def _read_array(header: Header, what: str) -> GGUFStrings | GGUFNumbers:
    type_id = header.integer(4, what)
    if type_id == _STRING:
        return header.strings(what)
    if type_id not in _NUMBERS:
        raise header.error(f"{what} is an array of value type {type_id}, must be numbers, bools or strings.")
    number_format = _NUMBERS[type_id]
    item_bytes = struct.calcsize(number_format)
    count = header.count(f"numbers in {what}", item_bytes=item_bytes, maximum=MAX_ARRAY_ITEMS)
    return _read_numbers(header, number_format, count, what)


def _read_numbers(header: Header, number_format: NumberFormat, count: int, what: str) -> "memoryview[Any]":
    numbers = header.numbers(number_format, count, what)
    largest = max(numbers.tobytes(), default=0) if number_format == "?" else 0
    if largest > 1:
        raise header.error(f"{what} has a bool of {largest}, must be 0 or 1.")
    return numbers


def read_tensors(header: Header, num_tensors: int, alignment: int) -> dict[str, GGUFTensor]:
    table = [_read_tensor(header, index) for index in range(num_tensors)]
    data_start = math.ceil(header.position / alignment) * alignment
    tensors: dict[str, GGUFTensor] = {}
    for tensor in table:
        what = f"tensor {shown(tensor.name)}"
        start, end = data_start + tensor.offset, data_start + tensor.offset + tensor.num_bytes
        if tensor.name in tensors:
            raise header.error(f"{what} is there twice.")
        if tensor.offset % alignment:
            raise header.error(f"{what} is at offset {tensor.offset}, must be a multiple of {alignment}.")
        if end > header.num_bytes:
            raise header.error(f"{what} ends at byte {end}, but the file at {header.num_bytes}.")
        tensors[tensor.name] = replace(tensor, offset=start)
    _refuse_overlaps(header, tensors.values())
    return tensors


def _read_tensor(header: Header, index: int) -> GGUFTensor:
    """One row of the tensor table; its offset still counts from the start of the tensor data."""
    name = header.text(f"the name of tensor {index}", maximum=MAX_TENSOR_NAME_BYTES)
    what = f"tensor {shown(name)}"
    num_dims = header.integer(4, what)
    if not 1 <= num_dims <= MAX_DIMS:
        raise header.error(f"{what} has {num_dims} dimensions, must be in [1, {MAX_DIMS}].")
    dims = [header.integer(8, what) for _ in range(num_dims)]
    if min(dims) < 1:
        raise header.error(f"{what} has dimensions {dims}, must be at least 1.")
    type_id, offset = header.integer(4, what), header.integer(8, what)
    if type_id not in BLOCK_SIZES:
        raise header.error(f"{what} has type {name_of_foreign_type(type_id)}; read are {EXPANDED}.")
    block = BLOCK_SIZES[GGMLType(type_id)]
    if dims[0] % block.num_values:
        raise header.error(f"{what} has {dims[0]} columns, must be a multiple of {block.num_values}.")
    num_bytes = math.prod(dims) // block.num_values * block.num_bytes  # Python integers: nothing overflows
    return GGUFTensor(name, tuple(reversed(dims)), GGMLType(type_id), offset, num_bytes)


def _refuse_overlaps(header: Header, tensors: Collection[GGUFTensor]) -> None:
    for before, after in pairwise(sorted(tensors, key=lambda tensor: tensor.offset)):
        if before.offset + before.num_bytes > after.offset:
            raise header.error(f"tensors {shown(before.name)} and {shown(after.name)} overlap.")


def shown(value: object) -> str:
    """A value for a message: short, and one printable line whatever the file put there."""
    if isinstance(value, GGUFStrings | GGUFNumbers):
        return f"an array of {len(value)} values"
    if isinstance(value, str | bytes) and len(value) > _MAX_SHOWN:
        return f"{value[:_MAX_SHOWN]!r}..."
    return repr(value)
