"""Every field of Anthropic's bodies by name, and what this server does with it.

Owns the notes; the types are in ``anthropic_fields``. ``GET /v1/capabilities`` answers with these
tables, ``field_tables`` writes them into the documentation. Constants, so any thread may read them.
"""

from openai_api.request.anthropic_fields import MIN_TRIGGER_TOKENS, SEED, TEMPERATURE, TOP_K, TOP_P
from openai_api.request.field_support import MAX_MESSAGES, MAX_REQUEST_STOP_STRINGS, MAX_TOKENS, MAX_TOOL_CALLS
from openai_api.request.request_field import RequestField, Support, exact, no_effect, refused, setting_row
from openai_api.request.tool_fields import MAX_TOOLS

_CACHED = "an object: `usage` then tells apart what was found in the prefix cache; it is used in any case"
_NO_THOUGHTS = "the model does not think apart, so nothing of it is used"

MESSAGES_FIELDS = (
    exact("model", "default: the served one; another name is a 404 `not_found_error`"),
    exact(
        "messages", f"required, 1 to {MAX_MESSAGES:,}; roles need not alternate; a last one of `assistant` is continued"
    ),
    exact("messages[].role", "`user`, `assistant` or `system`"),
    exact("messages[].content", "a string, or blocks"),
    exact(
        "messages[].content[].type",
        "`text`; `tool_use` of `assistant` and `tool_result` of `user`; `thinking` and `redacted_thinking` are passed "
        "over; other types, such as `image` and `document`, are 400",
    ),
    exact("messages[].content[].text", "string; the texts of a message are joined"),
    exact("messages[].content[].id", f"string: of a call; a message has up to {MAX_TOOL_CALLS} calls"),
    exact("messages[].content[].name", "string: what was called"),
    exact("messages[].content[].input", "an object: with which arguments"),
    exact("messages[].content[].tool_use_id", "string, for chat templates that show it"),
    exact("messages[].content[].content", "of a result: a string, or blocks of type `text`"),
    no_effect("messages[].content[].is_error", "boolean; the model reads what the result says"),
    no_effect("messages[].content[].citations", "anything"),
    exact("messages[].content[].cache_control", _CACHED),
    exact("system", "a string, or blocks of type `text`, which are joined"),
    exact("system[].type", "`text`"),
    exact("system[].text", "string"),
    exact("system[].cache_control", _CACHED),
    exact("max_tokens", f"required: {MAX_TOKENS.allowed}, an upper bound; 0 reads the prompt into the prefix cache"),
    exact("stream", "boolean, default false"),
    exact("stop_sequences", f"up to {MAX_REQUEST_STOP_STRINGS} strings, as `stop` in chat completions"),
    setting_row("temperature", TEMPERATURE),
    setting_row("top_p", TOP_P),
    setting_row("top_k", TOP_K),
    exact("seed", f"{SEED.allowed}, an addition to Anthropic's fields: {SEED.does}"),
    exact("tools", f"up to {MAX_TOOLS}, shown to the model as in chat completions"),
    exact("tools[].type", "`custom`; tools that Anthropic defines or runs (web search, code execution, ...) are 400"),
    exact("tools[].name", "1 to 64 of `a-z A-Z 0-9 _ . -`; no two may be equal"),
    exact("tools[].description", "string, shown to the model"),
    exact("tools[].input_schema", "required: a JSON schema of an object; the input of a call obeys it"),
    no_effect("tools[].strict", "boolean; the input obeys the schema in any case"),
    exact("tools[].cache_control", _CACHED),
    no_effect("tools[].input_examples", "anything, and so are `allowed_callers`, `defer_loading` and the like"),
    exact("tool_choice", "what may be called"),
    exact("tool_choice.type", "`auto` (the default), `any`, `tool` with a `name`, or `none`"),
    exact("tool_choice.name", "string"),
    exact("tool_choice.disable_parallel_tool_use", "boolean: true allows one call; else as in chat completions"),
    exact("output_config", "what the answer is"),
    exact("output_config.format", "of `type` `json_schema` with a `schema`: the answer obeys it"),
    no_effect("output_config.effort", f"`low`, `medium`, `high`, `xhigh` or `max`; {_NO_THOUGHTS}"),
    exact("output_format", "the older place of `output_config.format`"),
    no_effect("thinking", f"of `type` `disabled`, `adaptive`, `enabled` or `between_tools`; {_NO_THOUGHTS}"),
    no_effect(
        "context_management",
        "edits of type `clear_thinking_20251015`; `clear_tool_uses_20250919` and `compact_20260112` where they wait for "
        f"{MIN_TRIGGER_TOKENS:,} tokens or more, which no prompt has",
    ),
    no_effect("metadata", "an object"),
    no_effect("service_tier", "string"),
    exact("cache_control", _CACHED),
    exact(
        "thread", "null; else 400 with the code `thread_unsupported_request`: Anthropic's clients then send all of it"
    ),
    no_effect("inference_geo", "anything; all is computed here"),
    no_effect("speed", "anything; there is one"),
    no_effect("fallbacks", "anything; the model declines nothing"),
    no_effect("fallback_credit_token", "anything"),
    no_effect("billing_policy", "anything; nothing is billed"),
    no_effect("user_profile_id", "anything"),
    no_effect("diagnostics", "anything"),
    no_effect("betas", "anything, as in the header `anthropic-beta`"),
    no_effect("anthropic_beta", "anything"),
    no_effect("anthropic_version", "anything, as in the header `anthropic-version`"),
    refused("container", "nothing runs here"),
    refused("mcp_servers", "this server calls nobody"),
    refused("compaction", "not here"),
)


def _of_count(field: RequestField) -> RequestField:
    """Whatever is not in the prompt is taken and cannot matter."""
    if field.name.partition(".")[0] in {
        "max_tokens",
        "stop_sequences",
        "temperature",
        "top_p",
        "top_k",
        "seed",
        "stream",
    }:
        return no_effect(field.name, "as in `/v1/messages`")
    return RequestField(
        field.name, field.support, field.note if field.support is Support.REFUSED else "as in `/v1/messages`"
    )


COUNT_TOKENS_FIELDS = tuple(_of_count(field) for field in MESSAGES_FIELDS)
