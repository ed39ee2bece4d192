"""The messages of a chat: the models, and what SDKs put into the messages that they hand back.

Owns names and types, and how other spellings become these: a text becomes a part, an old function
call a tool call. Knows no format of a prompt. Immutable; large bodies are parsed in a worker
thread.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from openai_api.request.field_support import MAX_MESSAGES, MAX_TOOL_CALLS
from openai_api.request.neutral_values import NO_LIST, OFF, ONLY_NULL, Values, any_value
from openai_api.request.strict_model import StrictModel

# An answer's trimmings, or those of another model's: they were never part of the conversation.
_OF_MESSAGES = (
    "annotations cache_control citations content_filter_results context created_at end_turn executed_tools "
    "finish_reason id index logprobs metadata parsed provider_specific_fields reasoning reasoning_content "
    "reasoning_details search_results status stop_reason thinking thinking_blocks timestamp token_ids tool_name usage "
    "weight "
    # LangChain, LlamaIndex, AutoGen, pydantic-ai, AI SDK, openai-agents
    "additional_kwargs response_metadata usage_metadata example artifact model model_name source models_usage "
    "provider_data provider_details provider_name provider_response_id providerMetadata providerOptions "
    "experimental_providerMetadata createdAt is_error kind object created response_id "
    # Open WebUI, LibreChat, Ollama's own clients
    "childrenIds parentId parent_id parentMessageId messageId conversationId conversation_id sender isCreatedByUser "
    "tokenCount token_count done done_reason info sources error unfinished feedback state "
    "reasoning_items reasoning_text encrypted_content signature tool_plan"
)
# What these hold would be part of the conversation.
_EMPTY_IN_MESSAGES = "images tools files attachments experimental_attachments parts toolInvocations invalid_tool_calls"
_OF_PARTS = (
    "additional_kwargs annotations cache_control citations encrypted_content extras id index logprobs "
    "prompt_cache_breakpoint provider_specific_fields providerMetadata providerOptions signature state"
)
_OF_TOOL_CALLS = "cache_control index parsed_arguments provider_specific_fields thought_signature"

# Parts of other kinds that are a text all the same, and the name under which they have it.
_OTHER_TEXTS: Mapping[str, str] = {"input_text": "text", "output_text": "text", "refusal": "refusal"}
_THOUGHTS = frozenset({"thinking", "redacted_thinking", "reasoning"})
_OTHER_ROLES: Mapping[str, str] = {"ipython": "tool", "model": "assistant"}  # Llama's and Gemma's own words
_MAY_BE_EMPTY = frozenset({"assistant", "tool", "function"})


_NEUTRAL_IN_MESSAGE: Mapping[str, Values] = {
    **any_value(_OF_MESSAGES),
    **dict.fromkeys(_EMPTY_IN_MESSAGES.split(), NO_LIST),
    "audio": ONLY_NULL,
    "partial": OFF,
    "type": ("message", "text"),  # OpenAI's responses; lm-eval's api_models.py
}


def _as_text_part(part: object) -> object:
    if isinstance(part, str):  # as vLLM takes it
        return {"type": "text", "text": part}
    if not isinstance(part, dict):
        return part
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in _OTHER_TEXTS:
        return part
    rest = {name: value for name, value in part.items() if name not in ("type", _OTHER_TEXTS[kind])}
    return {**rest, "type": "text", "text": part.get(_OTHER_TEXTS[kind])}


def _is_thought(part: object) -> bool:
    return isinstance(part, dict) and isinstance(part.get("type"), str) and part["type"] in _THOUGHTS


def _as_text_parts(value: object) -> object:
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    if isinstance(value, list):
        return [_as_text_part(part) for part in value if not _is_thought(part)]
    return value


class TextPart(StrictModel):
    """A part of a message; other types than texts are a 400 ``unsupported_parameter``."""

    neutral = any_value(_OF_PARTS)

    type: Literal["text"]
    text: str


Content = Annotated[
    list[TextPart],
    Field(fail_fast=True),
    BeforeValidator(_as_text_parts, json_schema_input_type=str | list[TextPart]),
]


def joined(parts: list[TextPart]) -> str:
    """The parts without anything between them, in characters as the client sent them."""
    return "".join(part.text for part in parts)


def _as_json_text(value: object) -> object:
    """Ollama and some SDKs have the arguments as an object; OpenAI, which has their JSON, as null."""
    return json.dumps(value or {}, ensure_ascii=False) if value is None or isinstance(value, dict) else value


class FunctionCall(StrictModel):
    """What was called; ``arguments`` is JSON, as the model wrote it."""

    neutral = any_value(_OF_TOOL_CALLS)

    name: str
    arguments: Annotated[str, BeforeValidator(_as_json_text, json_schema_input_type=str | dict[str, object])] = "{}"


class ToolCallEntry(StrictModel):
    """One call of a tool in an assistant's message."""

    neutral = any_value(_OF_TOOL_CALLS)

    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionCall


def _own_role(value: object) -> object:
    return _OTHER_ROLES.get(value, value) if isinstance(value, str) else None


Role = Annotated[
    Literal["system", "developer", "user", "assistant", "tool", "function"],
    BeforeValidator(_own_role),
]


class ChatMessage(StrictModel):
    """One turn. ``content`` is a list of text parts, also where the client sent a string or nothing."""

    neutral = _NEUTRAL_IN_MESSAGE

    role: Role
    content: Content
    name: str | None = None
    tool_calls: Annotated[list[ToolCallEntry], Field(max_length=MAX_TOOL_CALLS, fail_fast=True)] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None
    refusal: str | None = None
    prefix: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_content(cls, data: object) -> object:
        """Who calls a tool need say nothing; who refuses says so elsewhere."""
        if isinstance(data, dict) and data.get("content") is None and _own_role(data.get("role")) in _MAY_BE_EMPTY:
            refusal = data.get("refusal")
            return {**data, "content": refusal if isinstance(refusal, str) else []}
        return data

    @property
    def text(self) -> str:
        """The parts joined."""
        return joined(self.content)

    @property
    def calls(self) -> list[ToolCallEntry]:
        """Of tools, in the new form and in the old."""
        old = [] if self.function_call is None else [ToolCallEntry(function=self.function_call)]
        return [*(self.tool_calls or []), *old]


Messages = Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
