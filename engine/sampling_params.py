"""How one request wants its tokens chosen.

Owns the bounds of every sampling field; knows nothing of models, tensors or HTTP. Immutable, so any thread may read it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

MAX_LOGPROBS = 20
MAX_N = 8
MAX_STOP_STRINGS = 8  # a request may have 4; a prompt format adds its own
MAX_STOP_CHARS = 256
MAX_LOGIT_BIAS = 1024
MAX_SEED = 2**63 - 1


class SamplingParamsError(ValueError):
    """A sampling field is out of range. ``param`` names it, so an API can point at it."""

    def __init__(self, param: str, value: object, allowed: str) -> None:
        super().__init__(f"{param}={str(value)[:80]} is not allowed: {allowed}.")
        self.param = param


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Sampling settings, applied in the order of the fields: penalties and bias, temperature, top-k, top-p, min-p.

    Attributes:
        temperature: 0 means exact argmax, lowest id on a tie.
        top_k: keep the k most likely tokens; 0 keeps all.
        logprobs: how many alternatives to report beside the chosen token; ``None`` reports nothing.
        prompt_logprobs: the same for every prompt token.
        max_tokens: ``None`` means as many as the context has room for.
        seed: ``None`` draws one; the same seed gives the same tokens whatever else is in the batch.
    """

    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    n: int = 1
    max_tokens: int | None = 16
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None

    def __post_init__(self) -> None:
        self._check_distribution()
        self._check_lengths()
        object.__setattr__(self, "logit_bias", MappingProxyType(dict(self.logit_bias)))
        object.__setattr__(self, "stop", tuple(self.stop))
        object.__setattr__(self, "stop_token_ids", tuple(self.stop_token_ids))

    def _check_distribution(self) -> None:
        self._check_number("temperature", 0.0, 2.0)
        self._check_number("top_p", 0.0, 1.0, open_low=True)
        self._check_number("min_p", 0.0, 1.0)
        self._check_number("frequency_penalty", -2.0, 2.0)
        self._check_number("presence_penalty", -2.0, 2.0)
        self._check_number("repetition_penalty", 0.0, 10.0, open_low=True)
        self._check_integer("top_k", 0, 2**31 - 1)
        self._check_integer("seed", -MAX_SEED - 1, MAX_SEED, none_allowed=True)
        if len(self.logit_bias) > MAX_LOGIT_BIAS:
            raise SamplingParamsError("logit_bias", f"{len(self.logit_bias)} entries", f"at most {MAX_LOGIT_BIAS}")
        for token_id, bias in self.logit_bias.items():
            if not (math.isfinite(bias) and -100.0 <= bias <= 100.0):
                raise SamplingParamsError(f"logit_bias.{token_id}", bias, "a number from -100 to 100")

    def _check_lengths(self) -> None:
        self._check_integer("n", 1, MAX_N)
        self._check_integer("max_tokens", 0, 2**31 - 1, none_allowed=True)
        self._check_integer("min_tokens", 0, 2**31 - 1)
        self._check_integer("logprobs", 0, MAX_LOGPROBS, none_allowed=True)
        self._check_integer("prompt_logprobs", 0, MAX_LOGPROBS, none_allowed=True)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise SamplingParamsError("min_tokens", self.min_tokens, f"at most max_tokens, {self.max_tokens}")
        if len(self.stop) > MAX_STOP_STRINGS:
            raise SamplingParamsError("stop", f"{len(self.stop)} strings", f"at most {MAX_STOP_STRINGS}")
        for text in self.stop:
            if not 1 <= len(text) <= MAX_STOP_CHARS:
                raise SamplingParamsError("stop", f"{len(text)} characters", f"1 to {MAX_STOP_CHARS}")

    def _check_number(self, name: str, low: float, high: float, *, open_low: bool = False) -> None:
        value = getattr(self, name)
        above_low = value > low if open_low else value >= low
        if not (math.isfinite(value) and above_low and value <= high):
            raise SamplingParamsError(name, value, f"a number {'above' if open_low else 'from'} {low:g} to {high:g}")

    def _check_integer(self, name: str, low: int, high: int, *, none_allowed: bool = False) -> None:
        value = getattr(self, name)
        if value is None and none_allowed:
            return
        if not low <= value <= high:
            raise SamplingParamsError(name, value, f"an integer from {low} to {high}")
