"""The bodies of ``/v1/responses`` and its family, with OpenAI's names.

Owns names and types; knows nothing of how an answer comes about. Fields that are not set are not
sent. Runs on the event loop, or in a worker thread for a large answer.
"""

from typing import Any, Literal

from openai_api.answer.models import Answer, TokenLogprobAnswer

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class OutputText(Answer):
    """A text without its stop string and without control tokens; no log probabilities unless they
    are asked for.
    """

    type: Literal["output_text"]
    text: str
    annotations: list[dict[str, Any]]
    logprobs: list[TokenLogprobAnswer]


class OutputMessage(Answer):
    """What the assistant says."""

    id: str
    type: Literal["message"]
    status: ItemStatus
    role: Literal["assistant"]
    content: list[OutputText]


class OutputCall(Answer):
    """A call of a function; ``arguments`` is JSON, as a string, and ``call_id`` what its output names."""

    id: str
    type: Literal["function_call"]
    status: ItemStatus
    call_id: str
    name: str
    arguments: str
    namespace: str = ""


class InputTokensDetails(Answer):
    """Tokens of the prompt that were found in the prefix cache; none cost anything to keep."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(Answer):
    """The model does not reason apart."""

    reasoning_tokens: int


class ResponseUsage(Answer):
    """All counts are tokens."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class IncompleteDetails(Answer):
    """Why an answer has no end of its own."""

    reason: Literal["max_output_tokens"]


class ResponseFailure(Answer):
    """Why there is no answer."""

    code: Literal["server_error"]
    message: str


class ResponseObject(Answer):
    """The answer with what was asked; the settings are those that were used."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "incomplete", "in_progress", "failed"]
    background: bool
    completed_at: int | None
    error: ResponseFailure | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputMessage | OutputCall]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: dict[str, None]
    safety_identifier: str | None
    service_tier: str
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["auto", "disabled"]
    usage: ResponseUsage | None
    user: str | None


class InputTokens(Answer):
    """How many tokens a request has, counted as ``usage`` counts them."""

    object: Literal["response.input_tokens"]
    input_tokens: int


class DeletedResponse(Answer):
    """It is no more."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


class ResponseItemList(Answer):
    """A page of the items that a response was made from."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool
