"""The bodies of answers, with OpenAI's names: what the OpenAPI document says and non-streaming answers are made of.

Chunks of streams are written by ``streaming`` without these models, which would cost more than everything else a chunk
costs; tests hold every chunk to the models here. Fields that are not set are not sent.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict
from starlette.responses import Response


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ErrorDetail(Answer):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(Answer):
    error: ErrorDetail


class PromptTokensDetails(Answer):
    cached_tokens: int


class CompletionTokensDetails(Answer):
    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class UsageAnswer(Answer):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class TopLogprob(Answer):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprobAnswer(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Answer):
    content: list[TokenLogprobAnswer]
    refusal: None = None


class AssistantMessage(Answer):
    role: Literal["assistant"]
    content: str
    refusal: None = None


class ChatChoice(Answer):
    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"] | None
    token_ids: list[int] = []


class Envelope(Answer):
    """What every answer and every chunk of a request has in common."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str


class ChatCompletion(Envelope):
    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: UsageAnswer
    prompt_token_ids: list[int] = []


class ChatDelta(Answer):
    role: Literal["assistant"] = "assistant"
    content: str = ""


class ChatChunkChoice(Answer):
    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"] | None
    token_ids: list[int] = []


class ChatCompletionChunk(Envelope):
    object: Literal["chat.completion.chunk"]
    choices: list[ChatChunkChoice]
    usage: UsageAnswer | None = None
    prompt_token_ids: list[int] = []


class LegacyLogprobs(Answer):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(Answer):
    index: int
    text: str
    logprobs: LegacyLogprobs | None
    finish_reason: Literal["stop", "length"] | None
    token_ids: list[int] = []
    prompt_token_ids: list[int] = []


class Completion(Envelope):
    """Also the shape of a chunk, whose ``usage`` may be missing or null."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]
    usage: UsageAnswer | None = None


class ModelCard(Answer):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int
    quantization: str
    dtype: str
    is_instruction_tuned: bool


class ModelList(Answer):
    object: Literal["list"]
    data: list[ModelCard]


class TokenizeAnswer(Answer):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeAnswer(Answer):
    prompt: str


class StatusAnswer(Answer):
    status: str


class CapabilitiesAnswer(Answer):
    """Endpoint -> ``exact``, ``no_effect`` or ``refused`` -> field -> note."""

    object: Literal["capabilities"]
    endpoints: dict[str, dict[str, dict[str, str]]]


def json_response(answer: Answer) -> Response:
    return Response(answer.model_dump_json(exclude_unset=True), media_type="application/json")
