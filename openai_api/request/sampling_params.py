"""From the fields that chat and text completions share to the engine's ``SamplingParams``."""

from collections.abc import Sequence

from engine.sampling_params import SamplingParams
from openai_api.app_state import AppState
from openai_api.errors import invalid_value
from openai_api.request.prompts import check_token_ids
from openai_api.request.schemas import SamplingFields

DEFAULT_TEMPERATURE = 1.0
DEFAULT_TOP_P = 1.0
DEFAULT_TOP_K = 0


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
    """``stop`` and ``stop_token_ids`` are those of the prompt's format, beside what the request asks for; ``ignore_eos`` is
    about these too.

    What the request leaves out comes from the checkpoint's generation_config.json, then from OpenAI's defaults.
    """
    defaults = app_state.engine.info.default_sampling
    check_token_ids(app_state, body.stop_token_ids or (), param="stop_token_ids")
    return SamplingParams(
        temperature=_first(body.temperature, defaults.get("temperature"), DEFAULT_TEMPERATURE),
        top_p=_first(body.top_p, defaults.get("top_p"), DEFAULT_TOP_P),
        top_k=int(_first(body.top_k, defaults.get("top_k"), DEFAULT_TOP_K)),
        min_p=_first(body.min_p, 0.0),
        frequency_penalty=_first(body.frequency_penalty, 0.0),
        presence_penalty=_first(body.presence_penalty, 0.0),
        repetition_penalty=_first(body.repetition_penalty, 1.0),
        logit_bias=_logit_bias(body, app_state),
        seed=body.seed,
        n=body.n or 1,
        max_tokens=max_tokens,
        min_tokens=body.min_tokens or 0,
        stop=(*(body.stop or ()), *(() if body.ignore_eos else stop)),
        stop_token_ids=(*(body.stop_token_ids or ()), *(() if body.ignore_eos else stop_token_ids)),
        ignore_eos=bool(body.ignore_eos),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
    )


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _logit_bias(body: SamplingFields, app_state: AppState) -> dict[int, float]:
    bias = body.logit_bias or {}
    # isdecimal() also takes other scripts' digits, and int() takes signs, spaces and underscores.
    if not all(name.isascii() and name.isdecimal() and len(name) < 10 for name in bias):
        raise invalid_value("logit_bias", "Invalid value for 'logit_bias': its names must be token ids.")
    by_token_id = {int(name): value for name, value in bias.items()}
    check_token_ids(app_state, tuple(by_token_id), param="logit_bias")
    return by_token_id
