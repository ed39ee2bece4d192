"""Every instruction set's kernels against plain arithmetic: products of integers must agree exactly."""

import numpy as np
import pytest

from tests.gemma3.native import ISAS, needs_native

pytestmark = needs_native

PANEL, GROUP = 16, 64
ROWS = [1, 2, 3, 4, 5, 8, 15, 16, 17, 31, 33, 70]  # each way in which a kernel cuts rows
OUTPUTS = [16, 32, 48, 80]
INPUTS = [64, 192, 640]


def isas() -> list[str]:
    from gemma3.cpu import _native

    return _native.supported_isas()


def to_panels(bytes_NK: np.ndarray) -> bytes:
    """Bytes (N, K) as panels: written from the layout's definition, one line at a time."""
    num_outputs, num_inputs = bytes_NK.shape
    lines = bytes_NK.reshape(num_outputs // PANEL, PANEL, num_inputs // 4, 4).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(lines).tobytes()


def to_nibble_panels(nibbles_NK: np.ndarray) -> bytes:
    lines = np.frombuffer(to_panels(nibbles_NK), np.uint8).reshape(-1, 2, 64)
    return (lines[:, 0] | lines[:, 1] << 4).tobytes()


def values_of(rng: np.random.Generator, num_rows: int, num_inputs: int) -> np.ndarray:
    values = rng.integers(-127, 128, (num_rows, num_inputs), dtype=np.int8)
    values[0] = rng.choice(np.array([-127, 127], np.int8), num_inputs)
    values[1:2], values[2:3] = 127, -127  # the largest sums there can be, of 16 bits too
    return values


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("num_inputs", INPUTS)
def test_int8_products_are_exact(isa: str, num_inputs: int) -> None:
    if isa not in isas():
        pytest.skip(f"this processor has no {isa}")
    from gemma3.cpu import _native

    rng = np.random.default_rng(num_inputs)
    for num_outputs in OUTPUTS:
        weights = rng.integers(-127, 128, (num_outputs, num_inputs))
        weights[:2] = [[127], [-127]]
        scales = rng.random(num_outputs, dtype=np.float32)
        packed = to_panels((weights + 128).astype(np.uint8))
        for num_rows in ROWS:
            values = values_of(rng, num_rows, num_inputs)
            found = _native.multiply(isa, "int8", packed, b"", scales.tobytes(), values)
            expected = (values.astype(np.int64) @ weights.T).astype(np.float32) * scales
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("isa", ISAS)
def test_no_pair_of_int8_products_saturates(isa: str) -> None:
    """Every pair of inputs with the largest and the smallest weights: a sum of two may not fit into 16 bits."""
    if isa not in isas():
        pytest.skip(f"this processor has no {isa}")
    from gemma3.cpu import _native

    inputs = np.arange(-127, 128, dtype=np.int8)
    values = np.zeros((255, 512), np.int8)
    values[:, :510:2], values[:, 1:510:2] = inputs[:, None], inputs
    weights = np.full((PANEL, 512), 127)
    weights[1::2] = -127
    weights[2::4, ::2], weights[3::4, 1::2] = -127, 127
    packed, scales = to_panels((weights + 128).astype(np.uint8)), np.ones(PANEL, np.float32).tobytes()
    found = _native.multiply(isa, "int8", packed, b"", scales, values)
    np.testing.assert_array_equal(found, values.astype(np.int64) @ weights.T)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("num_inputs", INPUTS)
def test_int4_products_are_exact(isa: str, num_inputs: int) -> None:
    if isa not in isas():
        pytest.skip(f"this processor has no {isa}")
    from gemma3.cpu import _native

    rng = np.random.default_rng(num_inputs)
    for num_outputs in OUTPUTS:
        nibbles = rng.integers(0, 16, (num_outputs, num_inputs), dtype=np.uint8)
        nibbles[:2] = [[15], [0]]
        multipliers = rng.integers(-15, 16, (num_outputs, num_inputs // GROUP), dtype=np.int8)
        multipliers[:2] = [[15], [-15]]
        weights = (nibbles.astype(np.int64) - 8) * multipliers.repeat(GROUP, axis=1)
        scales = rng.random(num_outputs, dtype=np.float32)
        by_panel = multipliers.reshape(-1, PANEL, num_inputs // GROUP).swapaxes(1, 2)
        for num_rows in ROWS:
            values = values_of(rng, num_rows, num_inputs)
            found = _native.multiply(
                isa, "int4", to_nibble_panels(nibbles), by_panel.tobytes(), scales.tobytes(), values
            )
            expected = (values.astype(np.int64) @ weights.T).astype(np.float32) * scales
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("num_inputs", INPUTS)
def test_nibble_products_are_exact(isa: str, num_inputs: int) -> None:
    if isa not in isas():
        pytest.skip(f"this processor has no {isa}")
    from gemma3.cpu import _native

    rng = np.random.default_rng(num_inputs)
    for num_outputs in OUTPUTS:
        nibbles = rng.integers(0, 16, (num_outputs, num_inputs), dtype=np.uint8)
        nibbles[:2] = [[15], [0]]
        scales = np.ones(num_outputs, np.float32).tobytes()
        for num_rows in ROWS:
            values = values_of(rng, num_rows, num_inputs)
            found = _native.multiply(isa, "nibbles", to_nibble_panels(nibbles), b"", scales, values)
            np.testing.assert_array_equal(found, values.astype(np.int64) @ nibbles.T.astype(np.int64))


def test_quantisers_write_the_layout() -> None:
    """What is packed, unpacked and multiplied by an identity, is the rotated weight to half a step."""
    from gemma3.cpu import _native

    rng = np.random.default_rng(0)
    rows = rng.standard_normal((48, 192)).astype(np.float32)
    hadamard = np.ones((1, 1))
    while len(hadamard) < 64:  # 192 = 3 blocks of 64
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    rotated = (rows.reshape(48, 3, 64) @ hadamard / 8).reshape(48, 192)
    identity, factors = np.eye(192, dtype=np.int8), np.exp2(rng.integers(-2, 3, 192)).astype(np.float32)
    high, low, scales, multipliers = (bytearray(size) for size in (48 * 96, 48 * 96, 48 * 4, 48 * 3))
    panels = bytearray(48 * 192)

    _native.quantize_int8(rows / factors, factors, panels, scales)
    found = _native.multiply("portable", "int8", panels, b"", scales, identity).T
    assert np.abs(found - rotated).max() <= np.abs(rotated).max() / 127 / 2 * 1.001

    _native.quantize_embedding(rows / factors, factors, high, low, scales)
    ones = np.ones(48, np.float32).tobytes()
    both = 16 * _native.multiply("portable", "nibbles", high, b"", ones, identity)
    both += _native.multiply("portable", "nibbles", low, b"", ones, identity)
    np.testing.assert_array_equal((both.T - 128) * np.frombuffer(scales, np.float32)[:, None], found)

    _native.quantize_int4(rows / factors, factors, high, multipliers, scales)
    found = _native.multiply("portable", "int4", high, multipliers, scales, identity).T
    # Of a normal distribution. Without a sign of the multipliers it is 0.0963, by plain rounding of groups of 64 0.13.
    assert np.sqrt(((found - rotated) ** 2).mean()) < 0.094
    assert set(np.abs(np.frombuffer(multipliers, np.int8))) <= set(range(1, 16))

    with pytest.raises(ValueError, match="does not fit"):
        _native.quantize_int8(rows[:32], factors, panels, scales)
    with pytest.raises(ValueError, match="factor"):
        _native.quantize_int8(rows, factors[:-1], panels, scales)
