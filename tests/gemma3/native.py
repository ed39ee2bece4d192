"""Marks tests of the compiled core, which say why they are skipped where it is not there."""

import platform

import pytest

from gemma3 import cpu

# Those that a processor of this kind may have.
ISAS = (
    ["portable", "neon", "dotprod", "i8mm"]
    if platform.machine() in ("aarch64", "arm64")
    else ["portable", "avx2", "avxvnni", "avx512", "amx"]
)

needs_native = pytest.mark.skipif(cpu.why_unavailable() is not None, reason=str(cpu.why_unavailable()))


def needs_isa(isa: str) -> None:
    """Skip the running test where the processor lacks ``isa``."""
    from gemma3.cpu import _native

    if isa not in _native.supported_isas():
        pytest.skip(f"this processor has no {isa}")
