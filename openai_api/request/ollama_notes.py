"""Every field of Ollama's API by name, and what this server does with it.

Owns the notes; what messages and tools have, they have of chat completions, and so are their rows.
Constants, so any thread may read them.
"""

from dataclasses import replace

from engine.sampling_params import MAX_STOP_CHARS, SETTINGS
from openai_api.request.field_support import CHAT_FIELDS, LOGPROBS, MAX_MESSAGES, MAX_REQUEST_STOP_STRINGS
from openai_api.request.request_field import RequestField, exact, no_effect, refused, setting_row
from openai_api.request.tool_fields import MAX_TOOLS

NUM_PREDICT = replace(SETTINGS["max_tokens"], low=-2)

_NAME = "default: the served one; `NAME:latest` is `NAME`; another name is a 404"
_OPTIONS = (
    *(
        setting_row(f"options.{name}", SETTINGS[name])
        for name in ("temperature", "top_k", "top_p", "min_p", "seed", "presence_penalty", "frequency_penalty")
    ),
    setting_row("options.repeat_penalty", SETTINGS["repetition_penalty"]),
    exact(
        "options.num_predict",
        f"{NUM_PREDICT.allowed}, an upper bound in tokens; default, and 0, -1 and -2: as many as the context has room for",
    ),
    exact(
        "options.stop",
        f"a string or up to {MAX_REQUEST_STOP_STRINGS}, each of up to {MAX_STOP_CHARS} characters",
    ),
    refused(
        "options.repeat_last_n",
        "64 and -1 are taken, as penalties look at all of the text, and anything where there is no penalty",
    ),
    refused("options.mirostat", "not here; 0 is taken"),
    refused("options.tfs_z", "not here; 1 is taken"),
    refused("options.typical_p", "not here; 1 is taken"),
    no_effect("options.num_ctx", "anything; the context is the one that the server was started with"),
    no_effect("options.num_keep", "anything; a full context is never shifted"),
    no_effect(
        "options.num_batch", "anything, and so is what else says how Ollama loads a model: `num_gpu`, `use_mmap`"
    ),
)
_SHARED = (
    exact("model", _NAME),
    exact("stream", "boolean, default true: lines of JSON; false: one object"),
    exact("format", "`json` (any JSON object that is not empty), or a JSON schema as an object"),
    exact("options", "the settings; the defaults are this server's, not Ollama's"),
    *_OPTIONS,
    exact(
        "keep_alive",
        "seconds, or a duration such as `5m`; the model always stays, so it only matters as 0 in a request for nothing",
    ),
    exact("logprobs", "boolean: log probabilities before temperature"),
    exact("top_logprobs", f"{LOGPROBS.allowed}, only with `logprobs: true`: {LOGPROBS.does}"),
    no_effect("truncate", "anything; a prompt that is too long is a 400"),
    no_effect("shift", "anything; a full context ends the answer"),
    refused("think", "the model does not think apart"),
)


def _of_chat(*names: str) -> tuple[RequestField, ...]:
    """Chat's own rows of what is within these fields."""
    return tuple(field for field in CHAT_FIELDS if field.name.startswith(tuple(f"{name}[]" for name in names)))


OLLAMA_CHAT_FIELDS = (
    exact(
        "messages",
        f"up to {MAX_MESSAGES:,}; none at all loads the model, which is loaded, or unloads it, which is not done",
    ),
    *_of_chat("messages"),
    no_effect("messages[].thinking", "anything"),
    exact("messages[].tool_name", "string, another name of `name`"),
    exact("tools", f"up to {MAX_TOOLS} functions that the answer may call"),
    *_of_chat("tools"),
    *_SHARED,
)
OLLAMA_GENERATE_FIELDS = (
    exact("prompt", "a string: the only turn of a chat, or with `raw` the text itself; an empty one loads or unloads"),
    exact("system", "a string: the system message of that chat"),
    exact("raw", "boolean: `prompt` is continued as it is, names of control tokens in it become those tokens"),
    exact("context", "token ids, as an earlier answer has them: this prompt is the next turn of that chat"),
    refused("template", "the checkpoint's own is used; with `raw` the prompt needs none"),
    refused("suffix", "the model cannot fill in the middle"),
    refused("images", "text only"),
    *_SHARED,
)
SHOW_FIELDS = (
    exact("model", _NAME),
    exact("name", "the older name of `model`"),
    no_effect("verbose", "boolean; the lists of the tokenizer are not told"),
)
PULL_FIELDS = (
    exact("model", _NAME),
    exact("name", "the older name of `model`"),
    exact("stream", "boolean, default true"),
    no_effect("insecure", "boolean; nothing is fetched"),
)
