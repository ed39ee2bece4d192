"""From the fields that chat and text completions share to the engine's ``SamplingParams``.

Owns the precedence of request, checkpoint and default; names no setting, as
``engine.sampling_params`` has them all. Runs on the event loop.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.sampling_params import SamplingParams
from openai_api.app_state import AppState
from openai_api.errors import MAX_PARAM_CHARS, invalid_value
from openai_api.request.field_support import BODY_SETTINGS, OTHER_NAMES
from openai_api.request.prompts import check_token_ids
from openai_api.request.schemas import SamplingFields


def sampling_params(
    body: SamplingFields,
    app_state: AppState,
    *,
    max_tokens: int | None,
    logprobs: int | None,
    prompt_logprobs: int | None = None,
    stop: Sequence[str] = (),
    stop_token_ids: Sequence[int] = (),
) -> SamplingParams:
    """What ``body`` asks of the engine.

    Each setting is the request's, else the checkpoint's where it may bring one, else the engine's
    default. ``stop`` and ``stop_token_ids`` are those of the prompt's format, beside what the
    request asks for; ``ignore_eos`` is about these too.

    Raises:
        ApiError: 400, a token id is outside of the vocabulary, or two names of a setting differ.
        SamplingParamsError: two settings do not go together.
    """
    check_token_ids(app_state, body.stop_token_ids or (), param="stop_token_ids")
    return SamplingParams(
        **_settings(body, app_state.engine.info.default_sampling),
        logit_bias=_logit_bias(body, app_state),
        max_tokens=max_tokens,
        stop=(*(body.stop or ()), *(() if body.ignore_eos else stop)),
        stop_token_ids=(*(body.stop_token_ids or ()), *(() if body.ignore_eos else stop_token_ids)),
        ignore_eos=bool(body.ignore_eos),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
    )


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
