"""The body of ``POST /v1/decisions``: OpenAI's names, types and limits.

Owns what a client may write; the notes on it are in ``decision_notes``. One model stands for all kinds of questions and one for all
kinds of input items, so that an error names the place and not a variant; what goes together is checked by
``questions`` and ``decision_input``. Knows no engine. Immutable; large bodies are parsed in a worker thread.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from openai_api.request.decision_notes import MAX_INPUT_ITEMS, MAX_OPTIONS_OF_QUESTION, MAX_QUESTIONS
from openai_api.request.messages import Content
from openai_api.request.neutral_fields import IN_ANY_REQUEST
from openai_api.request.neutral_values import any_value
from openai_api.request.strict_model import StrictModel


def _json_as_text(value: object) -> object:
    """``input_json`` is read as the JSON that it is."""
    if not isinstance(value, list):
        return value
    return [_text_of_json(part) if _is_json(part) else part for part in value]


def _is_json(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "input_json" and isinstance(part.get("data"), dict | list)


def _text_of_json(part: Mapping[str, object]) -> dict[str, object]:
    rest = {name: value for name, value in part.items() if name not in ("type", "data")}
    return {**rest, "type": "text", "text": json_text(part["data"])}


def json_text(value: object) -> str:
    """A string as it is, anything else as JSON in one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


Texts = Annotated[Content, BeforeValidator(_json_as_text)]


def _as_items(value: object) -> object:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


class InputItem(StrictModel):
    """A message, a call of a tool, or what the tool gave back."""

    neutral = any_value("id namespace status phase")

    type: Literal["message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"] = (
        "message"
    )
    role: Literal["user", "developer", "system", "assistant"] | None = None
    content: Texts | None = None
    name: str | None = None
    arguments: str | None = None
    input: str | None = None
    call_id: str | None = None
    output: Texts | None = None


Input = Annotated[
    list[InputItem],
    Field(min_length=1, max_length=MAX_INPUT_ITEMS, fail_fast=True),
    BeforeValidator(_as_items, json_schema_input_type=str | list[InputItem]),
]


def _choice_value(value: object) -> object:
    if not isinstance(value, str | bool):
        raise PydanticCustomError("choice_value", "a string, true or false")
    return value


class DecisionChoice(StrictModel):
    """A string and a boolean with the same text are two choices."""

    value: Annotated[
        str | bool, PlainValidator(_choice_value), WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "boolean"}]})
    ]
    description: str | None = None


class DecisionLevel(StrictModel):
    """Of a score; its place among the levels is its value."""

    label: str
    description: str | None = None


class DecisionQuestion(StrictModel):
    """``choices`` are a choice's, ``levels`` a score's; a predicate has neither."""

    type: Literal["predicate", "choice", "score"]
    instructions: Texts
    name: str | None = None
    choices: Annotated[
        list[DecisionChoice] | None, Field(min_length=2, max_length=MAX_OPTIONS_OF_QUESTION, fail_fast=True)
    ] = None
    levels: Annotated[
        list[DecisionLevel] | None, Field(min_length=2, max_length=MAX_OPTIONS_OF_QUESTION, fail_fast=True)
    ] = None


class DecisionRequest(StrictModel):
    """Questions about one input; the answers come in their order."""

    neutral = IN_ANY_REQUEST

    model: str | None = None
    input: Input
    questions: Annotated[list[DecisionQuestion], Field(min_length=1, max_length=MAX_QUESTIONS, fail_fast=True)]
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    safety_identifier: str | None = None
