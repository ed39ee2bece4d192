"""The GGUF reader against the ``gguf`` package, its bounds, and its messages."""

import math
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

import gemma3.files.gguf_header as gguf_module
from gemma3.errors import GGUFError
from gemma3.files.ggml_types import BLOCK_SIZES, name_of_foreign_type
from gemma3.files.gguf import GGMLType, GGUFFile, GGUFNumbers, GGUFStrings, GGUFTensor
from gemma3.files.gguf_dequant import format_of
from tests.gemma3.gguf_files import (
    ARRAY,
    BOOL,
    STRING,
    array,
    gguf_bytes,
    join,
    key,
    raw_key,
    string,
    tensor_row,
    write_gguf,
)

F32, Q8_0 = GGMLType.F32, GGMLType.Q8_0
QUANTISED = [t for t in GGMLType if format_of(t).num_values > 1]
# The others keep it in pieces, or in a format without infinity.
WITH_A_SCALE = [t for t in QUANTISED if "d" in (format_of(t).layout.names or ())]


def opened(data: bytes) -> GGUFFile:
    return GGUFFile(data, name="test.gguf")


def refused(data: bytes) -> str:
    with pytest.raises(GGUFError) as error:
        opened(data)
    message = str(error.value)
    assert message.startswith("test.gguf: ")
    assert message.isprintable()
    assert len(message) < 400
    return message


def with_tensors(*rows: bytes, data: bytes = bytes(64)) -> bytes:
    return join(rows=rows, data=data)


def vector(name: str | bytes = "x", *, num: int = 8, offset: int = 0) -> bytes:
    return tensor_row(name, (num,), F32, offset)


def width_of(ggml_type: GGMLType) -> int:
    return format_of(ggml_type).num_values


def random_blocks(ggml_type: GGMLType, num_blocks: int, seed: int = 0) -> bytes:
    """Random bytes with finite scales of every size, subnormal ones and both zeros among them."""
    rng = np.random.default_rng(seed)
    layout = format_of(ggml_type).layout
    blocks = rng.integers(0, 256, num_blocks * layout.itemsize, dtype=np.uint8).view(layout)
    halves = rng.integers(0, 2**16, (2, num_blocks), dtype=np.uint16).view(np.float16)
    halves[~np.isfinite(halves)] = 1.5
    for field, values in zip([f for f in ("d", "m", "dmin") if f in (layout.names or ())], halves, strict=False):
        blocks[field] = values
    if ggml_type is GGMLType.IQ1_M:  # the top nibbles of its last 8 bytes are a half: none that is inf or NaN
        blocks.view(np.uint8).reshape(num_blocks, -1)[:, -1] &= 0xBF
    return blocks.tobytes()


def expected_values(raw: bytes | np.ndarray, ggml_type: GGMLType, shape: tuple[int, ...]) -> np.ndarray:
    """What the ``gguf`` package makes of the same bytes."""
    rows = np.frombuffer(raw, np.uint8).reshape(math.prod(shape[:-1]), -1)
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(rows, gguf.GGMLQuantizationType(ggml_type)).reshape(shape)


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.array_equal(found.view(np.uint32), expected.view(np.uint32))


# Values


@pytest.mark.parametrize("ggml_type", GGMLType, ids=lambda t: t.name)
def test_block_sizes_are_those_of_ggml(ggml_type: GGMLType) -> None:
    block, size = format_of(ggml_type), BLOCK_SIZES[ggml_type]
    assert (block.num_values, block.layout.itemsize) == (size.num_values, size.num_bytes)
    assert (block.num_values, block.layout.itemsize) == gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(ggml_type)]
    assert ggml_type.name == gguf.GGMLQuantizationType(ggml_type).name


@pytest.mark.parametrize("num_rows", [1, 3, 700])  # 700 rows of 2 blocks of 256 are more than one chunk
@pytest.mark.parametrize("ggml_type", QUANTISED, ids=lambda t: t.name)
def test_quantised_blocks_equal_the_gguf_package(ggml_type: GGMLType, num_rows: int) -> None:
    shape = (num_rows, 2 * format_of(ggml_type).num_values)
    raw = random_blocks(ggml_type, 2 * num_rows, seed=num_rows)
    file = opened(gguf_bytes({}, {"x": (ggml_type, shape, raw)}))
    assert_same_bits(file.dequantize("x"), expected_values(raw, ggml_type, shape))


def test_every_nibble_and_high_bit_of_q5_0_is_placed() -> None:
    """One block by hand: value i is d * (i - 16)."""
    low = bytes((i & 15) | ((i + 16 & 15) << 4) for i in range(16))
    block = np.float16(0.5).tobytes() + struct.pack("<I", 0xFFFF0000) + low
    values = opened(gguf_bytes({}, {"x": (GGMLType.Q5_0, (1, 32), block)})).dequantize("x")
    np.testing.assert_array_equal(values, 0.5 * (np.arange(32, dtype=np.float32)[None] - 16))


@pytest.mark.parametrize("scale", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("ggml_type", WITH_A_SCALE, ids=lambda t: t.name)
def test_damaged_scales_pass_through_without_a_warning(ggml_type: GGMLType, scale: float) -> None:
    layout = format_of(ggml_type).layout
    blocks = np.frombuffer(random_blocks(ggml_type, 1), layout).copy()
    blocks["d"] = scale
    file = opened(gguf_bytes({}, {"x": (ggml_type, (width_of(ggml_type),), blocks.tobytes())}))
    assert not np.isfinite(file.dequantize("x")).all()


@pytest.mark.parametrize("ggml_type", [GGMLType.F16, GGMLType.BF16], ids=lambda t: t.name)
def test_every_16_bit_pattern(ggml_type: GGMLType) -> None:
    raw = np.arange(2**16, dtype=np.uint16).tobytes()
    found = opened(gguf_bytes({}, {"x": (ggml_type, (256, 256), raw)})).dequantize("x")
    expected = expected_values(raw, ggml_type, (256, 256))
    np.testing.assert_array_equal(found, expected)  # NaN equals NaN here: a half NaN may change its payload


def test_f32_is_copied_bit_for_bit() -> None:
    raw = np.random.default_rng(0).integers(0, 2**32, 600, dtype=np.uint32).tobytes()
    found = opened(gguf_bytes({}, {"x": (F32, (20, 30), raw)})).dequantize("x")
    assert_same_bits(found, np.frombuffer(raw, np.float32).reshape(20, 30))
    found[:] = 0  # a copy, not the read-only mapping


@pytest.mark.parametrize("ggml_type", GGMLType, ids=lambda t: t.name)
def test_row_slices_equal_the_whole(ggml_type: GGMLType) -> None:
    shape = (13, 3, 512)
    raw = random_blocks(ggml_type, math.prod(shape) // width_of(ggml_type)) if ggml_type in QUANTISED else None
    raw = raw or np.random.default_rng(0).standard_normal(math.prod(shape)).astype(np.float32).tobytes()
    raw = raw[: math.prod(shape) // width_of(ggml_type) * BLOCK_SIZES[ggml_type].num_bytes]
    file = opened(gguf_bytes({}, {"before": (F32, (3,), bytes(12)), "x": (ggml_type, shape, raw)}))
    whole = file.dequantize("x")
    for rows in (slice(0, 13), slice(0, 1), slice(5, 9), slice(12, None), slice(-2, None), slice(4, 99), slice(7, 3)):
        np.testing.assert_array_equal(file.dequantize("x", rows), whole[rows])


def test_a_vector_can_be_sliced_between_blocks_only() -> None:
    file = opened(gguf_bytes({}, {"f": (F32, (8,), bytes(32)), "q": (Q8_0, (64,), random_blocks(Q8_0, 2))}))
    assert file.dequantize("f", slice(2, 5)).shape == (3,)
    np.testing.assert_array_equal(file.dequantize("q", slice(32, 64)), file.dequantize("q")[32:])
    for start, stop in ((31, 63), (32, 63), (31, 64)):
        with pytest.raises(GGUFError, match=rf"'q'\[{start}:{stop}\] cuts a block of 32 values"):
            file.dequantize("q", slice(start, stop))


def test_raw_is_a_read_only_view() -> None:
    file = opened(gguf_bytes({}, {"x": (F32, (2,), b"abcdefgh")}))
    raw = file.raw("x")
    assert raw.tobytes() == b"abcdefgh"
    assert not raw.flags.writeable
    assert not raw.flags.owndata
    with pytest.raises(GGUFError, match="tensor 'y' is missing"):
        file.raw("y")


def test_the_embedded_weights_equal_the_gguf_package(embedded_gguf: Path) -> None:
    file = GGUFFile.open(embedded_gguf)
    assert len(file.tensors) == 236
    for name, tensor in file.tensors.items():
        rows_per_step = max(1, 2**18 // math.prod(tensor.shape[1:])) if len(tensor.shape) > 1 else tensor.shape[0]
        row_bytes = tensor.num_bytes // tensor.shape[0]
        for start in range(0, tensor.shape[0], rows_per_step):
            rows = slice(start, min(start + rows_per_step, tensor.shape[0]))
            raw = file.raw(name)[rows.start * row_bytes : rows.stop * row_bytes]
            shape = (rows.stop - rows.start, *tensor.shape[1:])
            assert_same_bits(file.dequantize(name, rows), expected_values(raw, tensor.ggml_type, shape))


def test_the_embedded_metadata(embedded_gguf: Path) -> None:
    file = GGUFFile.open(embedded_gguf)
    assert file.get("general.architecture", str) == "gemma3"
    assert file.get_int("gemma3.block_count", minimum=1, maximum=64) == 18
    assert file.tensors["token_embd.weight"].shape == (262_144, 640)
    tokens = file.get("tokenizer.ggml.tokens", GGUFStrings).tolist()
    assert len(tokens) == 262_144
    assert tokens[:4] == ["<pad>", "<eos>", "<bos>", "<unk>"]
    assert file.get("tokenizer.ggml.token_type", GGUFNumbers)[:4].tolist() == [3, 3, 3, 3]
    end = max(tensor.offset + tensor.num_bytes for tensor in file.tensors.values())
    assert end <= embedded_gguf.stat().st_size < end + 32


# Metadata

SCALARS: dict[str, Any] = {
    "u8": np.uint8(255),
    "i8": np.int8(-128),
    "u16": np.uint16(65_535),
    "i16": np.int16(-32_768),
    "u32": np.uint32(2**32 - 1),
    "i32": np.int32(-(2**31)),
    "u64": np.uint64(2**64 - 1),
    "i64": np.int64(-(2**63)),
    "f32": np.float32(0.1),
    "f64": np.float64(0.1),
}


def test_scalars_round_trip() -> None:
    metadata = opened(
        gguf_bytes(SCALARS | {"yes": True, "no": False, "text": "na\u00efve \u2581", "empty": ""}, {})
    ).metadata
    assert {name: metadata[name] for name in SCALARS} == {name: value.item() for name, value in SCALARS.items()}
    assert [metadata[name] for name in ("yes", "no", "text", "empty")] == [True, False, "na\u00efve \u2581", ""]
    assert type(metadata["yes"]) is bool
    assert type(metadata["u64"]) is int


def test_arrays_round_trip() -> None:
    arrays = {name: np.array([value, 0, value], value.dtype) for name, value in SCALARS.items()}
    file = opened(gguf_bytes(arrays | {"flags": [True, False], "none": np.empty(0, np.int8)}, {}))
    for name, expected in arrays.items():
        found = np.asarray(file.get(name, GGUFNumbers))
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    assert file.get("flags", GGUFNumbers).tolist() == [True, False]
    assert len(file.get("none", GGUFNumbers)) == 0


def test_strings_round_trip() -> None:
    pieces = ["", "a", "\u2581the", "\n", "\0", "x" * 300, "\U0001f600", ""]
    strings = opened(gguf_bytes({"tokens": pieces, "after": 7}, {})).get("tokens", GGUFStrings)
    assert list(strings) == strings.tolist() == pieces
    assert len(strings) == len(pieces)


def test_a_file_of_the_gguf_package_is_read(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "gemma3")
    writer.add_custom_alignment(64)
    writer.add_array("words", ["one", "two"])
    writer.add_float64("pi", math.pi)
    matrix = np.random.default_rng(0).standard_normal((4, 64), np.float32)
    writer.add_tensor("a", matrix)
    blocks = gguf.quants.quantize(matrix, gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("b", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GGUFFile.open(tmp_path / "x.gguf")
    assert file.get("general.architecture", str) == "gemma3"
    assert (list(file.get("words", GGUFStrings)), file.get_float("pi")) == (["one", "two"], math.pi)
    assert_same_bits(file.dequantize("a"), matrix)
    assert_same_bits(file.dequantize("b"), expected_values(blocks.tobytes(), Q8_0, (4, 64)))


def test_the_gguf_package_reads_our_test_files(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf", {"n": 3, "words": ["one"]}, {"x": (F32, (2, 4), bytes(range(32)))})
    reader = gguf.GGUFReader(path)
    assert reader.fields["n"].contents() == 3
    assert reader.fields["words"].contents() == ["one"]
    assert reader.tensors[0].data.shape == (2, 4)
    assert reader.tensors[0].data.tobytes() == bytes(range(32))


def test_version_2_and_the_tensor_table() -> None:
    file = opened(gguf_bytes({}, {"a": (F32, (5,), bytes(20)), "b": (Q8_0, (2, 3, 32), bytes(204))}, version=2))
    start = file.tensors["a"].offset
    assert start % 32 == 0
    assert file.tensors["b"] == GGUFTensor("b", (2, 3, 32), Q8_0, start + 32, 204)
    assert list(file.tensors) == ["a", "b"]


GETTERS: list[tuple[Callable[[GGUFFile], Any], str]] = [
    (lambda f: f.get_int("n", minimum=6, maximum=9), "'n' is 5, must be in [6, 9]"),
    (lambda f: f.get_int("n", minimum=1, maximum=4), "'n' is 5, must be in [1, 4]"),
    (lambda f: f.get_int("yes", minimum=0, maximum=1), "'yes' is True, must be an integer"),
    (lambda f: f.get_int("x", minimum=0, maximum=1), "'x' is 0.5, must be an integer"),
    (lambda f: f.get_int("gone", minimum=0, maximum=1), "'gone' is missing, must be an integer"),
    (lambda f: f.get_float("x", minimum=1.0), "'x' is 0.5, must be in [1.0, "),
    (lambda f: f.get_float("nan"), "'nan' is nan, must be in ["),
    (lambda f: f.get_float("inf"), "'inf' is inf, must be in ["),
    (lambda f: f.get_float("n"), "'n' is 5, must be a float"),
    (lambda f: f.get("n", str), "'n' is 5, must be a string"),
    (lambda f: f.get("n", bool), "'n' is 5, must be a bool"),
    (lambda f: f.get("ints", GGUFStrings), "'ints' is an array of 3 values, must be an array of strings"),
    (lambda f: f.get("words", GGUFNumbers), "'words' is an array of 2 values, must be an array of numbers"),
    (lambda f: f.get("long", int), f"'long' is '{'a' * 64}'..., must be an integer"),
]


@pytest.mark.parametrize(("getter", "expected"), GETTERS, ids=[text for _, text in GETTERS])
def test_getters_name_key_value_and_range(getter: Callable[[GGUFFile], Any], expected: str) -> None:
    numbers = {"n": 5, "x": 0.5, "nan": math.nan, "inf": math.inf, "yes": True}
    file = opened(gguf_bytes(numbers | {"ints": [1, 2, 3], "words": ["a", "b"], "long": "a" * 65}, {}))
    with pytest.raises(GGUFError) as error:
        getter(file)
    assert f"test.gguf: metadata {expected}" in str(error.value)


def test_getters_return_value_or_default() -> None:
    file = opened(gguf_bytes({"n": 5, "x": 0.5, "yes": False, "text": "t"}, {}))
    assert file.get_int("n", minimum=5, maximum=5, default=1) == 5
    assert file.get_int("gone", minimum=0, maximum=9, default=0) == 0
    assert file.get_float("x", minimum=0.5, maximum=0.5) == 0.5
    assert file.get("yes", bool, default=True) is False
    assert file.get("gone", str, default="") == ""


# What is not a GGUF file

FOREIGN = {
    "": "the file is empty",
    "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n": "a Git LFS pointer",
    "PK\x03\x04\x14\0\0\0": "a pickle, or the zip",
    "<!DOCTYPE html>": "not a GGUF file: it starts with b'<!DOCTYP', must be b'GGUF'",
    "GGU": "not a GGUF file: it starts with b'GGU'",
    "GGUF": "the file ends at byte 4, inside the version",
}


@pytest.mark.parametrize(("content", "expected"), FOREIGN.items(), ids=FOREIGN.values())
def test_other_files_are_named(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "test.gguf"
    path.write_text(content)
    with pytest.raises(GGUFError, match=f"^test.gguf: {expected}"):
        GGUFFile.open(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_refused_by_name(protocol: int) -> None:
    assert "a pickle" in refused(b"\x80" + bytes([protocol]) + b"}q\0.")


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(GGUFError, match=r"^none\.gguf: there is no such file"):
        GGUFFile.open(tmp_path / "none.gguf")
    with pytest.raises(GGUFError, match="not a regular one"):
        GGUFFile.open(tmp_path)
    hostile = tmp_path / "two\nlines\x1b[2J.gguf"
    hostile.write_bytes(b"GGML")
    with pytest.raises(GGUFError) as error:
        GGUFFile.open(hostile)
    assert str(error.value).startswith(r"two\nlines\x1b[2J.gguf: not a GGUF file")


@pytest.mark.parametrize(
    ("version", "expected"),
    [(0, "version 0"), (1, "version 1"), (4, "version 4"), (2 << 24, "big-endian"), (3 << 24, "big-endian")],
)
def test_other_versions(version: int, expected: str) -> None:
    assert expected in refused(join(version=version))


# Bounds


def test_a_header_alone_is_a_file() -> None:
    assert len(opened(join()).tensors) == 0
    assert "ends at byte 23, inside the number of metadata keys" in refused(join()[:23])


@pytest.mark.parametrize("count", [100, 2**31, 2**63, 2**64 - 1])
def test_counts_beyond_the_file(count: int) -> None:
    assert f"has {count} metadata keys" in refused(join(num_keys=count, alignment=8))
    assert f"has {count} tensors" in refused(join(num_tensors=count, alignment=8))
    for type_id in (0, 6, BOOL, STRING, 12):
        assert f"has {count} " in refused(join([raw_key("k", ARRAY, array(type_id, count, b""))], alignment=1))
    assert f"has {count} bytes in metadata 'k'" in refused(
        join([raw_key("k", STRING, struct.pack("<Q", count))], alignment=1)
    )
    least_key = struct.pack("<Q", count) + bytes(5)
    assert f"has {count} bytes in metadata key 0" in refused(join([least_key], alignment=1))


def test_number_of_keys() -> None:
    keys = [key(str(i), True) for i in range(gguf_module.MAX_KEYS + 1)]
    assert len(opened(join(keys[:-1])).metadata) == 2048
    assert "has 2049 metadata keys, must be at most 2048" in refused(join(keys))


def test_number_of_tensors() -> None:
    rows = [vector(str(i), offset=32 * i) for i in range(gguf_module.MAX_TENSORS + 1)]
    data = bytes(32 * len(rows))
    assert len(opened(with_tensors(*rows[:-1], data=data)).tensors) == 2048
    assert "has 2049 tensors, must be at most 2048" in refused(with_tensors(*rows, data=data))


def test_length_of_keys_and_names() -> None:
    assert len(opened(join([key("k" * 65_535, 1)])).metadata) == 1
    assert "has 65536 bytes in metadata key 0, must be at most 65535" in refused(join([key("k" * 65_536, 1)]))
    assert len(opened(with_tensors(vector("t" * 64))).tensors) == 1
    assert "has 65 bytes in the name of tensor 0, must be at most 64" in refused(with_tensors(vector("t" * 65)))


def test_length_of_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_module, "MAX_STRING_BYTES", 10)
    assert opened(join([key("k", "a" * 10)])).metadata["k"] == "a" * 10
    assert "has 11 bytes in metadata 'k', must be at most 10" in refused(join([key("k", "a" * 11)]))


def test_number_of_array_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_module, "MAX_ARRAY_ITEMS", 3)
    kinds: list[tuple[Any, Any]] = [(1.5, GGUFNumbers), ("a", GGUFStrings), (True, GGUFNumbers)]
    for item, kind in kinds:
        assert len(opened(join([key("k", [item] * 3)])).get("k", kind)) == 3
        assert "in metadata 'k', must be at most 3" in refused(join([key("k", [item] * 4)]))


@pytest.mark.parametrize("spare", [-1, 0, 1])
@pytest.mark.parametrize("value", [np.uint8(1), 1, np.float64(1), True, "text", "", [1, 2], ["a", "", "bc"]], ids=repr)
def test_a_value_must_fit_the_file(value: Any, spare: int) -> None:
    whole = join([key("k", value)], alignment=1)
    data = whole[:spare] if spare < 0 else whole + bytes(spare)
    if spare < 0:
        refused(data)
    else:
        assert list(opened(data).metadata) == ["k"]


@pytest.mark.parametrize("extra", [1, 2**32, 2**63, 2**64 - 9])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_string_of_an_array_must_fit_the_file(index: int, extra: int) -> None:
    strings = [string("abc"), string("de"), string("f")]
    strings[index] = struct.pack("<Q", 3 - index + extra) + strings[index][8:]
    message = refused(join([raw_key("k", ARRAY, array(STRING, 3, b"".join(strings)))], alignment=1))
    assert "inside metadata 'k'" in message


@pytest.mark.parametrize("type_id", [13, 255, 2**32 - 1])
def test_unknown_value_types(type_id: int) -> None:
    assert f"has value type {type_id}, must be in [0, 12]" in refused(join([raw_key("k", type_id, bytes(8))]))
    assert f"array of value type {type_id}" in refused(join([raw_key("k", ARRAY, array(type_id, 0, b""))]))


def test_arrays_of_arrays() -> None:
    inner = array(0, 1, b"x")
    assert "is an array of value type 9" in refused(join([raw_key("k", ARRAY, array(ARRAY, 1, inner))]))


@pytest.mark.parametrize("value", [2, 255])
def test_bools_are_0_or_1(value: int) -> None:
    assert f"a bool of {value}" in refused(join([raw_key("k", BOOL, bytes([value]))]))
    assert f"a bool of {value}" in refused(join([raw_key("k", ARRAY, array(BOOL, 3, bytes([0, value, 1])))]))


def test_nothing_is_there_twice() -> None:
    assert "metadata 'k' is there twice" in refused(join([key("k", 1), key("k", 1)]))
    assert "tensor 'x' is there twice" in refused(with_tensors(vector(), vector(offset=32)))


def test_text_is_utf8() -> None:
    assert r"metadata key 0 is not UTF-8: b'\xff'" in refused(join([key(b"\xff", 1)]))
    assert r"metadata 'k' is not UTF-8: b'a\xff'" in refused(join([key("k", b"a\xff")]))
    assert "the name of tensor 0 is not UTF-8" in refused(with_tensors(vector(b"\xed\xa0\x80")))
    file = opened(join([key("k", [b"ok", b"\xff\n"])]))
    with pytest.raises(GGUFError, match=r"^test.gguf: metadata 'k' has a string that is not UTF-8: b'\\xff\\n'\.$"):
        list(file.get("k", GGUFStrings))


def test_hostile_names_stay_on_one_short_line() -> None:
    hostile = "\n\x1b[31m\u202e\u2028" * 1000
    refused(join([key(hostile, 1), key(hostile, 1)]))
    refused(with_tensors(vector("\n\r\0", num=0)))


@pytest.mark.parametrize("num_dims", [0, 1, 4, 5, 2**32 - 1])
def test_number_of_dimensions(num_dims: int) -> None:
    if num_dims in (1, 4):
        dims = (8, 1, 1, 1)[:num_dims]
        assert len(opened(with_tensors(tensor_row("x", dims, F32, 0))).tensors["x"].shape) == num_dims
        return
    row = string("x") + struct.pack("<I", num_dims) + bytes(64)
    assert f"has {num_dims} dimensions, must be in [1, 4]" in refused(with_tensors(row))


@pytest.mark.parametrize("dims", [(0,), (8, 0), (0, 2**64 - 1)])
def test_dimensions_are_at_least_1(dims: tuple[int, ...]) -> None:
    assert "must be at least 1" in refused(with_tensors(tensor_row("x", dims, F32, 0)))


@pytest.mark.parametrize("dims", [(2**62, 4), (2**32, 2**32), (2**64 - 1,) * 4, (2**63, 1, 2), (8, 2**61)])
def test_products_do_not_overflow(dims: tuple[int, ...]) -> None:
    assert "but the file at" in refused(with_tensors(tensor_row("x", dims, F32, 0)))


@pytest.mark.parametrize("ggml_type", QUANTISED, ids=lambda t: t.name)
def test_rows_are_whole_blocks(ggml_type: GGMLType) -> None:
    width, num_bytes = width_of(ggml_type), BLOCK_SIZES[ggml_type].num_bytes
    opened(with_tensors(tensor_row("x", (width, 2), ggml_type, 0), data=bytes(2 * num_bytes)))
    for columns in (width - 1, width + 1, width // 2):
        message = refused(with_tensors(tensor_row("x", (columns, 2 * width), ggml_type, 0), data=bytes(2**18)))
        assert f"has {columns} columns, must be a multiple of {width}" in message


FOREIGN_TYPES = {
    4: "Q4_2 (4), which ggml has removed",
    5: "Q4_3 (5), which ggml has removed",
    9: "Q8_1 (9)",
    15: "Q8_K (15)",
    24: "I8 (24)",
    27: "I64 (27)",
    28: "F64 (28)",
    31: "Q4_0_4_4 (31), which ggml has removed",
    38: "IQ4_NL_8_8 (38), which ggml has removed",
    41: "Q1_0 (41)",
    42: "Q2_0 (42)",
    43: "unknown to ggml (43)",
    144: "IQ4_KS (144) of the fork ik_llama.cpp",
    2**32 - 1: "unknown to ggml (4294967295)",
}


@pytest.mark.parametrize("type_id", FOREIGN_TYPES)
def test_other_tensor_types_are_named(type_id: int) -> None:
    message = refused(with_tensors(tensor_row("x", (32,), type_id, 0)))
    assert f"tensor 'x' has type {FOREIGN_TYPES[type_id]}; read are F32, F16, BF16, Q4_0 to Q8_0" in message


def test_every_type_of_the_gguf_package_is_read_or_named() -> None:
    for kind in gguf.GGMLQuantizationType:
        if kind not in GGMLType.__members__.values():
            assert name_of_foreign_type(kind) == f"{kind.name} ({kind.value})"
            assert kind not in gguf.quants._type_traits, "the package expands it: so should we"


def test_the_codebooks_are_loaded_with_the_first_tensor_that_needs_them() -> None:
    code = (
        "import sys, numpy as np; from gemma3.files.gguf_dequant import dequantize, GGMLType as T;"
        "loaded = lambda: 'gemma3.files.iq_grids' in sys.modules;"
        "dequantize(np.zeros(144, np.uint8), T.Q4_K); before = loaded();"
        "dequantize(np.zeros(18, np.uint8), T.IQ4_NL); print(before, loaded())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False True"


@pytest.mark.parametrize(
    ("alignment", "is_allowed"),
    [(8, True), (65_536, True), (0, False), (4, False), (7, False), (24, False), (65_535, False), (131_072, False)],
)
def test_alignment(alignment: int, is_allowed: bool) -> None:
    data = join([key("general.alignment", alignment)], [vector()], bytes(64), alignment=max(alignment, 1))
    if is_allowed:
        assert opened(data).tensors["x"].offset % alignment == 0
    else:
        assert f"'general.alignment' is {alignment}, must be" in refused(data)
    assert "must be an integer" in refused(join([key("general.alignment", "32")]))


@pytest.mark.parametrize("offset", [1, 31, 33])
def test_offsets_are_aligned(offset: int) -> None:
    message = refused(with_tensors(vector(offset=offset), data=bytes(128)))
    assert f"is at offset {offset}, must be a multiple of 32" in message


@pytest.mark.parametrize(("num", "is_allowed"), [(15, True), (16, True), (17, False)])
def test_tensors_end_within_the_file(num: int, is_allowed: bool) -> None:
    data = with_tensors(vector(num=num), data=bytes(64))
    if is_allowed:
        assert len(opened(data).raw("x")) == 4 * num
    else:
        assert "but the file at" in refused(data)
    assert "but the file at" in refused(with_tensors(vector(offset=2**64 - 32)))


def test_tensors_do_not_overlap() -> None:
    opened(with_tensors(vector("b", offset=32), vector("a", num=8), data=bytes(64)))
    for rows in ([vector("a", num=9), vector("b", offset=32)], [vector("a", num=1), vector("b", num=1)]):
        for order in (rows, rows[::-1]):
            message = refused(with_tensors(*order, data=bytes(128)))
            assert "tensors 'a' and 'b' overlap" in message or "tensors 'b' and 'a' overlap" in message


def test_nothing_large_is_imported() -> None:
    names = ("torch", "numpy", "gguf", "tokenizers")
    code = f"import sys, gemma3.files.gguf; print([m for m in {names} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
