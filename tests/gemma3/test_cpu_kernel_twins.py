"""Each floating-point kernel of a row against its formula in float64, and against ``portable``, the plain C++.

Tolerances follow from the arithmetic. ``EPS`` is half the distance of float32 numbers near 1, the error of one operation. A sum
in 16 lanes makes at most ``size / 16 + 4`` roundings. So a right kernel passes by proof, and one that leaves out a lane, takes
a wrong constant or a wrong sign is off by a thousand times as much.
"""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from gemma3 import cpu
from tests.gemma3 import bfloat16
from tests.gemma3.native import needs_isa, needs_native
from tests.gemma3.packed import rotation as rotation_matrix

if cpu.why_unavailable() is None:
    from gemma3.cpu._native import kernels

pytestmark = needs_native

ISAS = ["portable", "avx2", "avxvnni", "avx512", "amx"]
ROTATIONS = [1, 2, 8, 16, 32, 128]
SIZES = [1, 15, 16, 17, 31, 33, 127, 640, 2048]
EPS = 2.0**-24
SMALLEST = 2.0**-149  # of float32: what a result near zero may be off by
RMS_EPS = 1e-6
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> str:
    needs_isa(request.param)
    return str(request.param)


def rows(unit: int = 1) -> Iterator[Floats]:
    """Ordinary and extreme ones of every size, rounded up to whole units."""
    for size in SIZES:
        yield from rows_of(size + -size % unit)


def rows_of(size: int) -> Iterator[Floats]:
    rng = np.random.default_rng(size)
    normal = rng.standard_normal(size).astype(np.float32)
    yield normal
    yield normal * np.float32(30.0) ** rng.integers(-3, 4, size).astype(np.float32)
    yield np.zeros(size, np.float32)
    yield np.where(np.arange(size) % 2, -1.5, 1.5).astype(np.float32)
    yield normal * np.float32(1e16)  # its squares are still finite
    yield normal * np.float32(1e-30)  # its squares are not
    yield normal * np.float32(1e-40)  # denormal
    yield np.eye(1, size, size - 1, dtype=np.float32)[0] * np.float32(-100)  # the last one alone


def padded(x: NDArray[np.generic], unit: int = 16) -> NDArray[np.generic]:
    return np.concatenate([x, np.zeros(-len(x) % unit, x.dtype)])


def check(found: NDArray[np.generic], expected: Doubles, error: Doubles, plain: NDArray[np.generic]) -> None:
    """``error`` bounds how far a kernel may be from ``expected``; two of them may be twice as far from each other."""
    assert np.isfinite(found).all()
    assert (np.abs(found - expected) <= error + SMALLEST).all(), np.abs(found - expected).max()
    assert (np.abs(found - plain.astype(np.float64)) <= 2 * (error + SMALLEST)).all()


def normed(x: Floats, weight: Floats) -> tuple[Doubles, Doubles]:
    """RMSNorm, and the largest relative error: of the sum under the root (hence half), then five operations."""
    wide = x.astype(np.float64)
    out = wide * (1 + weight.astype(np.float64)) / np.sqrt(np.square(wide).mean() + RMS_EPS)
    return out, np.abs(out) * ((len(x) / 16 + 6) / 2 + 5) * EPS + np.abs(out / (1 + weight)) * EPS


def weight_of(size: int) -> Floats:
    return np.random.default_rng(size + 1).uniform(-0.9, 3, size).astype(np.float32)


def test_norm(isa: str) -> None:
    for x in rows():
        size, weight, found = len(x), weight_of(len(x)), {}
        for name in (isa, "portable"):
            found[name] = np.full(len(padded(x)), np.nan, np.float32)
            kernels.norm(name, padded(x), padded(weight), RMS_EPS, size, found[name])
            assert not found[name][size:].any(), "what fills up a row stays zero"
        check(found[isa][:size], *normed(x, weight), found["portable"][:size])


def test_add_norm(isa: str) -> None:
    for x in rows():
        size, weight, found = len(x), weight_of(len(x)), {}
        residual = np.random.default_rng(2).standard_normal(size).astype(np.float32) * 3
        for name in (isa, "portable"):
            found[name] = padded(residual)
            kernels.add_norm(name, found[name], padded(x), padded(weight), RMS_EPS, size)
            assert not found[name][size:].any()
        added, error = normed(x, weight)
        expected = residual + added
        check(found[isa][:size], expected, error + np.abs(expected) * EPS, found["portable"][:size])


def rows_and_rotations() -> Iterator[tuple[Floats, int]]:
    for rotation in ROTATIONS:
        yield from ((x, rotation) for x in rows(rotation))


def rotated(x: Floats, rotation: int) -> Doubles:
    block = rotation_matrix(rotation).astype(np.float64)
    return (x.reshape(-1, rotation).astype(np.float64) @ block).reshape(-1)


def test_rotate(isa: str) -> None:
    """Sums of ``rotation`` terms in ``log2(rotation)`` steps; the factor and its product round too."""
    for x, rotation in rows_and_rotations():
        size, found = len(x), {}
        for name in (isa, "portable"):
            found[name] = padded(x)
            kernels.rotate(name, found[name], size, rotation)
            assert not found[name][size:].any()
        sums = np.abs(x.reshape(-1, rotation).astype(np.float64)).sum(1).repeat(rotation) / np.sqrt(rotation)
        check(found[isa][:size], rotated(x, rotation), sums * (np.log2(rotation) + 3) * EPS, found["portable"][:size])


class Quantised:
    """Memory for three rows, of which the middle one is written."""

    def __init__(self, isa: str, x: Floats, rotation: int) -> None:
        num_inputs = len(padded(x, 64))
        self.values = np.full((3, num_inputs), 99, np.int8)
        self.scales = np.full(3, 99, np.float32)
        self.group_sums = np.full((3, num_inputs // 64), 99, np.int32)
        self.sums = np.full(3, 99, np.int32)
        kernels.quantize(isa, padded(x), len(x), rotation, self.values, self.scales, self.group_sums, self.sums, 1)
        for array in (self.values, self.scales, self.group_sums, self.sums):
            assert (array[[0, 2]] == 99).all(), "other rows are left alone"


def test_quantize(isa: str) -> None:
    """Rounding takes half a step; what it rounds is as exact as a rotation (test_rotate)."""
    for x, rotation in rows_and_rotations():
        row, size, exact = Quantised(isa, x, rotation), len(x), rotated(x, rotation)
        peak = np.abs(exact).max()
        relative = (np.log2(rotation) + 6) * np.sqrt(rotation) * EPS  # of the peak
        assert row.scales[1] == pytest.approx(peak / 127, rel=relative, abs=SMALLEST)
        steps = exact / (peak / 127) if peak > 1e-35 else np.zeros(size)  # below that a row is nothing
        assert (np.abs(row.values[1, :size] - steps) <= 0.5 + 127 * 2 * relative).all()
        assert not row.values[1, size:].any()
        np.testing.assert_array_equal(row.group_sums[1], row.values[1].reshape(-1, 64).sum(1, dtype=np.int32))
        assert row.sums[1] == row.values[1].sum(dtype=np.int32)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_shows_in_the_scale(isa: str, value: float) -> None:
    for size, at in ((1, 0), (33, 32), (640, 17)):
        x = np.ones(size, np.float32)
        x[at] = value
        assert np.isnan(Quantised(isa, x, 1).scales[1])


def test_gelu_gate_of_everything_that_exp_takes(isa: str) -> None:
    """The argument ``-2 u`` of exp has a relative error of 6 operations, hence exp ``|2 u|`` times that; exp adds 3."""
    rng = np.random.default_rng(3)
    special = [0.0, -0.0, 1e-40, -1e-40, 1e-6, 9.9, -9.9, 12.0, -12.0, 50.0, -50.0, 1e4, -1e4]
    for size in SIZES:
        gate = np.concatenate([special, rng.uniform(-11, 11, size)])[-size:].astype(np.float32)
        if size >= len(special):
            gate[-len(special) :] = special
        up = (rng.standard_normal(size) * 10).astype(np.float32)
        gate_up = np.stack([padded(gate).reshape(-1, 16), padded(up).reshape(-1, 16)], 1).reshape(-1)
        found = {name: np.full(len(padded(gate)), np.nan, np.float32) for name in (isa, "portable")}
        for name, out in found.items():
            kernels.gelu_gate(name, gate_up, out, size)
            assert not out[size:].any()
        x = gate.astype(np.float64)
        u2 = 2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
        falling = 1 / (1 + np.exp(np.minimum(u2, 700)))  # the share of exp in 1 + exp(-2 u), so of its error
        expected = x * up / (1 + np.exp(np.minimum(-u2, 700)))
        error = np.abs(expected) * (4 + falling * (3 + 7 * np.abs(u2))) * EPS
        error += np.abs(x * up) * np.exp(-88 + 1e-4)  # exp stands still at e^88
        check(found[isa][:size], expected, error, found["portable"][:size])


def test_norm_rope(isa: str) -> None:
    """As ``normed``, four more operations on both numbers of a pair, then half a bfloat16 step: a part in 2^8."""
    scale = np.float32(0.0625)
    for x, position in ((x, position) for position in (0, 1, 32_767) for x in rows(2)):
        size, weight, found = len(x), weight_of(len(x)), {}
        angles = position * 10_000.0 ** (-np.arange(0, size, 2) / size)
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        for name in (isa, "portable"):
            found[name] = np.zeros(size, np.uint16)
            kernels.norm_rope(name, x, weight, RMS_EPS, cos, sin, scale, found[name])
        out, error = normed(x, weight)
        turned = np.concatenate([-out[size // 2 :], out[: size // 2]])
        both = np.abs(out) + np.abs(turned)
        expected = (out * np.tile(cos, 2) + turned * np.tile(sin, 2)) * scale
        error = (error + np.roll(error, size // 2) + both * 4 * EPS) * scale + np.abs(expected) * 2.0**-8
        error += 2.0**-133  # the step of denormal bfloat16
        check(bfloat16.widened(found[isa]), expected, error, bfloat16.widened(found["portable"]))


def test_bound_logits(isa: str) -> None:
    """Three roundings: of ``16 * sum + rest``, of its product with the scale, and with the activations' scale."""
    rng, largest = np.random.default_rng(5), 2048 * 127 * 15
    spreads = ((largest, 0.5), (1000, -31_415.9), (0, 7.25), (largest, -2e6))
    for num_panels, (spread, rest) in ((num, spread) for num in (1, 2, 15, 64) for spread in spreads):
        sums = rng.integers(-spread, spread + 1, 16 * num_panels, dtype=np.int32)
        scales = rng.uniform(0, 1e-3, 16 * num_panels).astype(np.float32)
        found = {}
        for name in (isa, "portable"):
            found[name] = np.full(num_panels, np.nan, np.float32)
            kernels.bound_logits(name, sums, scales, 0.01, rest, found[name])
        bounds = (16.0 * sums + np.float32(rest)) * scales * np.float64(np.float32(0.01))
        error = (16.0 * np.abs(sums) + abs(rest)) * scales * 0.01 * 3 * EPS
        by_panel = bounds.reshape(-1, 16)
        check(found[isa], by_panel.max(1), error.reshape(-1, 16).max(1), found["portable"])
