"""Messages as a chat template sees them: plain dictionaries in transformers' form.

Owns that form, and how the last message is left open. Knows nothing of jinja or of token ids. Any
thread.
"""

import enum
import json
from collections.abc import Mapping
from typing import Any

from gemma3.errors import ChatError
from gemma3.text.chat import Message, ToolCall
from gemma3.text.marked_text import END_OF_CONTENT, check_no_stand_in
from gemma3.text.tool_form import Tools


class ContentForm(enum.Enum):
    """What a template wants to find in ``message['content']``."""

    TEXT = "text"
    PARTS = "a list of parts"  # [{"type": "text", "text": ...}]


def template_message(message: Message, form: ContentForm, *, role: str) -> dict[str, Any]:
    """The dictionary of one message; what it does not have is left out, as transformers leaves out
    ``None``.

    Raises:
        TokenizerError: a lone surrogate in any of its texts.
    """
    shown: dict[str, Any] = {"role": role, "content": message.content}
    if message.name is not None:
        shown["name"] = message.name
    if message.tool_calls:
        shown["tool_calls"] = [_tool_call(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        shown["tool_call_id"] = message.tool_call_id
    check_no_stand_in(json.dumps(shown, ensure_ascii=False))
    if form is ContentForm.PARTS:
        shown["content"] = [{"type": "text", "text": message.content}]
    return shown


def template_tools(tools: Tools | None) -> list[Mapping[str, object]] | None:
    """Raises: TokenizerError, a lone surrogate in any of their texts."""
    check_no_stand_in(json.dumps(tools, ensure_ascii=False))
    return None if tools is None else list(tools)


def leave_open(message: dict[str, Any]) -> None:
    """Mark the end of what is said in a message: there ``cut_open`` cuts what the template makes of
    it.
    """
    mark = f"{END_OF_CONTENT} "
    if isinstance(message["content"], str):
        message["content"] += mark
    else:
        message["content"][-1]["text"] += mark


def cut_open(text: str) -> str:
    """``text`` up to the end of the content that was left open.

    White space at the end stays where the template keeps it, as in transformers.

    Raises:
        ChatError: the template does not show that message.
    """
    end = text.rfind(END_OF_CONTENT)
    if end < 0:
        raise ChatError("the chat template does not show the final message, so that it cannot be continued.")
    return text[:end] if text.startswith(f"{END_OF_CONTENT} ", end) else text[:end].rstrip()


def _tool_call(call: ToolCall) -> dict[str, Any]:
    """Arguments are an object where the text is one: templates write it anew, or go through its
    items.
    """
    function = {"name": call.name, "arguments": call.parsed_arguments()}
    shown: dict[str, Any] = {"type": "function", "function": function}
    return {"id": call.call_id, **shown} if call.call_id else shown
