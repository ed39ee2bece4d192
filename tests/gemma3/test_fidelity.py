"""How far the packed weights are from float32: the limits that each scheme keeps on a text not seen in calibration.

``benchmarks/bench_fidelity.py`` measures, and prints the figures of 20,000 tokens; here it measures fewer of the same text.
"""

from pathlib import Path
from types import ModuleType

import pytest

from gemma3.checkpoints.checkpoint import open_checkpoint
from tests.gemma3.native import needs_native

pytestmark = needs_native

ROOT = Path(__file__).parents[2]
CALIBRATION = ROOT / "gemma3" / "cpu" / "calibration.txt"
NUM_TOKENS = 4_000

# Of each scheme: the largest divergence, the least share of equal likeliest tokens, the largest multiple of the perplexity.
LIMITS = {"int8": (0.005, 0.965, 1.02), "int4": (0.10, 0.80, 1.08)}


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import bench_fidelity

    return bench_fidelity


def test_the_text_was_not_seen_in_calibration(benchmark: ModuleType) -> None:
    text = benchmark.MANUAL + benchmark.CODE
    lines = [line.strip() for line in CALIBRATION.read_text(encoding="utf-8").splitlines()]
    telling = [line for line in lines if len(line) > 30]
    assert len(telling) > 10
    assert [line for line in telling if line in text] == []


def test_measures_are_of_the_whole_vocabulary(benchmark: ModuleType) -> None:
    """Against the definitions, in double precision; the last row of a document has no next token."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    expected, found = (3 * torch.randn(5, 1_000) for _ in range(2))
    following = torch.tensor([7, 0, 999, 500])
    sums = benchmark._Sums()
    sums.add(expected[:3], found[:3], following[:3])
    sums.add(expected[3:], found[3:], following[3:])
    fidelity = sums.result()

    p, q = (logits.double().log_softmax(-1) for logits in (expected, found))
    rows = torch.arange(4)
    assert fidelity.num_tokens == 5
    assert fidelity.mean_kl == pytest.approx((p.exp() * (p - q)).sum(-1).mean().item(), rel=1e-5)
    assert fidelity.same_likeliest == (p.argmax(-1) == q.argmax(-1)).double().mean().item()
    assert fidelity.perplexity == pytest.approx((p - q)[rows, following].mean().exp().item(), rel=1e-5)


@pytest.mark.slow
def test_fidelity_on_real_weights(embedded_gguf: Path, benchmark: ModuleType) -> None:
    checkpoint = open_checkpoint(embedded_gguf)
    cores = {scheme: benchmark.core_of(checkpoint, scheme) for scheme in LIMITS}
    for scheme, fidelity in benchmark.measure(checkpoint, cores, NUM_TOKENS).items():
        print(f"{scheme}: {fidelity}")
        most_kl, least_share, most_ratio = LIMITS[scheme]
        assert fidelity.num_tokens >= NUM_TOKENS
        assert fidelity.mean_kl <= most_kl
        assert fidelity.same_likeliest >= least_share
        assert fidelity.perplexity <= most_ratio
