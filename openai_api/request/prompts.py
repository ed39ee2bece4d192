"""From the text of a request to token ids.

Owns how a long prompt is cut, and which text is too long to be looked at. Knows no endpoint; the
engine and its tokenizer make the token ids. Runs on the event loop, with much text in a worker
thread.
"""

import json
from collections.abc import Sequence

from engine.errors import ContextLengthError
from gemma3.text.chat import ChatPrompt, Message, ToolCall
from gemma3.text.tool_form import Tools
from openai_api.app_state import AppState
from openai_api.engine_api import Tokenizer
from openai_api.errors import invalid_value
from openai_api.request.messages import ChatMessage


def encode_prompt(tokenizer: Tokenizer, text: str, *, add_bos: bool, parse_special: bool) -> list[int]:
    """Token ids of a text; where it brings a ``<bos>`` of its own, none is put in front."""
    has_bos = parse_special and begins_with_bos(tokenizer, text)
    return tokenizer.encode(text, add_bos=add_bos and not has_bos, parse_special=parse_special)


def begins_with_bos(tokenizer: Tokenizer, text: str) -> bool:
    """Whether a text that is read for control tokens begins with that one."""
    return text.startswith(tokenizer.decode([tokenizer.bos_token_id], skip_special=False))


async def render_chat(
    app_state: AppState,
    messages: Sequence[ChatMessage],
    *,
    add_generation_prompt: bool | None,
    continue_final_message: bool | None,
    must_fit: bool,
    tools: Tools | None = None,
) -> ChatPrompt:
    """The messages as the model reads them.

    A continued message leaves no turn to open, hence the default. A last message that is a
    ``prefix``, as Mistral and DeepSeek name it, is continued. ``must_fit`` is as in
    ``check_text_length``.

    Raises:
        ApiError: 400, a text is too long.
        ContextLengthError: no tokenization of them fits.
        RequestError: the messages, or these with the flags, cannot be a prompt.
    """
    plain = [_as_message(message) for message in messages]
    continues = bool(messages[-1].prefix) if continue_final_message is None else continue_final_message
    open_turn = not continues if add_generation_prompt is None else add_generation_prompt
    arguments = "".join([call.arguments for message in plain for call in message.tool_calls])

    def render() -> ChatPrompt:
        text = "".join([message.content.strip() for message in plain])
        check_text_length(app_state, text, param="messages", must_fit=must_fit)
        # A format may leave them out, so they need not fit.
        check_text_length(app_state, arguments, param="messages", must_fit=False)
        if tools is not None:
            check_text_length(app_state, json.dumps(tools, ensure_ascii=False), param="tools", must_fit=must_fit)
        return app_state.engine.render_chat(
            plain, add_generation_prompt=open_turn, continue_final_message=continues, tools=tools
        )

    size = len(arguments) + sum(len(message.content) for message in plain)
    if app_state.engine.info.chat_format == "template" or tools is not None:
        # A checkpoint's own template may take a second to be refused, whatever it is given.
        size = max(size, app_state.settings.off_loop_bytes + 1)
    return await app_state.off_loop.run(size, render)


def _as_message(message: ChatMessage) -> Message:
    calls = [ToolCall(call.function.name, call.function.arguments, call.id or "") for call in message.calls]
    return Message(
        message.role,
        message.text,
        name=message.name,
        tool_calls=tuple(calls),
        tool_call_id=message.tool_call_id,
    )


def check_room(app_state: AppState, token_ids: Sequence[int]) -> None:
    """Raises: ContextLengthError, messages leave no room for an answer."""
    limit = app_state.engine.info.max_model_len
    if len(token_ids) >= limit:
        raise ContextLengthError(limit, len(token_ids), param="messages")


def room_for_answer(app_state: AppState, num_prompt_tokens: int, max_tokens: int | None) -> int:
    """In tokens, at most."""
    room = app_state.engine.info.max_model_len - num_prompt_tokens
    return room if max_tokens is None else min(room, max_tokens)


def check_text_length(app_state: AppState, text: str, *, param: str, must_fit: bool) -> None:
    """Refuse what would be tokenised in vain, or for too long.

    ``must_fit``: all of it has to fit into the context; else it is cut, or only its tokens are
    wanted.

    Raises:
        ContextLengthError: no tokenization of the text fits.
        ApiError: 400 ``invalid_value`` for more than ``max_text_chars`` characters that need not fit.
    """
    limit, max_chars = app_state.engine.info.max_model_len, app_state.settings.max_text_chars
    if not must_fit and len(text) > max_chars:
        raise invalid_value(param, f"Invalid value for '{param}': expected at most {max_chars} characters.")
    if must_fit and len(text) > limit:
        num_tokens = app_state.engine.tokenizer.min_num_tokens(text)
        if num_tokens > limit:
            raise ContextLengthError(limit, f"at least {num_tokens}", param=param)


def check_token_ids(app_state: AppState, token_ids: Sequence[int], *, param: str) -> None:
    """Raises: ApiError 400 naming ``param`` and the first id outside of [0, vocabulary size)."""
    vocab_size = app_state.engine.info.vocab_size
    if token_ids and not (min(token_ids) >= 0 and max(token_ids) < vocab_size):
        wrong = next(each for each in token_ids if not 0 <= each < vocab_size)
        message = f"Invalid value for '{param}': token ids are from 0 to {vocab_size - 1}, not {str(wrong)[:20]}."
        raise invalid_value(param, message)


def truncated(token_ids: Sequence[int], limit: int | None, *, keep_bos: bool) -> Sequence[int]:
    """The last ``limit`` tokens; with ``keep_bos`` the first token and the last ``limit - 1``."""
    if limit is None or len(token_ids) <= limit:
        return token_ids
    if keep_bos:
        return [token_ids[0], *token_ids[len(token_ids) - limit + 1 :]]
    return token_ids[-limit:]
