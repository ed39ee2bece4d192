"""From the text of a request to token ids.

Owns what is done off the event loop, and how a long prompt is cut. Knows no endpoint; the engine
and its tokenizer make the token ids. Runs on the event loop, with much text in a worker thread.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from gemma3.text.chat import ChatPrompt
from openai_api.app_state import AppState
from openai_api.errors import invalid_value
from openai_api.request.schemas import ChatMessage

T = TypeVar("T")


async def run_sized(app_state: AppState, size: int, work: Callable[[], T]) -> T:
    """``work()`` here if ``size`` (characters, tokens or log probabilities) is small, else off the
    event loop.
    """
    return await asyncio.to_thread(work) if size > app_state.settings.off_loop_bytes else work()


async def render_chat(
    app_state: AppState,
    messages: Sequence[ChatMessage],
    *,
    add_generation_prompt: bool | None,
    continue_final_message: bool | None,
) -> ChatPrompt:
    """The messages as the model reads them.

    A continued message leaves no turn to open, hence the default.

    Raises:
        RequestError: the messages, or these with the flags, cannot be a prompt.
    """
    pairs = [(message.role, message.text) for message in messages]
    open_turn = not continue_final_message if add_generation_prompt is None else add_generation_prompt
    return await run_sized(
        app_state,
        sum(len(text) for _, text in pairs),
        lambda: app_state.engine.render_chat(
            pairs, add_generation_prompt=open_turn, continue_final_message=bool(continue_final_message)
        ),
    )


def check_token_ids(app_state: AppState, token_ids: Sequence[int], *, param: str) -> None:
    """Raises: ApiError 400 naming ``param`` for an id outside of [0, vocabulary size)."""
    vocab_size = app_state.engine.info.vocab_size
    if token_ids and not (min(token_ids) >= 0 and max(token_ids) < vocab_size):
        raise invalid_value(param, f"Invalid value for '{param}': token ids are from 0 to {vocab_size - 1}.")


def truncated(token_ids: Sequence[int], limit: int | None, *, keep_bos: bool) -> Sequence[int]:
    """The last ``limit`` tokens; with ``keep_bos`` the first token and the last ``limit - 1``."""
    if limit is None or len(token_ids) <= limit:
        return token_ids
    if keep_bos:
        return [token_ids[0], *token_ids[len(token_ids) - limit + 1 :]]
    return token_ids[-limit:]
