"""Writes GGUF files for tests, well-formed ones from Python values and hostile ones from hand-made parts."""

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

BOOL, STRING, ARRAY = 7, 8, 9
# By numpy kind and size, so that ``np.uint16(3)`` or an array says exactly which type of GGUF is meant.
_TYPE_IDS = {"u1": 0, "i1": 1, "u2": 2, "i2": 3, "u4": 4, "i4": 5, "f4": 6, "b1": BOOL, "u8": 10, "i8": 11, "f8": 12}

Tensors = Mapping[str, tuple[int, tuple[int, ...], bytes]]


def write_gguf(path: Path, metadata: Mapping[str, Any], tensors: Tensors) -> Path:
    """Write a version 3 file. ``tensors`` maps a name to its GGML type, its shape in torch's order, and its bytes.

    A Python int is written as u32 (or the least type that holds it), a float as f32, a list of ints as i32; a numpy
    scalar or array keeps its type.
    """
    path.write_bytes(gguf_bytes(metadata, tensors))
    return path


def gguf_bytes(metadata: Mapping[str, Any], tensors: Tensors, *, version: int = 3) -> bytes:
    alignment = int(metadata.get("general.alignment", 32))
    rows, data = [], b""
    for name, (ggml_type, shape, raw) in tensors.items():
        rows.append(tensor_row(name, shape[::-1], ggml_type, len(data)))
        data += raw + bytes(-len(raw) % alignment)
    return join(
        [key(name, value) for name, value in metadata.items()], rows, data, version=version, alignment=alignment
    )


def join(
    keys: Iterable[bytes] = (),
    rows: Iterable[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    alignment: int = 32,
    num_keys: int | None = None,
    num_tensors: int | None = None,
) -> bytes:
    """A file from its parts; the two counts may be lies."""
    keys, rows = list(keys), list(rows)
    counts = (len(rows) if num_tensors is None else num_tensors, len(keys) if num_keys is None else num_keys)
    header = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(keys) + b"".join(rows)
    return header + bytes(-len(header) % alignment) + data


def key(name: str | bytes, value: Any) -> bytes:
    type_id, payload = _typed(value)
    return raw_key(name, type_id, payload)


def raw_key(name: str | bytes, type_id: int, payload: bytes) -> bytes:
    return string(name) + struct.pack("<I", type_id) + payload


def tensor_row(name: str | bytes, dims: tuple[int, ...], ggml_type: int, offset: int) -> bytes:
    """``dims`` in the order of the file: columns first."""
    return string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, ggml_type, offset)


def string(value: str | bytes) -> bytes:
    encoded = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(encoded)) + encoded


def array(type_id: int, count: int, payload: bytes) -> bytes:
    return struct.pack("<IQ", type_id, count) + payload


def _typed(value: Any) -> tuple[int, bytes]:
    if isinstance(value, str | bytes):
        return STRING, string(value)
    if isinstance(value, list) and value and isinstance(value[0], str | bytes):
        return ARRAY, array(STRING, len(value), b"".join(map(string, value)))
    numbers = _numbers(value)
    type_id = _TYPE_IDS[numbers.dtype.str[1:]]
    return (ARRAY, array(type_id, numbers.size, numbers.tobytes())) if numbers.ndim else (type_id, numbers.tobytes())


def _numbers(value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray | np.generic | bool):
        return np.asarray(value)
    if isinstance(value, int):
        return np.asarray(value, next(t for t in ("u4", "i4", "u8", "i8") if _fits(value, t)))
    array = np.asarray(value)
    return array.astype({"i": "i4", "f": "f4"}.get(array.dtype.kind, array.dtype))


def _fits(value: int, dtype: str) -> bool:
    return np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
