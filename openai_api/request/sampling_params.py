"""From the fields that chat and text completions share to the engine's ``SamplingParams``.

Owns the precedence of request, checkpoint and default; names no setting, as
``engine.sampling_params`` has them all. Runs on the event loop.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.sampling_params import SamplingParams
from openai_api.app_state import AppState
from openai_api.errors import invalid_value
from openai_api.request.field_support import BODY_SETTINGS
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
        ApiError: 400, a token id is outside of the vocabulary.
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
        value = getattr(body, name)
        if value is None and setting.from_checkpoint:
            value = of_checkpoint.get(name)
        if value is not None:
            chosen[name] = setting.kind(value)
    return chosen


def _logit_bias(body: SamplingFields, app_state: AppState) -> dict[int, float]:
    bias = body.logit_bias or {}
    # isdecimal() also takes other scripts' digits, and int() takes signs, spaces and underscores.
    if not all(name.isascii() and name.isdecimal() and len(name) < 10 for name in bias):
        raise invalid_value("logit_bias", "Invalid value for 'logit_bias': its names must be token ids.")
    by_token_id = {int(name): value for name, value in bias.items()}
    check_token_ids(app_state, tuple(by_token_id), param="logit_bias")
    return by_token_id


def check_stream_options(body: SamplingFields) -> None:
    """Raises: ApiError 400 for options of a stream that is not asked for."""
    if body.stream_options is not None and not body.stream:
        raise invalid_value("stream_options", "'stream_options' is only allowed with 'stream': true.")
