"""The messages of Anthropic's API: turns, and the blocks that they are made of.

Owns names and types, and which kinds of blocks there are for a model that reads text: thoughts that
are handed back are passed over, images and documents are refused. What becomes of a block is in
``anthropic_chat``. Immutable; large bodies are parsed in a worker thread.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, ValidationError
from pydantic_core import PydanticCustomError

from openai_api.request.field_support import MAX_MESSAGES
from openai_api.request.neutral_values import any_value
from openai_api.request.strict_model import StrictModel

CacheControl = dict[str, Any] | None
"""Where a client marks the end of a prefix; prefixes are found by their tokens, marked or not."""

# An answer's trimmings: clients hand back whole messages, and LangChain blocks with their places.
_OF_MESSAGES = "id type model stop_reason stop_sequence stop_details usage container diagnostics context_management"
_OF_BLOCKS = "citations annotations index caller toolset_name extras"
_THOUGHTS = frozenset({"thinking", "redacted_thinking"})


class TextBlock(StrictModel):
    """A piece of a text."""

    neutral = any_value(f"{_OF_BLOCKS} id")

    type: Literal["text"]
    text: str
    cache_control: CacheControl = None


def _as_blocks(value: object) -> object:
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    if isinstance(value, list):
        return [block for block in value if not _is_thought(block)]
    return value


def _is_thought(block: object) -> bool:
    return isinstance(block, dict) and isinstance(block.get("type"), str) and block["type"] in _THOUGHTS


Texts = Annotated[
    list[TextBlock],
    Field(fail_fast=True),
    BeforeValidator(_as_blocks, json_schema_input_type=str | list[TextBlock]),
]


class ToolUseBlock(StrictModel):
    """A call of a tool, as an earlier answer had it."""

    neutral = any_value(_OF_BLOCKS)

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    cache_control: CacheControl = None


class ToolResultBlock(StrictModel):
    """What a tool gave; ``tool_use_id`` is that of its call."""

    neutral = any_value(_OF_BLOCKS)

    type: Literal["tool_result"]
    tool_use_id: str
    content: Texts | None = None
    is_error: bool | None = None
    cache_control: CacheControl = None


Block = TextBlock | ToolUseBlock | ToolResultBlock
_KINDS: Mapping[object, type[TextBlock | ToolUseBlock | ToolResultBlock]] = {
    "text": TextBlock,
    "tool_use": ToolUseBlock,
    "tool_result": ToolResultBlock,
}


def unsupported_type(only: str) -> ValidationError:
    """The finding that a ``type`` is none of ``only``, at the place of that member."""
    finding = PydanticCustomError("unsupported", "only {only}", {"only": only})
    return ValidationError.from_exception_data("type", [{"type": finding, "loc": ("type",), "input": None}])


def _as_block(value: object) -> Block:
    """By its ``type``: pydantic's own unions put a kind's name into the path of what is wrong in it."""
    kind = value.get("type", "text") if isinstance(value, dict) else "text"
    if not isinstance(kind, str) or kind not in _KINDS:
        raise unsupported_type("'text', 'tool_use' and 'tool_result' blocks; the model reads nothing else")
    return _KINDS[kind].model_validate(value)


class AnthropicMessage(StrictModel):
    """One turn. ``content`` is a list of blocks, also where the client sent a string."""

    neutral = any_value(_OF_MESSAGES)

    role: Literal["user", "assistant", "system"]
    content: Annotated[
        list[Annotated[Block, PlainValidator(_as_block, json_schema_input_type=Block)]],
        Field(fail_fast=True),
        BeforeValidator(_as_blocks, json_schema_input_type=str | list[Block]),
    ]


AnthropicMessages = Annotated[list[AnthropicMessage], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
