"""What the engine says of itself: plain values that any thread may read and that cross to the event loop.

Knows nothing of torch, tokens or HTTP.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum

from engine.errors import EngineNotReadyError
from engine.step_sizes import StepSizes


class EngineStatus(StrEnum):
    LOADING = "loading"  # at the start, and again when a failed engine is built anew
    READY = "ready"
    DRAINING = "draining"  # running requests finish, new ones are refused
    DEAD = "dead"  # loading failed or the engine died again and again: only a restart helps

    def check_ready(self) -> None:
        """Raises: EngineNotReadyError unless READY."""
        if self is not EngineStatus.READY:
            raise EngineNotReadyError(f"The server takes no requests now: its model is {self.value}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsInfo:
    """The weights of a checkpoint.

    Attributes:
        file_format: ``safetensors`` or ``gguf``.
        num_bytes: of its files.
        sha256: in hexadecimal digits; tells the weights apart, as they are computed with.
        device: where they are in memory, ``cpu`` or torch's name of another.
        shape: of the model, by GGUF's names behind the architecture: ``block_count``, ``embedding_length``.
    """

    file_format: str = ""
    num_bytes: int = 0
    num_parameters: int = 0
    sha256: str = ""
    device: str = "cpu"
    shape: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """The served checkpoint.

    Attributes:
        model_id: the name clients ask for.
        created: unix seconds.
        max_model_len: tokens of prompt and completion together.
        cache_config: of the KV cache, by vLLM's names where it has one; for monitoring.
        quantization: "int8" or "int4" on the native core; else what the weights were before: "none", or a GGUF's type.
        dtype: type of the activations, the values between the matrix products.
        system_fingerprint: names weights, precision, kernels and version; the same fingerprint and seed give the same bytes.
        default_sampling: ``temperature``, ``top_k``, ``top_p`` of the checkpoint's generation_config.json; may be empty.
        chat_format: ``gemma-turns``, ``transcript``, or ``template`` for another one than Gemma's, rendered as it is.
        chat_template: the text of the template that conversations follow, Gemma's own included; None without one.
    """

    model_id: str
    created: int
    owned_by: str
    max_model_len: int
    vocab_size: int
    cache_config: Mapping[str, str] = field(default_factory=dict)
    quantization: str
    dtype: str
    is_instruction_tuned: bool
    system_fingerprint: str
    default_sampling: Mapping[str, float | int] = field(default_factory=dict)
    chat_format: str = "gemma-turns"
    chat_template: str | None = None
    weights: WeightsInfo = field(default_factory=WeightsInfo)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """A snapshot for monitoring. Counters only grow; ``kv_cache_usage`` is from 0 to 1; prefix figures are tokens.

    A draft is one guess of several tokens at what a sequence says next.
    """

    num_running: int = 0
    num_waiting: int = 0
    kv_cache_usage: float = 0.0
    num_preemptions: int = 0
    prefix_cache_queries: int = 0
    prefix_cache_hits: int = 0
    num_drafts: int = 0
    num_draft_tokens: int = 0
    num_accepted_draft_tokens: int = 0
    step_sizes: StepSizes = field(default_factory=StepSizes)

    def after(self, earlier: "EngineStats") -> "EngineStats":
        """The same, with the counters going on from those of ``earlier``, an engine that is no more."""
        counters = [
            each.name for each in fields(self) if each.name not in ("num_running", "num_waiting", "kv_cache_usage")
        ]
        return replace(self, **{name: getattr(self, name) + getattr(earlier, name) for name in counters})
