"""From the fields that chat and text completions share to the engine's ``SamplingParams``.

Owns the precedence of request, checkpoint and default; names no setting, as
``engine.sampling_params`` has them all. Runs on the event loop.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.grammar.compiler import Grammar
from engine.sampling_params import SamplingParams
from openai_api.app_state import AppState
from openai_api.errors import MAX_PARAM_CHARS, invalid_value
from openai_api.request.field_support import BODY_SETTINGS, MAX_ANSWER_VALUES, OTHER_NAMES
from openai_api.request.prompts import check_token_ids
from openai_api.request.schemas import NO_LIMIT, SamplingFields


def sampling_params(
    body: SamplingFields,
    app_state: AppState,
    *,
    max_tokens: int | None,
    logprobs: int | None,
    echo_logprobs: int | None = None,
    stop: Sequence[str] = (),
    stop_token_ids: Sequence[int] = (),
    grammar: Grammar | None = None,
) -> SamplingParams:
    """What ``body`` asks of the engine.

    Each setting is the request's, else the checkpoint's where it may bring one, else the engine's
    default. ``stop`` and ``stop_token_ids`` are those of the prompt's format, beside what the
    request asks for; ``ignore_eos`` is about these too. ``echo_logprobs`` are alternatives beside
    each token of a prompt that is echoed. ``grammar`` is what the answer must be.

    Raises:
        ApiError: 400, a token id is outside of the vocabulary, or two names of a setting differ.
        SamplingParamsError: two settings do not go together.
    """
    for name in ("stop_token_ids", "allowed_token_ids", "logprob_token_ids"):
        check_token_ids(app_state, getattr(body, name) or (), param=name)
    if grammar is not None and body.allowed_token_ids is not None:
        message = "'allowed_token_ids' does not go with a field that says what the answer must be; give one of them."
        raise invalid_value("allowed_token_ids", message)
    num_prompt_logprobs = prompt_logprobs(body)
    params = SamplingParams(
        **_settings(body, app_state.engine.info.default_sampling),
        logit_bias=_logit_bias(body, app_state),
        max_tokens=None if max_tokens == NO_LIMIT else max_tokens,
        stop=(*(body.stop or ()), *(() if body.ignore_eos else stop)),
        stop_token_ids=(*(body.stop_token_ids or ()), *(() if body.ignore_eos else stop_token_ids)),
        ignore_eos=bool(body.ignore_eos),
        logprobs=logprobs,
        prompt_logprobs=max((n for n in (num_prompt_logprobs, echo_logprobs) if n is not None), default=None),
        prompt_ranks=num_prompt_logprobs is not None,
        allowed_token_ids=tuple(body.allowed_token_ids or ()),
        logprob_token_ids=tuple(body.logprob_token_ids or ()),
        grammar=grammar,
        closes=bool(body.x_close),
    )
    _check_answer_size(params, app_state.engine.info.max_model_len)
    return params


def prompt_logprobs(body: SamplingFields) -> int | None:
    """How many alternatives to report beside each prompt token; ``None`` reports nothing of them.

    A stream has no place for them; 0 is then passed over, as vLLM does.

    Raises:
        ApiError: 400, a stream is to have some.
    """
    if not body.stream:
        return body.prompt_logprobs
    if body.prompt_logprobs:
        raise invalid_value("prompt_logprobs", "'prompt_logprobs' are not available with 'stream': true.")
    return None


def _check_answer_size(params: SamplingParams, max_model_len: int) -> None:
    if params.logprobs is None:
        return
    num_tokens = params.n * min(max_model_len if params.max_tokens is None else params.max_tokens, max_model_len)
    num_values = num_tokens * (1 + (len(params.logprob_token_ids) or params.logprobs))
    if num_values > MAX_ANSWER_VALUES:
        message = f"The answer might have {num_values} log probabilities, at most {MAX_ANSWER_VALUES} are allowed: "
        raise invalid_value("n", f"{message}set a lower 'n' or 'max_tokens'.")


def _settings(body: SamplingFields, of_checkpoint: Mapping[str, float]) -> dict[str, Any]:
    """The settings that the request or the checkpoint chooses, by name."""
    chosen = {}
    for name, setting in BODY_SETTINGS.items():
        value = _asked(body, name)
        if value is None and setting.from_checkpoint:
            value = of_checkpoint.get(name)
        if value is not None:
            chosen[name] = setting.kind(value)
    return chosen


def _asked(body: SamplingFields, name: str) -> float | None:
    """The value under the setting's own name or another one."""
    asked: float | None = getattr(body, name)
    for other in (other for other, own in OTHER_NAMES.items() if own == name):
        value: float | None = getattr(body, other)
        if None not in (value, asked) and value != asked:
            raise invalid_value(other, f"'{other}' differs from '{name}'; give one of them.")
        asked = value if asked is None else asked
    return asked


def _logit_bias(body: SamplingFields, app_state: AppState) -> dict[int, float]:
    bias = body.logit_bias or {}
    for name in bias:
        # isdecimal() also takes other scripts' digits, and int() takes signs, spaces and underscores.
        if not (name.isascii() and name.isdecimal() and len(name) < 10):
            param = f"logit_bias.{name}"[:MAX_PARAM_CHARS]
            raise invalid_value(param, f"Invalid value for '{param}': its name must be a token id.")
    by_token_id = {int(name): value for name, value in bias.items()}
    check_token_ids(app_state, tuple(by_token_id), param="logit_bias")
    return by_token_id
