"""The one handler of every endpoint that generates text: from the HTTP request to the response.

Owns the order of the steps and the request's deadline. Knows no field of a body and no shape of an
answer: an ``Endpoint`` brings a renderer of the request and a writer of the answer, and a new API
is another ``Endpoint``. Runs on the event loop.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from engine.caller import Caller
from openai_api.answer.chunks import Chunk, num_values
from openai_api.answer.event_stream import SERVER_SENT_EVENTS, EventStream, Framing, request_deadline
from openai_api.answer.generation import Generation, Job, Usage
from openai_api.answer.json_pieces import large_json_response
from openai_api.answer.models import Answer, json_response
from openai_api.answer.writer import Answering, Head, Writer, new_head
from openai_api.app_state import AppState, app_state_of, caller_of
from openai_api.disconnects import unless_disconnected
from openai_api.engine_api import Tokenizer
from openai_api.errors import invalid_value
from openai_api.request.body import read_body
from openai_api.request.request_field import RequestField
from openai_api.request.schemas import GenerationRequest
from openai_api.request.validation import validate

B = TypeVar("B", bound=GenerationRequest)


async def nothing_more(chunks: Sequence[Chunk], usage: Usage) -> None:
    """What most endpoints do before the end of an answer is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint(Generic[B]):
    """What tells one endpoint from another.

    Attributes:
        body: the model of the request body.
        fields: every field of it, for the errors about those that it has not.
        id_prefix: what the id of an answer begins with.
        render: body and request id to what the engine is asked; raises ``ApiError`` 400 for what
            cannot be.
        writer: makes the writer of one answer.
        framing: how a stream of it is sent.
        at_once: the answer to a body that asks for no text, ``None`` to one that does.
        finish: awaited with the whole answer, before the writer tells its end; a stream has told
            its chunks before, so there are none.
    """

    body: type[B]
    fields: tuple[RequestField, ...]
    id_prefix: str
    render: Callable[[B, str, AppState], Coroutine[Any, Any, Job]]
    writer: Callable[[B, Job, Head, Tokenizer], Writer]
    framing: Framing = SERVER_SENT_EVENTS
    at_once: Callable[[B, Head], Answer | None] = lambda _body, _head: None
    finish: Callable[[Sequence[Chunk], Usage], Awaitable[None]] = nothing_more


async def answer(request: Request, endpoint: Endpoint[B]) -> Response:
    """The response to ``request``, whole or as events.

    Raises:
        ApiError: the body or the model is not what this server takes.
        EngineError: the engine refuses the request, or fails on one that is not streamed.
        ClientDisconnect: the client went away before the response.
    """
    app_state = app_state_of(request)
    caller = caller_of(request)
    app_state.check_admission(caller)
    with app_state.body_budget.share(caller) as share:
        body = await read_body(request, endpoint.body, fields=endpoint.fields, app_state=app_state, share=share)
        deadline_s = asyncio.get_running_loop().time() + app_state.settings.request_timeout_s
        head = _new_head(body, endpoint, app_state)
        if (known := endpoint.at_once(body, head)) is not None:
            return json_response(known)
        rendering = _render(body, endpoint, head, app_state=app_state, caller=caller)
        rendered = await (unless_disconnected(request.receive, rendering) if share.is_large else rendering)
    generation, writer, job = rendered.generation, rendered.writer, rendered.generation.job
    request.scope["answering"] = Answering(head=rendered.head, generation=generation, is_streamed=bool(body.stream))
    if body.stream:
        return EventStream(
            generation,
            writer,
            framing=endpoint.framing,
            finish=endpoint.finish,
            deadline_s=deadline_s,
            app_state=app_state,
        )
    chunks = await _fold(request, generation, deadline_s)
    await endpoint.finish(chunks, generation.usage)
    size = num_values(chunks) + job.params.n * generation.usage.prompt_tokens
    small_size = app_state.settings.off_loop_bytes
    return await app_state.off_loop.run(
        size,
        lambda: large_json_response(writer.whole(chunks, generation.usage), size=size, small_size=small_size),
    )


async def generate(value: object, endpoint: Endpoint[B], *, app_state: AppState, caller: Caller) -> Answer:
    """The answer to a body that came as a JSON value, not by HTTP; cancelled, it is aborted.

    Raises:
        ApiError: the body or the model is not what this server takes.
        EngineError: the engine refuses the request, or fails on it.
    """
    body = validate(value, endpoint.body, endpoint.fields)
    if body.stream:
        raise invalid_value("stream", "'stream' must be false or left out: a batch has whole answers.")
    head = _new_head(body, endpoint, app_state)
    rendered = await _render(body, endpoint, head, app_state=app_state, caller=caller)
    return rendered.writer.whole(await rendered.generation.fold(), rendered.generation.usage)


async def check_body(value: object, endpoint: Endpoint[B], *, app_state: AppState, caller: Caller) -> None:
    """Everything about a body but what its prompt makes of it in the engine; nothing is generated.

    Raises:
        ApiError: the body or the model is not what this server takes.
    """
    body = validate(value, endpoint.body, endpoint.fields)
    await _render(body, endpoint, _new_head(body, endpoint, app_state), app_state=app_state, caller=caller)


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A request that can run."""

    head: Head
    generation: Generation
    writer: Writer


def _new_head(body: B, endpoint: Endpoint[B], app_state: AppState) -> Head:
    return new_head(endpoint.id_prefix, app_state.engine.info, model=app_state.served_name(body.model))


async def _render(body: B, endpoint: Endpoint[B], head: Head, *, app_state: AppState, caller: Caller) -> _Rendered:
    job = await endpoint.render(body, head.id, app_state)
    writer = endpoint.writer(body, job, head, app_state.engine.tokenizer)
    caller = caller.giving_way() if body.gives_way else caller
    generation = Generation(job, caller=caller, engine=app_state.engine, metrics=app_state.metrics)
    return _Rendered(head, generation, writer)


async def _fold(request: Request, generation: Generation, deadline_s: float) -> Sequence[Chunk]:
    """The whole answer at once; aborted when the client goes away."""

    async def work() -> Sequence[Chunk]:
        async with request_deadline(deadline_s):
            return await generation.fold()

    return await unless_disconnected(request.receive, work())
