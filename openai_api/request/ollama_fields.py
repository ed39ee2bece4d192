"""The request bodies of Ollama's API: names, types and ranges, as its own clients send them.

Owns what differs from OpenAI's bodies: settings within ``options``, ``stream`` true unless said
otherwise, ``format``, ``keep_alive``. What becomes of them is in ``ollama_as_openai``. Knows neither
the engine nor the answer. Immutable; large bodies are parsed in a worker thread. Sources: Ollama's
docs/api.md and api/types.go, ollama-python's ``_types.py``.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from engine.sampling_params import SETTINGS
from openai_api.request.field_support import LOGPROBS, MAX_MESSAGES
from openai_api.request.messages import ChatMessage
from openai_api.request.neutral_fields import IN_ANY_REQUEST
from openai_api.request.neutral_values import OFF, ZERO, Values, any_value
from openai_api.request.ollama_notes import NUM_PREDICT
from openai_api.request.schemas import GenerationRequest, StopStrings, TokenIds
from openai_api.request.setting_fields import in_range
from openai_api.request.strict_model import StrictModel
from openai_api.request.tool_fields import MAX_TOOLS, ToolEntry

# Go's durations, and plain numbers of seconds.
_DURATION = re.compile(r"[+-]?(?:(?:\d+(?:\.\d+)?(?:ns|us|ms|s|m|h))+|\d+(?:\.\d+)?)", re.ASCII)
_MAX_DURATION_CHARS = 64

IN_OPTIONS: Mapping[str, Values] = {**IN_ANY_REQUEST, "embedding_only": OFF}
IN_OLLAMA: Mapping[str, Values] = {
    **{name: values for name, values in IN_ANY_REQUEST.items() if name != "keep_alive"},
    **any_value("truncate shift"),  # what is too long is told, and nothing is ever shifted
    "tool_choice": ("", "auto"),
    "logprobs": ZERO,
    "width": ZERO,  # these three are of pictures
    "height": ZERO,
    "steps": ZERO,
}


def _streams(value: object) -> object:
    return True if value is None else value


def _duration(value: object) -> float | str:
    """As it was sent: only zero means anything here."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_text = isinstance(value, str) and len(value) <= _MAX_DURATION_CHARS and _DURATION.fullmatch(value)
    if not (is_number or is_text):
        raise PydanticCustomError("duration", "a number of seconds, or a duration")
    return value  # type: ignore[return-value]


def _format(value: object) -> dict[str, Any] | str:
    if not (isinstance(value, dict) or value == "json"):
        raise PydanticCustomError("format_type", "'json' or a JSON schema")
    return value


class OllamaMessage(ChatMessage):
    """A chat message; ``tool_name`` is Ollama's word for the name of a tool whose result it is, and
    without ``content`` it is empty, whoever's it is.
    """

    @model_validator(mode="before")
    @classmethod
    def _in_our_words(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        named = {} if data.get("name") is not None else {"name": data.get("tool_name")}
        says = data.get("content") is not None or data.get("refusal") is not None
        filled = {} if says else {"content": ""}
        return {**data, **named, **filled}


class OllamaOptions(StrictModel):
    """The settings of one answer; ``num_predict`` is in tokens, 0 and less is without a limit."""

    neutral = IN_OPTIONS

    temperature: Annotated[float | None, *in_range(SETTINGS["temperature"])] = None
    top_k: Annotated[int | None, *in_range(SETTINGS["top_k"])] = None
    top_p: Annotated[float | None, *in_range(SETTINGS["top_p"])] = None
    min_p: Annotated[float | None, *in_range(SETTINGS["min_p"])] = None
    seed: Annotated[int | None, *in_range(SETTINGS["seed"])] = None
    repeat_penalty: Annotated[float | None, *in_range(SETTINGS["repetition_penalty"])] = None
    presence_penalty: Annotated[float | None, *in_range(SETTINGS["presence_penalty"])] = None
    frequency_penalty: Annotated[float | None, *in_range(SETTINGS["frequency_penalty"])] = None
    num_predict: Annotated[int | None, *in_range(NUM_PREDICT)] = None
    stop: StopStrings | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_unused_window(cls, data: object) -> object:
        """Without a penalty it does not matter how far back one looks."""
        if not isinstance(data, dict) or "repeat_last_n" not in data:
            return data
        penalties = (data.get("repeat_penalty"), data.get("presence_penalty"), data.get("frequency_penalty"))
        if any(given not in (None, none) for given, none in zip(penalties, (1, 0, 0), strict=True)):
            return data
        return {name: value for name, value in data.items() if name != "repeat_last_n"}


class OllamaRequest(GenerationRequest):
    """What both ways to generate have in common. ``keep_alive`` is seconds or text, as it was sent."""

    neutral = IN_OLLAMA

    stream: Annotated[bool, BeforeValidator(_streams)] = True
    format: (
        Annotated[
            dict[str, Any] | str,
            PlainValidator(_format),
            WithJsonSchema({"anyOf": [{"const": "json"}, {"type": "object"}]}),
        ]
        | None
    ) = None
    options: OllamaOptions | None = None
    keep_alive: (
        Annotated[
            float | str,
            PlainValidator(_duration),
            WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}]}),
        ]
        | None
    ) = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, *in_range(LOGPROBS)] = None

    @property
    def unloads(self) -> bool:
        """Nothing shall stay in memory, says ``keep_alive``; only asked of a request for no text."""
        return self.keep_alive is not None and not re.search(r"[1-9]", str(self.keep_alive))


class OllamaChatRequest(OllamaRequest):
    """Without ``messages`` it is about loading the model, or unloading it."""

    messages: Annotated[list[OllamaMessage], Field(max_length=MAX_MESSAGES, fail_fast=True)] | None = None
    tools: Annotated[list[ToolEntry], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None


class OllamaGenerateRequest(OllamaRequest):
    """Without a ``prompt`` it is about loading the model, or unloading it. ``context`` is token ids."""

    prompt: str | None = None
    system: str | None = None
    context: TokenIds | None = None
    raw: bool | None = None


class NamedModelRequest(StrictModel):
    """A model by its name, or by the older ``name``; ``None`` is the served one."""

    neutral = IN_ANY_REQUEST

    model: str | None = None
    name: str | None = None

    @property
    def named(self) -> str | None:
        """The model that is meant."""
        return self.model if self.model is not None else self.name


class ShowRequest(NamedModelRequest):
    """What is told of a model does not depend on ``verbose``."""

    verbose: bool | None = None


class PullRequest(NamedModelRequest):
    """Only the served model is there to be had, so nothing is fetched, safely or not."""

    stream: Annotated[bool, BeforeValidator(_streams)] = True
    insecure: bool | None = None
