"""``attend`` and ``merge`` of each instruction set against softmax in float64, and against ``portable``, the plain C++.

Tolerances as in ``test_cpu_kernel_twins.py``; a score is a sum of ``head_dim`` products whose roundings add up like a random walk.
AMX rounds the weights of a softmax to bfloat16, a part in 2^8 each at most. Shapes: ``R`` rows, ``S`` keys, ``H`` head size.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from gemma3 import cpu
from tests.gemma3 import bfloat16
from tests.gemma3.native import needs_isa, needs_native

if cpu.why_unavailable() is None:
    from gemma3.cpu._native import kernels

pytestmark = needs_native

ISAS = ["portable", "avx2", "avxvnni", "avx512", "amx"]
EPS = 2.0**-24
MAX_ROWS, BLOCK = 32, 16
SHAPES = [  # rows, blocks of keys, head size
    (1, 1, 32), (3, 2, 64), (4, 8, 256), (5, 3, 32), (15, 8, 64), (16, 7, 64), (17, 8, 32), (31, 5, 96), (32, 8, 256),
]  # fmt: skip
Doubles = NDArray[np.float64]


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> str:
    needs_isa(request.param)
    return str(request.param)


@dataclass
class Case:
    """Queries (R, H), keys and values (S, H), all of them bfloat16, and the half-open ranges (R, 2) of keys."""

    queries: NDArray[np.uint16]
    keys: NDArray[np.uint16]
    values: NDArray[np.uint16]
    ranges: NDArray[np.int32]


@dataclass
class Answer:
    """Sums (R, H) of exp(score - peak) * value; peaks and totals (R)."""

    out: NDArray[np.floating]
    peaks: NDArray[np.floating]
    totals: NDArray[np.floating]


def case_of(num_rows: int, num_blocks: int, head_dim: int, *, spread: float = 1.0) -> Case:
    """Ranges are all keys, none, one alone, and random ones. ``spread`` scales the queries, thus the scores."""
    rng, num_keys = np.random.default_rng(num_rows + num_blocks), BLOCK * num_blocks
    ranges = np.sort(rng.integers(0, num_keys + 1, (num_rows, 2)), axis=1).astype(np.int32)
    for row, found in zip(
        (num_rows - 1, 2, 1, 0), ([0, 1], [num_keys - 1, num_keys], [7, 7], [0, num_keys]), strict=True
    ):
        if row < num_rows:
            ranges[row] = found
    queries, keys, values = (
        bfloat16.rounded(rng.standard_normal((num, head_dim)) * factor)
        for num, factor in ((num_rows, spread), (num_keys, 1), (num_keys, 1))
    )
    return Case(queries, keys, values, ranges)


def run(isa: str, case: Case) -> Answer:
    num_rows, head_dim = case.queries.shape
    blocks = len(case.keys) // BLOCK
    keys = case.keys.reshape(blocks, BLOCK, head_dim // 2, 2).transpose(0, 2, 1, 3)
    values = case.values.reshape(blocks, BLOCK // 2, 2, head_dim).transpose(0, 1, 3, 2)
    queries = np.zeros((MAX_ROWS, head_dim), np.uint16)
    queries[:num_rows] = case.queries
    answer = Answer(*(np.full((MAX_ROWS, *rest), np.nan, np.float32) for rest in ((head_dim,), (), ())))
    kernels.attend(
        isa, queries, np.ascontiguousarray(keys), np.ascontiguousarray(values), case.ranges,
        answer.out, answer.peaks, answer.totals,
    )  # fmt: skip
    return Answer(answer.out[:num_rows], answer.peaks[:num_rows], answer.totals[:num_rows])


def twin(case: Case) -> tuple[Answer, Answer, Doubles]:
    """What comes out, how far float32 may be from it, and the sums (R, H) of the sizes of what was added."""
    queries, keys, values = (bfloat16.widened(x) for x in (case.queries, case.keys, case.values))
    seen = (np.arange(len(keys)) >= case.ranges[:, :1]) & (np.arange(len(keys)) < case.ranges[:, 1:])
    scores = np.where(seen, queries @ keys.T, -np.inf)
    peaks = scores.max(1)
    weights = np.exp(scores - np.where(np.isfinite(peaks), peaks, 0)[:, None])
    step = (np.abs(queries) @ np.abs(keys).T).max(1) * np.sqrt(queries.shape[1]) * EPS
    relative = 2 * step + (len(keys) + 8) * EPS
    sizes = weights @ np.abs(values)
    error = Answer(sizes * relative[:, None] + 1e-30, step, weights.sum(1) * relative + 1e-30)
    return Answer(weights @ values, peaks, weights.sum(1)), error, sizes


def check(found: Answer, expected: Answer, error: Answer) -> None:
    hidden = ~np.isfinite(expected.peaks)
    assert (found.peaks[hidden] == -np.inf).all()
    assert not found.totals[hidden].any()
    assert not found.out[hidden].any()
    for name in ("out", "peaks", "totals"):
        one, other, most = (getattr(answer, name)[~hidden] for answer in (found, expected, error))
        assert (np.abs(one - other) <= most).all(), (name, (np.abs(one - other) / most).max())


def check_case(isa: str, case: Case) -> None:
    found, plain = run(isa, case), run("portable", case)
    expected, error, sizes = twin(case)
    if isa == "amx":
        error.out = error.out + sizes * 2.0**-8
    check(found, expected, error)
    check(found, plain, Answer(2 * error.out, 2 * error.peaks, 2 * error.totals))


@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0, 8.0])
def test_attend(isa: str, spread: float) -> None:
    for num_rows, num_blocks, head_dim in SHAPES:
        check_case(isa, case_of(num_rows, num_blocks, head_dim, spread=spread))


def test_attend_one_dominant_key(isa: str) -> None:
    """All weight is on one key, whose value comes out; the others are below exp's range."""
    for num_rows, num_blocks, head_dim in SHAPES:
        case = case_of(num_rows, num_blocks, head_dim)
        case.ranges[:] = [0, len(case.keys)]
        case.keys[-3] = case.queries[0]
        case.queries[:] = bfloat16.rounded(bfloat16.widened(case.queries[:1]) * 64)
        check_case(isa, case)
        found = run(isa, case)
        np.testing.assert_array_equal(found.out, np.tile(bfloat16.widened(case.values[-3]), (num_rows, 1)))
        assert (found.totals == 1).all()


def test_attend_equal_keys(isa: str) -> None:
    """The plain mean of the values; alternating signs of large ones leave what is small."""
    case = case_of(5, 8, 64)
    case.keys[:] = case.keys[0]
    signs = np.where(np.arange(len(case.values)) % 2, -1024, 1024)[:, None]
    case.values[:] = bfloat16.rounded(np.tile(signs, (1, 64)).astype(np.float32))
    case.values[9] = bfloat16.rounded(np.full(64, -1000.0))
    check_case(isa, case)


def merged(
    isa: str, old: tuple[NDArray[np.float32], float, float], new: tuple[NDArray[np.float32], float, float]
) -> Answer:
    out, peak_total = old[0].copy(), np.array(old[1:], np.float32)
    kernels.merge(isa, out, peak_total, *new)
    return Answer(out[None], peak_total[:1], peak_total[1:])


@pytest.mark.parametrize("gap", [0.0, 0.3, 1.0, 10.0, 50.0, 86.9, 87.1, 1e4, np.inf])
def test_merge(isa: str, gap: float) -> None:
    """exp is within 2 units in the last place (4 EPS), for every gap between the peaks, whichever is higher."""
    rng = np.random.default_rng(7)
    for size, peak in ((16, 0.0), (32, -3.5), (96, 1e3), (256, 80.25)):
        for jitter in rng.uniform(0, 0.9, 20):
            old, new = rng.standard_normal((2, size)).astype(np.float32) * 100
            low = np.float32(peak - gap * (1 + jitter * (gap < 80)))
            check_merge(isa, (old, float(low), 3.25), (new, peak, 90.0))
            check_merge(isa, (old, float(low), 3.25), (0 * new, peak, 0.0))  # shows how exact the lower part is
            if np.isfinite(gap):
                check_merge(isa, (new, peak, 90.0), (old, float(low), 3.25))


def check_merge(
    isa: str, old: tuple[NDArray[np.float32], float, float], new: tuple[NDArray[np.float32], float, float]
) -> None:
    highest = max(old[1], new[1])
    gaps = [np.float64(np.float32(peak) - np.float32(highest)) for peak in (old[1], new[1])]
    factors = [np.exp(gap) if gap >= -87 else 0.0 for gap in gaps]
    parts = [factor * values.astype(np.float64) for factor, values in zip(factors, (old[0], new[0]), strict=True)]
    totals = [factor * total for factor, total in zip(factors, (old[2], new[2]), strict=True)]
    expected = Answer(np.sum(parts, 0)[None], np.array([highest]), np.array([sum(totals)]))
    error = Answer(np.abs(parts).sum(0)[None] * 6 * EPS + 1e-43, np.zeros(1), np.array([sum(totals)]) * 6 * EPS)
    found = merged(isa, old, new)
    check(found, expected, error)
    check(found, merged("portable", old, new), Answer(2 * error.out, error.peaks, 2 * error.totals))


def test_merge_of_nothing(isa: str) -> None:
    """A chunk that a row sees nothing of changes nothing; the first that it sees is taken as it is."""
    rng = np.random.default_rng(8)
    values = rng.standard_normal(64).astype(np.float32)
    same = merged(isa, (values, -2.5, 1.5), (values * np.float32(np.nan), -np.inf, 0.0))
    first = merged(isa, (np.zeros(64, np.float32), -np.inf, 0.0), (values, -2.5, 1.5))
    for found in (same, first):
        np.testing.assert_array_equal(found.out[0], values)
        assert (found.peaks[0], found.totals[0]) == (-2.5, 1.5)
