"""The input of a decision as one text.

Owns what goes together in an item, and how a conversation is written down. Knows no question. Pure; large bodies are
read in a worker thread.
"""

from collections.abc import Sequence

from openai_api.errors import ApiError, invalid_value
from openai_api.request.decision_fields import InputItem
from openai_api.request.messages import joined

_ROLES = {"user": "User", "assistant": "Assistant", "system": "System", "developer": "System"}


def input_text(items: Sequence[InputItem]) -> str:
    """A lone message of the user as it is; else a line for each item that says whose it is.

    Raises:
        ApiError: 400, an item lacks what its type needs, or an output belongs to no call before it.
    """
    calls: set[str] = set()
    lines = [_line(f"input[{index}]", item, calls) for index, item in enumerate(items)]
    if len(items) == 1 and items[0].role == "user":
        return joined(items[0].content or [])
    return "\n".join(lines)


def _line(place: str, item: InputItem, calls: set[str]) -> str:
    match item.type:
        case "message":
            role = _required(place, "role", item.role)
            if item.content is None:
                raise _missing(f"{place}.content")
            return f"{_ROLES[role]}: {joined(item.content)}"
        case "function_call" | "custom_tool_call":
            field = "arguments" if item.type == "function_call" else "input"
            told = _required(place, field, getattr(item, field))
            calls.add(_required(place, "call_id", item.call_id))
            return f"Call: {_required(place, 'name', item.name)}({told})"
    if _required(place, "call_id", item.call_id) not in calls:
        raise invalid_value(f"{place}.call_id", f"'{place}.call_id' is that of no call before it.")
    if item.output is None:
        raise _missing(f"{place}.output")
    return f"Result: {joined(item.output)}"


def _required(place: str, name: str, value: str | None) -> str:
    if value is None:
        raise _missing(f"{place}.{name}")
    return value


def _missing(param: str) -> ApiError:
    return ApiError(400, f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param)
