"""The body of ``POST /v1/responses``: OpenAI's names, types and limits.

Owns what a client may write; notes and neutral values are in ``responses_notes``. One model stands
for all kinds of input items and one for all kinds of tools, so that an error names the place and
not a variant; what goes together is checked by ``responses_input``. Knows no engine. Immutable;
large bodies are parsed in a worker thread.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from openai_api.request.field_support import CHAT_MAX_TOKENS, LOGPROBS, MAX_STOP_TOKEN_IDS
from openai_api.request.messages import Content
from openai_api.request.neutral_values import any_value
from openai_api.request.responses_notes import IN_RESPONSES, IN_TEXT, INCLUDABLE, MAX_ITEMS, MAX_METADATA
from openai_api.request.schemas import GenerationRequest, LogitBias, StopStrings, TokenIds
from openai_api.request.setting_fields import SettingFields, in_range, whole_count
from openai_api.request.strict_model import StrictModel
from openai_api.request.structured_output_fields import ResponseFormat, StructuredOutputs
from openai_api.request.tool_fields import MAX_TOOLS, Choice


class ResponseInputItem(StrictModel):
    """A message, a call of a function, what the function gave back, or the id of one of these."""

    neutral = any_value("status phase namespace caller async created_by annotations providerMetadata provider_data")

    type: Literal["message", "function_call", "function_call_output", "reasoning", "item_reference"] | None = None
    id: str | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: Content | None = None
    name: str | None = None
    arguments: str | None = None
    call_id: str | None = None
    output: Content | None = None

    @model_validator(mode="before")
    @classmethod
    def _pass_over_reasoning(cls, data: object) -> object:
        """Another model's thoughts, of whatever form."""
        is_reasoning = isinstance(data, dict) and data.get("type") == "reasoning"
        return {"type": "reasoning"} if is_reasoning else data

    @property
    def kind(self) -> str:
        """Its type; an item without one is a message, or a reference if it has nothing but an id."""
        is_reference = self.id is not None and self.role is None and self.content is None
        return self.type or ("item_reference" if is_reference else "message")


def _as_items(value: object) -> object:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


InputItems = Annotated[
    list[ResponseInputItem],
    Field(max_length=MAX_ITEMS, fail_fast=True),
    BeforeValidator(_as_items, json_schema_input_type=str | list[ResponseInputItem]),
]


def _searches_no_web(tool: Mapping[str, object]) -> bool:
    kind = tool.get("type")
    return isinstance(kind, str) and kind.startswith("web_search") and tool.get("external_web_access") is False


def _own_tool_type(value: object) -> object:
    if value not in ("function", "namespace", "web_search"):
        raise PydanticCustomError("tool_type", "function or namespace")
    return value


class ResponseTool(StrictModel):
    """A function, a namespace of functions, or a search that may not reach the web and is never called."""

    neutral = any_value(
        "annotations cache_control defer_loading examples output_schema response return returns title allowed_callers "
        "async"
    )

    type: Annotated[Literal["function", "namespace", "web_search"], BeforeValidator(_own_tool_type)]
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    tools: Annotated[list["ResponseTool"], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    external_web_access: Literal[False] | None = None

    @model_validator(mode="before")
    @classmethod
    def _type_alone(cls, data: object) -> object:
        """A built-in tool is refused by its type, whatever else it has."""
        if not isinstance(data, dict) or data.get("type") in ("function", "namespace") or "type" not in data:
            return data
        return {"type": "web_search", "external_web_access": False} if _searches_no_web(data) else {"type": None}


class TextConfig(StrictModel):
    """``format`` is chat's ``response_format``, with the members of ``json_schema`` beside ``type``."""

    neutral = IN_TEXT

    format: ResponseFormat | None = None


class ResponseStreamOptions(StrictModel):
    """Nothing of it changes a stream, which has the totals in its last event."""

    neutral = any_value("include_obfuscation include_usage")


def _includable(value: object) -> object:
    if value not in INCLUDABLE:
        raise PydanticCustomError("includable", "one of them", {"names": ", ".join(INCLUDABLE)})
    return value


class ResponsesRequest(GenerationRequest, SettingFields):
    """``input`` is a list of items, also where the client sent a string; limits are in tokens."""

    neutral = IN_RESPONSES

    input: InputItems | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    text: TextConfig | None = None
    tools: Annotated[list[ResponseTool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: Choice = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: Annotated[int | None, *in_range(CHAT_MAX_TOKENS)] = None
    max_tool_calls: Annotated[int, Field(ge=1), BeforeValidator(whole_count)] | None = None
    include: list[Annotated[str, BeforeValidator(_includable)]] | None = None
    top_logprobs: Annotated[int | None, *in_range(LOGPROBS)] = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: Annotated[dict[str, str], Field(max_length=MAX_METADATA)] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    stream_options: ResponseStreamOptions | None = None
    stop: StopStrings | None = None
    stop_token_ids: Annotated[TokenIds, Field(max_length=MAX_STOP_TOKEN_IDS)] | None = None
    logit_bias: LogitBias | None = None
    ignore_eos: bool | None = None
    structured_outputs: StructuredOutputs | None = None
    x_close: bool | None = None

    @property
    def wants_logprobs(self) -> bool:
        """Whether the text shall come with log probabilities."""
        return INCLUDABLE[0] in (self.include or ())
