"""From the bodies of Ollama's API to those of OpenAI's, which the one way to generate takes.

Owns which field is which, and that errors name the client's own. Knows neither the engine nor the
answer. Pure; the event loop calls it: what was checked once is not checked again.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from openai_api.errors import ApiError, invalid_value
from openai_api.request.messages import ChatMessage
from openai_api.request.ollama_fields import OllamaChatRequest, OllamaGenerateRequest, OllamaOptions, OllamaRequest
from openai_api.request.schemas import NO_LIMIT, ChatCompletionRequest, CompletionRequest

_OWN_NAMES: Mapping[str, str] = {
    "guided_json": "format",
    "structured_outputs.json_object": "format",
    "max_tokens": "options.num_predict",
    "repetition_penalty": "options.repeat_penalty",
}
_OF_GENERATE: Mapping[str, str] = {**_OWN_NAMES, "messages": "prompt"}
_QUOTED = re.compile(r"'([a-z_.]+)'")


def chat_request(body: OllamaChatRequest) -> ChatCompletionRequest:
    """``body`` in chat's words. A last message that is the assistant's is continued, as by Ollama."""
    messages = body.messages or []
    continues = messages[-1].role == "assistant" and bool(messages[-1].text) and not messages[-1].calls
    return ChatCompletionRequest.model_validate(
        {
            **_shared(body),
            "messages": messages,
            "continue_final_message": continues or None,
            "tools": body.tools,
            "logprobs": body.logprobs,
            "top_logprobs": body.top_logprobs,
        }
    )


def one_turn_request(body: OllamaGenerateRequest) -> ChatCompletionRequest:
    """The chat whose only turn is the prompt of ``body``."""
    return ChatCompletionRequest.model_validate(
        {
            **_shared(body),
            "messages": turn_of(body),
            "logprobs": body.logprobs,
            "top_logprobs": body.top_logprobs,
        }
    )


def turn_of(body: OllamaGenerateRequest) -> list[ChatMessage]:
    """The system message, if there is one, and the prompt."""
    told = (("system", body.system), ("user", body.prompt))
    return [ChatMessage.model_validate({"role": role, "content": text}) for role, text in told if text]


def raw_request(body: OllamaGenerateRequest) -> CompletionRequest:
    """The completion of the prompt as it is. Names of control tokens become those tokens, as by Ollama.

    Raises:
        ApiError: 400, a field that only a chat has.
    """
    for name in ("system", "context"):
        if getattr(body, name):
            raise invalid_value(name, f"'{name}' does not go with 'raw': true.")
    if body.top_logprobs is not None and not body.logprobs:
        raise invalid_value("top_logprobs", "'top_logprobs' is only allowed with 'logprobs': true.")
    return CompletionRequest.model_validate(
        {
            **_shared(body),
            "prompt": body.prompt,
            "parse_special": True,
            "logprobs": (body.top_logprobs or 0) if body.logprobs else None,
        }
    )


def _shared(body: OllamaRequest) -> dict[str, Any]:
    options = body.options or OllamaOptions()
    settings = {name: getattr(options, name) for name in OllamaOptions.model_fields if name != "num_predict"}
    limit = options.num_predict or 0
    return {
        **settings,
        **_format(body),
        "max_tokens": limit if limit > 0 else NO_LIMIT,
        "stream": body.stream,
    }


def _format(body: OllamaRequest) -> dict[str, Any]:
    if body.format is None:
        return {}
    return {"structured_outputs": {"json_object": True}} if body.format == "json" else {"guided_json": body.format}


@contextmanager
def in_own_words(body: OllamaRequest) -> Iterator[None]:
    """Errors of what is done inside name the fields of ``body``."""
    names = _OF_GENERATE if isinstance(body, OllamaGenerateRequest) and not body.raw else _OWN_NAMES
    try:
        yield
    except ApiError as error:
        message = _QUOTED.sub(lambda found: f"'{names.get(found[1], found[1])}'", error.message)
        param = None if error.param is None else names.get(error.param, error.param)
        raise ApiError(error.status, message, code=error.code, param=param, headers=error.headers) from None
