"""From a body of Anthropic's API to the chat request that says the same.

Owns what each block and field becomes there, and the way back of chat's errors: their words name
the fields of this API. So a text has the same token ids whichever API it comes by. Pure; large
bodies are turned in a worker thread.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from openai_api.errors import ApiError, invalid_value
from openai_api.request.anthropic_blocks import AnthropicMessage, Block, TextBlock, ToolResultBlock, ToolUseBlock
from openai_api.request.anthropic_fields import AnthropicRequest, AnthropicTool, AnthropicToolChoice
from openai_api.request.field_support import MAX_MESSAGES, MAX_TOOL_CALLS
from openai_api.request.messages import ChatMessage, FunctionCall, TextPart, ToolCallEntry
from openai_api.request.schemas import ChatCompletionRequest
from openai_api.request.structured_output_fields import NamedSchema, ResponseFormat
from openai_api.request.tool_fields import FunctionDefinition, ToolEntry

_WORDS: Mapping[str, str] = {"auto": "auto", "any": "required", "none": "none"}
# Chat's names of fields, as they stand in the words of its errors, and those of this API.
_OTHER_NAMES = (
    (re.compile(r"\btools\[(\d+)\]\.function\.parameters\b"), r"tools[\1].input_schema"),
    (re.compile(r"\btools\[(\d+)\]\.function\b"), r"tools[\1]"),
    (re.compile(r"\btool_choice\.function\.name\b"), "tool_choice.name"),
)
_SCHEMA = "response_format.json_schema.schema"


def chat_request(body: AnthropicRequest) -> ChatCompletionRequest:
    """What chat would be asked for the same answer.

    Raises:
        ApiError: 400, blocks or fields that do not go together.
    """
    if body.thread is not None:
        # The word at which Anthropic's runner of tools goes on without a thread.
        message = "Unsupported parameter: 'thread'; no conversation is stored here, send all of it."
        raise ApiError(400, message, code="thread_unsupported_request", param="thread")
    messages = [*_system(body.system), *_messages(body.messages)]
    if len(messages) > MAX_MESSAGES:
        raise invalid_value(
            "messages", f"Invalid value for 'messages': expected at most {MAX_MESSAGES} turns and results."
        )
    choice = body.tool_choice
    fields = {
        "model": body.model,
        "stream": body.stream,
        "messages": messages,
        "continue_final_message": body.messages[-1].role == "assistant",
        "max_tokens": max(body.max_tokens or 1, 1),
        "stop": body.stop_sequences,
        **{name: getattr(body, name) for name in ("temperature", "top_p", "top_k", "seed")},
        "tools": [_tool(tool) for tool in body.tools or ()],
        "tool_choice": None if choice is None else _choice(choice),
        "parallel_tool_calls": False if choice is not None and choice.disable_parallel_tool_use else None,
        "response_format": _response_format(body),
    }
    return ChatCompletionRequest.model_validate(fields)


def in_anthropics_names(error: ApiError, body: AnthropicRequest) -> ApiError:
    """An error of chat in the words of this API, which has two places for a schema."""
    place = "output_config.format" if body.output_format is None else "output_format"
    message = error.message.replace(_SCHEMA, f"{place}.schema")
    param = error.param and error.param.replace(_SCHEMA, f"{place}.schema")
    for pattern, name in _OTHER_NAMES:
        message, param = pattern.sub(name, message), param and pattern.sub(name, param)
    return ApiError(error.status, message, code=error.code, param=param, headers=error.headers)


def _system(blocks: Sequence[TextBlock] | None) -> list[ChatMessage]:
    parts = _parts(blocks or ())
    return [ChatMessage(role="system", content=parts)] if any(part.text for part in parts) else []


def _messages(messages: Sequence[AnthropicMessage]) -> Iterator[ChatMessage]:
    for index, message in enumerate(messages):
        for place, block in enumerate(message.content):
            _check_place(block, message.role, f"messages[{index}].content[{place}].type")
        if message.role == "assistant":
            yield _answer(message, f"messages[{index}].content")
        else:
            yield from _question(message)
    if any(isinstance(block, ToolUseBlock) for block in messages[-1].content):
        where = f"messages[{len(messages) - 1}].content"
        raise invalid_value(where, f"Invalid value for '{where}': a call needs a 'tool_result' in a next message.")


def _check_place(block: Block, role: str, param: str) -> None:
    only_in = {ToolUseBlock: "assistant", ToolResultBlock: "user"}.get(type(block), role)
    if role != only_in:
        raise invalid_value(
            param, f"Invalid value for '{param}': such blocks are only in messages of role '{only_in}'."
        )


def _answer(message: AnthropicMessage, param: str) -> ChatMessage:
    calls = [_call(block) for block in message.content if isinstance(block, ToolUseBlock)]
    if len(calls) > MAX_TOOL_CALLS:
        raise invalid_value(param, f"Invalid value for '{param}': expected at most {MAX_TOOL_CALLS} 'tool_use' blocks.")
    return ChatMessage(role="assistant", content=_parts(message.content), tool_calls=calls or None)


def _question(message: AnthropicMessage) -> Iterator[ChatMessage]:
    """A message for each result, and one for the texts between two of them."""
    if not message.content:
        yield ChatMessage(role="system" if message.role == "system" else "user", content=[])
    for is_result, blocks in groupby(message.content, key=lambda block: isinstance(block, ToolResultBlock)):
        if is_result:
            yield from (_result(block) for block in blocks if isinstance(block, ToolResultBlock))
        else:
            yield ChatMessage(role="system" if message.role == "system" else "user", content=_parts(blocks))


def _result(block: ToolResultBlock) -> ChatMessage:
    return ChatMessage(role="tool", content=_parts(block.content or ()), tool_call_id=block.tool_use_id)


def _parts(blocks: Sequence[Block] | Iterator[Block]) -> list[TextPart]:
    return [TextPart(type="text", text=block.text) for block in blocks if isinstance(block, TextBlock)]


def _call(block: ToolUseBlock) -> ToolCallEntry:
    arguments = json.dumps(block.input, ensure_ascii=False)
    return ToolCallEntry(id=block.id, type="function", function=FunctionCall(name=block.name, arguments=arguments))


def _tool(tool: AnthropicTool) -> ToolEntry:
    function = FunctionDefinition(name=tool.name, description=tool.description, parameters=tool.input_schema)
    return ToolEntry(type="function", function=function)


def _choice(choice: AnthropicToolChoice) -> str | dict[str, Any]:
    if choice.type != "tool":
        return _WORDS[choice.type]
    if choice.name is None:
        message = "Missing required parameter: 'tool_choice.name'."
        raise ApiError(400, message, code="missing_required_parameter", param="tool_choice.name")
    return {"type": "function", "function": {"name": choice.name}}


def _response_format(body: AnthropicRequest) -> ResponseFormat | None:
    """``output_format`` is the older place of ``output_config.format``."""
    new, old = None if body.output_config is None else body.output_config.format, body.output_format
    if new is not None and old is not None and new.schema_ != old.schema_:
        raise invalid_value("output_format", "'output_format' differs from 'output_config.format'; give one of them.")
    asked = new or old
    if asked is None:
        return None
    return ResponseFormat(type="json_schema", json_schema=NamedSchema(schema=asked.schema_))
