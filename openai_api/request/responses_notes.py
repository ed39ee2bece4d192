"""What is said of the fields of ``/v1/responses``, their limits, and the values that ask for nothing.

Owns notes, numbers and neutral values; the types are in ``responses_fields``. Constants, so any
thread may read them.
"""

from collections.abc import Mapping
from itertools import starmap

from openai_api.request.field_support import (
    BODY_SETTINGS,
    CHAT_MAX_TOKENS,
    LOGPROBS,
    MAX_REQUEST_STOP_STRINGS,
    MAX_STOP_TOKEN_IDS,
    OTHER_NAMES,
)
from openai_api.request.neutral_fields import IN_ANY_REQUEST
from openai_api.request.neutral_values import NO_LIST, NO_OBJECT, NO_TEXT, OFF, Values, any_value
from openai_api.request.request_field import exact, no_effect, refused, setting_row
from openai_api.request.tool_fields import MAX_TOOLS

MAX_ITEMS = 4096
MAX_METADATA = 16
INCLUDABLE = (
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
)
"""The first is obeyed; what the others ask for is never there."""

_NOTES: Mapping[str, str] = {
    "model": "default: the served one; another name is a 404 `model_not_found`",
    "stream": "boolean, default false",
    "stream_options": "without effect",
    "input": f"a string, or up to {MAX_ITEMS:,} items; required without `previous_response_id`",
    "input[].type": "`message` (the default), `function_call`, `function_call_output`, `item_reference`; `reasoning` is "
    "passed over; other types are 400",
    "input[].id": "string; of a reference: the id of an item of a stored response",
    "input[].role": "of a message: `user`, `assistant`, `system` or `developer`",
    "input[].content": "of a message: a string, or parts `input_text`, `output_text` and `refusal`; other types are 400 "
    "`unsupported_parameter`",
    "input[].name": "of a call: the function",
    "input[].arguments": "of a call: JSON as a string",
    "input[].call_id": "of a call, and of its output, which must come later",
    "input[].output": "of a call's output: a string or parts `input_text`",
    "instructions": "string: a system message before the input; not carried over by `previous_response_id`",
    "previous_response_id": "the id of a stored response, whose input and output stand before this input; 400 "
    "`previous_response_not_found` for one that is not there",
    "store": "boolean, default true: the response can be retrieved, and be a `previous_response_id`, until newer ones "
    "take its room. If it cannot be kept, it is answered all the same, with `store` false",
    "text": "what the answer is",
    "text.format": "`{type: text}`, `{type: json_object}`, or `{type: json_schema, name, schema}`, and all other forms "
    "that `response_format` has in chat completions",
    "tools": f"up to {MAX_TOOLS} functions that the answer may call",
    "tools[].type": "`function`, or `namespace`, a group of functions; other types are 400, but `web_search` with "
    "`external_web_access: false`, which is never called",
    "tools[].name": "1 to 64 of `a-z A-Z 0-9 _ . -`; no two functions may have the same",
    "tools[].description": "string, shown to the model",
    "tools[].parameters": "a JSON schema of an object; as in chat completions",
    "tools[].strict": "boolean; arguments obey the schema in any case",
    "tools[].tools": "of a namespace: its functions",
    "tools[].external_web_access": "of `web_search`: false",
    "tool_choice": "`none`, `auto` (the default), `required`, a function as `{type: function, name}`, or "
    "`{type: allowed_tools, mode, tools}`",
    "parallel_tool_calls": "boolean, as in chat completions",
    "max_output_tokens": f"{CHAT_MAX_TOKENS.allowed}, an upper bound; default: as many as the context has room for",
    "include": "`message.output_text.logprobs`: log probabilities of the text, before temperature; OpenAI's other names "
    "are taken, what they ask for is never there",
    "top_logprobs": f"{LOGPROBS.allowed}: {LOGPROBS.does}, where `include` asks for log probabilities",
    "truncation": "`disabled` (the default), or `auto`: what does not fit loses its oldest items, up to a user's message",
    "metadata": f"up to {MAX_METADATA} strings by name, given back",
    "stop": f"a string or up to {MAX_REQUEST_STOP_STRINGS}, as in chat completions",
    "stop_token_ids": f"up to {MAX_STOP_TOKEN_IDS} token ids that end the answer",
    "logit_bias": "as in chat completions",
    "ignore_eos": "boolean: the model's end tokens do not end the answer",
    "structured_outputs": "as in chat completions",
    "x_close": "as in chat completions",
}
_NO_EFFECT: Mapping[str, str] = {
    "stream_options.include_obfuscation": "no padding is ever sent",
    "max_tool_calls": "an integer from 1; it counts calls of built-in tools, of which there are none",
    "user": "string, given back",
    "safety_identifier": "string, given back",
    "prompt_cache_key": "string, given back; equal prefixes are found by their tokens",
    "prompt_cache_options": "anything; equal prefixes are found by their tokens",
    "prompt_cache_retention": "anything; equal prefixes are found by their tokens",
    "service_tier": "string",
    "client_metadata": "anything; codex sends it",
}
_REFUSED: Mapping[str, str] = {
    "background": "an answer is waited for, or streamed",
    "background_options": "an answer is waited for, or streamed",
    "conversation": "`previous_response_id` goes on with a conversation",
    "context_management": "`truncation` says what becomes of a long input",
    "prompt": "no stored prompts",
    "reasoning": "the model does not reason apart; what asks for little of it, or for a summary, is taken",
    "moderation": "not here",
    "access_programs": "not here",
    "image": "text only",
    "text.verbosity": "no such control; `medium` is taken",
}

RESPONSES_FIELDS = (
    *starmap(exact, _NOTES.items()),
    *(setting_row(name, setting) for name, setting in BODY_SETTINGS.items() if name != "n"),
    exact("n", "1: a response has one answer"),
    *(exact(other, f"another name of `{name}`") for other, name in OTHER_NAMES.items()),
    *starmap(no_effect, _NO_EFFECT.items()),
    *starmap(refused, _REFUSED.items()),
)

_SUMMARIES = ("auto", "concise", "detailed")
IN_TEXT: Mapping[str, Values] = {"verbosity": ("medium",)}
IN_RESPONSES: Mapping[str, Values] = {
    **IN_ANY_REQUEST,
    **any_value("client_metadata"),
    "background": OFF,
    "background_options": NO_OBJECT,
    "context_management": NO_LIST,
    "logprobs": OFF,
    **{f"text.{name}": values for name, values in IN_TEXT.items()},
    "tool_choice": NO_TEXT,  # its words are given back
    "reasoning": (
        *IN_ANY_REQUEST["reasoning"],
        *({"summary": word} for word in _SUMMARIES),
        *({"generate_summary": word} for word in _SUMMARIES),
        *({"context": word} for word in ("auto", "current_turn", "all_turns")),
        {"mode": "standard"},
    ),
}
