"""Marks tests of the compiled core, which say why they are skipped where it is not there."""

import pytest

from gemma3 import cpu

needs_native = pytest.mark.skipif(cpu.why_unavailable() is not None, reason=str(cpu.why_unavailable()))
