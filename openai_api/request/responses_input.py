"""The input of a response: its items in OpenAI's form, and the messages that they are.

Owns what goes together in an item, the ids of items, and how calls and their results become turns.
An item is kept and handed back as the dict that ``input_items`` lists. Knows no engine and no
store. Pure; large inputs are read in a worker thread.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from openai_api.errors import ApiError, invalid_value
from openai_api.request.messages import ChatMessage, FunctionCall, TextPart, ToolCallEntry, joined
from openai_api.request.responses_fields import ResponseInputItem

Item = Mapping[str, Any]
"""As JSON has it, with an id."""

_PREFIXES: Mapping[str, str] = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}
_PLACE_DIGITS = 4
_ID_CHARS = 32


def item_id(kind: str, response_id: str, place: int) -> str:
    """The id of an item that a response has at ``place``; the response can be found by it."""
    return f"{_PREFIXES[kind]}_{response_id.removeprefix('resp_')}{place:0{_PLACE_DIGITS}x}"


def response_of_item(item_id: str) -> str:
    """The id of the response that gave an item its id, if one did."""
    return f"resp_{item_id.rpartition('_')[2][:_ID_CHARS]}"


def input_items(
    given: Sequence[ResponseInputItem], response_id: str, referred: Callable[[str], Item | None]
) -> list[Item]:
    """The items of a request with ids, reasoning left out; ``referred`` finds those of stored responses.

    Raises:
        ApiError: 400 or 404, an item lacks what its type needs, or is not there.
    """
    items: list[Item] = []
    for index, item in enumerate(given):
        place = f"input[{index}]"
        if item.kind == "item_reference":
            found = referred(_required(place, "id", item.id))
            if found is None:
                raise ApiError(404, "There is no stored item of this id.", code="item_not_found", param=f"{place}.id")
            items.append(found)
        elif item.kind != "reasoning":
            own = {"id": item.id or item_id(item.kind, response_id, index + 0x8000), "type": item.kind}
            items.append({**own, **_members(item, place), "status": "completed"})
    return items


def check_call_ids(items: Sequence[Item], num_before: int) -> None:
    """Every output belongs to a call; the first ``num_before`` items are of earlier responses.

    Raises:
        ApiError: 400, one belongs to none.
    """
    calls: set[str] = set()
    for index, item in enumerate(items):
        if item["type"] == "function_call":
            calls.add(item["call_id"])
        elif item["type"] == "function_call_output" and item["call_id"] not in calls:
            param = f"input[{max(index - num_before, 0)}].call_id"
            raise invalid_value(param, f"'{param}' is that of no call before it.")


def _members(item: ResponseInputItem, place: str) -> dict[str, Any]:
    if item.kind == "function_call":
        return {
            "call_id": _required(place, "call_id", item.call_id),
            "name": _required(place, "name", item.name),
            "arguments": _required(place, "arguments", item.arguments),
        }
    if item.kind == "function_call_output":
        call_id, output = _required(place, "call_id", item.call_id), item.output
        return {"call_id": call_id, "output": joined(_required(place, "output", output))}
    role = _required(place, "role", item.role)
    parts = _required(place, "content", item.content)
    return {"role": role, "content": [_part(role, part.text) for part in parts]}


def _part(role: str, text: str) -> dict[str, Any]:
    if role == "assistant":
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": text}


def _required(place: str, name: str, value: Any) -> Any:
    if value is None:
        param = f"{place}.{name}"
        raise ApiError(400, f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param)
    return value


def messages_of(items: Sequence[Item]) -> list[ChatMessage]:
    """As chat has them: calls stand in the assistant's message that they follow."""
    messages: list[ChatMessage] = []
    for item in items:
        match item["type"]:
            case "message":
                parts = [TextPart(type="text", text=part["text"]) for part in item["content"]]
                messages.append(ChatMessage(role=item["role"], content=parts))
            case "function_call":
                _add_call(messages, item)
            case "function_call_output":
                parts = [TextPart(type="text", text=item["output"])]
                messages.append(ChatMessage(role="tool", content=parts, tool_call_id=item["call_id"]))
    return messages


def _add_call(messages: list[ChatMessage], item: Item) -> None:
    function = FunctionCall(name=item["name"], arguments=item["arguments"])
    call = ToolCallEntry(id=item["call_id"], type="function", function=function)
    before = messages.pop() if messages and messages[-1].role == "assistant" else None
    content = [] if before is None else before.content
    calls = [] if before is None else before.tool_calls or []
    messages.append(ChatMessage(role="assistant", content=content, tool_calls=[*calls, call]))


def first_items(items: Sequence[Item]) -> list[int]:
    """Where a conversation may begin that has lost its oldest items: at a message of the user."""
    return [index for index, item in enumerate(items) if item.get("role") == "user"]
