"""The bodies of Anthropic's answers: the OpenAPI document and whole answers are made of them.

Owns names and types; knows nothing of how an answer comes about. Events of streams are written
without these models, and tests hold them to Anthropic's own types. Runs on the event loop.
"""

from typing import Any, Literal

from openai_api.answer.models import Answer

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"]


class TextBlockAnswer(Answer):
    """A piece of the text."""

    type: Literal["text"]
    text: str


class ToolUseBlockAnswer(Answer):
    """A call of a tool; ``id`` is what its result names as ``tool_use_id``. Of a call that is cut
    off, ``input`` has the members that were complete.
    """

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class AnthropicUsage(Answer):
    """In tokens. The prompt is ``input_tokens`` and the two others together; these are 0 unless the
    request marks what shall be cached.
    """

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class AnthropicMessageAnswer(Answer):
    """A whole answer. ``stop_sequence`` is the one that ended it, null if none did."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextBlockAnswer | ToolUseBlockAnswer]
    stop_reason: StopReason
    stop_sequence: str | None
    usage: AnthropicUsage


class TokenCount(Answer):
    """As many tokens as the prompt of the same body has."""

    input_tokens: int


class AnthropicErrorCode(Answer):
    """A stable word for programs, the ``code`` of OpenAI's errors."""

    error_code: str


class AnthropicErrorDetail(Answer):
    """``type`` is Anthropic's word for the status; the message names the field."""

    type: str
    message: str
    details: AnthropicErrorCode


class AnthropicErrorAnswer(Answer):
    """The JSON body of every status from 400 on, and the data of an ``error`` event."""

    type: Literal["error"]
    error: AnthropicErrorDetail
    request_id: str | None


class AnthropicModel(Answer):
    """One name of the model; ``created_at`` is an RFC 3339 time, counts are in tokens."""

    id: str
    type: Literal["model"]
    display_name: str
    created_at: str
    lifecycle: Literal["active"]
    max_input_tokens: int
    max_tokens: int


class AnthropicModelList(Answer):
    """All names on one page."""

    data: list[AnthropicModel]
    has_more: bool
    first_id: str
    last_id: str
