"""The bodies of answers, with OpenAI's names: the OpenAPI document and whole answers are made of
them.

Owns names and types; knows nothing of how an answer comes about. Chunks of streams are written
without these models, which would cost more than everything else a chunk costs; tests hold every
chunk to the models here. Fields that are not set are not sent. Runs on the event loop, or in a
worker thread for a large answer.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from openai_api.answer.prompt_logprobs import PromptLogprobs

FinishWord = Literal["stop", "length", "tool_calls", "function_call"]


class Answer(BaseModel):
    """Base of every body: strict types, no further members; members that were never set are not
    sent.
    """

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)


class ErrorDetail(Answer):
    """``code`` is a stable word for programs; ``param`` names the field, as
    ``messages[0].content``.
    """

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(Answer):
    """The JSON body of every status from 400 on."""

    error: ErrorDetail


class PromptTokensDetails(Answer):
    """Tokens of the prompt that were found in the prefix cache."""

    cached_tokens: int


class CompletionTokensDetails(Answer):
    """Tokens of the request's ``prediction`` that were tried: those in the answer, and those that
    are not.
    """

    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class UsageAnswer(Answer):
    """All counts are tokens, over all prompts and choices; rejected predictions are not in
    ``completion_tokens``.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class TopLogprob(Answer):
    """A token that might have been; ``bytes`` is exact where ``token`` has a replacement character."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprobAnswer(TopLogprob):
    """The chosen token and its alternatives; natural logarithms, from before temperature."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(Answer):
    """One entry of ``content`` for each token of the text."""

    content: list[TokenLogprobAnswer]
    refusal: None = None


class FunctionCallAnswer(Answer):
    """What is called; ``arguments`` is JSON, as a string."""

    name: str
    arguments: str


class ToolCallAnswer(Answer):
    """One call of a tool; ``id`` is what its result names as ``tool_call_id``."""

    id: str
    type: Literal["function"]
    function: FunctionCallAnswer


class AssistantMessage(Answer):
    """The text of a choice, without its stop string and without control tokens, or null; and what it calls."""

    role: Literal["assistant"]
    content: str | None
    refusal: None = None
    tool_calls: list[ToolCallAnswer] = []
    function_call: FunctionCallAnswer | None = None


class ChatChoice(Answer):
    """``token_ids`` are those of the text, only sent if the request has ``return_token_ids``; ``forced``
    tells of each whether the grammar left no choice, with ``return_forced``.
    """

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishWord | None
    token_ids: list[int] = []
    forced: list[bool] = []


class Envelope(Answer):
    """What every answer and every chunk of a request has in common."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str


class ChatCompletion(Envelope):
    """The JSON body of a whole chat answer; what is said of the prompt only if it is asked for."""

    model_config = ConfigDict(defer_build=False)

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: UsageAnswer
    prompt_token_ids: list[int] = []
    prompt_logprobs: PromptLogprobs = []


class FunctionCallDelta(Answer):
    """The name comes first, then pieces of the arguments."""

    name: str = ""
    arguments: str


class ToolCallDelta(Answer):
    """More of the call ``index``; its first delta has an id."""

    index: int
    id: str = ""
    type: Literal["function"] = "function"
    function: FunctionCallDelta


class ChatDelta(Answer):
    """What a choice gained: its role first, then text or calls, at the end nothing, ``{}``."""

    role: Literal["assistant"] = "assistant"
    content: str | None = ""
    tool_calls: list[ToolCallDelta] = []
    function_call: FunctionCallDelta | None = None


class ChatChunkChoice(Answer):
    """One choice's gain; ``token_ids`` are the tokens it came from, which text may lag behind."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishWord | None
    token_ids: list[int] = []
    forced: list[bool] = []


class ChatCompletionChunk(Envelope):
    """The JSON of one event: a choice's gain, or no choice and the totals in ``usage``."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChatChunkChoice]
    usage: UsageAnswer | None = None
    prompt_token_ids: list[int] = []


class LegacyLogprobs(Answer):
    """Four lists of equal length; ``text_offset`` is in characters of ``text``.

    The first token of a prompt has ``null``.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(Answer):
    """Choice ``index`` belongs to prompt ``index // n``; ``token_ids`` and what follows are only sent
    if asked for.
    """

    index: int
    text: str
    logprobs: LegacyLogprobs | None
    finish_reason: Literal["stop", "length"] | None
    token_ids: list[int] = []
    forced: list[bool] = []
    prompt_token_ids: list[int] = []
    prompt_logprobs: PromptLogprobs = []


class Completion(Envelope):
    """Also the shape of a chunk, whose ``usage`` may be missing or null."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]
    usage: UsageAnswer | None = None


def json_response(answer: Answer) -> Response:
    """Status 200 with ``answer`` as JSON in UTF-8, without the members that were never set."""
    return Response(answer.model_dump_json(exclude_unset=True), media_type="application/json")
