"""Damaged GGUF files: whatever a small file holds, it costs a ``GGUFError`` of one line, little time, little memory."""

import gc
import random
import time
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

import gemma3.files.gguf_header as gguf_module
from gemma3.errors import GGUFError
from gemma3.files.ggml_types import BLOCK_SIZES
from gemma3.files.gguf import GGMLType, GGUFFile, GGUFStrings
from gemma3.files.gguf_dequant import format_of
from tests.gemma3.gguf_files import ARRAY, STRING, array, gguf_bytes, join, key, raw_key, tensor_row

NUM_MUTANTS = 20_000
MAX_CPU_S = 0.1
MAX_BYTES = 2**20  # a mutant has 2 KB; the promise of the reader is 64 MiB
EXTREMES = (0, 1, 2**7, 2**8 - 1, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def valid_file() -> bytes:
    metadata = {
        "general.architecture": "gemma3",
        "general.alignment": 32,
        "u8": np.uint8(7),
        "i16": np.int16(-7),
        "u64": np.uint64(7),
        "f32": 0.5,
        "f64": np.float64(0.5),
        "bool": True,
        "tokens": ["<pad>", "", "the", "\u2581a"],
        "scores": [-1.0, -2.0],
        "types": [1, 2, 3],
        "flags": [True, False, True],
    }
    types = (GGMLType.F32, GGMLType.BF16, GGMLType.Q8_0, GGMLType.Q5_0, GGMLType.Q4_K, GGMLType.IQ2_XXS, GGMLType.TQ1_0)
    blocks = {t.name: (t, (1, format_of(t).num_values), bytes(BLOCK_SIZES[t].num_bytes)) for t in types}
    return gguf_bytes(metadata, blocks)


VALID = valid_file()
HEADER_BYTES = min(tensor.offset for tensor in GGUFFile(VALID, name="valid.gguf").tensors.values())


def survives(data: bytes) -> bool:
    """Open and use everything. True: a valid file. False: refused, by the only error that is allowed."""
    try:
        file = GGUFFile(data, name="fuzz.gguf")
        for value in file.metadata.values():
            if isinstance(value, GGUFStrings):
                value.tolist()
        for name, tensor in file.tensors.items():
            assert file.dequantize(name).shape == tensor.shape
    except GGUFError as error:
        message = str(error)
        assert message.startswith("fuzz.gguf: ")
        assert message.isprintable()
        assert len(message) < 500
        return False
    return True


def mutants() -> Iterator[bytes]:
    rng = random.Random(270)
    kinds = (flip_bits, replace_integer, splice, delete, insert, truncate)
    while True:
        data = bytearray(VALID)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            rng.choice(kinds)(rng, data)
        yield bytes(data)


def position(rng: random.Random, data: bytearray) -> int:
    """Nearly always in the header, where something can go wrong."""
    return rng.randrange(max(1, min(len(data), HEADER_BYTES if rng.random() < 0.95 else len(data))))


def flip_bits(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.randint(1, 4) if data else 0):
        data[position(rng, data)] ^= 1 << rng.randrange(8)


def replace_integer(rng: random.Random, data: bytearray) -> None:
    at, num_bytes = position(rng, data), rng.choice((1, 2, 4, 8))
    value = rng.choice((*EXTREMES, len(data), len(data) - at, rng.randrange(16)))
    data[at : at + num_bytes] = (value % 2 ** (8 * num_bytes)).to_bytes(num_bytes, "little")


def splice(rng: random.Random, data: bytearray) -> None:
    source, target, num_bytes = position(rng, data), position(rng, data), rng.randint(1, 64)
    data[target : target + num_bytes] = data[source : source + num_bytes]


def delete(rng: random.Random, data: bytearray) -> None:
    at = position(rng, data)
    del data[at : at + rng.randint(1, 16)]


def insert(rng: random.Random, data: bytearray) -> None:
    at = position(rng, data)
    data[at:at] = rng.randbytes(rng.randint(1, 16))


def truncate(rng: random.Random, data: bytearray) -> None:
    del data[position(rng, data) :]


def test_mutants_are_refused_or_valid_and_quick() -> None:
    num_valid, slowest_s = 0, 0.0
    for _, data in zip(range(NUM_MUTANTS), mutants(), strict=False):
        start = time.thread_time()
        num_valid += survives(data)
        slowest_s = max(slowest_s, time.thread_time() - start)
    assert slowest_s < MAX_CPU_S
    # Were nearly all of them refused at the first bytes, or nearly none, the mutations would test nothing.
    assert 0.05 * NUM_MUTANTS < num_valid < 0.5 * NUM_MUTANTS


@pytest.mark.parametrize("value", [2**31, 2**32 - 1, 2**63, 2**64 - 1])
def test_extreme_integers_allocate_nothing(value: int) -> None:
    gc.collect()
    tracemalloc.start()
    try:
        for at in range(4, HEADER_BYTES):
            num_bytes = 4 if value < 2**32 else 8
            survives(VALID[:at] + value.to_bytes(num_bytes, "little") + VALID[at + num_bytes :])
        assert tracemalloc.get_traced_memory()[1] < MAX_BYTES
    finally:
        tracemalloc.stop()


def test_every_truncation_is_refused() -> None:
    assert survives(VALID)
    last = max(t.offset + t.num_bytes for t in GGUFFile(VALID, name="valid.gguf").tensors.values())
    cuts = random.Random(0).sample(range(last), 199)
    assert not any(survives(VALID[:cut]) for cut in [*cuts, last - 1])
    assert survives(VALID[:last])


def worst_headers() -> dict[str, bytes]:
    """The most work that a header of about a megabyte can ask for, each with its fault at the very end."""
    num = gguf_module.MAX_KEYS - 1
    keys = [key(str(i), [True]) for i in range(num)]
    rows = [tensor_row(str(i), (8, 1, 1, 1), GGMLType.F32, 32 * i) for i in range(num)]
    strings = [raw_key("k", ARRAY, array(STRING, 2**17, bytes(8 * 2**17)))]
    numbers = [raw_key("k", ARRAY, array(0, 10**6, bytes(10**6)))]
    bad = raw_key("bad", 99, bytes(8))
    return {
        "keys": join([*keys, bad]),
        "tensors": join(rows=[*rows, tensor_row("0", (8,), GGMLType.F32, 32 * num)], data=bytes(32 * (num + 1))),
        "strings": join([*strings, bad]),
        "numbers": join([*numbers, bad]),
        "text": join([key("k", "\u2581" * 300_000), bad]),
    }


@pytest.mark.parametrize("name", worst_headers())
def test_the_longest_headers(name: str) -> None:
    data = worst_headers()[name]
    start = time.thread_time()
    assert not survives(data)
    elapsed_s = time.thread_time() - start
    assert elapsed_s < 2 * MAX_CPU_S  # 30 ms where this was written
    tracemalloc.start()
    try:
        assert not survives(data)
        assert tracemalloc.get_traced_memory()[1] < 16 * MAX_BYTES
    finally:
        tracemalloc.stop()
