"""Every request field by name, and what this server does with it.

Owns the names, the limits of bodies that are not the engine's, and the notes. ``GET
/v1/capabilities`` answers with these tables, ``field_tables`` writes them into the documentation,
and ``neutral_fields`` has the values that are as good as left out, refused fields' too. The numeric
sampling fields are rows of ``engine.sampling_params.SETTINGS``: a setting that is added there is a
field here. Constants, so any thread may read them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import starmap

from engine.sampling_params import (
    MAX_ABS_LOGIT_BIAS,
    MAX_ALLOWED_TOKEN_IDS,
    MAX_LOGIT_BIAS,
    MAX_LOGPROB_TOKEN_IDS,
    MAX_STOP_CHARS,
    SETTINGS,
    Setting,
)
from openai_api.request.decision_notes import DECISION_NO_EFFECT, DECISION_NOTES, SYSTEM_ONE_NOTES, SYSTEM_ONE_REFUSED
from openai_api.request.structured_output_fields import NO_EFFECT_NOTES, REFUSED_NOTES, STRUCTURED_OUTPUT_NOTES
from openai_api.request.tool_fields import TOOL_NOTES

MAX_MESSAGES = 4096
MAX_PROMPTS = 128
MAX_TOOL_CALLS = 128
MAX_REQUEST_STOP_STRINGS = 16
MAX_STOP_TOKEN_IDS = 256
MAX_CHOICES = 1024  # of all prompts: as many as one caller alone may have in the queue
MAX_ANSWER_VALUES = 6_500_000  # eight choices of the longest context have so many with 20 log probabilities each

# What chat and text completions ask for under names, types or bounds of their own.
_SETTINGS_IN_OTHER_WORDS = ("max_tokens", "logprobs", "prompt_logprobs")
BODY_SETTINGS: Mapping[str, Setting] = {
    name: setting for name, setting in SETTINGS.items() if name not in _SETTINGS_IN_OTHER_WORDS
}
"""The settings that a request body has under their own names."""
OTHER_NAMES: Mapping[str, str] = {"repeat_penalty": "repetition_penalty"}
"""Other servers' names of these settings."""
CHAT_MAX_TOKENS = replace(SETTINGS["max_tokens"], low=1)
MAX_TOKENS = SETTINGS["max_tokens"]
DEFAULT_MAX_TOKENS = int(MAX_TOKENS.default or 0)
LOGPROBS = SETTINGS["logprobs"]
PROMPT_LOGPROBS = SETTINGS["prompt_logprobs"]


class Support(StrEnum):
    """What becomes of a field: it is obeyed, it cannot matter, or it is a 400."""

    EXACT = "exact"  # does what its description says
    NO_EFFECT = "no_effect"  # accepted; could not change the answer
    REFUSED = "refused"  # 400 unsupported_parameter


@dataclass(frozen=True, slots=True)
class RequestField:
    """A row; ``name`` is a path such as ``messages[].role``."""

    name: str
    support: Support
    note: str


def _exact(name: str, note: str) -> RequestField:
    return RequestField(name, Support.EXACT, note)


def _no_effect(name: str, note: str) -> RequestField:
    return RequestField(name, Support.NO_EFFECT, note)


def _refused(name: str, note: str) -> RequestField:
    return RequestField(name, Support.REFUSED, note)


def _setting(name: str, setting: Setting) -> RequestField:
    """The row of a setting: its range, its default and what it does."""
    default = "" if setting.default is None else f", default {setting.default:g}"
    checkpoints = " or the checkpoint's" if setting.from_checkpoint else ""
    return _exact(name, f"{setting.allowed}{default}{checkpoints}: {setting.does}")


_SAMPLING = (
    _exact("model", "default: the served one; another name is a 404 `model_not_found`"),
    _exact("stream", "boolean, default false"),
    _exact("stream_options", "without `stream: true` without effect"),
    _exact(
        "stream_options.include_usage", "boolean: `usage` is null on every chunk, and one last chunk has the totals"
    ),
    _exact("stream_options.continuous_usage_stats", "boolean, with `include_usage`: every chunk has the usage so far"),
    _no_effect("stream_options.include_obfuscation", "no padding is ever sent"),
    *(_setting(name, setting) for name, setting in BODY_SETTINGS.items()),
    *(_exact(other, f"another name of `{name}`") for other, name in OTHER_NAMES.items()),
    _exact(
        "logit_bias",
        f"up to {MAX_LOGIT_BIAS:,} entries: token id inside the vocabulary -> a number from "
        f"{-MAX_ABS_LOGIT_BIAS:g} to {MAX_ABS_LOGIT_BIAS:g}",
    ),
    _exact(
        "stop",
        f"a string or up to {MAX_REQUEST_STOP_STRINGS}, each of up to {MAX_STOP_CHARS} characters, empty ones end "
        "nothing; may span tokens, is never sent",
    ),
    _exact("stop_token_ids", f"up to {MAX_STOP_TOKEN_IDS} token ids that end the answer"),
    _exact("ignore_eos", "boolean: the model's end tokens do not end the answer"),
    _exact(
        "truncate_prompt_tokens", "an integer from 1: keep only the last so many prompt tokens (and `<bos>` in front)"
    ),
    _exact("return_token_ids", "boolean: adds `prompt_token_ids` and `token_ids`"),
    _exact("return_forced", "boolean: adds `forced`, for each token whether the constraint left no choice"),
    _no_effect("user", "string"),
    _exact(
        "prompt_logprobs",
        f"{PROMPT_LOGPROBS.allowed}, only without `stream`: log probability and rank of each prompt token, and so many "
        "alternatives",
    ),
    _exact(
        "allowed_token_ids", f"1 to {MAX_ALLOWED_TOKEN_IDS:,} token ids: no other is sampled; not with a constraint"
    ),
    _exact(
        "logprob_token_ids",
        f"up to {MAX_LOGPROB_TOKEN_IDS} token ids, only with `logprobs`: reported beside each chosen token, in place of "
        "the likeliest",
    ),
    _exact("return_tokens_as_token_ids", "boolean: tokens of `logprobs` are written `token_id:818`"),
    *(_exact(name, note) for name, note in STRUCTURED_OUTPUT_NOTES.items()),
    *(_no_effect(name, note) for name, note in NO_EFFECT_NOTES.items()),
    *(_refused(name, note) for name, note in REFUSED_NOTES.items()),
)

CHAT_FIELDS = (
    _exact("messages", f"required, 1 to {MAX_MESSAGES:,}"),
    _exact("messages[].role", "`system`, `developer`, `user`, `assistant`, `tool` or `function`"),
    _exact(
        "messages[].content",
        "a string, or parts of type `text`, which are joined; `assistant`, `tool` and `function` may have none",
    ),
    _exact(
        "messages[].content[].type",
        "`text`, or `input_text`, `output_text` or `refusal`, which are the same; thoughts are passed over; other "
        "types are 400 `unsupported_parameter`",
    ),
    _exact("messages[].content[].text", "string"),
    _no_effect("messages[].content[].cache_control", "anything; equal prefixes are found by their tokens"),
    _no_effect("messages[].content[].prompt_cache_breakpoint", "anything; equal prefixes are found by their tokens"),
    _exact("messages[].name", "string, for chat templates that show it; Gemma's own does not"),
    _exact("messages[].tool_calls", f"up to {MAX_TOOL_CALLS} calls, as an earlier answer had them"),
    _exact("messages[].tool_calls[].id", "string"),
    _exact("messages[].tool_calls[].type", "`function`"),
    _exact("messages[].tool_calls[].function", "what was called"),
    _exact("messages[].tool_calls[].function.name", "string"),
    _exact("messages[].tool_calls[].function.arguments", "JSON as a string, or an object"),
    _exact("messages[].tool_call_id", "string, for chat templates that show it"),
    _exact("messages[].function_call", "the old form of one of `tool_calls`"),
    _exact("messages[].function_call.name", "string"),
    _exact("messages[].function_call.arguments", "JSON as a string, or an object"),
    _exact("messages[].refusal", "string: the content of a message without one"),
    _exact("messages[].prefix", "boolean; true on the last message is `continue_final_message`"),
    *(_exact(name, note) for name, note in TOOL_NOTES.items()),
    _refused("messages[].audio", "text only"),
    _refused("messages[].images", "text only"),
    _no_effect("messages[].reasoning_content", "anything, and so is what else SDKs put into messages they hand back"),
    *_SAMPLING,
    _exact(
        "max_completion_tokens",
        f"{CHAT_MAX_TOKENS.allowed}, an upper bound; default, and -1: as many as the context has room for",
    ),
    _exact("max_tokens", "the old name of `max_completion_tokens`; if both are given they must be equal"),
    _exact("logprobs", "boolean: log probabilities before temperature"),
    _exact("top_logprobs", f"{LOGPROBS.allowed}, only with `logprobs: true`: {LOGPROBS.does}"),
    _exact("prediction", "what the answer is believed to be: where it is right, the very same answer comes faster"),
    _exact("prediction.type", "`content`"),
    _exact("prediction.content", "a string, or parts of type `text`, which are joined"),
    _exact("prediction.content[].type", "`text`; other types are 400 `unsupported_parameter`"),
    _exact("prediction.content[].text", "string"),
    _no_effect("prediction.content[].prompt_cache_breakpoint", "anything"),
    _exact("add_generation_prompt", "boolean, default true unless `continue_final_message`: open the model's turn"),
    _exact("continue_final_message", "boolean: the answer continues the last message"),
    _no_effect("metadata", "an object"),
    _no_effect("store", "boolean; nothing is ever stored"),
    _no_effect("service_tier", "string"),
    _no_effect("safety_identifier", "string"),
    _no_effect("prompt_cache_key", "string; equal prefixes are found by their tokens"),
    _refused("audio", "text only"),
    _refused("modalities", "text only"),
    _refused("moderation", "not here"),
    _no_effect("prompt_cache_options", "anything; equal prefixes are found by their tokens"),
    _no_effect("prompt_cache_retention", "anything; equal prefixes are found by their tokens"),
    _refused("reasoning_effort", "the model does not reason apart"),
    _refused("verbosity", "no such control"),
    _refused("web_search_options", "no web search"),
    _refused("parse_special", "the text of messages is never read as control tokens"),
)

COMPLETION_FIELDS = (
    _exact(
        "prompt",
        f"required: a string, token ids, or a list of up to {MAX_PROMPTS} of either; text gets `<bos>` in front",
    ),
    _exact("parse_special", "boolean, default false: names of control tokens in a text become those tokens"),
    *_SAMPLING,
    _exact(
        "max_tokens",
        f"{MAX_TOKENS.allowed}, an upper bound, default {DEFAULT_MAX_TOKENS}; -1: as many as the context has room for",
    ),
    _exact("logprobs", f"{LOGPROBS.allowed}, default none: {LOGPROBS.does}"),
    _exact("echo", "boolean: the prompt in front of the text, with `logprobs` its own log probabilities too"),
    _refused("best_of", "one answer per choice; as much as `n` asks for nothing"),
    _refused("suffix", "the model cannot fill in the middle"),
)

TOKENIZE_FIELDS = (
    _exact("model", "optional; another name than the served one is a 404 `model_not_found`"),
    _exact("prompt", "a string; either this or `messages`"),
    _exact("messages", "as in chat completions"),
    _exact(
        "add_special_tokens", "boolean, default true: `<bos>` in front of a prompt; messages have it once in any case"
    ),
    _exact(
        "parse_special",
        "boolean: names of control tokens in the prompt become those tokens; default false, but true for a prompt that is "
        "`<bos>`, `<eos>`, `<pad>` or `<unk>` and nothing else, with `add_special_tokens: false`",
    ),
    _exact("return_token_strs", "boolean, default false: adds `token_strs`"),
    _exact("add_generation_prompt", "as in chat completions, only with `messages`"),
    _exact("continue_final_message", "as in chat completions, only with `messages`"),
)

DETOKENIZE_FIELDS = (
    _exact("model", "optional; another name than the served one is a 404 `model_not_found`"),
    _exact("tokens", "required: token ids; control tokens are written by name"),
)

DECISION_FIELDS = (*starmap(_exact, DECISION_NOTES.items()), *starmap(_no_effect, DECISION_NO_EFFECT.items()))
SYSTEM_ONE_FIELDS = (*starmap(_exact, SYSTEM_ONE_NOTES.items()), *starmap(_refused, SYSTEM_ONE_REFUSED.items()))

FIELDS_BY_ENDPOINT: Mapping[str, tuple[RequestField, ...]] = {
    "/v1/chat/completions": CHAT_FIELDS,
    "/v1/completions": COMPLETION_FIELDS,
    "/tokenize": TOKENIZE_FIELDS,
    "/detokenize": DETOKENIZE_FIELDS,
    "/v1/decisions": DECISION_FIELDS,
    "/v1/systemone": SYSTEM_ONE_FIELDS,
}
