"""How one request wants its tokens chosen: every setting written once, beside the definition of sampling.

Owns name, type, range, default and description of each setting; the request schemas, the table of supported fields, the
flags of the programs and ``docs/api.md`` are made from them. Knows nothing of models, tensors or HTTP. Immutable, so any
thread may read it.

The definition, which every runner obeys:

1. Reported log probabilities are those of the model's own distribution: float32 logits before anything below.
2. While fewer than ``min_tokens`` were sampled, the ids that would end the sequence cannot be. Where there are
   ``allowed_token_ids``, no other ids can be, and where there is a ``grammar`` none that it does not allow: both make one
   set of bits, ``SamplingRow.allowed_mask``. If nothing is left, nothing is chosen.
3. ``repetition_penalty`` divides positive and multiplies negative logits of every token of prompt and output (CTRL,
   arXiv 1909.05858); ``frequency_penalty`` times its count and ``presence_penalty`` are taken off each token of the
   output; ``logit_bias`` is added.
4. ``temperature`` 0: the largest logit, on a tie the lowest id. Otherwise logits are divided by it.
5. ``top_k`` keeps the k largest; ``top_p`` then keeps the likeliest tokens while the mass before them is below p (the
   first always stays); ``min_p`` then keeps those at least ``min_p`` times as likely as the likeliest.
6. One uniform number u in [0, 1) from (seed, position of the new token, index of the sequence); the token is the first,
   in order of id, at which the running sum of the kept probabilities (float64) exceeds u times their sum.

u depends on nothing else, so a seed gives the same tokens whatever else is in the batch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.grammar.compiler import Grammar

from engine.token_mask import mask_of

MAX_INTEGER = 2**31 - 1
MAX_LOGPROBS = 20
MAX_STOP_STRINGS = 24  # a request may have 16; a prompt format adds its own
MAX_STOP_CHARS = 256
MAX_LOGIT_BIAS = 1024
MAX_ABS_LOGIT_BIAS = 100.0
MAX_ALLOWED_TOKEN_IDS = 1024
MAX_LOGPROB_TOKEN_IDS = 128  # vLLM's bound
MAX_SEED = 2**63 - 1
SMALLEST_NORMAL_FLOAT32 = 2.0**-126


class SamplingParamsError(ValueError):
    """A sampling field is out of range. ``param`` names it, so an API can point at it."""

    def __init__(self, param: str, value: object, allowed: str) -> None:
        super().__init__(f"{param}={str(value)[:80]} is not allowed: {allowed}.")
        self.param = param


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What one numeric setting may be, and what it does.

    Attributes:
        kind: ``float`` or ``int``.
        low, high: the range [low, high]; (low, high] with ``open_low``.
        does: the description, without range and default.
        is_optional: ``None`` is allowed.
        shapes_row: a row's distribution depends on it, so the runner's rows have it under this name.
        from_checkpoint: a checkpoint's generation_config.json may bring another default.
    """

    kind: type[float] | type[int]
    default: float | None
    low: float
    high: float
    does: str
    open_low: bool = False
    is_optional: bool = False
    shapes_row: bool = False
    from_checkpoint: bool = False

    @property
    def allowed(self) -> str:
        """The range in words: ``a number above 0 to 1``."""
        return f"{'an integer' if self.kind is int else 'a number'} {self.range}"

    @property
    def range(self) -> str:
        """``from 0 to 2``, ``above 0 to 1``; ``from 0`` where the end is only the largest integer."""
        begin = f"{'above' if self.open_low else 'from'} {_text(self.low)}"
        return begin if self.high == MAX_INTEGER else f"{begin} to {_text(self.high)}"

    def check(self, name: str, value: float | None) -> None:
        """Raises: SamplingParamsError."""
        if value is None and self.is_optional:
            return
        if value is None or not self._contains(value):
            raise SamplingParamsError(name, value, self.allowed)

    def _contains(self, value: float) -> bool:
        above_low = value > self.low if self.open_low else value >= self.low
        return math.isfinite(value) and above_low and value <= self.high


def _number(default: float, low: float, high: float, does: str, **more: bool) -> Any:
    """A field that carries its ``Setting``."""
    return _setting(Setting(kind=float, default=default, low=low, high=high, does=does, **more))


def _integer(default: int | None, low: int, high: int, does: str, **more: bool) -> Any:
    return _setting(Setting(kind=int, default=default, low=low, high=high, does=does, **more))


def _text(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def _setting(setting: Setting) -> Any:
    return field(default=setting.default, metadata={"setting": setting})


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Sampling settings. ``SETTINGS`` has the range of each number and what it does.

    Attributes:
        logit_bias: token id -> what is added to its logit, from -100 to 100.
        allowed_token_ids: nothing else is sampled; kept distinct and in rising order; empty allows all.
        allowed_mask: ``allowed_token_ids`` as bits (``token_mask.py``), made once; ``None`` allows all.
        logprob_token_ids: with ``logprobs`` these are reported beside each chosen token, and not the likeliest ones.
        prompt_ranks: log probabilities of the prompt come with the rank of each token.
        grammar: what the output must be. What it forces is not sampled, and when nothing may follow the sequence ends.
        closes: a token after which the grammar could not be complete within ``max_tokens`` gives way to a way to its end.
        stop: strings that end the text and are not part of it.
        stop_token_ids: ids that end the sequence.
        ignore_eos: the model's end tokens do not end the sequence.

    Raises:
        SamplingParamsError: a value is out of range.
    """

    repetition_penalty: float = _number(
        1.0, 0.0, 10.0, "makes tokens of prompt and output less likely", open_low=True, shapes_row=True
    )
    frequency_penalty: float = _number(
        0.0, -2.0, 2.0, "makes tokens of the output less likely, by their count", shapes_row=True
    )
    presence_penalty: float = _number(0.0, -2.0, 2.0, "makes tokens of the output less likely", shapes_row=True)
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    temperature: float = _number(
        1.0, 0.0, 2.0, "0 is exact argmax, the lowest id on a tie", shapes_row=True, from_checkpoint=True
    )
    top_k: int = _integer(
        0, -1, MAX_INTEGER, "draw from the k likeliest tokens; 0 and -1 keep all", shapes_row=True, from_checkpoint=True
    )
    top_p: float = _number(
        1.0,
        0.0,
        1.0,
        "draw from the likeliest tokens that make up this mass; 0 is the likeliest token",
        shapes_row=True,
        from_checkpoint=True,
    )
    min_p: float = _number(0.0, 0.0, 1.0, "drop tokens less likely than this times the likeliest", shapes_row=True)
    seed: int | None = _integer(
        None,
        -MAX_SEED - 1,
        MAX_SEED,
        "the same seed gives the same text whatever else runs",
        is_optional=True,
    )
    n: int = _integer(1, 1, 64, "choices")
    max_tokens: int | None = _integer(
        16, 0, MAX_INTEGER, "no more tokens than this; none: as many as the context has room for", is_optional=True
    )
    min_tokens: int = _integer(0, 0, MAX_INTEGER, "no end before so many tokens; at most the token limit")
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = _integer(
        None, 0, MAX_LOGPROBS, "alternatives reported beside each chosen token", is_optional=True
    )
    prompt_logprobs: int | None = _integer(None, 0, MAX_LOGPROBS, "the same for every prompt token", is_optional=True)
    prompt_ranks: bool = False
    allowed_token_ids: tuple[int, ...] = ()
    logprob_token_ids: tuple[int, ...] = ()
    grammar: "Grammar | None" = None
    closes: bool = False
    allowed_mask: bytes | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, setting in SETTINGS.items():
            setting.check(name, getattr(self, name))
        self._check_logit_bias()
        self._check_ends()
        self._check_token_ids()
        object.__setattr__(self, "allowed_token_ids", tuple(sorted(set(self.allowed_token_ids))))
        object.__setattr__(self, "allowed_mask", mask_of(self.allowed_token_ids) if self.allowed_token_ids else None)
        object.__setattr__(self, "logprob_token_ids", tuple(dict.fromkeys(self.logprob_token_ids)))
        # -1 is how vLLM and SGLang write "all"; a mass of 0 is made up by the likeliest token alone, as any small one is.
        object.__setattr__(self, "top_k", max(self.top_k, 0))
        object.__setattr__(self, "top_p", max(self.top_p, SMALLEST_NORMAL_FLOAT32))
        object.__setattr__(self, "logit_bias", MappingProxyType(dict(self.logit_bias)))
        object.__setattr__(self, "stop", tuple(self.stop))
        object.__setattr__(self, "stop_token_ids", tuple(self.stop_token_ids))

    def _check_logit_bias(self) -> None:
        if len(self.logit_bias) > MAX_LOGIT_BIAS:
            raise SamplingParamsError("logit_bias", f"{len(self.logit_bias)} entries", f"at most {MAX_LOGIT_BIAS}")
        for token_id, bias in self.logit_bias.items():
            if not (math.isfinite(bias) and abs(bias) <= MAX_ABS_LOGIT_BIAS):
                raise SamplingParamsError(f"logit_bias.{token_id}", bias, "a number from -100 to 100")

    def _check_token_ids(self) -> None:
        bounds = {"allowed_token_ids": MAX_ALLOWED_TOKEN_IDS, "logprob_token_ids": MAX_LOGPROB_TOKEN_IDS}
        for name, most in bounds.items():
            token_ids = getattr(self, name)
            if len(token_ids) > most:
                raise SamplingParamsError(name, f"{len(token_ids)} token ids", f"at most {most}")
        if self.logprob_token_ids and self.logprobs is None:
            raise SamplingParamsError(
                "logprob_token_ids", f"{len(self.logprob_token_ids)} token ids", "only with logprobs"
            )

    def _check_ends(self) -> None:
        if self.closes and self.logprobs is not None:
            raise SamplingParamsError(
                "logprobs", self.logprobs, "none with x_close, which may put another token in place"
            )
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise SamplingParamsError("min_tokens", self.min_tokens, f"at most max_tokens, {self.max_tokens}")
        if len(self.stop) > MAX_STOP_STRINGS:
            raise SamplingParamsError("stop", f"{len(self.stop)} strings", f"at most {MAX_STOP_STRINGS}")
        for text in self.stop:
            if not 1 <= len(text) <= MAX_STOP_CHARS:
                raise SamplingParamsError("stop", f"{len(text)} characters", f"1 to {MAX_STOP_CHARS}")


SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {each.name: each.metadata["setting"] for each in fields(SamplingParams) if "setting" in each.metadata}
)
"""Every numeric setting by name, in the order of the fields."""
