"""Which path computes: the decision of ``quantization``, ``dtype`` and ``device``, and what it says."""

import pytest

from engine.precision import Precision, choose_precision
from gemma3 import cpu

CORE_INT8 = Precision("int8", "float32", "cpu")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fast core, whatever this one has."""
    monkeypatch.setattr(cpu, "why_unavailable", lambda: None)
    monkeypatch.setattr(cpu, "why_slow", lambda: None)


def choose(quantization: str = "auto", dtype: str = "auto", device: str = "auto") -> Precision:
    return choose_precision(quantization=quantization, dtype=dtype, device=device)


@pytest.mark.parametrize(
    ("quantization", "dtype", "device", "expected"),
    [
        ("auto", "auto", "auto", CORE_INT8),
        ("auto", "auto", "cpu", CORE_INT8),
        ("int8", "auto", "auto", CORE_INT8),
        ("int4", "auto", "cpu", Precision("int4", "float32", "cpu")),
        ("none", "auto", "auto", Precision(None, "bfloat16", "auto")),
        ("none", "float32", "cpu", Precision(None, "float32", "cpu")),
        ("auto", "float32", "auto", Precision(None, "float32", "auto")),
        ("auto", "bfloat16", "cpu", Precision(None, "bfloat16", "cpu")),
        ("auto", "auto", "cuda", Precision(None, "bfloat16", "cuda")),
        ("auto", "auto", "cuda:1", Precision(None, "bfloat16", "cuda:1")),
    ],
)
def test_choices(quantization: str, dtype: str, device: str, expected: Precision) -> None:
    assert choose(quantization, dtype, device) == expected


@pytest.mark.parametrize(
    ("quantization", "dtype", "device", "words"),
    [
        ("int2", "auto", "auto", "quantization='int2' is not allowed: auto, none, int8, int4 are"),
        ("auto", "float16", "auto", "dtype='float16' is not allowed"),
        ("int8", "float32", "auto", "quantization='int8' and dtype='float32' exclude each other"),
        ("int4", "auto", "cuda", "quantization='int4' runs on the CPU only; with device='cuda'"),
    ],
)
def test_refusals(quantization: str, dtype: str, device: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        choose(quantization, dtype, device)


def test_without_a_core_one_line_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(cpu, "why_slow", lambda: "the native core was not compiled")
    monkeypatch.setattr(cpu, "why_unavailable", lambda: "the native core was not compiled")
    caplog.set_level("INFO", "gemma3")
    assert choose() == Precision(None, "bfloat16", "auto")
    assert [record.getMessage() for record in caplog.records] == [
        "Torch computes, in bfloat16: the native core was not compiled."
    ]
    with pytest.raises(ValueError, match="quantization='int8' is not available: the native core was not compiled"):
        choose("int8")


def test_an_unknown_processor_runs_the_core_only_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "why_slow", lambda: "the native core has no fast kernels for this processor")
    assert choose().scheme is None
    assert choose("int8") == CORE_INT8
