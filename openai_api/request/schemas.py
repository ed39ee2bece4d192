"""The request bodies: names, types and ranges, with OpenAI's names and strict types.

A boolean is no integer, a string no number, an unknown name an error; ``null`` is as good as left
out for an optional field, as with OpenAI. The numeric sampling fields are made from the engine's
table of settings. ``validation`` words the errors; what a field *does* is in the module that serves
it. Knows neither the engine nor the answer. Immutable; large bodies are parsed in a worker thread.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from engine.sampling_params import (
    MAX_ABS_LOGIT_BIAS,
    MAX_ALLOWED_TOKEN_IDS,
    MAX_INTEGER,
    MAX_LOGIT_BIAS,
    MAX_LOGPROB_TOKEN_IDS,
    MAX_STOP_CHARS,
)
from openai_api.request.field_support import (
    CHAT_MAX_TOKENS,
    LOGPROBS,
    MAX_PROMPTS,
    MAX_REQUEST_STOP_STRINGS,
    MAX_STOP_TOKEN_IDS,
    MAX_TOKENS,
    PROMPT_LOGPROBS,
)
from openai_api.request.messages import Content, Messages, joined
from openai_api.request.neutral_fields import IN_CHAT, IN_COMPLETION, IN_STREAM_OPTIONS
from openai_api.request.neutral_values import asks_for_nothing
from openai_api.request.setting_fields import SettingFields, in_range, whole_count, whole_number, whole_numbers
from openai_api.request.strict_model import StrictModel
from openai_api.request.structured_output_fields import StructuredOutputFields
from openai_api.request.tool_fields import ToolFields

NO_LIMIT = MAX_INTEGER
"""Of tokens: no context is as long."""


def _as_stops(value: object) -> object:
    """A list; empty strings end nothing, so they are passed over, as llama.cpp does."""
    stops = [value] if isinstance(value, str) else value
    return [stop for stop in stops if stop != ""] if isinstance(stops, list) else stops


def _limit(value: object) -> object:
    """-1 is how llama.cpp and Ollama write that there is none."""
    return NO_LIMIT if value == -1 else value


def _few_biases(value: object) -> object:
    """Each wrong one of many would become an error record. ``null`` biases nothing."""
    if not isinstance(value, dict):
        return value
    if len(value) > MAX_LOGIT_BIAS:
        raise PydanticCustomError("too_long", "at most {max_length} entries", {"max_length": MAX_LOGIT_BIAS})
    return {name: bias for name, bias in value.items() if bias is not None}


def _is_token_ids(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(token_id) is int for token_id in value)


def _as_token_ids(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    """Looked through for 5.0 only when that is no list of integers: there may be a million."""
    try:
        return validate(value)
    except ValidationError:
        return validate(whole_numbers(value))


def _as_prompts(value: object) -> list[str | list[int]]:
    """One prompt or a list of them, each a string or token ids, as a list of prompts."""
    prompts: Any = value
    if isinstance(value, str) or _is_token_ids(value):
        prompts = [value]
    elif isinstance(value, list):
        plain = [whole_numbers(whole_number(each)) for each in value]
        prompts = [plain] if _is_token_ids(plain) else plain
    if not isinstance(prompts, list) or not all(isinstance(each, str) or _is_token_ids(each) for each in prompts):
        raise PydanticCustomError("prompt_type", "a string, a list of token ids, or a list of either")
    if not 1 <= len(prompts) <= MAX_PROMPTS:
        raise PydanticCustomError("prompt_count", "1 to {most} prompts", {"most": MAX_PROMPTS})
    return prompts


_TOKEN_IDS_SCHEMA = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_PROMPT_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_PROMPTS},
        _TOKEN_IDS_SCHEMA,
        {"type": "array", "items": _TOKEN_IDS_SCHEMA, "minItems": 1, "maxItems": MAX_PROMPTS},
    ]
}

LogitBias = Annotated[
    dict[str, Annotated[float, Field(ge=-MAX_ABS_LOGIT_BIAS, le=MAX_ABS_LOGIT_BIAS)]],
    Field(max_length=MAX_LOGIT_BIAS),
    BeforeValidator(_few_biases),
]
StopString = Annotated[str, Field(max_length=MAX_STOP_CHARS)]
StopStrings = Annotated[
    list[StopString],
    Field(max_length=MAX_REQUEST_STOP_STRINGS),
    BeforeValidator(_as_stops, json_schema_input_type=StopString | list[StopString]),
]
TokenIds = Annotated[
    list[Annotated[int, WithJsonSchema({"type": "integer", "minimum": 0})]],  # ``check_token_ids`` names a wrong one
    Field(fail_fast=True),
    WrapValidator(_as_token_ids),
]
Prompts = Annotated[list[str | list[int]], PlainValidator(_as_prompts), WithJsonSchema(_PROMPT_SCHEMA)]


class Prediction(StrictModel):
    """What the client believes the answer to be, as text; its tokens are tried as drafts."""

    type: Literal["content"]
    content: Content

    @property
    def text(self) -> str:
        """The parts joined, without anything between them, in characters as the client sent them."""
        return joined(self.content)


class StreamOptions(StrictModel):
    """``include_usage``: a last chunk with the totals in tokens; ``continuous_usage_stats``: in
    every chunk.
    """

    neutral = IN_STREAM_OPTIONS

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class GenerationRequest(StrictModel):
    """What the body of every endpoint that generates text has, whichever API it is of.

    ``None`` is left out; the model is then the served one.
    """

    model: str | None = None
    stream: bool | None = None

    @property
    def gives_way(self) -> bool:
        """Whether it can wait until nobody else has anything to compute."""
        return False


class SamplingFields(GenerationRequest, SettingFields, StructuredOutputFields):
    """What chat and text completions have in common.

    ``stop`` is a list of up to 16 strings of 1 to 256 characters; ``truncate_prompt_tokens`` is in
    tokens.
    """

    service_tier: str | None = None
    stream_options: StreamOptions | None = None
    logit_bias: LogitBias | None = None
    stop: StopStrings | None = None
    stop_token_ids: Annotated[TokenIds, Field(max_length=MAX_STOP_TOKEN_IDS)] | None = None
    ignore_eos: bool | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=1, le=MAX_INTEGER), BeforeValidator(whole_count)] | None = None
    return_token_ids: bool | None = None
    return_forced: bool | None = None
    user: str | None = None
    prompt_logprobs: Annotated[int | None, *in_range(PROMPT_LOGPROBS)] = None
    allowed_token_ids: Annotated[TokenIds, Field(min_length=1, max_length=MAX_ALLOWED_TOKEN_IDS)] | None = None
    logprob_token_ids: Annotated[TokenIds, Field(max_length=MAX_LOGPROB_TOKEN_IDS)] | None = None
    return_tokens_as_token_ids: bool | None = None

    @property
    def gives_way(self) -> bool:
        """OpenAI's tier for work that nobody waits for."""
        return self.service_tier == "flex"


class ChatCompletionRequest(SamplingFields, ToolFields):
    """Limits are in tokens; ``max_completion_tokens`` and its old name must be equal if both are
    given.
    """

    model_config = ConfigDict(defer_build=False)  # the first request finds it built
    neutral = IN_CHAT

    messages: Messages
    max_completion_tokens: Annotated[int | None, *in_range(CHAT_MAX_TOKENS), BeforeValidator(_limit)] = None
    max_tokens: Annotated[int | None, *in_range(CHAT_MAX_TOKENS), BeforeValidator(_limit)] = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, *in_range(LOGPROBS)] = None
    prediction: Prediction | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class CompletionRequest(SamplingFields):
    """``prompt`` is a list of texts and lists of token ids, also where the client sent only one."""

    model_config = ConfigDict(defer_build=False)
    neutral = IN_COMPLETION

    prompt: Prompts
    parse_special: bool | None = None
    max_tokens: Annotated[int | None, *in_range(MAX_TOKENS), BeforeValidator(_limit)] = None
    logprobs: Annotated[int | None, *in_range(LOGPROBS)] = None
    echo: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_best_of_n(cls, data: object) -> object:
        """The best ``n`` of ``n`` choices are all of them, as LangChain asks for."""
        if isinstance(data, dict) and "best_of" in data and asks_for_nothing(data["best_of"], (data.get("n"),)):
            return {name: value for name, value in data.items() if name != "best_of"}
        return data
