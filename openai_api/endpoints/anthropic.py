"""Anthropic's ``POST /v1/messages`` and ``POST /v1/messages/count_tokens``.

Owns the way from their bodies to a prompt, which is chat's: a body is turned into the chat request
that says the same. Knows nothing of the answer: ``AnthropicWriter`` writes it and ``generate`` runs
it. Runs on the event loop; what is large is turned and tokenised in a worker thread.
"""

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from openai_api.answer.anthropic_models import TokenCount
from openai_api.answer.anthropic_writer import ANTHROPIC_EVENTS, AnthropicWriter
from openai_api.answer.generation import Job
from openai_api.answer.models import json_response
from openai_api.app_state import AppState, app_state_of, caller_of
from openai_api.disconnects import unless_disconnected
from openai_api.endpoints.chat import render_chat_request
from openai_api.endpoints.generate import Endpoint, answer
from openai_api.errors import ApiError
from openai_api.request.anthropic_chat import chat_request, in_anthropics_names
from openai_api.request.anthropic_fields import AnthropicRequest, CountTokensRequest, MessagesRequest
from openai_api.request.anthropic_notes import COUNT_TOKENS_FIELDS, MESSAGES_FIELDS
from openai_api.request.body import read_body
from openai_api.request.prompts import render_chat
from openai_api.request.schemas import ChatCompletionRequest
from openai_api.request.tool_choice import tool_choice

_BYTES_OF_A_BLOCK = 64  # as good as: a block is turned as fast as so much is parsed


async def create_message(request: Request) -> Response:
    """Raises: ApiError, EngineError or ClientDisconnect, as ``generate.answer``."""
    return await answer(request, MESSAGES)


async def count_tokens(request: Request) -> Response:
    """How many tokens the prompt of a body has, which may be more than the context holds.

    Raises:
        ApiError: the body or the model is not what this server takes.
        EngineNotReadyError: while loading, draining or dead.
        ClientDisconnect: the client went away before the response.
    """
    app_state = app_state_of(request)
    app_state.check_ready()
    with app_state.body_budget.share(caller_of(request)) as share:
        body = await read_body(
            request, CountTokensRequest, fields=COUNT_TOKENS_FIELDS, app_state=app_state, share=share
        )
        app_state.served_name(body.model)
        counting = _num_tokens(body, app_state)
        num_tokens = await (unless_disconnected(request.receive, counting) if share.is_large else counting)
    return json_response(TokenCount(input_tokens=num_tokens))


async def _num_tokens(body: CountTokensRequest, app_state: AppState) -> int:
    chat = await _as_chat(body, app_state)
    try:
        choice = tool_choice(chat)
    except ApiError as error:
        raise in_anthropics_names(error, body) from None
    prompt = await render_chat(
        app_state,
        chat.messages,
        add_generation_prompt=chat.add_generation_prompt,
        continue_final_message=chat.continue_final_message,
        must_fit=False,
        tools=None if choice is None else choice.shown,
    )
    return len(prompt.token_ids)


async def _render(body: MessagesRequest, request_id: str, app_state: AppState) -> Job:
    chat = await _as_chat(body, app_state)
    try:
        job = await render_chat_request(chat, request_id, app_state)
    except ApiError as error:
        raise in_anthropics_names(error, body) from None
    # Chat has no answer without tokens; here 0 reads the prompt, to have it in the cache.
    return replace(job, params=replace(job.params, max_tokens=body.max_tokens))


async def _as_chat(body: AnthropicRequest, app_state: AppState) -> ChatCompletionRequest:
    num_blocks = sum(1 + len(message.content) for message in body.messages)
    return await app_state.off_loop.run(num_blocks * _BYTES_OF_A_BLOCK, lambda: chat_request(body))


MESSAGES = Endpoint(
    body=MessagesRequest,
    fields=MESSAGES_FIELDS,
    id_prefix="msg",
    render=_render,
    writer=AnthropicWriter,
    framing=ANTHROPIC_EVENTS,
)
