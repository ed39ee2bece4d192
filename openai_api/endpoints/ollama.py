"""``POST /api/chat`` and ``POST /api/generate``: Ollama's two ways to ask for text.

Owns which of OpenAI's requests each is, and how ``context`` becomes a conversation. Knows nothing of
the answer: ``ollama_writer`` writes it and ``generate`` runs it. Runs on the event loop; long
messages are tokenised in a worker thread.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from openai_api.answer.generation import Job
from openai_api.answer.ollama_models import OllamaAnswerMessage, OllamaChatAnswer, OllamaGenerateAnswer
from openai_api.answer.ollama_writer import JSON_LINES, OllamaChatWriter, OllamaGenerateWriter, envelope
from openai_api.answer.writer import Head
from openai_api.app_state import AppState
from openai_api.endpoints.chat import render_chat_request
from openai_api.endpoints.completions import render_completion_request
from openai_api.endpoints.generate import Endpoint, answer
from openai_api.request.messages import ChatMessage
from openai_api.request.ollama_as_openai import chat_request, in_own_words, one_turn_request, raw_request, turn_of
from openai_api.request.ollama_fields import OllamaChatRequest, OllamaGenerateRequest, OllamaRequest
from openai_api.request.ollama_notes import OLLAMA_CHAT_FIELDS, OLLAMA_GENERATE_FIELDS
from openai_api.request.prompts import check_token_ids, render_chat

_BYTES_OF_A_MESSAGE = 64  # as good as: a message is turned as fast as so much is parsed
_MAX_OVERLAP = 16  # of the end of an answer and what closes its turn, in tokens


async def ollama_chat(request: Request) -> Response:
    """Raises: ApiError, EngineError or ClientDisconnect, as ``generate.answer``."""
    return await answer(request, OLLAMA_CHAT)


async def ollama_generate(request: Request) -> Response:
    """Raises: ApiError, EngineError or ClientDisconnect, as ``generate.answer``."""
    return await answer(request, OLLAMA_GENERATE)


async def _render_chat(body: OllamaChatRequest, request_id: str, app_state: AppState) -> Job:
    size = len(body.messages or ()) * _BYTES_OF_A_MESSAGE
    with in_own_words(body):
        chat = await app_state.off_loop.run(size, lambda: chat_request(body))
        return await render_chat_request(chat, request_id, app_state)


async def _render_generate(body: OllamaGenerateRequest, request_id: str, app_state: AppState) -> Job:
    with in_own_words(body):
        if body.raw:
            return await render_completion_request(raw_request(body), request_id, app_state)
        job = await render_chat_request(one_turn_request(body), request_id, app_state)
        if not body.context:
            return job
        check_token_ids(app_state, body.context, param="context")
        token_ids = _joined(body.context, await _next_turn(turn_of(body), app_state))
        return replace(job, prompts=(token_ids,))


async def _next_turn(turn: Sequence[ChatMessage], app_state: AppState) -> list[int]:
    """The token ids of ``turn`` behind an answer, with what ends that one: whatever was said before
    does not change them.
    """
    said = [ChatMessage.model_validate({"role": role, "content": "x"}) for role in ("user", "assistant")]
    before = await render_chat(app_state, said, add_generation_prompt=None, continue_final_message=True, must_fit=True)
    # Behind the first turn a system message is a part of its user's, as Gemma's own template has it.
    text = "\n\n".join(message.text for message in turn)
    asked = ChatMessage.model_validate({"role": "user", "content": text})
    whole = await render_chat(
        app_state, [*said, asked], add_generation_prompt=None, continue_final_message=None, must_fit=True
    )
    return list(whole.token_ids[len(before.token_ids) :])


def _joined(context: list[int], turn: list[int]) -> list[int]:
    """An answer that the model ended by itself has the beginning of what closes its turn already."""
    overlaps = (num for num in range(min(_MAX_OVERLAP, len(turn)), 0, -1) if context[-num:] == turn[:num])
    return [*context, *turn[next(overlaps, 0) :]]


def _load_word(body: OllamaRequest) -> Literal["load", "unload"]:
    """The model is loaded and stays so, whatever is asked."""
    return "unload" if body.unloads else "load"


def _loaded_for_chat(body: OllamaChatRequest, head: Head) -> OllamaChatAnswer | None:
    if body.messages:
        return None
    message = OllamaAnswerMessage(role="assistant", content="")
    return OllamaChatAnswer(**envelope(head), done=True, done_reason=_load_word(body), message=message)


def _loaded_for_text(body: OllamaGenerateRequest, head: Head) -> OllamaGenerateAnswer | None:
    if body.prompt:
        return None
    return OllamaGenerateAnswer(**envelope(head), done=True, done_reason=_load_word(body), response="")


OLLAMA_CHAT = Endpoint(
    body=OllamaChatRequest,
    fields=OLLAMA_CHAT_FIELDS,
    id_prefix="ollama",
    render=_render_chat,
    writer=OllamaChatWriter,
    framing=JSON_LINES,
    at_once=_loaded_for_chat,
)
OLLAMA_GENERATE = Endpoint(
    body=OllamaGenerateRequest,
    fields=OLLAMA_GENERATE_FIELDS,
    id_prefix="ollama",
    render=_render_generate,
    writer=OllamaGenerateWriter,
    framing=JSON_LINES,
    at_once=_loaded_for_text,
)
