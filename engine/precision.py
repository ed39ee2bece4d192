"""What computes, and in which precision: the one place that turns ``quantization``, ``dtype`` and ``device`` into a decision.

Imports no torch. A GPU is used where it is asked for, or where the core cannot be: step by step the torch path is bound by
its launches, and an H100 decodes slower than two threads of the core (docs/decisions.md).
"""

import logging
from dataclasses import dataclass

from gemma3 import cpu
from gemma3.checkpoints.checkpoint import check_dtype
from gemma3.cpu.packed_layout import SCHEMES

QUANTIZATIONS = ("auto", "none", *SCHEMES)
DEFAULT_SCHEME = "int8"

log = logging.getLogger("gemma3")


@dataclass(frozen=True, slots=True)
class Precision:
    """``scheme`` names the native core's weights, and torch stays away; ``None`` is torch in ``dtype`` on ``device``."""

    scheme: str | None
    dtype: str
    device: str


def choose_precision(*, quantization: str, dtype: str, device: str) -> Precision:
    """``auto`` is the native core with int8 on the CPU, unless ``dtype`` or ``device`` asks for torch, or there is no fast core.

    Raises:
        ValueError: a value that is not allowed, or two that exclude each other; the text says what is allowed.
    """
    if quantization not in QUANTIZATIONS:
        raise ValueError(f"quantization={quantization!r:.60} is not allowed: {', '.join(QUANTIZATIONS)} are.")
    if dtype != "auto":
        check_dtype(dtype)
    torch_precision = Precision(None, "bfloat16" if dtype == "auto" else dtype, device)
    if quantization == "none":
        return torch_precision
    if quantization == "auto":
        scheme = DEFAULT_SCHEME if _prefers_core(dtype, device) else None
        return torch_precision if scheme is None else Precision(scheme, "float32", "cpu")
    _check_core(quantization, dtype, device)
    return Precision(quantization, "float32", "cpu")


def _prefers_core(dtype: str, device: str) -> bool:
    if dtype != "auto" or device not in ("auto", "cpu"):
        return False
    reason = cpu.why_slow()
    if reason is not None:
        log.info("Torch computes, in bfloat16: %s.", reason)
    return reason is None


def _check_core(quantization: str, dtype: str, device: str) -> None:
    if device not in ("auto", "cpu"):
        raise ValueError(f"quantization={quantization!r} runs on the CPU only; with device={device!r:.60} use 'none'.")
    if dtype != "auto":
        raise ValueError(
            f"quantization={quantization!r} and dtype={dtype!r} exclude each other; dtype goes with 'none'."
        )
    reason = cpu.why_unavailable()
    if reason is not None:
        raise ValueError(f"quantization={quantization!r} is not available: {reason}. Allowed here: auto, none.")
