"""Every request field by name, and what this server does with it.

Owns the names, the limits of bodies that are not the engine's, and the notes. ``GET
/v1/capabilities`` answers with these tables, ``field_tables`` writes them into the documentation,
and ``neutral_fields`` has the values that are as good as left out, refused fields' too. The numeric
sampling fields are rows of ``engine.sampling_params.SETTINGS``: a setting that is added there is a
field here. Constants, so any thread may read them.
"""

from collections.abc import Mapping
from dataclasses import replace
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
from openai_api.request.request_field import exact, no_effect, refused, setting_row
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

_SAMPLING = (
    exact("model", "default: the served one; another name is a 404 `model_not_found`"),
    exact("stream", "boolean, default false"),
    exact("stream_options", "without `stream: true` without effect"),
    exact("stream_options.include_usage", "boolean: `usage` is null on every chunk, and one last chunk has the totals"),
    exact("stream_options.continuous_usage_stats", "boolean, with `include_usage`: every chunk has the usage so far"),
    no_effect("stream_options.include_obfuscation", "no padding is ever sent"),
    *(setting_row(name, setting) for name, setting in BODY_SETTINGS.items()),
    *(exact(other, f"another name of `{name}`") for other, name in OTHER_NAMES.items()),
    exact(
        "logit_bias",
        f"up to {MAX_LOGIT_BIAS:,} entries: token id inside the vocabulary -> a number from "
        f"{-MAX_ABS_LOGIT_BIAS:g} to {MAX_ABS_LOGIT_BIAS:g}",
    ),
    exact(
        "stop",
        f"a string or up to {MAX_REQUEST_STOP_STRINGS}, each of up to {MAX_STOP_CHARS} characters, empty ones end "
        "nothing; may span tokens, is never sent",
    ),
    exact("stop_token_ids", f"up to {MAX_STOP_TOKEN_IDS} token ids that end the answer"),
    exact("ignore_eos", "boolean: the model's end tokens do not end the answer"),
    exact(
        "truncate_prompt_tokens", "an integer from 1: keep only the last so many prompt tokens (and `<bos>` in front)"
    ),
    exact("return_token_ids", "boolean: adds `prompt_token_ids` and `token_ids`"),
    exact("return_forced", "boolean: adds `forced`, for each token whether the constraint left no choice"),
    no_effect("user", "string"),
    exact("service_tier", "string; `flex` is computed only while nobody else's request is, others are all the same"),
    exact(
        "prompt_logprobs",
        f"{PROMPT_LOGPROBS.allowed}, only without `stream`: log probability and rank of each prompt token, and so many "
        "alternatives",
    ),
    exact("allowed_token_ids", f"1 to {MAX_ALLOWED_TOKEN_IDS:,} token ids: no other is sampled; not with a constraint"),
    exact(
        "logprob_token_ids",
        f"up to {MAX_LOGPROB_TOKEN_IDS} token ids, only with `logprobs`: reported beside each chosen token, in place of "
        "the likeliest",
    ),
    exact("return_tokens_as_token_ids", "boolean: tokens of `logprobs` are written `token_id:818`"),
    *(exact(name, note) for name, note in STRUCTURED_OUTPUT_NOTES.items()),
    *(no_effect(name, note) for name, note in NO_EFFECT_NOTES.items()),
    *(refused(name, note) for name, note in REFUSED_NOTES.items()),
)

CHAT_FIELDS = (
    exact("messages", f"required, 1 to {MAX_MESSAGES:,}"),
    exact("messages[].role", "`system`, `developer`, `user`, `assistant`, `tool` or `function`"),
    exact(
        "messages[].content",
        "a string, or parts of type `text`, which are joined; `assistant`, `tool` and `function` may have none",
    ),
    exact(
        "messages[].content[].type",
        "`text`, or `input_text`, `output_text` or `refusal`, which are the same; thoughts are passed over; other "
        "types are 400 `unsupported_parameter`",
    ),
    exact("messages[].content[].text", "string"),
    no_effect("messages[].content[].cache_control", "anything; equal prefixes are found by their tokens"),
    no_effect("messages[].content[].prompt_cache_breakpoint", "anything; equal prefixes are found by their tokens"),
    exact("messages[].name", "string, for chat templates that show it; Gemma's own does not"),
    exact("messages[].tool_calls", f"up to {MAX_TOOL_CALLS} calls, as an earlier answer had them"),
    exact("messages[].tool_calls[].id", "string"),
    exact("messages[].tool_calls[].type", "`function`"),
    exact("messages[].tool_calls[].function", "what was called"),
    exact("messages[].tool_calls[].function.name", "string"),
    exact("messages[].tool_calls[].function.arguments", "JSON as a string, or an object"),
    exact("messages[].tool_call_id", "string, for chat templates that show it"),
    exact("messages[].function_call", "the old form of one of `tool_calls`"),
    exact("messages[].function_call.name", "string"),
    exact("messages[].function_call.arguments", "JSON as a string, or an object"),
    exact("messages[].refusal", "string: the content of a message without one"),
    exact("messages[].prefix", "boolean; true on the last message is `continue_final_message`"),
    *(exact(name, note) for name, note in TOOL_NOTES.items()),
    refused("messages[].audio", "text only"),
    refused("messages[].images", "text only"),
    no_effect("messages[].reasoning_content", "anything, and so is what else SDKs put into messages they hand back"),
    *_SAMPLING,
    exact(
        "max_completion_tokens",
        f"{CHAT_MAX_TOKENS.allowed}, an upper bound; default, and -1: as many as the context has room for",
    ),
    exact("max_tokens", "the old name of `max_completion_tokens`; if both are given they must be equal"),
    exact("logprobs", "boolean: log probabilities before temperature"),
    exact("top_logprobs", f"{LOGPROBS.allowed}, only with `logprobs: true`: {LOGPROBS.does}"),
    exact("prediction", "what the answer is believed to be: where it is right, the very same answer comes faster"),
    exact("prediction.type", "`content`"),
    exact("prediction.content", "a string, or parts of type `text`, which are joined"),
    exact("prediction.content[].type", "`text`; other types are 400 `unsupported_parameter`"),
    exact("prediction.content[].text", "string"),
    no_effect("prediction.content[].prompt_cache_breakpoint", "anything"),
    exact("add_generation_prompt", "boolean, default true unless `continue_final_message`: open the model's turn"),
    exact("continue_final_message", "boolean: the answer continues the last message"),
    no_effect("metadata", "an object"),
    no_effect("store", "boolean; nothing is ever stored"),
    no_effect("safety_identifier", "string"),
    no_effect("prompt_cache_key", "string; equal prefixes are found by their tokens"),
    refused("audio", "text only"),
    refused("modalities", "text only"),
    refused("moderation", "not here"),
    no_effect("prompt_cache_options", "anything; equal prefixes are found by their tokens"),
    no_effect("prompt_cache_retention", "anything; equal prefixes are found by their tokens"),
    refused("reasoning_effort", "the model does not reason apart"),
    refused("verbosity", "no such control"),
    refused("web_search_options", "no web search"),
    refused("parse_special", "the text of messages is never read as control tokens"),
)

COMPLETION_FIELDS = (
    exact(
        "prompt",
        f"required: a string, token ids, or a list of up to {MAX_PROMPTS} of either; text gets `<bos>` in front",
    ),
    exact("parse_special", "boolean, default false: names of control tokens in a text become those tokens"),
    *_SAMPLING,
    exact(
        "max_tokens",
        f"{MAX_TOKENS.allowed}, an upper bound, default {DEFAULT_MAX_TOKENS}; -1: as many as the context has room for",
    ),
    exact("logprobs", f"{LOGPROBS.allowed}, default none: {LOGPROBS.does}"),
    exact("echo", "boolean: the prompt in front of the text, with `logprobs` its own log probabilities too"),
    refused("best_of", "one answer per choice; as much as `n` asks for nothing"),
    refused("suffix", "the model cannot fill in the middle"),
)

TOKENIZE_FIELDS = (
    exact("model", "optional; another name than the served one is a 404 `model_not_found`"),
    exact("prompt", "a string; either this or `messages`"),
    exact("messages", "as in chat completions"),
    exact(
        "add_special_tokens", "boolean, default true: `<bos>` in front of a prompt; messages have it once in any case"
    ),
    exact(
        "parse_special",
        "boolean: names of control tokens in the prompt become those tokens; default false, but true for a prompt that is "
        "`<bos>`, `<eos>`, `<pad>` or `<unk>` and nothing else, with `add_special_tokens: false`",
    ),
    exact("return_token_strs", "boolean, default false: adds `token_strs`"),
    exact("add_generation_prompt", "as in chat completions, only with `messages`"),
    exact("continue_final_message", "as in chat completions, only with `messages`"),
)

DETOKENIZE_FIELDS = (
    exact("model", "optional; another name than the served one is a 404 `model_not_found`"),
    exact("tokens", "required: token ids; control tokens are written by name"),
)

DECISION_FIELDS = (*starmap(exact, DECISION_NOTES.items()), *starmap(no_effect, DECISION_NO_EFFECT.items()))
SYSTEM_ONE_FIELDS = (*starmap(exact, SYSTEM_ONE_NOTES.items()), *starmap(refused, SYSTEM_ONE_REFUSED.items()))
