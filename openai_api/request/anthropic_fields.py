"""The bodies of ``/v1/messages`` and ``/v1/messages/count_tokens``: names, types and ranges, as
Anthropic has them.

What each field does is said in ``anthropic_notes``, what becomes of it is in ``anthropic_chat``.
Knows neither the engine nor the answer. Immutable; large bodies are parsed in a worker thread.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator

from engine.sampling_params import SETTINGS
from openai_api.request.anthropic_blocks import (
    AnthropicMessages,
    CacheControl,
    Texts,
    ToolResultBlock,
    unsupported_type,
)
from openai_api.request.field_support import MAX_TOKENS
from openai_api.request.neutral_values import NO_LIST, NO_TEXT, ONLY_NULL, Values, any_value
from openai_api.request.schemas import GenerationRequest, StopStrings
from openai_api.request.setting_fields import in_range
from openai_api.request.strict_model import StrictModel
from openai_api.request.structured_output_fields import JsonSchema
from openai_api.request.tool_fields import MAX_TOOLS

TEMPERATURE = replace(SETTINGS["temperature"], high=1.0)  # Anthropic's own range ends there
TOP_P, TOP_K, SEED = SETTINGS["top_p"], SETTINGS["top_k"], SETTINGS["seed"]
# What Anthropic's beta edits of a context wait for by default, and no prompt here can reach.
MIN_TRIGGER_TOKENS = 32_768

_WITHOUT_EFFECT = (
    "anthropic_beta anthropic_version betas billing_policy diagnostics fallbacks fallback_credit_token inference_geo "
    "speed user_profile_id"
)
_NEUTRAL: Mapping[str, Values] = {
    **any_value(_WITHOUT_EFFECT),
    "mcp_servers": NO_LIST,
    "container": NO_TEXT,
    "compaction": ONLY_NULL,
}


class AnthropicTool(StrictModel):
    """A function that the client runs; ``input_schema`` is a JSON schema."""

    neutral = any_value("allowed_callers defer_loading eager_input_streaming input_examples")

    type: Literal["custom"] | None = None
    name: str
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None
    cache_control: CacheControl = None


def _as_tool(value: object) -> AnthropicTool:
    if isinstance(value, dict) and value.get("type") not in (None, "custom"):
        raise unsupported_type("tools of type 'custom'; those that Anthropic defines or runs are not here")
    return AnthropicTool.model_validate(value)


class AnthropicToolChoice(StrictModel):
    """``name`` goes with ``tool``; the choice itself is checked where tools are."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(StrictModel):
    """An upper bound, or leave to think: this model does not do it apart, so none of it is used."""

    type: Literal["disabled", "enabled", "adaptive", "between_tools"]
    budget_tokens: int | None = None
    display: str | None = None


class OutputFormat(StrictModel):
    """What the answer is."""

    neutral = any_value("name description strict")

    type: Literal["json_schema"]
    schema_: JsonSchema = Field(alias="schema")


class OutputConfig(StrictModel):
    """Of the answer; ``effort`` is about thinking."""

    neutral = any_value("task_budget")

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class EditTrigger(StrictModel):
    """From how many tokens of a prompt on a context is edited."""

    type: Literal["input_tokens"]
    value: Annotated[int, Field(ge=MIN_TRIGGER_TOKENS)]


class ContextEdit(StrictModel):
    """Thoughts are passed over in any case, and no prompt is as long as the others wait for."""

    neutral = any_value("keep clear_at_least clear_tool_inputs exclude_tools instructions pause_after_compaction")

    type: Literal["clear_thinking_20251015", "clear_tool_uses_20250919", "compact_20260112"]
    trigger: EditTrigger | None = None


class ContextManagement(StrictModel):
    """What would be taken out of a long conversation."""

    edits: Annotated[list[ContextEdit], Field(max_length=16, fail_fast=True)] | None = None


class AnthropicRequest(GenerationRequest):
    """What both endpoints take. ``max_tokens`` is in tokens."""

    neutral = _NEUTRAL

    messages: AnthropicMessages
    system: Texts | None = None
    max_tokens: Annotated[int | None, *in_range(MAX_TOKENS)] = None
    stop_sequences: StopStrings | None = None
    temperature: Annotated[float | None, *in_range(TEMPERATURE)] = None
    top_p: Annotated[float | None, *in_range(TOP_P)] = None
    top_k: Annotated[int | None, *in_range(TOP_K)] = None
    seed: Annotated[int | None, *in_range(SEED)] = None
    tools: (
        Annotated[
            list[Annotated[AnthropicTool, PlainValidator(_as_tool, json_schema_input_type=AnthropicTool)]],
            Field(max_length=MAX_TOOLS, fail_fast=True),
        ]
        | None
    ) = None
    tool_choice: AnthropicToolChoice | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    thinking: Thinking | None = None
    context_management: ContextManagement | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None
    cache_control: CacheControl = None
    thread: dict[str, Any] | None = None

    @property
    def marks_a_prefix(self) -> bool:
        """Whether any part of it is to be cached, and so counted apart."""
        return any(mark is not None for mark in self._marks())

    def _marks(self) -> Iterator[CacheControl]:
        yield self.cache_control
        for marked in (*(self.system or ()), *(self.tools or ())):
            yield marked.cache_control
        for block in (block for message in self.messages for block in message.content):
            yield block.cache_control
            if isinstance(block, ToolResultBlock):
                yield from (text.cache_control for text in block.content or ())


class MessagesRequest(AnthropicRequest):
    """The body of ``/v1/messages``."""

    max_tokens: Annotated[int, *in_range(MAX_TOKENS)]


class CountTokensRequest(AnthropicRequest):
    """The body of ``/v1/messages/count_tokens``: the same, of which most cannot matter."""
