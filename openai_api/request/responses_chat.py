"""From a body of ``/v1/responses`` to chat's own, and chat's errors in the words of that body.

Owns which field is which, the functions of namespaces, and the names in errors. So the same text
has the same token ids and the same answer by either API. Pure; the event loop calls it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openai_api.errors import ApiError, invalid_value
from openai_api.request.field_support import BODY_SETTINGS, CHAT_FIELDS, OTHER_NAMES
from openai_api.request.messages import ChatMessage
from openai_api.request.responses_fields import ResponsesRequest, ResponseTool
from openai_api.request.schemas import ChatCompletionRequest
from openai_api.request.tool_fields import FunctionDefinition, ToolEntry
from openai_api.request.validation import validate

_SAME = (
    *BODY_SETTINGS,
    *OTHER_NAMES,
    *"model stop stop_token_ids logit_bias ignore_eos structured_outputs x_close".split(),
)
# What chat names so, in the order in which it is looked for.
_NAMES: Mapping[str, str] = {
    r"response_format\.json_schema": "text.format",
    r"response_format": "text.format",
    r"tool_choice\.allowed_tools": "tool_choice",
    r"max_completion_tokens": "max_output_tokens",
    r"messages": "input",
}


@dataclass(frozen=True, slots=True)
class NamedFunction:
    """A function of the request. ``place`` is its field, ``namespace`` its group, if it is in one."""

    definition: FunctionDefinition
    place: str
    namespace: str | None = None


def functions_of(body: ResponsesRequest) -> list[NamedFunction]:
    """Those that the answer may call, namespaces' among them.

    Raises:
        ApiError: 400, one has no name, or a namespace is in another.
    """
    return [function for i, tool in enumerate(body.tools or ()) for function in _functions_in(tool, f"tools[{i}]")]


def _functions_in(tool: ResponseTool, place: str) -> Iterator[NamedFunction]:
    if tool.type == "web_search":
        return
    _check_name(tool, place)
    if tool.type == "function":
        yield NamedFunction(_definition(tool), place)
        return
    for index, inner in enumerate(tool.tools or ()):
        inner_place = f"{place}.tools[{index}]"
        if inner.type != "function":
            raise invalid_value(f"{inner_place}.type", f"Invalid value for '{inner_place}.type': expected 'function'.")
        _check_name(inner, inner_place)
        yield NamedFunction(_definition(inner), inner_place, namespace=tool.name)


def _check_name(tool: ResponseTool, place: str) -> None:
    if tool.name is None:
        param = f"{place}.name"
        raise ApiError(400, f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param)


def _definition(tool: ResponseTool) -> FunctionDefinition:
    return FunctionDefinition(
        name=tool.name or "", description=tool.description, parameters=tool.parameters, strict=tool.strict
    )


def chat_request(
    body: ResponsesRequest, messages: Sequence[ChatMessage], functions: Sequence[NamedFunction]
) -> ChatCompletionRequest:
    """What chat is asked for the same answer; ``messages`` are without the instructions.

    Raises:
        ApiError: 400, as chat words it.
    """
    instructions = [] if body.instructions is None else [{"role": "system", "content": body.instructions}]
    fields: dict[str, Any] = {
        **{name: getattr(body, name) for name in _SAME},
        "messages": [*instructions, *messages],
        "stream": body.stream,
        "max_completion_tokens": body.max_output_tokens,
        "response_format": None if body.text is None else body.text.format,
        "tools": [ToolEntry(type="function", function=each.definition) for each in functions] or None,
        "tool_choice": body.tool_choice,
        "parallel_tool_calls": body.parallel_tool_calls,
        "logprobs": body.wants_logprobs or None,
        "top_logprobs": body.top_logprobs if body.wants_logprobs else None,
    }
    if (fields["n"] or 1) > 1:
        raise ApiError(400, "Unsupported parameter: 'n'; only 1 can be given.", code="unsupported_parameter", param="n")
    given = {name: value for name, value in fields.items() if value is not None}
    return validate(given, ChatCompletionRequest, CHAT_FIELDS)


def in_own_words(error: ApiError, functions: Sequence[NamedFunction]) -> ApiError:
    """An error of chat with the names that the fields have here."""
    told = ApiError(
        error.status, _renamed(error.message, functions), code=error.code, param=error.param, headers=error.headers
    )
    # Only the size of all log probabilities is told of ``n``, which is 1.
    told.param = "max_output_tokens" if error.param in ("n", "max_tokens") and error.code == "invalid_value" else None
    if told.param is None and error.param is not None:
        told.param = _renamed(error.param, functions)
    return told


def _renamed(text: str, functions: Sequence[NamedFunction]) -> str:
    for name, own in _NAMES.items():
        text = re.sub(rf"(?<![\w.]){name}\b", own, text)
    text = text.replace("'n' or 'max_tokens'", "'max_output_tokens'")
    text = re.sub(r"tool_choice((?:\.tools\[\d+\])?)\.function\.name", r"tool_choice\1.name", text)
    return re.sub(r"tools\[(\d+)\]\.function", lambda match: functions[int(match[1])].place, text)
